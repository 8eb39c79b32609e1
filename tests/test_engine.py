"""The training engine: exact checkpoints, execution modes, divergence."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.progress import QUIET
from zoo.tasks import TASKS
from zoo.train.options import TrainOptions

ROWS, BATCH = 300, 32
PER_EPOCH = math.ceil(ROWS / BATCH)


def problem(n: int = ROWS):
    from zoo.train.feed import Samples

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype("float32")
    y = (x[:, :1] + 0.5 * x[:, 1:2] > 0).astype("float32")
    return Samples(x, y)


def net(seed: int = 0, dropout: float = 0.3):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    seed_everything(seed)
    return build_mlp((6,), 1, (16, 8), dropout)


def train(model, options=None, samples=None, validate=None, **more):
    from zoo.train.loop import fit

    samples = samples or problem()
    options = options or TrainOptions(epochs=3, batch_size=BATCH, learning_rate=0.01, keep="last")

    def loss():
        logits = model(samples.x, training=False).numpy()
        return {"val_loss": float(np.mean(np.logaddexp(0, -(2 * samples.y - 1) * logits)))}

    return fit(
        model, TASKS["binary"], options, samples, validate or loss, seed=5, progress=QUIET, **more
    )


def same(one, two) -> bool:
    """Bit for bit, every variable: weights, random states, optimizer."""
    pairs = zip(one.variables + one.optimizer.variables, two.variables + two.optimizer.variables,
                strict=True)  # fmt: skip
    return all(np.array_equal(np.array(a), np.array(b)) for a, b in pairs)


def stop_at(step: int):
    """A callback that raises the signal that `kill` would, once so many steps are done."""
    from zoo.backend import keras

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch >= step:
                signal.raise_signal(signal.SIGTERM)

    return Stop()


# Checkpoints --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    model = net()
    train(model)
    return model


@pytest.mark.parametrize("step", [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 4])
def test_a_signal_writes_a_checkpoint_and_resume_goes_on_mid_epoch(tmp_path, whole, step):
    """Dropout and shuffling on; a fresh model with another seed takes it up; equal to the bit."""
    from zoo.train.execution import Execution

    fitted = train(
        net(), checkpoints=tmp_path, execution=Execution("graph", 1), callbacks=[stop_at(step)]
    )
    assert fitted.interrupted == signal.SIGTERM
    assert fitted.steps == step
    second = net(seed=99)
    # Another number of steps a call: how steps are divided into calls must not matter.
    fitted = train(second, checkpoints=tmp_path, execution=Execution("graph", 7), resume=True)
    assert fitted.steps == 3 * PER_EPOCH
    assert same(whole, second)


def test_checkpoint_every_so_many_steps(tmp_path):
    """With 4 steps a checkpoint and 10 an epoch there is one at each multiple and each epoch."""
    from zoo.train import checkpoint

    seen = []

    def validate():
        seen.append(sorted(int(path.name[5:]) for path in tmp_path.glob("step-*")))
        return {"val_loss": 1.0}

    train(net(), checkpoints=tmp_path, checkpoint_every=4, validate=validate)
    assert seen[0] == [4, 8]
    assert seen[1] == [12, 16][-checkpoint.KEEP :] or seen[1] == [10, 12, 16]
    assert sorted(int(path.name[5:]) for path in tmp_path.glob("step-*")) == [24, 28, 30]


def test_callbacks_go_on_where_they_were(tmp_path):
    """A plateau's counters and the lowered rate survive; equal to the uninterrupted training."""
    from zoo.backend import keras

    options = TrainOptions(
        epochs=6, batch_size=BATCH, learning_rate=0.01, schedule="constant", keep="last"
    )

    def plateau():
        return keras.callbacks.ReduceLROnPlateau(monitor="val_loss", patience=2, factor=0.5)

    def constant():
        return {"val_loss": 1.0}

    one, two, three = net(), net(), net(seed=3)
    train(one, options, validate=constant, callbacks=[plateau()])
    train(
        two, options, validate=constant, checkpoints=tmp_path,
        callbacks=[plateau(), stop_at(2 * PER_EPOCH + 3)],
    )  # fmt: skip
    reborn = plateau()
    train(three, options, validate=constant, checkpoints=tmp_path, callbacks=[reborn], resume=True)
    assert float(one.optimizer.learning_rate) < 0.004
    assert float(one.optimizer.learning_rate) == float(three.optimizer.learning_rate)
    assert same(one, three)


