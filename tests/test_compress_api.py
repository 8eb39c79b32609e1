"""The plain functions of ``zoo.compress`` on Keras 3 models of every kind of layer, without a run."""

from __future__ import annotations

import doctest
import gzip
import importlib

import numpy as np
import pytest

#: TF-MOT imports distutils through an old helper.
pytestmark = pytest.mark.filterwarnings("ignore:.*distutils.*:DeprecationWarning")


def net(*layers, shape=(20,)):
    from zoo.backend import keras, seed_everything

    seed_everything(3)
    return keras.Sequential([keras.Input(shape), *layers])


def rows(n=128, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype("float32")


def fit(model, x, y, callbacks=(), epochs=1, per_call=1):
    model.compile("adam", "mse", steps_per_execution=per_call)
    model.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=list(callbacks))


def zipped(variable) -> int:
    return len(gzip.compress(np.asarray(variable).tobytes(), 9))


def zeros(variable) -> float:
    return float(np.mean(np.asarray(variable) == 0))


def every_kind():
    """A model with attention, convolutions, recurrence, an embedding and a model inside."""
    from zoo.backend import keras

    la = keras.layers
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    x = la.Embedding(60, 32, name="table")(tokens)
    x = la.MultiHeadAttention(4, 8, name="attention")(x, x)
    x = la.LayerNormalization()(x)
    x = la.Bidirectional(la.LSTM(16, return_sequences=True), name="both")(x)
    x = la.GRU(16, return_sequences=True, name="gru")(x)
    x = la.Reshape((4, 4, 4))(x)
    x = la.DepthwiseConv2D(3, padding="same", depth_multiplier=8, name="depthwise")(x)
    x = la.Conv2D(16, 3, name="conv")(x)
    x = la.GlobalAveragePooling2D()(x)
    inner = keras.Sequential([keras.Input((16,)), la.Dense(64, name="inside")], name="inner")
    return keras.Model(tokens, la.Dense(1, name="last")(inner(x)))


@pytest.mark.parametrize(("sparsity", "times"), [(0.5, 1.7), (0.8, 3.7)])
def test_pruned_weights_are_plain_zeros_and_zip_well(sparsity, times):
    """A negative weight times 0 would be -0.0: other bytes than 0.0, and 3.4 times in place of 3.9."""
    from zoo.backend import keras
    from zoo.compress import cluster, prune

    model = net(keras.layers.Dense(200), keras.layers.Dense(1), shape=(200,))
    kernel, x = model.layers[0].kernel, rows(64, 200)
    kernel.assign(rows(200, 200))
    before = zipped(kernel)
    with prune(model, sparsity, steps=8) as pruning:
        fit(model, x, x[:, :1], [pruning.callback()], epochs=2)
    assert zeros(kernel) == sparsity
    assert not np.signbit(np.asarray(kernel)[np.asarray(kernel) == 0]).any()
    assert before / zipped(kernel) > times
    with cluster(model, 8):
        fit(model, x, x[:, :1])
    assert zeros(kernel) >= sparsity
    assert not np.signbit(np.asarray(kernel)[np.asarray(kernel) == 0]).any()


