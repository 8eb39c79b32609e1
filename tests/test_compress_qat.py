"""Quantisation-aware training and clustering on Keras 3, and what LiteRT makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from test_compress_api import every_kind, fit, net, rows, zeros


def residual():
    """Convolutions with batch normalisation and a shortcut, on pictures of 8 x 8."""
    from zoo.backend import keras, seed_everything

    seed_everything(5)
    la = keras.layers
    image = keras.Input((8, 8, 3))
    x = la.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = la.ReLU(name="relu")(la.BatchNormalization(name="norm")(x))
    y = la.DepthwiseConv2D(3, padding="same", activation="relu", name="deep")(x)
    y = la.Conv2D(8, 1, name="point")(y)
    x = la.MaxPooling2D()(la.Add(name="add")([x, y]))
    return keras.Model(image, la.Dense(4, name="last")(la.Flatten()(x)))


def codes(kernel) -> np.ndarray:
    """A kernel in steps of each output channel's own int8 grid."""
    matrix = np.asarray(kernel.matrix(kernel.variable.value))
    return matrix / np.maximum(np.abs(matrix).max(axis=0) / 127, 1e-30)


def litert_weights(content: bytes) -> list[np.ndarray]:
    """Every constant int8 tensor of a LiteRT file, times its scales."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    found = []
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if detail["dtype"] is np.int8 and len(scales):
            try:
                values = interpreter.get_tensor(detail["index"]).astype(np.float64)
            except ValueError:  # an activation
                continue
            axis = detail["quantization_parameters"]["quantized_dimension"]
            shape = [1] * values.ndim
            shape[axis] = -1
            found.append(values * (scales.reshape(shape) if len(scales) > 1 else scales[0]))
    return found


def test_activations_are_rounded_where_litert_stores_them():
    from zoo.compress import quantize_aware

    model = residual()
    handle = quantize_aware(model)
    rounding = {layer.name for layer in handle._overridden if "call" in vars(type(layer))}
    handle.release()
    # The stem and the normalisation are computed within the ReLU after them; the stem's input counts.
    assert rounding == {"stem", "relu", "deep", "point", "add", "last"}


def test_release_gives_every_layer_its_class_back():
    from zoo.compress import cluster, keep_zeros, quantize_aware

    model = every_kind()
    layers = list(model._flatten_layers(include_self=False))
    classes = [type(layer) for layer in layers]
    names = [weight.path for weight in model.weights]
    with keep_zeros(model), cluster(model, 4, layers="all"), quantize_aware(model):
        assert [type(layer) for layer in layers] != classes
        assert len(model.trainable_weights) > len(names) - 4
    assert [type(layer) for layer in layers] == classes
    assert [weight.path for weight in model.weights] == names


def test_every_kernel_ends_sparse_and_on_its_grid():
    """Embeddings, attention, recurrent cells and depthwise convolutions among them, in one training."""
    from zoo.compress import kernels, prune, quantize_aware

    model = every_kind()
    tokens = np.random.default_rng(0).integers(0, 60, (32, 4)).astype("int32")
    before = [kernel.variable.numpy() for kernel in kernels(model, "all")]
    with prune(model, 0.75, steps=2, layers="all") as pruning, quantize_aware(model, tokens):
        fit(model, tokens, rows(32, 1), [pruning.callback()])
    for kernel, old in zip(kernels(model, "all"), before, strict=True):
        steps = codes(kernel)
        assert np.abs(steps - steps.round()).max() < 1e-3, kernel.name
        assert np.abs(steps).max() == pytest.approx(127, abs=1e-3)
        kept = kernel.variable.numpy() != 0
        assert np.abs(kernel.variable.numpy() - old)[kept].max() > 1e-4, (
            f"{kernel.name} not trained"
        )
        # rounding makes zeros of its own, of weights under half a step
        assert kept.sum() <= max(1, round(kernel.size * 0.25))
        assert kept.sum() >= 0.9 * round(kernel.size * 0.25)
        assert kernel.variable.constraint is None


def test_rounded_forward_pass_differs_and_plain_one_returns():
    from zoo.compress import quantize_aware

    model = residual()
    x = rows(16, 8, 8, 3)
    plain = model(x).numpy()
    handle = quantize_aware(model, x)
    rounded = model(x).numpy()
    handle.release()
    step = (plain.max() - plain.min()) / 255
    assert 0 < np.abs(rounded - plain).max() < 40 * step
    assert len(np.unique(np.round(rounded / step, 2))) < rounded.size  # outputs are on a grid


def test_calibrated_ranges_follow_what_a_short_training_made():
    """Outputs that grow tenfold in a few steps are cut off by a moving average, not after it is set anew."""
    from zoo.backend import keras, seed_everything
    from zoo.compress import quantize_aware

    seed_everything(0)
    x = rows(64, 8)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    with quantize_aware(model, x) as handle:
        model.compile(keras.optimizers.SGD(0.3), "mse")
        before = np.abs(model.predict(x, verbose=0)).max()
        model.fit(x, 20 * x[:, :1], batch_size=16, epochs=2, verbose=0)
        behind = model.predict(x, verbose=0)
        handle.calibrate(x)
        said = model.predict(x, verbose=0)
    exact = model.predict(x, verbose=0)
    largest = np.abs(exact).max()
    assert largest > 5 * before
    assert np.abs(behind - exact).max() > 0.5 * largest
    assert np.abs(said - exact).max() < 0.02 * largest


def test_folding_a_batch_normalisation_keeps_the_grid(tmp_path):
    """LiteRT folds it into the convolution; its int8 weights are the folded rounded ones."""
    from zoo.compress import quantize_aware
    from zoo.export import to_litert

    model = residual()
    x = rows(64, 8, 8, 3)
    with quantize_aware(model, x):
        fit(model, x, rows(64, 4), epochs=2)
    norm, stem = model.get_layer("norm"), model.get_layer("stem").kernel.numpy()
    scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    folded = np.moveaxis(stem * scale, -1, 0)  # LiteRT's order: output channels first
    found = [w for w in litert_weights(to_litert(model, "int8", x)) if w.shape == folded.shape]
    gaps = [np.abs(w - folded).max() for w in found]
    assert min(gaps) < 1e-6 * np.abs(folded).max() * 127


def test_int8_file_holds_the_snapped_weights_and_says_the_same(tmp_path):
    from zoo.compress import quantize_aware
    from zoo.export import to_litert
    from zoo.predict import Artifact

    model = residual()
    x, y = rows(256, 8, 8, 3), rows(256, 4)
    handle = quantize_aware(model, x)
    fit(model, x, y, epochs=2)
    simulated = model(x, training=False).numpy()
    handle.release()
    path = tmp_path / "model.tflite"
    path.write_bytes(to_litert(model, "int8", x))
    weights = litert_weights(path.read_bytes())
    last = model.get_layer("last").kernel.numpy().T
    assert min(np.abs(w - last).max() for w in weights if w.shape == last.shape) < 1e-6
    gap = np.abs(Artifact(path)(x) - simulated)
    assert gap.mean() < 0.02 * (simulated.max() - simulated.min())


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_clusters_and_zeros_survive_the_chain(aggregation):
    """prune -> cluster -> qat: sparsity and number of values hold to the end."""
    from zoo.backend import keras
    from zoo.compress import cluster, keep_clusters, keep_zeros, prune, quantize_aware, snap

    model = net(keras.layers.Dense(64, "relu"), keras.layers.Dense(1), shape=(40,))
    kernel = model.layers[0].kernel
    x = rows(128, 40)
    y = x[:, :1] - x[:, 1:2]
    with prune(model, 0.6, steps=8) as pruning:
        fit(model, x, y, [pruning.callback()])
    gone = kernel.numpy() == 0
    with cluster(model, 8, aggregation=aggregation):
        fit(model, x, y, epochs=2, per_call=4)
    clustered = kernel.numpy()
    assert (clustered[gone] == 0).all()
    assert len(np.unique(clustered)) <= 8
    zero = clustered == 0
    with keep_zeros(model), keep_clusters(model), quantize_aware(model, x):
        fit(model, x, y, epochs=2)
    snap(model)
    assert (kernel.numpy()[zero] == 0).all()
    columns = [len(np.unique(column)) for column in kernel.numpy().T]
    assert max(columns) <= 8
    assert np.abs(kernel.numpy() - clustered).max() > 1e-4


@pytest.mark.parametrize("initial", ["kmeans++", "linear", "density", "random"])
def test_first_centroids_are_tf_mots(initial):
    from zoo.backend import keras
    from zoo.compress.clustering import cluster

    model = net(keras.layers.Dense(64), shape=(40,))
    kernel = model.layers[0].kernel
    old = kernel.numpy()
    handle = cluster(model, 6, initial=initial)
    centroids = np.asarray(handle.kernels[0].centroids)
    handle.release()
    assert len(centroids) == 6
    assert old.min() - 0.02 <= centroids.min() <= centroids.max() <= old.max() + 0.02
    nearest = centroids[np.abs(old[..., None] - centroids).argmin(axis=-1)]
    assert np.allclose(kernel.numpy(), nearest)
    if initial == "linear":
        assert np.allclose(centroids, np.linspace(old.min(), old.max(), 6), atol=1e-6)


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_centroids_get_the_gradients_of_their_members(aggregation):
    """Against the sum and the mean of the weights' own gradients, by NumPy."""
    from zoo.backend import keras, tf
    from zoo.compress import cluster

    model = net(keras.layers.Dense(64), shape=(40,))
    x = rows(16, 40)
    handle = cluster(model, 4, aggregation=aggregation)
    made = handle.kernels[0]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x)))
    got, straight = tape.gradient(loss, [made.centroids.value, made.of.variable.value])
    straight = straight.numpy()
    distance = np.abs(made.of.variable.numpy()[..., None] - np.asarray(made.centroids))
    nearest = distance.argmin(axis=-1)
    members = [straight[nearest == k] for k in range(4)]
    wanted = [m.sum() if aggregation == "sum" else m.mean() for m in members]
    handle.release()
    assert np.allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-7)