def test_best_weights_and_patience_survive_a_resume(tmp_path):
    losses = [0.5, 0.2, 0.6, 0.7, 0.8]
    options = TrainOptions(epochs=9, batch_size=BATCH, patience=3)
    first, turn = net(), iter(losses)
    kept = []

    def validate():
        kept.append(first.get_weights())
        return {"val_loss": next(turn)}

    train(
        first, options, validate=validate, checkpoints=tmp_path,
        callbacks=[stop_at(3 * PER_EPOCH + 1)],
    )  # fmt: skip
    second = net(seed=9)
    fitted = train(
        second, options, validate=lambda: {"val_loss": next(turn)}, checkpoints=tmp_path,
        resume=True,
    )  # fmt: skip
    assert fitted.epochs == 5
    assert fitted.best == {"val_loss": 0.2, "epoch": 2}
    for a, b in zip(second.get_weights(), kept[1], strict=True):
        assert np.array_equal(a, b)
    again = train(net(seed=8), options, checkpoints=tmp_path, resume=True)
    assert again.steps == fitted.steps  # it was done: nothing more is trained


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    train(net(), checkpoints=folder)
    return folder


@pytest.mark.parametrize("file", ["state.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_any_damage_is_seen_and_the_one_before_is_used(stored, tmp_path, file, damage):
    import shutil

    from zoo.train import checkpoint

    folder = Path(shutil.copytree(stored, tmp_path / "copy"))
    newest, before = sorted(folder.glob("step-*"), reverse=True)[:2]
    content = (newest / file).read_bytes()
    rng = np.random.default_rng(0)
    for place in sorted({0, len(content) - 1, *rng.integers(0, len(content), 20).tolist()}):
        if damage == "cut":
            (newest / file).write_bytes(content[:place])
        elif damage == "flip":
            (newest / file).write_bytes(
                content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
            )
        else:
            (newest / file).unlink(missing_ok=True)
        found = checkpoint.newest(folder)
        assert found.meta["step"] == int(before.name[5:]), place
        assert len(found.passed) == 1
        assert newest.name in found.passed[0]


def test_without_a_whole_checkpoint_it_starts_at_step_0(tmp_path, whole):
    train(net(), checkpoints=tmp_path)
    for path in tmp_path.glob("step-*"):
        (path / "state.npz").write_bytes(b"")
    model = net()
    train(model, checkpoints=tmp_path, resume=True)
    assert same(whole, model)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    train(net(), checkpoints=tmp_path)
    seed_everything(0)
    with pytest.raises(ZooError, match="another model"):
        train(build_mlp((6,), 1, (16,), 0.3), checkpoints=tmp_path, resume=True)


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path):
    from zoo.train import checkpoint

    train(net(), checkpoints=tmp_path)
    rest = tmp_path / ".tmp-step-000000099-abcd"
    rest.mkdir()
    (rest / "state.npz").write_bytes(b"half")
    assert checkpoint.newest(tmp_path).meta["step"] == 3 * PER_EPOCH
    train(net(), checkpoints=tmp_path, resume=True)
    assert not rest.exists()


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from zoo.train import checkpoint
folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"model/0": np.zeros(1000)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.save(folder, 2, {"model/0": np.zeros(100_000)}, {})
except OSError as error:
    print(error.errno)
found = checkpoint.newest(folder)
print(found.meta["step"], found.passed, sorted(path.name for path in folder.iterdir()))
"""


def test_what_can_not_be_written_leaves_the_checkpoint_before(tmp_path):
    """The system refuses files of more than 50 kB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True
    )
    number, rest = done.stdout.split("\n", 1)
    assert os.strerror(int(number)) == "File too large"
    assert rest.strip() == "1 [] ['step-000000001']"


# Divergence ---------------------------------------------------------------------------------------


def test_divergence_names_the_step_and_the_layer(tmp_path):
    """One row is so large that its product overflows in the first layer: its step is known."""
    samples = problem()
    samples.x[123] = 3e38
    order = np.random.default_rng([5, 0]).permutation(ROWS)
    step = int(np.flatnonzero(order == 123)[0]) // BATCH + 1
    with pytest.raises(ZooError, match="diverged") as error:
        train(net(), None, samples, validate=lambda: {"val_loss": 1.0}, checkpoints=tmp_path)
    assert f"at step {step} (epoch 1): the output of layer 'dense_1'" in error.value.message
    assert error.value.exit_code == 1


def test_divergence_by_the_learning_rate_keeps_a_finite_checkpoint(tmp_path):
    from zoo.train import checkpoint

    samples = problem()
    samples.x *= np.float32(1e15)
    options = TrainOptions(epochs=3, batch_size=BATCH, learning_rate=99.0, optimizer="sgd")
    with pytest.raises(ZooError, match=r"diverged.*at step \d+ \(epoch \d"):
        train(net(), options, samples, checkpoints=tmp_path, checkpoint_every=1,
              validate=lambda: {"val_loss": 1.0})  # fmt: skip
    for array in checkpoint.newest(tmp_path).arrays.values():
        assert np.isfinite(array).all()


# Execution ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glasszoo" / "execution.json"


