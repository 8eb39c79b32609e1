"""Quantisation-aware training of Keras 3 models with TF-MOT's own operations.

The forward pass sees weights and activations rounded to the 8 bits that LiteRT will give them, the
backward pass the unrounded ones (Jacob et al., CVPR 2018). Kernels are rounded by TF-MOT's
``LastValueQuantize``, each output channel in a symmetric range of its own, activations by its
``MovingAvgQuantize``. At the end the kernels are *snapped* to their grid, so that an ordinary int8
conversion reproduces them exactly.

A batch normalisation after a convolution needs no folding here: folding multiplies each output channel
by a number, a symmetric range of that channel's own scales with it, and so the rounded weights of the
folded layer are the folded rounded weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.compress.mot import mot
from zoo.kernels import Kernel, all_kernels, flat_layers
from zoo.overrides import Attached, override, reading, restore

#: Layers whose outputs are tensors that LiteRT stores in 8 bits. Others hand on what they got
#: (flattening, maxima, dropout) or live inside a loop (recurrent cells).
OUTPUTS = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose",
           "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D",
           "SeparableConv2D", "BatchNormalization", "LayerNormalization", "Activation", "ReLU",
           "LeakyReLU", "PReLU", "ELU", "Softmax", "Add", "Subtract", "Multiply", "Average",
           "Maximum", "Minimum", "Concatenate", "AveragePooling1D", "AveragePooling2D",
           "AveragePooling3D", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
           "GlobalAveragePooling3D", "RNN", "LSTM", "GRU", "SimpleRNN")  # fmt: skip
#: Layers that LiteRT computes within the one before: that one's own output never exists there.
FUSED = ("BatchNormalization", "ReLU")
FUSED_ACTIVATIONS = ("relu", "relu6")


class Range:
    """The range of one activation: an exponential moving average of each batch's."""

    def __init__(self, limit: float = 6.0) -> None:
        from zoo.backend import tf

        def variable(value: float) -> Any:
            return tf.Variable(
                value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )

        self.low, self.high = variable(-limit), variable(limit)

    def assign(self, low: float, high: float) -> None:
        """Set the range, zero included, as LiteRT wants it."""
        self.low.assign(min(low, 0.0))
        self.high.assign(max(high, 0.0))


class FakeQuantizer(Attached):
    """Rounds a model's kernels and activations to 8 bits while it trains; :func:`quantize_aware`."""

    def __init__(self, model: Any, samples: Any, decay: float) -> None:
        self.model, self.decay = model, decay
        self.kernels = all_kernels(model)
        self.ranges: list[Range] = []
        self._overridden: list[Any] = []
        self._observed: dict[int, tuple[float, float]] | None = None
        if not self.kernels:
            raise ValueError("the model has no kernel that can be quantised")
        for kernel in self.kernels:
            self._override(
                kernel.layer,
                {kernel.attribute: reading(kernel.layer, kernel.attribute, _rounded(kernel))},
            )
        first, fused = _graph(model)
        for layer in flat_layers(model):
            outward = _is(layer, OUTPUTS) and id(layer) not in fused
            inward = id(layer) in first
            if outward or inward:
                self._override(layer, {"call": self._call(type(layer).call, inward, outward)})
        if samples is not None:
            try:
                self._calibrate(samples)
            except BaseException:  # samples that the model does not take: it stays what it was
                self._give_back()
                raise

    @property
    def variables(self) -> list[Any]:  # type: ignore[override]
        """The activations' ranges; a kernel's is found anew in each step."""
        return [bound for found in self.ranges for bound in (found.low, found.high)]

    def _override(self, layer: Any, members: dict[str, Any]) -> None:
        override(layer, members)
        self._overridden.append(layer)

    def _call(self, call: Any, inward: bool, outward: bool) -> Any:
        """A ``call`` that rounds the layer's first input, its outputs, or both."""
        entering = self._range() if inward else None
        leaving = self._range() if outward else None
        quantizer = self

        def rounded_call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            training = self._get_call_context().get_value("training")
            if entering is not None:
                inputs = quantizer._round(inputs, entering, training)
            outputs = call(self, inputs, *args, **kwargs)
            return outputs if leaving is None else quantizer._round(outputs, leaving, training)

        return rounded_call

    def _range(self) -> int:
        self.ranges.append(Range())
        return len(self.ranges) - 1

    def _round(self, values: Any, number: int, training: Any) -> Any:
        from zoo.backend import keras, tf

        quant_ops = mot("quantization.keras.quant_ops")

        def one(value: Any) -> Any:
            if not tf.as_dtype(value.dtype).is_floating:
                return value
            if self._observed is not None:
                low, high = self._observed.get(number, (0.0, 0.0))
                self._observed[number] = (
                    min(low, float(tf.reduce_min(value))),
                    max(high, float(tf.reduce_max(value))),
                )
                return value
            found = self.ranges[number]
            rounded = quant_ops.MovingAvgQuantize(
                tf.cast(value, tf.float32),
                found.low,
                found.high,
                ema_decay=self.decay,
                is_training=bool(training),
            )
            return tf.cast(rounded, value.dtype)

        return keras.tree.map_structure(one, values)

    def _calibrate(self, samples: Any) -> None:
        """Start the activations' ranges at those of ``samples``, unrounded."""
        self._observed = {}
        try:
            self.model(samples, training=False)
            for number, (low, high) in self._observed.items():
                self.ranges[number].assign(low, high)
        finally:
            self._observed = None

    def release(self) -> None:
        """Give the layers their own calls back, and snap the kernels to their grid."""
        self._give_back()
        snap(self.model)

    def _give_back(self) -> None:
        for layer in reversed(self._overridden):
            restore(layer)
        self._overridden = []


