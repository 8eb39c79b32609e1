"""What users' own Keras 3 models and trainings bring along: EMA, LoRA, mixed precision, saved files."""

from __future__ import annotations

import numpy as np
import pytest
from test_compress_api import fit, net, rows, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.*distutils.*:DeprecationWarning")


def test_what_a_model_computes_after_release_is_its_own():
    """Keras keeps the steps that it traced with the overridden layers."""
    from zoo.backend import keras
    from zoo.compress import cluster, prune, quantize_aware

    x = rows(64, 20)
    for attach in (
        lambda m: quantize_aware(m, x),
        lambda m: cluster(m, 4),
        lambda m: prune(m, 0.5, steps=4),
    ):
        model = net(keras.layers.Dense(64), keras.layers.Dense(1))
        with attach(model) as handle:
            fit(model, x, x[:, :1], [handle.callback()])
            model.evaluate(x, x[:, :1], batch_size=64, verbose=0)
        for weight in model.weights:
            weight.assign(weight + 0.01 * np.random.default_rng(1).normal(size=weight.shape))
        said = ((np.asarray(model(x)) - x[:, :1]) ** 2).mean()
        assert model.evaluate(x, x[:, :1], batch_size=64, verbose=0) == pytest.approx(said, 1e-4)
        model.fit(x, x[:, :1], verbose=0)
        assert zeros(model.layers[0].kernel) == 0


def test_a_pruning_that_was_not_told_of_the_steps_says_so():
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    x = rows(64, 20)
    with (
        pytest.warns(UserWarning, match="without the pruning's callback"),
        prune(model, 0.5, steps=4),
    ):
        fit(model, x, x[:, :1])
    with prune(model, 0.5, steps=4):
        pass  # never trained, so nothing was forgotten
    with pytest.raises(ValueError, match=r"or by=\(m, n\), received '2by4'"):
        prune(model, "2by4", steps=4)


def test_samples_that_are_no_numbers_are_refused():
    from zoo.backend import keras
    from zoo.compress import to_litert

    model = net(keras.layers.Dense(8))
    with pytest.raises(ValueError, match="finite"):
        to_litert(model, "int8", np.full((8, 20), np.nan, np.float32))


def test_a_second_release_changes_nothing():
    """One in the block, before training goes on, and the block's own."""
    from zoo.backend import keras
    from zoo.compress import cluster, keep_zeros, prune, quantize_aware

    for attach in (
        keep_zeros,
        lambda m: cluster(m, 4),
        quantize_aware,
        lambda m: prune(m, 0.5, steps=2),
    ):
        model = net(keras.layers.Dense(64), keras.layers.Dense(1))
        with attach(model) as handle:
            handle.release()
            kernel = rows(20, 64)
            model.layers[0].kernel.assign(kernel)
        assert np.array_equal(model.layers[0].kernel.numpy(), kernel)
        assert model.layers[0].kernel.constraint is None


def test_files_and_copies_made_inside_the_block_are_of_the_models_own_classes(tmp_path):
    from zoo.backend import keras
    from zoo.compress import prune, quantize_aware

    la = keras.layers
    tokens = keras.Input((6,), dtype="int32")
    x = la.Embedding(30, 16)(tokens)
    x = la.LayerNormalization()(la.Add()([x, la.MultiHeadAttention(2, 8)(x, x)]))
    model = keras.Model(tokens, la.Dense(3)(la.LSTM(8)(x)))
    ids = np.random.default_rng(0).integers(0, 30, (16, 6)).astype("int32")
    plain = np.asarray(model(ids))
    with prune(model, 0.5, steps=4), quantize_aware(model, ids):
        model.save(tmp_path / "m.keras")
        copy = keras.models.clone_model(model)
        assert np.abs(np.asarray(model(ids)) - plain).max() > 0
    loaded = keras.models.load_model(tmp_path / "m.keras")
    copy.set_weights(loaded.get_weights())
    for other in (loaded, copy):  # the file holds weights as they are read meanwhile: rounded
        assert 0 < np.abs(np.asarray(other(ids)) - plain).max() < 0.01
        assert [type(layer) for layer in other.layers] == [type(layer) for layer in model.layers]


