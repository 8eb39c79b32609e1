"""What users do around the blocks of ``zoo.compress``: several fits, frozen layers, inner calls, weights."""

from __future__ import annotations

import numpy as np
import pytest
from test_compress_api import fit, net, rows, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.*distutils.*:DeprecationWarning")


def schedule(steps, final, growth=1.0):
    """Zhu & Gupta 2017, equation 1, from 0: the share of zeros after so many of ``steps``."""
    end = int(steps * growth)
    return [final * (1 - (1 - min(step / end, 1)) ** 3) for step in range(steps + 1)]


def test_a_schedule_goes_on_over_several_fits():
    """What a fit's end set to zero ahead of the schedule comes back with its values."""
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    kernel = model.layers[0].kernel
    x, seen = rows(160, 20), []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(zeros(kernel))

    with prune(model, 0.8, steps=40, growth=1.0, every=1) as pruning:
        model.compile(keras.optimizers.SGD(0.0), "mse")
        values = kernel.numpy()
        for _ in range(4):
            model.fit(
                x, x[:, :1], batch_size=16, verbose=0, callbacks=[pruning.callback(), Watch()]
            )
            assert zeros(kernel) == 0.8  # whenever it ends, it has what was asked for
            left = kernel.numpy() != 0
            assert np.array_equal(kernel.numpy()[left], values[left])
    assert seen == pytest.approx(schedule(40, 0.8)[1:], abs=1e-3)
    assert zeros(kernel) == 0.8


def test_an_optimizer_that_was_used_before_does_not_shorten_the_schedule():
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    x, seen = rows(160, 20), []
    optimizer = keras.optimizers.SGD(0.01)
    model.compile(optimizer, "mse")
    model.fit(x, x[:, :1], batch_size=4, verbose=0)  # 40 updates

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(zeros(model.layers[0].kernel))

    with prune(model, 0.8, steps=10, growth=1.0) as pruning:
        model.compile(optimizer, "mse")
        model.fit(x, x[:, :1], batch_size=16, verbose=0, callbacks=[pruning.callback(), Watch()])
    assert seen == pytest.approx(schedule(10, 0.8)[1:], abs=1e-3)


@pytest.mark.parametrize("wrong", [{"initial": 1.0}, {"begin": -1}, {"every": 0}, {"by": (3, 2)}])
def test_what_is_refused_leaves_the_model_alone(wrong):
    from zoo.backend import keras
    from zoo.compress import prune

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    with pytest.raises(ValueError, match=r".+"):
        prune(model, 0.5, steps=10, **wrong)
    assert model.layers[0].kernel.constraint is None


def test_frozen_layers_are_clustered_and_not_trained():
    from zoo.backend import keras
    from zoo.compress import cluster

    frozen = keras.layers.Dense(64, trainable=False)
    model = net(frozen, keras.layers.Dense(64), keras.layers.Dense(1))
    x = rows(64, 20)
    with cluster(model, 4):
        at = [np.unique(np.asarray(layer.kernel)) for layer in model.layers[:2]]
        fit(model, x, x[:, :1], epochs=3)
    after = [np.unique(layer.kernel.numpy()) for layer in model.layers[:2]]
    assert np.array_equal(at[0], after[0])
    assert not np.allclose(at[1], after[1])


def test_nearest_centroids_are_those_of_tf_mot():
    from zoo.backend import tf
    from zoo.compress.clustering import nearest
    from zoo.compress.mot import mot

    weights = tf.constant(rows(30, 40))
    for centroids in ([0.3, -1.0, 2.0, 0.0], [0.5], [-0.1, 0.1]):
        values = tf.constant(centroids)
        theirs = mot("clustering.keras.clustering_algorithm").ClusteringAlgorithm(
            tf.Variable(values), mot("clustering.keras.cluster_config").GradientAggregation.SUM
        )
        expected = theirs.get_pulling_indices(weights).numpy()
        assert np.array_equal(nearest(weights, values).numpy(), expected)


def test_what_ships_after_clusters_and_rounding_is_what_was_trained():
    """Each weight ends at the rounded centroid that the last step's pass saw it at."""
    from zoo.backend import keras
    from zoo.compress import cluster, quantize_aware
    from zoo.compress.clustering import keep_clusters
    from zoo.compress.quantizing import snap

    model = net(keras.layers.Dense(64), keras.layers.Dense(1))
    x = rows(256, 20)
    with cluster(model, 16):
        fit(model, x, x[:, :1])
    with keep_clusters(model), quantize_aware(model, x):
        fit(model, x, x[:, :1], epochs=20)
        trained = np.asarray(model.layers[0].kernel)
    snap(model)
    shipped = model.layers[0].kernel.numpy()
    assert len(np.unique(trained)) > 8
    np.testing.assert_allclose(shipped, trained, atol=1e-6)


def test_ranges_move_where_an_inner_model_is_called_for_inference():
    """``self.base(x, training=False)`` tells all layers after it, by Keras' context, the same."""
    from zoo.backend import keras
    from zoo.compress import quantize_aware

    class Tuned(keras.Model):
        def __init__(self):
            super().__init__()
            self.base = keras.Sequential([keras.layers.Dense(16)])
            self.head = keras.layers.Dense(1)

        def call(self, inputs):
            return self.head(self.base(inputs, training=False))

    x = rows(64, 8)
    model = Tuned()
    model(x)
    with quantize_aware(model, x, decay=0.5) as rounding:
        before = [float(one.high.numpy()) for one in rounding.ranges]
        fit(model, x, np.full((64, 1), 30.0), epochs=40)
        after = [float(one.high.numpy()) for one in rounding.ranges]
        assert after[-1] > 1.5 * before[-1]
        model.evaluate(x, np.full((64, 1), 30.0), verbose=0)
        assert [float(one.high.numpy()) for one in rounding.ranges] == after


