"""The checks that every model passes: ours, and those of other packages.

    import pytest
    from zoo.testing import checks_for

    @pytest.mark.parametrize("check", checks_for(SPEC), ids=str)
    def test_model(check):
        check()

A check builds the model from ``tiny`` (but for the published number of parameters), and raises
``AssertionError`` with what was expected where the model does not hold what its spec promises. Steps
that the spec names in ``skips``, each with its reason, are left out; a check that finds that a step
does not apply raises ``unittest.SkipTest`` with the step's own reason, which pytest shows as a skip.
"""

from __future__ import annotations

import contextlib
import tempfile
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.spec import ModelSpec

#: LiteRT formats, and how far their outputs may be from Keras', as a share of the largest output.
TOLERANCES = {"float32": 1e-5, "float16": 1e-2, "dynamic": 0.1, "int8": 0.2, "int16x8": 0.1}
#: Of some families more is allowed: EfficientNet's small net is off by 6e-5 where operations are fused.
LOOSER = {"efficientnet": {"float32": 2e-4}}
#: How far the outputs of Keras' own modes may be, root mean square, as a share of the outputs' spread. 4 bits
#: of a small untrained net are 0.17 to 0.31 of it by the seed; the largest error varies too much to judge by.
PACKED_TOLERANCES = {"int8": 0.05, "int4": 0.4, "gptq": 0.4, "awq": 0.4}
SPARSITY, VALUES = 0.75, 8


@dataclass(frozen=True)
class Check:
    """One check of one model; call it. ``slow`` ones take long: hundreds of layers."""

    model: str
    name: str
    function: Callable[[], None]
    slow: bool = False

    def __call__(self) -> None:
        self.function()

    def __str__(self) -> str:
        return f"{self.model}-{self.name}"


def checks_for(spec: ModelSpec) -> list[Check]:
    """Every check for a model, in the order in which they tell most."""
    deep = bool({"deep", "sibling"} & set(spec.tags))  # a sibling's tiny graph is another's too
    rows: list[tuple[str, Callable[[ModelSpec], None], bool]] = [
        ("card", check_card, False),
        ("parameters", check_parameters, False),
        ("outputs", check_outputs, deep),
        ("gradients", check_learning, deep),
        ("seed", check_seed, deep),
        ("weights", check_saved_weights, deep),
        *((f"litert-{name}", partial(check_litert, format=name), deep)
          for name in TOLERANCES if name not in spec.skips),
        *((name, check, deep) for name, check in (
            ("prune", check_pruning), ("cluster", check_clustering), ("qat", check_rounding),
          ) if name not in spec.skips),
        *((f"keras-{mode}", partial(check_packed, mode=mode), deep or mode != "int8")
          for mode in PACKED_TOLERANCES if "keras" not in spec.skips),
    ]  # fmt: skip
    return [Check(spec.name, name, partial(check, spec), slow) for name, check, slow in rows]


def tiny(spec: ModelSpec) -> Any:
    """The test-sized model of a spec."""
    return spec.build(**{**spec.config, **spec.tiny})


def with_matched_statistics(spec: ModelSpec, rows: int) -> tuple[Any, np.ndarray]:
    """The test-sized model and inputs for it, batch normalisation and recurrent embeddings of unit scale.

    Embeddings start at 0.03, so that the state of a recurrent net stays below the 1/128 that 8 bits
    of a tanh tell apart.

    With the variance of 1 that a net starts with, a hundred layers end in 1e-9 or 1e9, and rounding is
    all that is left of it. Each layer's variance becomes its inputs' mean square instead, in the spirit
    of Mishkin & Matas, ICLR 2016, who scale weights. It is one number a layer, and means stay 0: to
    divide each of a few untrained channels by its own small deviation blows any noise up a hundred
    times, which no trained net does.
    """
    from zoo.backend import keras
    from zoo.kernels import flat_layers

    model = tiny(spec)
    x = inputs_for(spec, model, rows)
    every = flat_layers(model)
    found = [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]

    def scaled(layer: Any, inputs: Any, **options: Any) -> Any:
        square = keras.ops.mean(keras.ops.square(inputs))
        layer.moving_variance.assign(keras.ops.full_like(layer.moving_variance, square))
        return type(layer).call(layer, inputs, **options)

    if any(isinstance(layer, keras.layers.RNN) for layer in every):
        for layer in every:
            if isinstance(layer, keras.layers.Embedding):
                table = layer.embeddings
                table.assign(table / keras.ops.std(table))
    for layer in found:
        layer.call = partial(scaled, layer)
    try:
        model(x, training=False)
    finally:
        for layer in found:
            del layer.call
    return model, x