def test_wrong_clustering_says_what_is_expected():
    from zoo.backend import keras
    from zoo.compress import cluster

    model = net(keras.layers.Dense(4))
    with pytest.raises(ValueError, match="2 to 256"):
        cluster(model, 1)
    with pytest.raises(ValueError, match=r"kmeans\+\+"):
        cluster(model, 4, initial="best")


def test_a_student_comes_nearer_to_its_teacher():
    """Teachers that are right: the student that listens has the smaller distance from them."""
    from zoo.backend import keras
    from zoo.compress import distill

    x = rows(256, 8)
    y = (x[:, 0] * x[:, 1] > 0).astype("int64") + 2 * (x[:, 2] > 0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher = net(keras.layers.Dense(64, "relu"), keras.layers.Dense(4), shape=(8,))
    teacher.compile(keras.optimizers.Adam(0.01), loss)
    teacher.fit(x, y, epochs=6, verbose=0)
    gaps = []
    for weight in (0.0, 1.0):
        student = net(keras.layers.Dense(12, "relu"), keras.layers.Dense(4), shape=(8,))
        training = distill(student, teacher, weight=weight, temperature=2)
        training.compile(keras.optimizers.Adam(0.01), loss)
        training.fit(x, y, epochs=6, verbose=0)
        softened = [keras.ops.softmax(m(x) / 2).numpy() for m in (student, teacher)]
        gaps.append(float(np.abs(softened[0] - softened[1]).mean()))
        assert not any(v is w for v in training.trainable_weights for w in teacher.weights)
    assert gaps[1] < gaps[0]


def test_features_and_outputs_must_fit():
    from zoo.backend import keras
    from zoo.compress import distill

    def two(width):
        return net(keras.layers.Dense(width, name="hidden"), keras.layers.Dense(1), shape=(8,))

    x = rows(32, 8)
    student = two(6)
    training = distill(student, two(6), classes=False, features={"hidden": "hidden"})
    training.compile("adam", "mse")
    training.fit(x, x[:, :1], verbose=0)
    with pytest.raises(ValueError, match="features of one shape"):
        distill(student, two(5), features={"hidden": "hidden"})
    with pytest.raises(ValueError, match="outputs of one shape"):
        distill(student, net(keras.layers.Dense(2), shape=(8,)))
    with pytest.raises(ValueError, match="temperature"):
        distill(student, two(6), temperature=0.5)


def test_zeros_stay_under_training():
    from zoo.backend import keras
    from zoo.compress import keep_zeros

    model = net(keras.layers.Dense(64), shape=(40,))
    kernel = model.layers[0].kernel
    kernel.assign(np.where(np.abs(kernel.numpy()) < 0.1, 0, kernel.numpy()))
    gone = kernel.numpy() == 0
    with keep_zeros(model):
        fit(model, rows(64, 40), rows(64, 64))
    assert zeros(kernel) == pytest.approx(gone.mean())
    assert (kernel.numpy()[gone] == 0).all()