def test_distilling_takes_dicts_and_refuses_models_without_a_graph():
    from zoo.backend import keras
    from zoo.compress import distill

    def of_two(width):
        inputs = {name: keras.Input((4,), name=name) for name in ("b", "a")}
        x = keras.layers.concatenate([keras.layers.Dense(width)(inputs[name]) for name in "ba"])
        return keras.Model(inputs, keras.layers.Dense(2)(x))

    class Graphless(keras.Model):
        pass

    x = {"a": rows(64, 4), "b": rows(64, 4)[::-1].copy()}
    teacher, student = of_two(8), of_two(2)

    def gap():
        answers = [model.predict(x, verbose=0) for model in (student, teacher)]
        return float(np.square(answers[0] - answers[1]).mean())

    before = gap()
    training = distill(student, teacher, weight=1.0, classes=False)
    training.compile(keras.optimizers.Adam(0.03), "mse")
    training.fit(x, np.zeros((64, 2)), epochs=20, batch_size=16, verbose=0)
    assert gap() < before / 10
    with pytest.raises(ValueError, match="received plain, of which no outputs are known"):
        distill(Graphless(name="plain"), teacher)
    with pytest.raises(
        ValueError, match=r"inputs of one shape, received a \(4,\), b \(4,\) and \(4,\)"
    ):
        distill(student, net(keras.layers.Dense(2), shape=(4,)))
    with pytest.raises(ValueError, match=r"outputs of one shape, received \(2,\) and \(3,\)"):
        distill(net(keras.layers.Dense(2)), net(keras.layers.Dense(3)))
    any_length, tokens = ((None,), (8,))
    embed = (
        keras.layers.Embedding(9, 4),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(2),
    )
    distill(net(*embed, shape=tokens), net(*embed, shape=any_length))


def test_samples_that_do_not_fit_leave_the_model_as_it_was():
    from zoo.backend import keras
    from zoo.compress import quantize_aware

    model, x = net(keras.layers.Dense(3), shape=(4,)), rows(8, 4)
    before, weights = model.predict(x, verbose=0), model.get_weights()
    with pytest.raises(ValueError, match="incompatible"):
        quantize_aware(model, rows(8, 5))
    assert type(model.layers[0]) is keras.layers.Dense
    assert np.array_equal(model.predict(x, verbose=0), before)
    assert all(map(np.array_equal, model.get_weights(), weights))


def test_a_pruning_needs_steps_and_a_file_a_known_format():
    from zoo.backend import keras
    from zoo.compress import prune, to_litert

    model = net(keras.layers.Dense(3), shape=(4,))
    with pytest.raises(ValueError, match="more steps than begin, 10, received 10"):
        prune(model, 0.5, steps=10, begin=10)
    with pytest.raises(ValueError, match=r"one of float32, float16.* received 'int7'"):
        to_litert(model, "int7")


@pytest.mark.parametrize("module", ["pruning", "clustering", "quantizing", "distilling"], ids=str)
def test_examples_of_the_docstrings(module):
    found = doctest.testmod(importlib.import_module(f"zoo.compress.{module}"))
    assert found.attempted > 3
    assert found.failed == 0


def test_names_of_the_package():
    import zoo.compress as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.prunes  # noqa: B018


def test_kernels_are_found_wherever_they_are():
    from zoo.compress import kernels

    found = kernels(every_kind(), "all")
    names = {kernel.name for kernel in found}
    layers = [type(k.layer).__name__ for k in found]
    assert layers.count("EinsumDense") == 4  # query, key, value and the output of the attention
    assert layers.count("LSTMCell") == 4  # two directions, each with a recurrent kernel
    assert layers.count("GRUCell") == 2
    assert {"Embedding", "DepthwiseConv2D", "Conv2D", "Dense"} <= set(layers)
    assert {"inner/inside", "last", "table"} <= names
    assert len({k.name for k in found}) == len(found)


def test_default_choice_and_patterns():
    from zoo.compress import kernels

    model = every_kind()
    default = kernels(model)
    assert all(k.size >= 1024 for k in default)
    assert "Embedding" not in {type(k.layer).__name__ for k in default}
    assert [k.name for k in kernels(model, ["inside", "Embedding"])] == [
        "table",
        "inner/inside",
    ]
    with pytest.raises(ValueError, match="no kernel matches 'outside'"):
        kernels(model, "outside")