def tolerance(spec: ModelSpec, format: str) -> float:
    """How far a format's outputs may be from Keras' for a model, as a share of the largest."""
    return LOOSER.get(spec.family, {}).get(format, TOLERANCES[format])


def inputs_for(spec: ModelSpec, model: Any, rows: int, seed: int = 0) -> np.ndarray:
    """Random inputs (rows, *shape): standard normal, or ids where the model takes integers."""
    rng = np.random.default_rng(seed)
    (tensor,) = model.inputs
    shape = (rows, *tensor.shape[1:])
    if "int" in str(tensor.dtype):
        return rng.integers(0, {**spec.config, **spec.tiny}["vocabulary"], shape, dtype=np.int32)
    return rng.normal(size=shape).astype(np.float32)


def check_card(spec: ModelSpec) -> None:
    """The spec says all it must, and names things that exist."""
    from zoo.registry import datasets
    from zoo.tasks import get_task
    from zoo.train.options import TrainOptions

    for name in ("name", "version", "family", "source", "license"):
        assert getattr(spec, name), f"{spec.name} lacks its {name}"
    assert spec.target or spec.published, "expected a target, or what the source reached"
    data = datasets().get(spec.data)
    assert data.kind in spec.kinds, f"{spec.data} is {data.kind} data, the model takes {spec.kinds}"
    task = get_task(spec.task)
    assert not task.supervised or data.task in (spec.task, *spec.tasks)
    if spec.target is not None:
        assert spec.target.metric in task.metrics
    assert set(spec.tiny) <= set(spec.config), "tiny has settings that config lacks"
    TrainOptions.parse(dict(spec.train))
    if task.name == "generative":  # what is shown of one is read off these
        names = {layer.name for layer in spec.build(**{**spec.config, **spec.tiny}).layers}
        assert {"code", "logits"} <= names, "a decoder starts at a layer code and ends at logits"
    assert all(reason.strip() for reason in spec.skips.values()), "a skip without its reason"


def check_parameters(spec: ModelSpec) -> None:
    """The published configuration has the published number of parameters."""
    with unallocated() if "huge" in spec.tags else contextlib.nullcontext():
        found = spec.build(**spec.config).count_params()
    assert found == spec.params, f"expected {spec.params:,} parameters, received {found:,}"


@contextlib.contextmanager
def unallocated() -> Iterator[None]:
    """Models built here have the shapes of their weights and no values: billions of them are built
    in seconds. They can be counted and nothing else."""
    from keras.src.backend.common import global_state

    from zoo.backend import keras

    name = "uninitialized_variables"
    waiting = list(global_state.get_global_attribute(name, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, waiting)  # or the next scope would allocate them


def check_outputs(spec: ModelSpec) -> None:
    """Finite outputs of the stated width, of as many rows as came in."""
    from zoo.tasks import get_task

    model = tiny(spec)
    outputs = model(inputs_for(spec, model, 5), training=False).numpy()
    expected = (5, *get_task(spec.task).width({**spec.config, **spec.tiny}))
    assert outputs.shape == expected, f"expected {expected}, received {outputs.shape}"
    assert np.isfinite(outputs).all(), "some outputs are not finite"


def check_learning(spec: ModelSpec) -> None:
    """Every trainable weight gets a gradient, and one batch can be learnt."""
    from zoo.backend import keras, seed_everything, tf

    seed_everything(1)
    model, x = with_matched_statistics(spec, 16)
    goal = (
        np.random.default_rng(2).normal(size=(16, *model.outputs[0].shape[1:])).astype(np.float32)
    )
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step() -> Any:
        # As at inference, so that batch statistics neither hide a weight nor make the loss noisy.
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=False) - goal) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss, [tf.reduce_sum(tf.abs(tf.convert_to_tensor(g))) for g in gradients]

    losses = []
    for number in range(30):
        loss, sizes = step()
        losses.append(float(loss))
        if number == 0:
            weights = model.trainable_variables
            dead = [w.path for w, size in zip(weights, sizes, strict=True) if not float(size) > 0]
            assert not dead, f"no gradient reaches {dead[:5]}"
    assert losses[-1] < 0.8 * losses[0], f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g}"