def quantize_aware(model: Any, samples: Any = None, *, decay: float = 0.999) -> FakeQuantizer:
    """Train a Keras 3 model for 8 bits: its weights and activations are rounded while it trains.

    Args:
        model: a built Keras 3 model. Kernels of Dense, EinsumDense, Conv, DepthwiseConv, Embedding
            layers and recurrent cells are rounded, also inside attention and nested models.
        samples: inputs, (n, ...) arrays in the structure that the model takes them in, that the
            activations' ranges start from; from -6 to 6 otherwise, as TF-MOT does, which takes some
            thousand steps to forget.
        decay: of the moving average of the activations' ranges, a step.

    Compile after this call, fit, then leave the ``with`` block or call ``release()``: the kernels are
    snapped to their int8 grid, which ``to_litert(model, "int8", samples)`` reproduces::

        >>> import numpy as np, keras
        >>> from zoo.compress import quantize_aware
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
        >>> with quantize_aware(model, x):
        ...     model.compile("adam", "mse")
        ...     _ = model.fit(x, x[:, 0], batch_size=16, verbose=0)
        >>> kernel = model.layers[0].get_weights()[0]
        >>> steps = kernel / (abs(kernel).max(axis=0) / 127)
        >>> bool(abs(steps - steps.round()).max() < 1e-3)
        True

    Returns the handle. Raises ``ValueError`` for a model without kernels.
    """
    return FakeQuantizer(model, samples, decay)


def snap(model: Any) -> None:
    """Round every kernel of a model to the int8 grid of each output channel."""
    for kernel in all_kernels(model):
        kernel.variable.assign(_rounded(kernel)(kernel.variable.value))


def _rounded(kernel: Kernel) -> Any:
    """``f(weights)``: TF-MOT's fake quantisation of a kernel, a symmetric range a channel."""
    from zoo.backend import tf

    quant_ops = mot("quantization.keras.quant_ops")
    channels = int(kernel.matrix(kernel.variable.value).shape[-1])
    low, high = (
        tf.Variable(
            tf.zeros(channels),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        for _ in range(2)
    )

    def rounded(weights: Any) -> Any:
        weights = tf.convert_to_tensor(weights)
        # With is_training=False the range would be the one of the step before.
        matrix = quant_ops.LastValueQuantize(
            tf.cast(kernel.matrix(weights), tf.float32),
            low,
            high,
            per_channel=True,
            is_training=True,
            num_bits=8,
            narrow_range=True,
            symmetric=True,
        )
        return tf.cast(kernel.unmatrix(matrix), weights.dtype)

    return rounded


def _is(layer: Any, names: tuple[str, ...]) -> bool:
    from zoo.backend import keras

    return isinstance(layer, tuple(getattr(keras.layers, name) for name in names))


def _graph(model: Any) -> tuple[set[int], set[int]]:
    """Ids of the layers that read a model's input, and of those whose output LiteRT fuses away."""
    first: set[int] = set()
    consumers: dict[int, list[Any]] = {}
    for graph in (model, *flat_layers(model)):
        for producer, consumer in _edges(graph):
            if _is(producer, ("InputLayer",)) and graph is model:
                first.add(id(consumer))
            consumers.setdefault(id(producer), []).append(consumer)
    fused = {
        producer for producer, after in consumers.items() if after and all(map(_absorbed, after))
    }
    return first, fused


def _edges(graph: Any) -> Iterator[tuple[Any, Any]]:
    """(producer, consumer) of a functional model's graph; nothing for other layers."""
    from zoo.backend import keras

    graph = getattr(graph, "_functional", None) or graph  # a Sequential holds one
    if not isinstance(graph, keras.Model):
        return
    for nodes in getattr(graph, "_nodes_by_depth", {}).values():
        for node in nodes:
            for tensor in node.input_tensors:
                yield tensor._keras_history.operation, node.operation


def _absorbed(layer: Any) -> bool:
    if _is(layer, ("Activation",)):
        return getattr(layer.activation, "__name__", "") in FUSED_ACTIVATIONS
    return _is(layer, FUSED)