def test_matrix_view_of_kernels():
    """The view has the channels that LiteRT gives ranges of their own as columns."""
    from zoo.compress import kernels

    wanted = {
        "query": (32, 32),
        "attention_output": (32, 32),
        "depthwise": (9, 32),
        "conv": (288, 16),
    }
    for kernel in kernels(every_kind(), "all"):
        values = np.arange(kernel.size, dtype="float32").reshape(kernel.variable.shape)
        matrix = np.asarray(kernel.matrix(values))
        assert np.array_equal(np.asarray(kernel.unmatrix(matrix)), values)
        assert matrix.shape == wanted.get(kernel.layer.name, matrix.shape)


def test_two_by_four_holds_two_zeros_in_each_four_inputs():
    from zoo.backend import keras
    from zoo.compress import prune

    la = keras.layers
    model = net(la.Conv2D(16, 3), la.Conv2D(16, 3), la.Flatten(), la.Dense(32), shape=(6, 6, 4))
    with prune(model, by=(2, 4), steps=8, layers="all") as pruning:
        fit(model, rows(64, 6, 6, 4), rows(64, 32), [pruning.callback()])
    for layer in model.layers:
        if layer.weights:
            kernel = layer.get_weights()[0]
            groups = (kernel != 0).reshape(-1, kernel.shape[-2] // 4, 4, kernel.shape[-1])
            assert (groups.sum(axis=2) == 2).all()


def test_blocks_are_zeroed_together():
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1), shape=(40,))
    with prune(model, 0.5, steps=8, block=(4, 2)) as pruning:
        fit(model, rows(64, 40), rows(64, 1), [pruning.callback()])
    blocks = (model.layers[0].get_weights()[0] != 0).reshape(10, 4, 32, 2).sum(axis=(1, 3))
    assert set(np.unique(blocks)) == {0, 8}
    assert (blocks == 0).mean() == 0.5


def test_one_threshold_for_all_kernels():
    """A kernel ten times as large keeps more; the sum has the sparsity."""
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(64), shape=(64,))
    first, second = (layer.kernel for layer in model.layers)
    first.assign(first.value * 10)
    pruning = prune(model, 0.5, steps=8, across=True)
    pruning.finish()
    pruning.release()
    shares = zeros(first), zeros(second)
    assert shares[0] < 0.1 < 0.9 < shares[1]
    assert np.mean(shares) == pytest.approx(0.5, abs=1e-3)


def test_constant_schedule_prunes_at_once():
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), shape=(40,))
    pruning = prune(model, 0.5, steps=100, schedule="constant")
    pruning.renew(0)
    assert zeros(model.layers[0].kernel) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sparsity": 1.0}, "below 1"),
        ({"sparsity": None}, "below 1"),
        ({"by": (4, 2)}, "0 < m < n"),
        ({"sparsity": 0.5, "by": (2, 4), "across": True}, "one of"),
        ({"sparsity": 0.5, "schedule": "cubic"}, "polynomial"),
        ({"sparsity": 0.5, "layers": "x"}, "no kernel matches"),
    ],
)
def test_wrong_pruning_says_what_is_expected(arguments, says):
    from zoo.backend import keras
    from zoo.compress import prune

    with pytest.raises(ValueError, match=says):
        prune(net(keras.layers.Dense(4)), steps=4, **arguments)


def test_masks_under_two_replicas_are_the_same():
    """In a process of its own: logical devices must be made before anything else."""
    import subprocess
    import sys

    program = """
from zoo.backend import tf, keras
import numpy as np
from zoo.compress import prune
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(size=(128, 40)).astype("float32")
with strategy.scope():
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    pruning = prune(model, 0.75, steps=16)
    model.compile("adam", "mse")
model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0, callbacks=[pruning.callback()])
(masked,) = pruning.kernels
one, two = (np.asarray(v) for v in masked.mask.values)
kernels = [np.asarray(v) for v in masked.kernel.value.values]
assert np.array_equal(one, two) and np.array_equal(*kernels), "replicas differ"
assert one.mean() == 0.25 and np.array_equal(kernels[0] != 0, one == 1), one.mean()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
