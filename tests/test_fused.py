"""Operations with the same results as Keras', exchanged while the training step is traced."""

from __future__ import annotations

import contextlib
import math
import re

import numpy as np
import pytest


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