def test_a_trial_leaves_no_trace_and_is_remembered(cache, whole, monkeypatch):
    from zoo.train import execution

    monkeypatch.setattr(execution, "WORTHWHILE_SECONDS", 0.0)
    monkeypatch.setattr(execution, "MARGIN", 1e9)  # graph, whatever the figures
    monkeypatch.setattr(execution, "TURN_SECONDS", (0.01, 0.01))
    choices = []
    one, two = net(), net()
    fitted = train(one, execution=None, on_choice=choices.append)
    assert fitted.execution.startswith("graph:")
    assert same(whole, one)
    figures = choices[0].seconds_per_step
    assert figures["graph"] > 0
    assert figures["xla"] > 0
    assert list(json.loads(cache.read_text()).values()) == [figures]
    train(two, execution=None, on_choice=choices.append)
    assert choices[1].seconds_per_step == figures
    assert "remembered" in choices[1].reason


def test_short_trainings_do_not_wait_for_xla(cache):
    choices = []
    train(net(), execution=None, on_choice=choices.append)
    assert "xla" not in choices[0].seconds_per_step
    assert "XLA was not tried" in choices[0].reason
    cache.write_text("{ damaged")
    train(net(), execution=None, on_choice=choices.append)
    assert choices[1].reason.startswith("measured")


def test_the_faster_execution_is_chosen(cache, monkeypatch):
    """With figures that are remembered, the choice is arithmetic."""
    from zoo.train import execution

    model = net()
    for graph, xla, expected in (
        (0.010, 0.005, "xla:50"),
        (0.010, 0.0099, "graph:25"),
        (0.010, None, "graph:25"),
        (1.0, 3.0, "graph:1"),
        (1e-6, None, f"graph:{execution.MOST_STEPS}"),
    ):
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({"key": {"graph": graph, "xla": xla}}))
        choice, compiled = execution.choose(model, lambda: None, 10**6, "key", lambda text: None)
        assert str(choice.execution) == expected
        assert compiled == {}


def test_xla_learns_the_same():
    """To rounding, since XLA fuses; and without dropout, whose draws are others under XLA."""
    from zoo.train.execution import Execution

    whole, model = net(dropout=0), net(dropout=0)
    train(whole)
    fitted = train(model, execution=Execution("xla", 5))
    assert fitted.execution == "xla:5"
    for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("text", ["", "fast", "graph:0", "xla:-1", "graph:1.5", "graph:", "GRAPH"])
def test_unknown_executions_are_refused(text):
    from zoo.train.execution import Execution

    with pytest.raises(ZooError, match="not known"):
        Execution.parse(text)


def normalised(**options):
    from zoo.backend import keras, seed_everything

    seed_everything(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 2)), layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(**options), layers.ReLU(), layers.GlobalAveragePooling2D(),
        layers.Dense(1),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


@pytest.mark.parametrize(
    "options", [{}, {"scale": False, "center": False}, {"momentum": 0.5, "epsilon": 1e-2}]
)
def test_fused_batch_normalisation_learns_what_keras_does(options):
    from zoo.backend import tf
    from zoo.train.execution import Execution, compile_step

    rng = np.random.default_rng(0)
    x = rng.normal(1, 3, size=(20, 8, 8, 2)).astype("float32")
    y = rng.normal(size=(20, 1)).astype("float32")
    one, other = normalised(**options), normalised(**options)
    one.fit(x, y, batch_size=5, shuffle=False, verbose=0)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    compile_step(other, Execution("graph"))(iter(batches), 4)
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=2e-5, atol=2e-6, err_msg=a.path)


@pytest.mark.parametrize(
    ("options", "change", "kernels"),
    [({}, {}, 1), ({}, {"trainable": False}, 0), ({"synchronized": True}, {}, 0),
     ({"renorm": True}, {}, 0), ({"axis": 1}, {}, 0)],
)  # fmt: skip
def test_the_fused_kernel_is_used_where_it_computes_the_same(options, change, kernels):
    from zoo.backend import keras, tf
    from zoo.train.fused import fused_kernels

    model = normalised(**options)
    layer = next(
        found for found in model.layers if isinstance(found, keras.layers.BatchNormalization)
    )
    for name, value in change.items():
        setattr(layer, name, value)

    def count(training: bool) -> int:
        traced = tf.function(lambda x: model(x, training=training))
        with fused_kernels():
            graph = traced.get_concrete_function(tf.TensorSpec((4, 8, 8, 2))).graph
        return sum(op.type == "FusedBatchNormV3" for op in graph.get_operations())

    assert (count(True), count(False)) == (kernels, 0)
    assert "fused" not in keras.layers.BatchNormalization.call.__module__  # only while it is open


