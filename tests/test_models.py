"""Every model of the registry, at ``tiny``: what the registry promises about it holds."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.registry import datasets, models
from zoo.spec import ModelSpec
from zoo.tasks import get_task

SPECS = list(models().specs.values())
every_model = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def tiny(spec: ModelSpec):
    return spec.build(**{**spec.config, **spec.tiny})


def draw(model, n: int, seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed).normal(size=(n, *model.inputs[0].shape[1:])).astype("float32")
    )


@every_model
def test_published_parameter_count(spec):
    assert spec.build(**spec.config).count_params() == spec.params


@every_model
def test_card_is_complete(spec):
    assert spec.source
    assert spec.license
    assert spec.version
    assert spec.data in datasets().specs
    assert datasets().specs[spec.data].kind in spec.kinds
    assert datasets().specs[spec.data].task in (spec.task, *spec.tasks)
    assert spec.target.metric in get_task(spec.task).metrics
    assert all(reason.strip() for reason in spec.skips.values())


@every_model
def test_output_is_finite_and_has_the_stated_width(spec):
    model = tiny(spec)
    outputs = model(draw(model, 5), training=False).numpy()
    assert outputs.shape == (5, {**spec.config, **spec.tiny}["outputs"])
    assert np.isfinite(outputs).all()


@every_model
def test_every_weight_gets_a_gradient_and_one_batch_can_be_learnt(spec):
    from zoo.backend import keras, tf

    keras.utils.set_random_seed(1)
    model = tiny(spec)
    x = draw(model, 16)
    goal = draw(model, 16, seed=2).reshape(16, -1)[:, : model.outputs[0].shape[1]]
    optimizer = keras.optimizers.Adam(0.02)
    losses = []
    for step in range(30):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=False) - goal) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        if step == 0:
            assert all(g is not None and np.abs(g).sum() > 0 for g in gradients)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]


@every_model
def test_same_seed_same_weights(spec):
    from zoo.backend import seed_everything

    def weights():
        seed_everything(7)
        return tiny(spec).get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(weights(), weights(), strict=True))


@every_model
def test_saved_weights_give_the_same_outputs(spec, tmp_path):
    model, other = tiny(spec), tiny(spec)
    x = draw(model, 4)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert np.array_equal(model(x).numpy(), other(x).numpy())


@every_model
@pytest.mark.parametrize(
    ("format", "tolerance"),
    [("float32", 1e-5), ("float16", 1e-2), ("dynamic", 0.1), ("int8", 0.15)],
)
def test_converts_to_litert_with_parity(spec, format, tolerance, tmp_path):
    """Tolerances are shares of the largest output."""
    from zoo.export import to_litert
    from zoo.predict import Artifact

    model = tiny(spec)
    x = draw(model, 32)
    path = tmp_path / "model.tflite"
    path.write_bytes(to_litert(model, format, x))
    expected = model(x, training=False).numpy()
    gap = np.abs(Artifact(path)(x) - expected).max()
    assert gap <= tolerance * np.abs(expected).max()


@every_model
def test_prunes_to_the_stated_sparsity(spec):
    from zoo.compress.prune import Pruner
    from zoo.variants import kernels

    model = tiny(spec)
    pruner = Pruner(model, 0.75, begin=0, end=1, every=1)
    pruner.finish()
    for _, kernel in kernels(model):
        values = np.asarray(kernel)
        assert abs(np.mean(values == 0) - 0.75) <= 0.5 / values.size
