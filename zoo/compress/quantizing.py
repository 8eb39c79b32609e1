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

import threading
from collections.abc import Sequence
from typing import Any

from zoo.compress.mot import mot
from zoo.kernels import Kernel, all_kernels, flat_layers
from zoo.overrides import Attached, override, reading, restore
from zoo.signature import count_of, rows_of

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
CHUNK = 32  # samples that a calibration looks at together


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


class Place:
    """Where a layer's inputs or outputs are rounded: a range for each of its calls and tensors.

    A layer that a model uses at several places is called as often in each pass, in the same order.
    """

    def __init__(self, calls: int, tensors: int) -> None:
        self.ranges = [[Range() for _ in range(tensors)] for _ in range(calls)]
        self.called = 0

    def next(self) -> list[Range]:
        """The ranges of the call that is made now."""
        self.called += 1
        return self.ranges[(self.called - 1) % len(self.ranges)]


class FakeQuantizer(Attached):
    """Rounds a model's kernels and activations to 8 bits while it trains; :func:`quantize_aware`."""

    def __init__(self, model: Any, samples: Any, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        self.kernels = all_kernels(model)
        self.places: list[Place] = []
        self._overridden: list[Any] = []
        self._observed: dict[int, tuple[float, float]] | None = None
        # Of the pass that the model as a whole is in, where that is told; replicas have a thread each.
        self._pass = threading.local()
        if not self.kernels:
            raise ValueError("the model has no kernel that can be quantised")
        for kernel in self.kernels:
            self._override(
                kernel.layer,
                {kernel.attribute: reading(kernel.layer, kernel.attribute, _rounded(kernel))},
            )
        graph = Graph(model)
        for layer in flat_layers(model):
            outward = _is(layer, OUTPUTS) and id(layer) not in graph.fused
            inward = id(layer) in graph.first
            if outward or inward:
                calls, taken, given = graph.uses.get(id(layer), (1, 1, 1))
                together = _is(layer, ("Concatenate",))  # LiteRT has one scale for all its tensors
                entering = self._place(calls, 1 if together else taken) if inward else None
                leaving = self._place(calls, given) if outward else None
                self._override(layer, {"call": self._call(type(layer).call, entering, leaving)})
        if not _nodes(model):
            self._override(
                model,
                {
                    "call": self._during(type(model).call),
                    "train_step": self._during(type(model).train_step, True),
                },
            )
        if samples is not None:
            try:
                self.calibrate(samples)
            except BaseException:  # samples that the model does not take: it stays what it was
                self._give_back()
                raise

    @property
    def ranges(self) -> list[Range]:
        """Those of all activations."""
        return [one for place in self.places for call in place.ranges for one in call]

    @property
    def variables(self) -> list[Any]:  # type: ignore[override]
        """The activations' ranges; a kernel's is found anew in each step."""
        return [bound for found in self.ranges for bound in (found.low, found.high)]

    def _override(self, layer: Any, members: dict[str, Any]) -> None:
        override(layer, members)
        self._overridden.append(layer)

    def _place(self, calls: int, tensors: int) -> Place:
        self.places.append(Place(calls, tensors))
        return self.places[-1]

    def _call(self, call: Any, entering: Place | None, leaving: Place | None) -> Any:
        """A ``call`` that rounds what a layer is given, what it gives, or both."""
        quantizer = self

        def rounded_call(self: Any, *args: Any, **kwargs: Any) -> Any:
            training = getattr(quantizer._pass, "training", None)
            if training is None:
                training = self._get_call_context().get_value("training")
            if entering is not None:
                masks = {name: value for name, value in kwargs.items() if "mask" in name}
                others = {name: value for name, value in kwargs.items() if name not in masks}
                args, others = quantizer._round((args, others), entering.next(), training)
                kwargs = {**others, **masks}
            outputs = call(self, *args, **kwargs)
            if leaving is None:
                return outputs
            return quantizer._round(outputs, leaving.next(), training)

        return rounded_call

    def _during(self, method: Any, training: bool | None = None) -> Any:
        """The ``method`` of a model without a graph, during which it is known if this is training.

        Keras tells it to a ``call`` that has an argument for it, and what one layer is told by its
        caller (``training=False``, of a frozen base) to all layers after it.
        """
        quantizer = self

        def known(self: Any, *args: Any, **kwargs: Any) -> Any:
            before = getattr(quantizer._pass, "training", None)
            if before is None:
                told = (
                    self._get_call_context().get_value("training") if training is None else training
                )
                quantizer._pass.training = told
            try:
                return method(self, *args, **kwargs)
            finally:
                quantizer._pass.training = before

        return known

    def _round(self, structure: Any, ranges: list[Range], training: Any) -> Any:
        """The float tensors of a structure, rounded: each in its range, or all of them in one."""
        from zoo.backend import keras, tf

        leaves = keras.tree.flatten(structure)
        places = [k for k, leaf in enumerate(leaves)
                  if tf.is_tensor(leaf) and tf.as_dtype(leaf.dtype).is_floating]  # fmt: skip
        values = [tf.cast(leaves[k], tf.float32) for k in places]
        if len(values) <= len(ranges):
            rounded = [self._rounded(value, found, training)
                       for value, found in zip(values, ranges, strict=False)]  # fmt: skip
        else:
            joined = tf.concat([tf.reshape(value, [-1]) for value in values], 0)
            parts = tf.split(
                self._rounded(joined, ranges[0], training), [tf.size(v) for v in values]
            )
            rounded = [tf.ensure_shape(tf.reshape(part, tf.shape(value)), value.shape)
                       for part, value in zip(parts, values, strict=True)]  # fmt: skip
        for k, value in zip(places, rounded, strict=True):
            leaves[k] = tf.cast(value, leaves[k].dtype)
        return keras.tree.pack_sequence_as(structure, leaves)

    def _rounded(self, values: Any, found: Range, training: Any) -> Any:
        from zoo.backend import tf

        if self._observed is not None:
            low, high = self._observed.get(id(found), (0.0, 0.0))
            self._observed[id(found)] = (
                min(low, float(tf.reduce_min(values))),
                max(high, float(tf.reduce_max(values))),
            )
            return values
        return mot("quantization.keras.quant_ops").MovingAvgQuantize(
            values, found.low, found.high, ema_decay=self.decay, is_training=bool(training)
        )

    def calibrate(self, samples: Any) -> None:
        """Set the activations' ranges to those of ``samples``, unrounded, as :func:`quantize_aware` does
        at its start: after a training of few steps, their moving average is still behind what the weights
        became. A conversion calibrates anew in any case.
        """
        if not self._attached:
            raise ValueError("expected a model that is still rounded, received a released handle")
        count = count_of(samples)
        if not count:
            raise ValueError(
                "expected samples to start the activations' ranges from, received none"
            )
        self._observed = {}
        try:
            for start in range(0, count, CHUNK):  # a graph keeps all its tensors to the end
                for place in self.places:
                    place.called = 0
                self.model(rows_of(samples, start, start + CHUNK), training=False)
            for found in self.ranges:
                found.assign(*self._observed.get(id(found), (-6.0, 6.0)))
            for place in self.places:  # as often as the layer was called, not as its graph says
                place.ranges = place.ranges[: max(1, place.called)]
                place.called = 0
        finally:
            self._observed = None

    def _release(self) -> None:
        """Give the layers their own calls back, and snap the kernels to their grid.

        Not those whose weights something else still changes on their way into the layer: rounded
        here, some would then be nearest to another centroid than the one they were trained at.
        """
        self._give_back()
        _snap([k for k in self.kernels if getattr(k.layer, k.attribute) is k.variable])

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
    _snap(all_kernels(model))


def _snap(chosen: Sequence[Kernel]) -> None:
    for kernel in chosen:
        kernel.variable.assign(_rounded(kernel)(kernel.variable.value))


class _Passing:
    """Where TF-MOT keeps the end of a kernel's range, which is found anew in each step.

    A variable could not be written to in each turn of a recurrent layer's loop on several replicas.
    """

    @staticmethod
    def assign(value: Any, name: str | None = None) -> Any:
        from zoo.backend import tf

        return tf.stop_gradient(value, name=name)


def _rounded(kernel: Kernel) -> Any:
    """``f(weights)``: TF-MOT's fake quantisation of a kernel, a symmetric range a channel."""
    from zoo.backend import tf

    quant_ops = mot("quantization.keras.quant_ops")

    def rounded(weights: Any) -> Any:
        weights = tf.convert_to_tensor(weights)
        matrix = quant_ops.LastValueQuantize(
            tf.cast(kernel.matrix(weights), tf.float32),
            _Passing,
            _Passing,
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


class Graph:
    """What the graphs of a model, and those of the models in it, say about its layers.

    ``first`` are the ids of the layers that read the model's input, ``fused`` of those whose output
    LiteRT computes within the next one. ``uses`` holds a layer's calls in a pass, the most tensors
    that one of them is given, and the most it gives.
    """

    def __init__(self, model: Any) -> None:
        self.first: set[int] = set()
        self.uses: dict[int, tuple[int, int, int]] = {}
        consumers: dict[int, list[Any]] = {}
        for graph in (model, *flat_layers(model)):
            for node in _nodes(graph):
                for producer in (tensor._keras_history.operation for tensor in node.input_tensors):
                    if _is(producer, ("InputLayer",)) and graph is model:
                        self.first.add(id(node.operation))
                    consumers.setdefault(id(producer), []).append(node.operation)
        self.fused = {
            producer
            for producer, after in consumers.items()
            if after and all(map(_absorbed, after))
        }
        self._count(model, 1)

    def _count(self, outer: Any, times: int, within: set[int] | None = None) -> None:
        """Add the calls of the layers within ``outer``, which is called so often."""
        nodes = _nodes(outer)
        for node in nodes:
            self._add(node.operation, times, len(node.input_tensors), len(node.output_tensors))
            self._count(node.operation, times)
        within = set() if within is None else within
        for layer in [] if nodes else getattr(outer, "_layers", []):
            if id(layer) not in within:  # what its owner does with it is not known: one call
                within.add(id(layer))
                self._add(layer, times, 1, 1)
                self._count(layer, times, within)

    def _add(self, layer: Any, times: int, taken: int, given: int) -> None:
        before = self.uses.get(id(layer), (0, 1, 1))
        self.uses[id(layer)] = (before[0] + times, max(before[1], taken), max(before[2], given))


def _nodes(graph: Any) -> list[Any]:
    """The calls that make up a functional model, without its inputs; none of other layers."""
    from zoo.backend import keras

    graph = getattr(graph, "_functional", None) or graph  # a Sequential holds one
    if not isinstance(graph, keras.Model):
        return []
    by_depth = getattr(graph, "_nodes_by_depth", {})
    return [node for nodes in by_depth.values() for node in nodes if node.input_tensors]


def _absorbed(layer: Any) -> bool:
    if _is(layer, ("Activation",)):
        return getattr(layer.activation, "__name__", "") in FUSED_ACTIVATIONS
    return _is(layer, FUSED)
