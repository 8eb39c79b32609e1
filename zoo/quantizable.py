"""What stands in the way of integers in a Keras model, taken out of it while it is converted.

Calibration looks at every tensor's range. Two things ruin it: loops, in which the calibrator of LiteRT
crashes the process, and the huge negative numbers that attention adds where it must not look, beside
which the scores are all the same in 8 bits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from zoo.kernels import flat_layers
from zoo.overrides import override, restore
from zoo.signature import count_of, rows_of, taken_inputs

#: Steps of a recurrent layer that are written out one by one; of more than these it stays a loop.
LONGEST_UNROLLED = 256
#: How far below the least score the masked ones are put: a share of exp(-12) = 6e-6 of the least.
BELOW = 12.0
#: A score of a masked place, where there are no samples to find the least score of.
FLOOR = -20.0


@contextlib.contextmanager
def quantizable(model: Any, samples: Any) -> Iterator[None]:
    """The same model, as far as anyone can tell from its outputs, with tensors that fit 8 bits.

    Recurrent layers are unrolled where their length is known and at most :data:`LONGEST_UNROLLED`.
    In masked attention the masked scores are :data:`BELOW` the least score of ``samples``, inputs
    (n, ...) of the model; masked probabilities stay exactly 0. It is undone at the end of the block.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(unrolled(model, samples))
        stack.enter_context(_masked_gently(model, samples))
        yield


@contextlib.contextmanager
def unrolled(model: Any, samples: Any = None) -> Iterator[None]:
    """Recurrent layers without a loop, where their length is known and not too long."""
    from zoo.backend import keras

    layers = flat_layers(model)
    recurrent = {id(layer): layer for layer in layers if isinstance(layer, keras.layers.RNN)}
    taken = keras.tree.flatten(taken_inputs(model, samples)) if recurrent else []
    lengths = [one.shape[1] for one in taken if len(one.shape) > 1]
    longest = None if None in lengths else max(lengths, default=0)
    known = {key: _length(layer) for key, layer in recurrent.items()}
    for both in (layer for layer in layers if isinstance(layer, keras.layers.Bidirectional)):
        for one in (both.forward_layer, both.backward_layer):  # their place in the graph is its own
            known[id(one)] = _length(both)
    loops = [
        layer for key, layer in recurrent.items()
        if (known[key] or longest or math.inf) <= LONGEST_UNROLLED
    ]  # fmt: skip
    before = [layer.unroll for layer in loops]
    try:
        for layer in loops:
            layer.unroll = True
        yield
    finally:
        for layer, value in zip(loops, before, strict=True):
            layer.unroll = value


@contextlib.contextmanager
def full_precision(model: Any) -> Iterator[None]:
    """Layers that compute in the precision of their weights: a file has one and no mixture."""
    mixed = [layer for layer in (model, *flat_layers(model))
             if layer.compute_dtype != layer.variable_dtype and not layer.quantization_mode]  # fmt: skip
    before = [layer.dtype_policy for layer in mixed]
    try:
        for layer in mixed:
            layer.dtype_policy = layer.variable_dtype
        yield
    finally:
        for layer, policy in zip(mixed, before, strict=True):
            layer.dtype_policy = policy


def _length(layer: Any) -> int | None:
    """The most steps that a recurrent layer reads, if its places in a graph tell."""
    found = [node.input_tensors[0].shape[1] for node in layer._inbound_nodes if node.input_tensors]
    return None if None in found else max(found, default=None)


class _Floor:
    """The score of masked places in one attention: below the least one that was seen."""

    def __init__(self) -> None:
        self.least: float | None = None

    def under(self, scores: Any, seen: Any) -> Any:
        """The scores, those of places that are not to be seen put below the others."""
        from zoo.backend import keras, tf

        if tf.executing_eagerly():
            least = float(tf.reduce_min(tf.where(seen, scores, tf.reduce_max(scores))))
            self.least = least if self.least is None else min(least, self.least)
        value = FLOOR if self.least is None else self.least - BELOW
        return keras.ops.where(seen, scores, keras.ops.cast(value, scores.dtype))


@contextlib.contextmanager
def _masked_gently(model: Any, samples: Any) -> Iterator[None]:
    """Every attention of Keras and keras-hub, the fused paths among them, which have the same mask."""
    from zoo.backend import keras

    layers = flat_layers(model)
    members = {keras.layers.Softmax: _softmax, keras.layers.Attention: _apply_scores}
    masked = [(layer, made) for layer in layers for kind, made in members.items()
              if isinstance(layer, kind)]  # fmt: skip
    rates = {
        keras.layers.MultiHeadAttention: "_dropout",
        keras.layers.GroupQueryAttention: "dropout",
    }
    fused = [(layer, rate) for layer in layers for kind, rate in rates.items()
             if isinstance(layer, kind)]  # fmt: skip
    before = [getattr(layer, rate) for layer, rate in fused]
    try:
        for layer, made in masked:
            override(layer, made(type(layer), _Floor()))
        for layer, rate in fused:  # else the scores never meet its softmax layer
            setattr(layer, rate, getattr(layer, rate) or 1e-9)
        if samples is not None and masked:
            for k in range(0, count_of(samples), 32):  # eagerly, so that the floors see the scores
                model(rows_of(samples, k, k + 32), training=False)
        yield
    finally:
        for (layer, rate), value in zip(fused, before, strict=True):
            setattr(layer, rate, value)
        for layer, _ in reversed(masked):
            restore(layer)


def _softmax(base: Any, floor: _Floor) -> dict[str, Any]:
    """What a Softmax layer, as multi-head attention has one, computes instead."""
    from zoo.backend import keras, tf

    def call(self: Any, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return base.call(self, inputs)
        seen = tf.cast(mask, "bool")
        shares = base.call(self, floor.under(inputs, seen))
        return keras.ops.where(seen, shares, keras.ops.zeros_like(shares))

    return {"call": call}


def _apply_scores(base: Any, floor: _Floor) -> dict[str, Any]:
    """What Attention and AdditiveAttention compute instead, in inference."""
    from zoo.backend import keras, tf

    def apply(
        self: Any, scores: Any, value: Any, scores_mask: Any = None, training: bool = False
    ) -> Any:
        if scores_mask is None:
            return base._apply_scores(self, scores, value, None, training)
        seen = tf.cast(scores_mask, "bool")
        seen = seen[:, None] if len(seen.shape) == 2 else seen
        shares = keras.ops.softmax(floor.under(scores, seen), axis=-1)
        shares = keras.ops.where(seen, shares, keras.ops.zeros_like(shares))
        return keras.ops.matmul(shares, value), shares

    return {"_apply_scores": apply}