def embedded(optimizer):
    """A model with a sparse gradient, whose rows are met several times in a batch."""
    from zoo.backend import keras, seed_everything

    seed_everything(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((6,), dtype="int32"), layers.Embedding(5, 4), layers.Flatten(),
        layers.Dense(3, activation="relu"), layers.Dense(1),
    ])  # fmt: skip
    model.compile(optimizer(keras.optimizers), "mse", jit_compile=False)
    return model


def excluding(optimizer, name):
    optimizer.exclude_from_weight_decay(var_names=[name])
    return optimizer


def halved(optimizers):
    """An optimizer that is an Adam by class and none by its update."""

    class Halved(optimizers.AdamW):
        def update_step(self, gradient, variable, learning_rate):
            return super().update_step(gradient, variable, learning_rate / 2)

    return Halved


@pytest.mark.parametrize(
    ("optimizer", "kernels", "kind"),
    [(lambda o: o.Adam(0.01, beta_1=0.5, beta_2=0.9, epsilon=1e-3), 4, "graph"),
     (lambda o: o.AdamW(0.01, weight_decay=0.1, clipnorm=0.1), 4, "xla"),
     (lambda o: excluding(o.AdamW(0.01, weight_decay=0.5), "bias"), 4, "graph"),
     (lambda o: o.AdamW(0.01, weight_decay=0.5, amsgrad=True), 0, "graph"),
     (lambda o: o.AdamW(0.01, weight_decay=0.5, gradient_accumulation_steps=2), 5, "graph"),
     (lambda o: o.LossScaleOptimizer(o.AdamW(0.01, weight_decay=0.5)), 4, "graph"),
     (lambda o: excluding(o.AdamW(0.01, weight_decay=0.5), "dense"), 4, "graph"),
     (lambda o: halved(o)(0.01, weight_decay=0.5), 0, "graph"),
     (lambda o: o.Adam(0.01, amsgrad=True), 0, "graph"),
     (lambda o: o.Adamax(0.01), 0, "graph")],
)  # fmt: skip
def test_fused_adam_learns_what_keras_does(optimizer, kernels, kind):
    from zoo.backend import keras, tf
    from zoo.train.execution import Execution, compile_step
    from zoo.train.fused import fused_kernels

    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, size=(40, 6)).astype("int32")
    y = rng.normal(size=(40, 1)).astype("float32")
    one, other = embedded(optimizer), embedded(optimizer)
    one.fit(x, y, batch_size=5, shuffle=False, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(5, drop_remainder=True)
    compile_step(other, Execution(kind))(iter(data), 8)
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-5, atol=2e-6, err_msg=a.path)
    with fused_kernels():
        made = tf.function(one.train_step).get_concrete_function(next(iter(data)))
    graph = made.graph.as_graph_def()  # conditions have their operations in functions
    nodes = [*graph.node, *(node for found in graph.library.function for node in found.node_def)]
    ops = [node.op for node in nodes]
    assert ops.count("ResourceApplyAdam") == kernels
    assert (
        "fused" not in keras.optimizers.Adam._backend_update_step.__module__
    )  # only while it is open