def test_zeros_survive_an_optimizers_average_of_the_weights():
    from zoo.backend import keras
    from zoo.compress import keep_zeros, prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    prune(model, 0.75, steps=2).finish()
    x = rows(64, 20)
    with keep_zeros(model):
        model.compile(keras.optimizers.Adam(1e-2, use_ema=True), "mse")
        model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
    assert zeros(model.layers[0].kernel) == 0.75


def test_pruning_counts_updates_where_gradients_accumulate():
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    x, seen = rows(64, 20), []
    with prune(model, 0.75, steps=8, every=1, growth=1.0) as pruning:
        count = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(zeros(model.layers[0].kernel)))  # fmt: skip
        model.compile(keras.optimizers.Adam(gradient_accumulation_steps=2), "mse")
        model.fit(
            x, x[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=[pruning.callback(), count]
        )
    assert seen[-1] == zeros(model.layers[0].kernel) == 0.75
    assert seen[0] < seen[5] < seen[9] < 0.75


def test_lora_is_refused():
    from zoo.backend import keras
    from zoo.compress import cluster, keep_zeros, prune, quantize_aware, snap

    model = net(keras.layers.Dense(64, name="wide"), keras.layers.Dense(1))
    model.layers[0].enable_lora(2)
    for call in (lambda: prune(model, 0.5, steps=4), lambda: cluster(model, 4), lambda: snap(model),
                 lambda: keep_zeros(model), lambda: quantize_aware(model, rows(8, 20))):  # fmt: skip
        with pytest.raises(ValueError, match="wide has LoRA enabled"):
            call()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_other_precisions(policy):
    from zoo.backend import keras
    from zoo.compress import cluster, keep_zeros, prune, quantize_aware

    def dense(width, **more):
        return keras.layers.Dense(width, dtype=policy, **more)

    model = net(dense(64, activation="relu"), dense(1))
    x = rows(16, 20)
    prune(model, 0.5, steps=2).finish()
    kernel = model.layers[0].kernel
    share = zeros(kernel)  # in 8 bits of mantissa several weights are the one at the threshold
    assert 0.45 < share <= 0.5 if policy == "bfloat16" else share == 0.5
    with keep_zeros(model), cluster(model, 8):
        fit(model, x, x[:, :1])
    values = len(np.unique(np.asarray(kernel.value, "float32")))
    assert zeros(kernel) >= share
    assert 2 < values <= 8
    with keep_zeros(model), quantize_aware(model, x):
        fit(model, x, x[:, :1])
    assert zeros(kernel) >= share


@pytest.mark.parametrize("classes", [True, False])
def test_distilling_in_mixed_precision_and_by_features(classes):
    from zoo.backend import keras
    from zoo.compress import distill

    policy = "mixed_bfloat16"
    student = net(
        keras.layers.Dense(8, dtype=policy, name="mid"), keras.layers.Dense(3, dtype=policy)
    )
    teacher = net(keras.layers.Dense(8, name="mid"), keras.layers.Dense(3))
    training = distill(student, teacher, classes=classes, features={"mid": "mid"})
    fit(training, rows(32, 20), rows(32, 3))
    assert np.isfinite(np.asarray(student(rows(8, 20)), "float32")).all()


def test_a_kernel_with_fewer_values_than_clusters_keeps_its_own():
    from zoo.backend import keras
    from zoo.compress import cluster, prune

    model = net(keras.layers.Dense(16), keras.layers.Dense(1))
    prune(model, 0.9, steps=2).finish()
    x = rows(32, 20)
    with cluster(model, 64):
        fit(model, x, x[:, :1])
    for layer in model.layers:
        assert (
            len(np.unique(np.asarray(layer.kernel)))
            <= layer.kernel.shape[0] * layer.kernel.shape[1]
        )
    assert zeros(model.layers[0].kernel) >= 0.9


def test_blocks_leave_kernels_alone_that_one_block_would_cover():
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(10), shape=(128,))
    handle = prune(model, 0.5, steps=8, block=(1, 16))
    handle.finish()
    assert [masked.of.layer for masked in handle.kernels] == [model.layers[0]]
    assert zeros(model.layers[0].kernel) == 0.5
    assert zeros(model.layers[1].kernel) == 0
    with pytest.raises(
        ValueError, match="no kernel is larger than a block of 1 inputs by 100 outputs"
    ):
        prune(model, 0.5, steps=8, block=(1, 100))