def test_calibrating_takes_a_few_samples_at_a_time():
    from zoo.backend import keras
    from zoo.compress import quantize_aware

    seen = []

    @keras.saving.register_keras_serializable()
    class Counting(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs.shape[0])
            return inputs

    model = net(keras.layers.Dense(16, "relu"), Counting(), keras.layers.Dense(1))
    x = rows(100, 20)
    seen.clear()
    with quantize_aware(model, x) as rounding:
        highs = [float(one.high.numpy()) for one in rounding.ranges]
        assert seen == [32, 32, 32, 4]
    hidden = np.asarray(model.layers[0](x))
    said = np.asarray(model(x))
    assert highs == pytest.approx([x.max(), hidden.max(), said.max()], rel=1e-5)
    with pytest.raises(ValueError, match="received none"):
        quantize_aware(model, x[:0])


def test_convolutional_lstms_and_untied_embeddings_have_kernels():
    from zoo.backend import keras
    from zoo.compress import cluster, prune, quantize_aware
    from zoo.kernels import kernels

    la = keras.layers
    video = net(la.ConvLSTM2D(8, 3), la.Flatten(), la.Dense(1), shape=(3, 8, 8, 2))
    assert [k.attribute for k in kernels(video, "all")] == ["kernel", "recurrent_kernel", "kernel"]
    x = rows(16, 3, 8, 8, 2)
    prune(video, 0.5, steps=2).finish()
    cell = video.layers[0].cell
    with cluster(video, 8, layers="all"):
        fit(video, x, x[:, 0, 0, 0, :1])
    assert max(len(np.unique(w.numpy())) for w in (cell.kernel, cell.recurrent_kernel)) <= 8
    with quantize_aware(video, x):
        fit(video, x, x[:, 0, 0, 0, :1])
    steps = cell.kernel.numpy() / (np.abs(cell.kernel.numpy()).max(axis=(0, 1, 2)) / 127)
    assert np.abs(steps - steps.round()).max() < 1e-3

    tokens = keras.Input((4,), dtype="int32")
    table = la.ReversibleEmbedding(50, 32, tie_weights=False, name="words")
    language = keras.Model(tokens, table(la.Dense(32)(table(tokens)), reverse=True))
    found = {k.attribute: k.outputs for k in kernels(language, ["words"])}
    assert found == {"embeddings": (), "reverse_embeddings": (1,)}
    prune(language, 0.75, steps=2, layers="all").finish()
    assert zeros(table.reverse_embeddings) == 0.75


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_clusters_by_mean_and_converts(policy):
    from zoo.backend import keras
    from zoo.compress import cluster, to_litert
    from zoo.predict import Artifact

    model = net(keras.layers.Dense(64, "relu", dtype=policy), keras.layers.Dense(3, dtype=policy))
    x = rows(64, 20)
    with cluster(model, 4, aggregation="mean"):
        fit(model, x, x[:, :3])
    whole = net(keras.layers.Dense(64, "relu"), keras.layers.Dense(3))
    whole.set_weights(model.get_weights())
    expected = np.asarray(whole(x))
    for format, off in (("float32", 1e-5), ("int8", 0.05)):
        said = _litert(to_litert(model, format, x), Artifact)(x)
        assert np.abs(said - expected).max() <= off * np.ptp(expected), format
    assert [layer.compute_dtype for layer in model.layers] == [policy.removeprefix("mixed_")] * 2


def _litert(content, artifact):
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "model.tflite"
    path.write_bytes(content)
    return artifact(path)


def test_distilling_counts_sample_weights_and_takes_a_list_of_one_input():
    """Rows of weight 0, filling, pull the student nowhere."""
    from zoo.backend import keras
    from zoo.compress import distill

    inputs = keras.Input((8,))
    teacher = keras.Model([inputs], keras.layers.Dense(3)(inputs))
    x = rows(64, 8)
    y = np.zeros(64, "int64")
    counted = np.r_[np.ones(32), np.zeros(32)].astype("float32")
    made = []
    first = [rows(8, 3), np.zeros(3, "float32")]
    for rest in (x[32:], 100 * x[32:]):
        student = net(keras.layers.Dense(3), shape=(8,))
        student.set_weights(first)
        training = distill(student, teacher, weight=1.0)
        training.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        training.fit(np.r_[x[:32], rest], y, sample_weight=counted, batch_size=64, shuffle=False,
                     epochs=2, verbose=0)  # fmt: skip
        made.append(student.get_weights())
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_distilling_places_counts_those_that_have_a_weight():
    """As Keras' own loss does: the mean over all places of the weighted distances."""
    from zoo.backend import keras
    from zoo.compress import distill

    teacher, student = (net(keras.layers.Dense(width), keras.layers.Dense(5), shape=(6, 8))
                        for width in (9, 4))  # fmt: skip
    x, weights = rows(4, 6, 8), (np.arange(24).reshape(4, 6) % 3 > 0).astype("float32")
    training = distill(student, teacher, weight=1.0, temperature=2.0)
    training.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    y = np.zeros((4, 6), "int64")
    loss = training.compute_loss(x, y, training(x), weights)
    said, meant = (np.asarray(m(x)) / 2 for m in (student, teacher))
    share = np.exp(meant) / np.exp(meant).sum(-1, keepdims=True)
    far = -(share * (said - np.log(np.exp(said).sum(-1, keepdims=True)))).sum(-1)
    assert float(loss) == pytest.approx(4 * (far * weights).mean(), rel=1e-5)