def traced(function, *tensors, fused: bool):
    """What a function gives and the gradients of its mean square, and the kinds of operations of both."""
    from zoo.backend import tf
    from zoo.train.fused import fused_kernels

    def both(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
            loss = tf.reduce_mean(y * y)
        return y, tape.gradient(loss, [*tensors])

    compiled = tf.function(both)
    with fused_kernels() if fused else contextlib.nullcontext():
        graph = compiled.get_concrete_function(*tensors).graph
    y, gradients = compiled(*tensors)
    return (
        np.asarray(y),
        [np.asarray(g) for g in gradients],
        [op.type for op in graph.get_operations()],
    )


@pytest.mark.parametrize(
    ("rate", "shape", "options"),
    [(0.3, (70, 60, 50), {}), (0.3, (70, 60, 51), {"noise_shape": (None, 1, 51)}),
     (0.5, (3, 5, 7), {}), (0.999, (100, 1000), {})],
)  # fmt: skip
def test_dropout_by_a_product_leaves_out_as_many(rate, shape, options):
    """What stays is scaled up, gradients have the same mask, and each call has another."""
    from zoo.backend import keras, tf

    x = tf.constant(np.random.default_rng(0).uniform(1, 2, size=shape).astype("float32"))
    layer = keras.layers.Dropout(rate, seed=3, **options)
    first, (gradient,), ops = traced(lambda x: layer(x, training=True), x, fused=True)
    assert "SelectV2" not in ops
    kept = first != 0
    scale = 2**16 / (2**16 - round(rate * 2**16))
    np.testing.assert_allclose(first, np.where(kept, x * scale, 0), rtol=1e-6)
    assert ((gradient != 0) == kept).all()
    drawn = kept[:, :1] if options else kept
    assert (kept == drawn).all()
    spread = math.sqrt(rate * (1 - rate) / drawn.size)
    assert abs(1 - drawn.mean() - rate) < 5 * spread + 2**-16
    again, _, _ = traced(lambda x: layer(x, training=True), x, fused=True)
    assert (again != first).any()
    *_, usual = traced(lambda x: layer(x, training=True), x, fused=False)
    assert "SelectV2" in usual
    assert "fused" not in tf.nn.experimental.stateless_dropout.__module__


def test_dropout_by_a_product_compiles_with_xla():
    """Another generator's numbers may come, with the same shares."""
    from zoo.backend import keras, tf
    from zoo.train.fused import fused_kernels

    layer = keras.layers.Dropout(0.25, seed=2)
    call = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    with fused_kernels():
        found = call(tf.ones((301, 333))).numpy()
    assert set(np.unique(found)) == {np.float32(0), np.float32(4 / 3)}
    assert abs(np.mean(found == 0) - 0.25) < 0.01


def test_a_single_value_has_no_variance_to_keep():
    """One picture of one pixel: the moving variance goes to zero, and never to what is no number."""
    from zoo.backend import keras, tf
    from zoo.train.fused import fused_kernels

    layer = keras.layers.BatchNormalization(momentum=0.5)
    call = tf.function(lambda x: layer(x, training=True))
    layer.build((None, 1, 1, 3))
    with fused_kernels():
        call(tf.constant([[[[1.0, 2.0, 3.0]]]]))
    np.testing.assert_allclose(np.array(layer.moving_variance), 0.5)
    np.testing.assert_allclose(np.array(layer.moving_mean), [0.5, 1.0, 1.5])


def test_dropouts_bits_are_independent():
    """Of neighbours, which share a random word, a quarter are both kept at one half."""
    from zoo.backend import keras, tf

    layer = keras.layers.Dropout(0.5, seed=1)
    kept, _, _ = traced(lambda x: layer(x, training=True), tf.ones((500, 400)), fused=True)
    kept = kept != 0
    for shifted in (np.roll(kept, 1, 1), np.roll(kept, 2, 1), np.roll(kept, 1, 0)):
        assert abs(np.mean(kept & shifted) - 0.25) < 0.005


@pytest.mark.parametrize(
    ("options", "ours"),
    [({}, True), ({"epsilon": 0.1}, True), ({"axis": [2]}, True), ({"axis": 1}, False),
     ({"center": False}, False)],
)  # fmt: skip
def test_layer_normalisation_in_closed_form_is_keras(options, ours):
    from zoo.backend import keras, tf

    rng = np.random.default_rng(0)
    x, gamma, beta = (tf.constant(rng.normal(1, 3, size).astype("float32"))
                      for size in ((4, 5, 6), 6, 6))  # fmt: skip
    layer = keras.layers.LayerNormalization(**options)
    layer.build(x.shape)

    def call(x, gamma, beta):
        if layer.axis in ([2], -1, [-1]):
            layer.gamma, layer.beta = gamma, beta if layer.center else None
        return layer(x) + 0 * (tf.reduce_sum(gamma) + tf.reduce_sum(beta))

    found = traced(call, x, gamma, beta, fused=True)
    expected = traced(call, x, gamma, beta, fused=False)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert ("BiasAddGrad" in found[2]) == ours


@pytest.mark.parametrize(("axis", "kind"), [(-1, bool), ((3,), "int32"), ([-1], "float32")])
def test_a_masked_softmax_by_sum_and_product_is_keras(axis, kind):
    """Rows without any place to look at give zeros, as there."""
    from zoo.backend import keras, tf

    rng = np.random.default_rng(0)
    scores = tf.constant(rng.normal(0, 5, size=(3, 2, 7, 7)).astype("float32"))
    mask = np.tril(np.ones((3, 1, 7, 7), bool))
    mask[1, 0, :, :2] = False  # the first rows of this text see nothing
    layer = keras.layers.Softmax(axis=axis)
    mask = mask.astype(kind)
    found = traced(lambda x: layer(x, mask=tf.constant(mask)), scores, fused=True)
    expected = traced(lambda x: layer(x, mask=tf.constant(mask)), scores, fused=False)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[1][0], expected[1][0], rtol=1e-5, atol=1e-8)
    assert not found[0][1, :, 0].any()
    assert ("SelectV2" in found[2], "SelectV2" in expected[2]) == (False, True)
    plain = traced(layer, scores, fused=True)
    np.testing.assert_array_equal(plain[0], traced(layer, scores, fused=False)[0])


