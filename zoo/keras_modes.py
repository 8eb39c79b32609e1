"""Keras' own quantisation, ``model.quantize(mode)``: what it covers, and how its weights are read back.

A mode packs the kernels of the layers that Keras covers into 8 or 4 bits, where they stay: what comes
out runs in Keras and nowhere else. LiteRT's converter fails on ``int8`` of Keras, and from ``int4`` it
makes a file that answers wrongly, without a word.
"""

from __future__ import annotations

import gc
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import NOT_APPLICABLE, ZooError
from zoo.kernels import flat_layers

#: Classes of ``keras.layers`` that Keras packs, and which of them the calibrated modes take.
COVERED = ("Dense", "EinsumDense", "Embedding", "ReversibleEmbedding")
IN_BLOCKS = ("Dense", "EinsumDense")
#: keras-hub's Transformer blocks, which the calibrated modes go through one after another.
BLOCKS = ("TransformerEncoder", "TransformerDecoder")
CALIBRATION_ROWS = 128
NO_LITERT = (
    "Keras packs these weights for its own layers: LiteRT's converter fails on its int8, and from its "
    "int4 makes a file that answers wrongly"
)


@dataclass(frozen=True)
class Mode:
    """One mode: ``config(structure, ids)`` gives Keras' configuration, ``source`` is the method's.

    ``calibrated`` modes go through the blocks of a language model with training rows: ``structure`` is
    what Keras asks for, ``ids`` the rows' ids, int32 (n, length); both None to read weights back.
    """

    name: str
    config: Callable[[dict[str, Any] | None, np.ndarray | None], Any]
    calibrated: bool
    source: str


def _plain(name: str) -> Callable[..., Any]:
    def config(structure: Any, ids: Any) -> Any:
        from zoo.backend import keras

        return getattr(keras.quantizers, name)()

    return config


def _calibrated(name: str) -> Callable[..., Any]:
    def config(structure: dict[str, Any] | None, ids: np.ndarray | None) -> Any:
        from zoo.backend import keras

        # All rows as one sample: of several, Keras draws windows that begin in the middle of a row, at
        # a place that Python's hash decides, which is another one in each process.
        return getattr(keras.quantizers, name)(
            dataset=None if ids is None else [ids.ravel()],
            tokenizer=_no_text,
            num_samples=1,
            sequence_length=1 if ids is None else ids.size,
            weight_bits=4,
            quantization_layer_structure=structure,
        )

    return config


def _no_text(text: str) -> Any:
    raise TypeError(f"calibration rows are ids, not texts: {text!r}")


MODES: dict[str, Mode] = {
    row.name: row
    for row in (
        Mode("int8", _plain("Int8QuantizationConfig"), False, "Keras: int8 weights, activations "
             "rounded to 8 bits by the range of each row"),
        Mode("int4", _plain("Int4QuantizationConfig"), False, "Keras: int4 weights in groups of 128 "
             "inputs, float activations"),
        Mode("gptq", _calibrated("GPTQConfig"), True, "Frantar, Ashkboos, Hoefler & Alistarh, "
             "ICLR 2023: int4 weights that make up for each other's errors"),
        Mode("awq", _calibrated("AWQConfig"), True, "Lin et al., MLSys 2024: int4 weights, the "
             "channels with large activations scaled up first"),
    )
}  # fmt: skip


def covered(model: Any, mode: str) -> list[Any]:
    """The layers of a model that a mode packs. Raises :class:`ZooError` where there is none."""
    if MODES[mode].calibrated:
        return [
            layer for block in blocks(model, mode) for layer in _leaves(block._flatten_layers())
            if _is(layer, IN_BLOCKS)
        ]  # fmt: skip
    found = [layer for layer in _leaves(flat_layers(model)) if _is(layer, COVERED)]
    if not found:
        kinds = sorted({type(layer).__name__ for layer in _leaves(flat_layers(model))})
        raise _refused(
            model, mode, f"a layer of the kinds {', '.join(COVERED)}", f"layers {', '.join(kinds)}"
        )
    return found


def blocks(model: Any, mode: str) -> list[Any]:
    """A model's Transformer blocks, in the order in which it calls them. Raises :class:`ZooError` for a model that is not a chain of them."""
    from zoo.backend import keras_nlp

    classes = tuple(getattr(keras_nlp.layers, name) for name in BLOCKS)
    found = [layer for layer in flat_layers(model) if isinstance(layer, classes)]
    (tensor,) = model.inputs
    wanted = f"a language model: ids through a chain of {' or '.join(BLOCKS)} blocks"
    if "int" not in str(tensor.dtype):
        raise _refused(model, mode, wanted, f"inputs of {tensor.dtype}, which are no ids")
    if not found:
        raise _refused(model, mode, wanted, "no such block")
    chain = _chain(model, found)
    if len(chain) != len(found):
        raise _refused(
            model, mode, wanted,
            "blocks that read more than the one before: Keras hands each block one input",
        )  # fmt: skip
    return chain


def _refused(model: Any, mode: str, expected: str, received: str) -> ZooError:
    return ZooError(
        f"'keras:{mode}' does not apply to {model.name!r}.",
        expected=expected,
        received=received,
        hint="LiteRT's own formats take every layer: int8, dynamic, float16.",
        kind=NOT_APPLICABLE,
    )