def check_seed(spec: ModelSpec) -> None:
    """The same seed gives the same weights, another seed others."""
    from zoo.backend import seed_everything

    def weights(seed: int) -> list[np.ndarray]:
        seed_everything(seed)
        return tiny(spec).get_weights()

    first, again, other = weights(7), weights(7), weights(8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def check_saved_weights(spec: ModelSpec) -> None:
    """Weights that were saved give the same outputs in a fresh model."""
    model, other = tiny(spec), tiny(spec)
    x = inputs_for(spec, model, 4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        model.save_weights(path)
        other.load_weights(path)
    first, second = (m(x, training=False).numpy() for m in (model, other))
    assert np.array_equal(first, second), f"outputs differ by {np.abs(first - second).max():.2g}"


def check_litert(spec: ModelSpec, format: str) -> None:
    """The LiteRT file answers as the Keras model does, within the format's tolerance."""
    from zoo.backend import seed_everything
    from zoo.export import to_litert
    from zoo.predict import Artifact

    seed_everything(3)
    model, x = with_matched_statistics(spec, 32)
    expected = model(x, training=False).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(to_litert(model, format, x))
        gap = np.abs(Artifact(path)(x) - expected).max() / np.abs(expected).max()
    assert gap <= tolerance(spec, format), f"{format}: off by {gap:.2g} of the largest output"


def check_pruning(spec: ModelSpec) -> None:
    """Every prunable kernel gets exactly the share of zeros that was asked for."""
    from zoo.compress import Pruner, kernels

    model = tiny(spec)
    Pruner(model, SPARSITY, begin=0, end=1, every=1).finish()
    found = [np.asarray(kernel.variable) for kernel in kernels(model)]
    assert found, "no kernel to prune: name the reason in skips"
    for values in found:
        assert abs(np.mean(values == 0) - SPARSITY) <= 0.5 / values.size + 1e-9  # half a weight


def check_clustering(spec: ModelSpec) -> None:
    """Every kernel can share a few values."""
    from zoo.compress import cluster, kernels

    model = tiny(spec)
    cluster(model, VALUES, initial="linear").release()
    for kernel in kernels(model):
        found = len(np.unique(np.asarray(kernel.variable)))
        assert found <= VALUES, f"{kernel.name}: {found} values instead of {VALUES}"


def check_rounding(spec: ModelSpec) -> None:
    """Every kernel can be rounded to int8 in training, and the rounded model says nearly the same."""
    from zoo.backend import seed_everything
    from zoo.compress import kernels, quantize_aware

    seed_everything(3)
    model, x = with_matched_statistics(spec, 32)
    expected = model(x, training=False).numpy()
    with quantize_aware(model, x):
        rounded = model(x, training=False).numpy()
    gap = np.abs(rounded - expected).max() / np.abs(expected).max()
    assert 0 < gap <= tolerance(spec, "int8"), f"off by {gap:.2g} of the largest output"
    for kernel in kernels(model, "all"):
        matrix = np.asarray(kernel.matrix(kernel.variable.value))
        steps = matrix / np.maximum(np.abs(matrix).max(axis=0) / 127, 1e-30)
        assert np.abs(steps - steps.round()).max() < 1e-2, f"{kernel.name} is not on its grid"


def check_packed(spec: ModelSpec, mode: str) -> None:
    """Keras' packed weights answer as the model does, and the same from their file; a calibrated mode
    may refuse a model that is no chain of Transformer blocks."""
    from zoo import keras_modes
    from zoo.backend import seed_everything
    from zoo.errors import NOT_APPLICABLE, ZooError
    from zoo.predict import KerasArtifact, pack

    seed_everything(3)
    model, x = with_matched_statistics(spec, 32)
    expected = model(x, training=False).numpy()
    try:
        keras_modes.quantize(model, mode, x)
    except ZooError as refused:
        if keras_modes.MODES[mode].calibrated and refused.kind == NOT_APPLICABLE:
            raise unittest.SkipTest(str(refused)) from refused
        raise
    said = model(x, training=False).numpy()
    gap = np.sqrt(np.mean(np.square(said - expected))) / expected.std()
    assert 0 < gap <= PACKED_TOLERANCES[mode], (
        f"keras:{mode}: off by {gap:.2g} of the outputs' spread"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.npz"
        facts = {"model": spec.name, "config": {**spec.config, **spec.tiny}, "mode": mode}
        path.write_bytes(pack(model, facts))
        again = np.abs(KerasArtifact(path)(x) - said).max() / np.abs(expected).max()
    assert again <= tolerance(spec, "float32"), f"keras:{mode}: its file is off by {again:.2g}"


def all_checks() -> Iterator[Check]:
    """The checks of every model in the registry, plugins included."""
    from zoo.registry import models

    for spec in models().specs.values():
        yield from checks_for(spec)