def test_gelu_with_its_own_gradient_is_tensorflows():
    from zoo.backend import keras, tf

    x = tf.constant(np.linspace(-12, 12, 2001, dtype="float32"))
    for approximate in (True, False):
        found, expected = (
            traced(lambda x: keras.activations.gelu(x, approximate=approximate), x, fused=fused)  # noqa: B023
            for fused in (True, False)
        )
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[1][0], expected[1][0], rtol=1e-4, atol=1e-7)
        assert (len(found[2]) < len(expected[2])) == approximate


@pytest.mark.parametrize("name", ["gpt_tiny", "bert_tiny", "transformer_seq2seq"])
def test_the_kernels_are_met_in_attention(name):
    """With dropout, Keras' attention has a softmax layer with a mask; nothing in it chooses."""
    from zoo.backend import tf
    from zoo.registry import models
    from zoo.train.fused import fused_kernels

    spec = models().get(name)
    model = spec.build(**{**spec.config, **spec.tiny, "dropout": 0.1})

    def choosing(fused):
        call = tf.function(lambda x: model(x, training=True))
        with fused_kernels() if fused else contextlib.nullcontext():
            x = tf.TensorSpec((2, *model.input_shape[1:]), "int32")
            graph = call.get_concrete_function(x).graph
        return [op.name for op in graph.get_operations()
                if op.type == "SelectV2" and re.search("softmax|dropout", op.name)]  # fmt: skip

    assert choosing(False)
    assert not choosing(True)


@pytest.mark.parametrize("kind", ["graph", "xla"])
@pytest.mark.parametrize("name", ["gpt_tiny", "bert_tiny"])
def test_a_transformer_learns_what_keras_teaches_it(name, kind):
    from zoo.backend import keras, seed_everything, tf
    from zoo.registry import models
    from zoo.train.execution import Execution, compile_step

    spec = models().get(name)

    def made():
        seed_everything(0)
        model = spec.build(**{**spec.config, **spec.tiny, "dropout": 0.0})
        model.compile(
            keras.optimizers.AdamW(1e-2, weight_decay=0.1, epsilon=1e-3), "mse", jit_compile=False
        )
        return model

    one, other = made(), made()
    rng = np.random.default_rng(0)
    x = rng.integers(1, 40, size=(24, 9)).astype("int32")
    x[::3, 5:] = 0  # filling
    y = rng.normal(size=(24, *one.output_shape[1:])).astype("float32")
    one.fit(x, y, batch_size=6, shuffle=False, verbose=0)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(6, drop_remainder=True)
    compile_step(other, Execution(kind))(iter(batches), 4)
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-3, atol=1e-5, err_msg=a.path)


def test_models_with_batch_statistics_get_full_batches_only():
    from zoo.backend import keras
    from zoo.train.feed import Feed, has_batch_statistics

    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.BatchNormalization()])
    assert has_batch_statistics(model)
    assert not has_batch_statistics(net())
    sizes = [
        len(y) for _, y in Feed(problem(70), TrainOptions(batch_size=32), 0, whole=True).epoch(0)
    ]
    assert sizes == [32, 32]
    few = Feed(problem(20), TrainOptions(batch_size=32), 0, whole=True)
    assert few.dropped == 0
    assert [len(y) for _, y in few.epoch(0)] == [20]


# The command --------------------------------------------------------------------------------------


def test_run_json_records_the_execution_and_resume_keeps_it(zoo, cache, tmp_path):
    from conftest import loans

    words = ("--data", loans(tmp_path / "loans.csv"), "--target", "approved", "--set", "hidden=8",
             "--batch-size", "64", "--runs", tmp_path / "runs")  # fmt: skip
    code, _, _, document = zoo("train", "mlp", *words, "--epochs", 2, "--name", "a", "--json")
    assert code == 0
    run = json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    assert run["execution"]["mode"] == document["execution"]
    assert run["execution"]["seconds_per_step"]["graph"] > 0
    assert run["engine"]["execution"] == "auto"
    code, *_, document = zoo("train", "mlp", *words, "--epochs", 1, "--name", "b", "--execution",
                             "graph:3", "--checkpoint-every", 2, "--json")  # fmt: skip
    assert document["execution"] == "graph:3"
    assert zoo("train", "mlp", *words, "--execution", "warp", "--json").code == 2
    import shutil

    shutil.rmtree(tmp_path / "runs" / "a" / "base")
    run["status"] = "interrupted"
    run["execution"]["mode"] = "graph:5"
    (tmp_path / "runs" / "a" / "run.json").write_text(json.dumps(run))
    cache.unlink()
    code, *_, document = zoo("train", "--resume", "a", "--runs", tmp_path / "runs", "--json")
    assert code == 0
    assert document["execution"] == "graph:5"


# Spikes and the bar -------------------------------------------------------------------------------


def spiky():
    """Rows with labels that no weights explain, far out, all in the fourth step of epoch 2."""
    samples = problem()
    order = np.random.default_rng([5, 1]).permutation(ROWS)
    rows = order[3 * BATCH : 3 * BATCH + 4]
    samples.x[rows] *= 1e4
    samples.y[rows] = 1 - (samples.x[rows, :1] > 0)
    return samples


