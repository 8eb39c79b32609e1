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

    recurrent = [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.RNN)]
    taken = keras.tree.flatten(taken_inputs(model, samples)) if recurrent else []
    lengths = [one.shape[1] for one in taken if len(one.shape) > 1]
    longest = None if None in lengths else max(lengths, default=0)
    loops = [
        layer for layer in recurrent if (_length(layer, longest) or math.inf) <= LONGEST_UNROLLED
    ]
    before = [layer.unroll for layer in loops]
    try:
        for layer in loops:
            layer.unroll = True
        yield
    finally:
        for layer, value in zip(loops, before, strict=True):
            layer.unroll = value


def _length(layer: Any, otherwise: int | None) -> int | None:
    """The steps that a recurrent layer reads, if its place in a graph tells; ``otherwise`` if not."""
    try:
        found = layer.input.shape[1]
    except (AttributeError, ValueError):
        return otherwise
    return otherwise if found is None else int(found)


class _Floor:
    """The score of masked places in one attention: below the least one that was seen."""

    def __init__(self) -> None:
        self.least: float | None = None

    @property
    def value(self) -> float:
        return FLOOR if self.least is None else self.least - BELOW


@contextlib.contextmanager
def _masked_gently(model: Any, samples: Any) -> Iterator[None]:
    """Softmax layers, keras-hub's among them, and attention's fused path, which has the same mask."""
    from zoo.backend import keras

    layers = flat_layers(model)
    softmaxes = [layer for layer in layers if isinstance(layer, keras.layers.Softmax)]
    fused = [layer for layer in layers if isinstance(layer, keras.layers.MultiHeadAttention)]
    rates = [layer._dropout for layer in fused]
    floors = [_Floor() for _ in softmaxes]
    try:
        for layer, floor in zip(softmaxes, floors, strict=True):
            override(layer, {"call": _call(type(layer).call, floor)})
        for layer in fused:
            layer._dropout = layer._dropout or 1e-9  # else the scores never meet its softmax layer
        if samples is not None and softmaxes:
            for k in range(0, count_of(samples), 32):  # eagerly, so that the floors see the scores
                model(rows_of(samples, k, k + 32), training=False)
        yield
    finally:
        for layer, rate in zip(fused, rates, strict=True):
            layer._dropout = rate
        for layer in reversed(softmaxes):
            restore(layer)


def _call(before: Any, floor: _Floor) -> Any:
    from zoo.backend import keras, tf

    def call(self: Any, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return before(self, inputs)
        seen = tf.cast(mask, "bool")
        if tf.executing_eagerly():
            least = float(tf.reduce_min(tf.where(seen, inputs, tf.reduce_max(inputs))))
            floor.least = least if floor.least is None else min(least, floor.least)
        lowered = keras.ops.where(seen, inputs, keras.ops.cast(floor.value, inputs.dtype))
        shares = before(self, lowered)
        return keras.ops.where(seen, shares, keras.ops.zeros_like(shares))

    return call