def test_2_by_4_runs_along_the_inputs_of_every_kind_of_kernel():
    from zoo.backend import keras
    from zoo.compress import kernels, prune

    la = keras.layers
    image = keras.Input((8, 8, 8))
    x = la.Conv2DTranspose(16, 2, name="up")(image)
    x = la.Conv2D(8, 3, name="conv")(la.DepthwiseConv2D(4, name="deep")(x))
    x = la.EinsumDense("abcd,ed->abce", (None, None, 12), name="turned")(x)
    model = keras.Model(image, x)
    prune(model, by=(2, 4), steps=8, layers="all").finish()
    for kernel in kernels(model, "all"):
        matrix = np.asarray(kernel.matrix(kernel.variable.value))
        groups = (matrix == 0).reshape(-1, 4, matrix.shape[1]).sum(axis=1)
        assert (groups == 2).all(), kernel.name


def test_every_tensor_and_every_call_has_a_range_of_its_own():
    from zoo.backend import keras
    from zoo.compress import quantize_aware

    la = keras.layers
    small, large = keras.Input((4,)), keras.Input((4,))
    relu = la.ReLU()
    both = la.Add()([relu(small), relu(la.Rescaling(0.1)(large))])
    model = keras.Model([small, large], la.Dense(1)(la.Concatenate()([both, large])))
    rng = np.random.default_rng(0)
    x = [
        rng.uniform(0, 1, (64, 4)).astype("float32"),
        rng.uniform(0, 1000, (64, 4)).astype("float32"),
    ]
    handle = quantize_aware(model, x, decay=0.9)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(x, x[0][:, :1], batch_size=8, epochs=10, verbose=0)
    ranges = [one for place in handle.places[:-1] for call in place.ranges for one in call]
    highs = sorted(float(one.high.numpy()) for one in ranges)  # all but Dense's, the last one
    handle.release()
    # The relu's input and output, once up to 1 and once to 100; their sum; what is joined; the inputs.
    assert highs == pytest.approx([1, 1, 100, 100, 101, 1000, 1000, 1000], rel=0.08)


def test_layers_that_are_called_by_keyword_and_give_several_tensors():
    from zoo.backend import keras
    from zoo.compress import quantize_aware

    la = keras.layers
    series = keras.Input((6, 8))
    x = la.MultiHeadAttention(2, 4)(query=series, value=series)
    whole, state, cell = la.LSTM(4, return_state=True, return_sequences=True)(sequences=x)
    model = keras.Model(series, la.Dense(1)(la.Concatenate()([la.Flatten()(whole), state, cell])))
    x = rows(32, 6, 8)
    with quantize_aware(model, x):
        fit(model, x, x[:, 0, :1], epochs=2)
    assert np.isfinite(model.predict(x, verbose=0)).all()


def test_int8_unrolls_what_is_wrapped_and_reads_less_than_the_input_holds():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.backend import keras
    from zoo.compress import to_litert

    la = keras.layers
    model = net(la.Reshape((10, 30)), la.Bidirectional(la.LSTM(4)), la.Dense(2), shape=(300,))
    x = rows(64, 300)
    interpreter = Interpreter(model_content=to_litert(model, "int8", x))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[:1])
    interpreter.invoke()
    said = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    outputs = np.asarray(model(x))
    assert np.abs(said - outputs[:1]).max() < 0.1 * outputs.std()