def test_a_spike_goes_back_and_skips_the_batches(tmp_path):
    """Far rows make the loss of some calls jump: recorded, and the weights stay good."""
    from zoo.train.execution import Execution

    rows, said = [], []

    class Listener(type(QUIET)):
        def say(self, text):
            said.append(text)

    options = TrainOptions(epochs=2, batch_size=BATCH, learning_rate=0.01, keep="last",
                           spike_recovery=20.0)  # fmt: skip
    from zoo.train.loop import fit

    model = net(dropout=0)
    fitted = fit(
        model, TASKS["binary"], options, spiky(), lambda: {"val_loss": 1.0}, seed=5,
        progress=Listener(quiet=True), on_epoch=rows.append, checkpoints=tmp_path,
        checkpoint_every=1, execution=Execution("graph", 1),
    )  # fmt: skip
    assert fitted.steps == 2 * PER_EPOCH
    spikes = [spike for row in rows for spike in row.get("spikes", [])]
    assert 3 + PER_EPOCH + 1 in [spike["step"] for spike in spikes], spikes
    for spike in spikes:
        assert spike["loss"] > 20 * spike["usual"]
        assert spike["back_to"] == spike["step"] - 1
    assert sum(text.startswith("loss spike of") for text in said) == len(spikes)
    good = problem()
    logits = model(good.x, training=False).numpy()
    assert ((logits > 0) == good.y).mean() > 0.6
    assert all(np.isfinite(w).all() for w in model.get_weights())
    json.dumps(rows, allow_nan=False)


def test_recovery_from_numbers_that_are_not_finite_and_its_end(tmp_path):
    from zoo.train import loop
    from zoo.train.execution import Execution

    samples = problem()
    samples.x[17] = np.nan
    rows = []
    options = TrainOptions(epochs=2, batch_size=BATCH, spike_recovery=50.0, keep="last")
    model = net()
    train(model, options, samples, validate=lambda: {"val_loss": 1.0}, checkpoints=tmp_path,
          execution=Execution("graph", 1), on_epoch=rows.append)  # fmt: skip
    assert [len(row["spikes"]) for row in rows] == [1, 1]  # each epoch meets the row once
    assert rows[0]["spikes"][0]["loss"] is None
    assert all(np.isfinite(w).all() for w in model.get_weights())
    samples.x[:] = np.nan  # nothing but spikes: it gives up
    with pytest.raises(ZooError, match="diverged"):
        train(net(), TrainOptions(epochs=12, batch_size=BATCH, spike_recovery=50.0), samples,
              validate=lambda: {"val_loss": 1.0}, execution=Execution("graph", 1))  # fmt: skip
    assert loop.RECOVERIES < 12  # one an epoch: a ReLU hides them from the loss


def test_resume_after_a_spike_is_exact(tmp_path):
    """What is usual, and the skipped batches, survive; checkpoints fall between calls."""
    from zoo.train.execution import Execution

    samples = spiky()
    options = TrainOptions(epochs=3, batch_size=BATCH, learning_rate=0.01, keep="last",
                           spike_recovery=10.0)  # fmt: skip
    more = {"execution": Execution("graph", 1), "checkpoint_every": 1,
            "validate": lambda: {"val_loss": 1.0}}  # fmt: skip
    whole, first, second = net(), net(), net(seed=9)
    rows = []
    train(whole, options, samples, on_epoch=rows.append, checkpoints=tmp_path / "a", **more)
    assert any("spikes" in row for row in rows)
    train(first, options, samples, checkpoints=tmp_path / "b",
          callbacks=[stop_at(PER_EPOCH + 6)], **more)  # fmt: skip
    train(second, options, samples, checkpoints=tmp_path / "b", resume=True, **more)
    assert same(whole, second)


def test_without_spikes_recovery_changes_nothing(whole):
    model = net()
    train(model, TrainOptions(epochs=3, batch_size=BATCH, learning_rate=0.01, keep="last",
                              spike_recovery=100.0))  # fmt: skip
    assert same(whole, model)