def _leaves(layers: Any) -> Iterator[Any]:
    return (layer for layer in layers if len(list(layer._flatten_layers())) == 1 and layer.weights)


def _is(layer: Any, names: tuple[str, ...]) -> bool:
    """Of one of the classes, or of a subclass that computes as it does (keras-hub's embedding)."""
    from zoo.backend import keras

    classes = [getattr(keras.layers, name) for name in names]
    return any(isinstance(layer, c) and type(layer).call is c.call for c in classes)


@contextmanager
def _watched(blocks: list[Any]) -> Iterator[list[tuple[Any, Any, bool, Any]]]:
    """(block, what came in, whether more did, what went out) of each call inside the ``with``."""
    seen: list[tuple[Any, Any, bool, Any]] = []
    calls = [block.call for block in blocks]

    def watching(block: Any, call: Any) -> Any:
        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            out = call(inputs, *args, **kwargs)
            more = bool(args) or kwargs.get("encoder_sequence") is not None
            seen.append((block, inputs, more, out))
            return out

        return watched

    try:
        for block, call in zip(blocks, calls, strict=True):
            block.call = watching(block, call)
        yield seen
    finally:
        for block, call in zip(blocks, calls, strict=True):
            block.call = call


def _chain(model: Any, found: list[Any]) -> list[Any]:
    """The blocks as the model calls them; none where one reads more than the one before made."""
    (tensor,) = model.inputs
    with _watched(found) as seen:
        model(np.ones((1, *tensor.shape[1:]), dtype=np.int32), training=False)
    alone = not any(more for _, _, more, _ in seen)
    chained = all(np.array_equal(one[3], after[1]) for one, after in itertools.pairwise(seen))
    return [block for block, *_ in seen] if alone and chained else []


class _Whole:
    """A block as Keras' calibration takes it, which hands the first of its outputs to the next block:
    here that is all rows."""

    def __init__(self, block: Any) -> None:
        self._block = block

    def __call__(self, inputs: Any) -> list[Any]:
        return [self._block(inputs)]

    def _flatten_layers(self) -> Any:
        return self._block._flatten_layers()


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Spares what is there from collections: Keras makes one for each variable that it deletes."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _calibrating(layers: list[Any]) -> Iterator[None]:
    """Let Keras' calibration see what the layers are given.

    It listens by putting a function in place of a layer's ``call``. A layer with a quantised policy
    does not run that (Keras 3.15), so that ``gptq`` would round without looking, and ``awq`` too.
    """

    def listened(layer: Any) -> Any:
        def quantized_call(*args: Any, **kwargs: Any) -> Any:
            call = vars(layer).get("call")
            if call is None or inspect.ismethod(call):  # its own, put back
                return type(layer).quantized_call(layer, *args, **kwargs)
            return call(*args, **kwargs)

        return quantized_call

    try:
        for layer in layers:
            layer.quantized_call = listened(layer)
        yield
    finally:
        for layer in layers:
            del layer.quantized_call


def quantize(model: Any, mode: str, ids: np.ndarray | None = None) -> list[Any]:
    """Pack a model's weights in place, by ``model.quantize``.

    Args:
        model: a built Keras 3 model.
        mode: a name of :data:`MODES`.
        ids: int32 (n, length), training rows, for a calibrated mode.
    Returns the layers that were packed. Raises :class:`ZooError` where the mode does not apply.
    """
    row, layers = MODES[mode], covered(model, mode)
    structure = rows = None
    if row.calibrated:
        if ids is None or not len(ids):
            raise ValueError(f"keras:{mode} needs training rows to calibrate with")
        rows = np.ascontiguousarray(ids[:CALIBRATION_ROWS], dtype=np.int32)
        chain = blocks(model, mode)

        def before(flat: Any) -> Any:
            with _watched(chain[:1]) as seen:
                model(np.asarray(flat).reshape(rows.shape), training=False)
            return seen[0][1]

        structure = {
            "pre_block_layers": [before],
            "sequential_blocks": [_Whole(block) for block in chain],
        }
    chosen = {id(layer) for layer in layers}
    with _frozen_heap(), _calibrating(layers if row.calibrated else []):
        model.quantize(
            config=row.config(structure, rows),
            filters=lambda layer: id(layer) in chosen,
            type_check=False,  # keras-hub's embedding is an empty subclass
        )
    return layers


def rebuild(model: Any, mode: str) -> None:
    """Give a fresh model the packed variables of a mode, to be filled with weights from a file."""
    row = MODES[mode]
    layers = covered(model, mode)
    config = row.config(None, None)
    with _frozen_heap():
        for layer in layers:
            layer.quantize(config.mode, type_check=False, config=config)
            if row.calibrated:
                del layer._kernel  # calibration does this, too


def calibrated(model: Any) -> None:
    """Tell a rebuilt model's layers that their packed weights are there now, as calibration does."""
    for layer in flat_layers(model):
        for name in ("is_gptq_calibrated", "is_awq_calibrated"):
            if hasattr(layer, name) and not hasattr(layer, "_kernel"):
                setattr(layer, name, True)