def test_the_bar_shows_loss_metric_and_throughput():
    from zoo.train.execution import Execution
    from zoo.train.loop import fit

    shown = []

    class Bar(type(QUIET)):
        def advance(self, done, live=""):
            shown.append((done, live))

    fit(net(), TASKS["binary"], TrainOptions(epochs=2, batch_size=BATCH), problem(),
        lambda: {"val_loss": 0.5, "val_accuracy": 0.75}, seed=0, progress=Bar(quiet=True),
        execution=Execution("graph", 4))  # fmt: skip
    import re

    assert shown[-1][0] == 2 * PER_EPOCH
    assert re.fullmatch(r"epoch 2 loss \d\.\d{4} val 0\.7500 [\d,]+/s", shown[-1][1])
    assert re.fullmatch(r"epoch 1 loss \d\.\d{4}", shown[0][1])  # nothing is known yet


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_resumes_to_the_bit(tmp_path, policy):
    """The scale of the loss is part of a checkpoint; variables are float32, products are not."""
    from zoo.backend import dtype_policy, keras

    with dtype_policy(policy):
        whole, cut, rest = net(), net(), net(seed=9)
    assert keras.config.dtype_policy().name == "float32"  # only while it is open
    assert whole.compute_dtype == policy.removeprefix("mixed_")
    train(whole)
    assert {weight.dtype for weight in whole.trainable_weights} == {"float32"}
    fitted = train(cut, checkpoints=tmp_path, callbacks=[stop_at(7)], checkpoint_every=3)
    assert fitted.interrupted == signal.SIGTERM
    train(rest, checkpoints=tmp_path, resume=True)
    assert same(whole, rest)
    scaled = isinstance(whole.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")


def test_precision_follows_the_devices(monkeypatch):
    """Compute capabilities as the devices tell them: there is no GPU here to ask."""
    from zoo import backend

    def best(*capabilities):
        details = dict(
            enumerate({"compute_capability": one} if one else {} for one in capabilities)
        )
        monkeypatch.setattr(backend, "gpus", lambda: list(details))
        monkeypatch.setattr(
            backend.tf.config.experimental, "get_device_details", lambda gpu: details[gpu]
        )
        return backend.best_precision()

    assert best() == "float32"
    assert best((6, 1)) == "float32"
    assert best((7, 5)) == "mixed_float16"
    assert best((8, 0), (9, 0)) == "mixed_bfloat16"
    assert best((12, 0), (7, 0)) == "mixed_float16"
    assert best((9, 0), None) == "float32"
    assert backend.best_precision(tpu=True) == "mixed_bfloat16"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_what_mixed_precision_trained_ships_in_float32(zoo, tmp_path, policy):
    from conftest import loans

    from zoo.backend import keras
    from zoo.run import Run
    from zoo.train.session import reopen

    words = ["train", "mlp", "--data", loans(tmp_path / "loans.csv"), "--target", "approved",
             "--epochs", 2, "--name", "half", "--runs", tmp_path, "--json"]  # fmt: skip
    code, _, err, document = zoo(*words, "--precision", policy)
    assert code == 0, err
    run = Run(tmp_path / "half")
    assert run.document()["engine"]["precision"] == policy
    assert keras.config.dtype_policy().name == "float32"
    session, base = reopen(run), run.variant("base")
    model = session.load(base.weights)
    rows = session.data.parts["test"]
    logits = model(session.encoded(rows), training=False).numpy()
    scores = base.predictions().scores[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), scores, atol=1e-5)
    assert document["metrics"]["accuracy"] > 0.6
    # Its compression is a training of its own, in float32.
    code, _, err, _ = zoo("compress", "half", "prune:0.5", "int8", "--runs", tmp_path, "--json")
    assert code == 0, err


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "resnet20", "lstm", "gru", "lstm_forecast", "textcnn", "bert_tiny",
             "bert_tiny_mlm", "gpt_tiny", "transformer_seq2seq", "vae", "conv_vae", "nlinear"]
)  # fmt: skip
def test_each_family_can_be_built_in_mixed_precision(name, policy):
    """And answers nearly as in float32, in training and otherwise."""
    from zoo.backend import dtype_policy, seed_everything
    from zoo.registry import models
    from zoo.testing import inputs_for, tiny

    spec, said = models().get(name), []
    for each in ("float32", policy):
        seed_everything(1)
        with dtype_policy(each):
            model = tiny(spec)
        x = inputs_for(spec, model, 8)
        assert np.isfinite(np.asarray(model(x, training=True), "float32")).all()
        said.append(np.asarray(model(x, training=False), "float32"))
    assert model.compute_dtype == policy.removeprefix("mixed_")
    gap = np.abs(said[1] - said[0]).max() / np.abs(said[0]).max()
    assert gap < 0.1


def test_a_run_from_before_precisions_goes_on_in_float32():
    from zoo.train.session import _engine

    stored = {"execution": "auto", "checkpoint_every": 0, "strategy": "auto", "track": []}
    assert _engine({"engine": stored, "execution": {}}).policy() == "float32"


def test_an_unknown_precision_is_refused(zoo, tmp_path):
    code, _, _, document = zoo(
        "train", "mlp", "--precision", "half", "--runs", tmp_path, "--dry-run", "--json"
    )
    assert code == 2
    assert "mixed_float16" in document["error"]["expected"]
    assert list(tmp_path.iterdir()) == []
