"""The ranges of a calibrated LiteRT file's tensors, put right where the converter's own go wrong.

- An operation that may work in place (MUL, ADD, SUB and others) writes its output over its input, and
  the calibrator looks at the input's memory afterwards: the input's range takes the output's in. What
  is added to a residual, or scaled, then gets steps that are too coarse, hundreds of times where the
  branch is small beside the residual. An interpreter that keeps every tensor sees the real ones.
- Operations that only move numbers (:data:`MOVING`) have one scale for all that goes in and comes out,
  and the converter takes that of one of them: a wider one is cut off. They get the range of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

#: Operations whose 8-bit inputs and outputs must have the same scale, and whose outputs may span less.
MOVING = (
    "AVERAGE_POOL_2D", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER",
    "MAX_POOL_2D", "MIRROR_PAD", "PACK", "PAD", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE",
    "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
)  # fmt: skip


def remeasure(content: bytes, samples: np.ndarray, rows: int) -> bytes:
    """A calibrated ``.tflite``, of float numbers and ranges -> the same with ranges that are right.

    Ranges of tensors in the bodies of loops and branches stay as they are: no interpreter shows them.

    Args:
        samples: what it was calibrated with, inputs (n, ...).
        rows: inputs a call.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    graph = model.subgraphs[0]
    written = {*map(int, graph.inputs), *(int(k) for op in graph.operators for k in op.outputs)}
    ranged = {
        index: tensor.quantization
        for index, tensor in enumerate(graph.tensors)
        if index in written and _ranged(tensor.quantization)
    }
    found = _observe(content, sorted(ranged), samples, rows)
    for group in _groups(model, graph, found):
        low, high = min(found[k][0] for k in group), max(found[k][1] for k in group)
        for index in group:
            ranged[index].min, ranged[index].max = [low], [high]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _ranged(steps: Any) -> bool:
    return steps is not None and steps.min is not None and len(steps.min) == 1


def _groups(model: Any, graph: Any, tensors: Iterable[int]) -> list[set[int]]:
    """The tensors, parted into those that must have one scale."""
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    moving = {getattr(BuiltinOperator, name) for name in MOVING}
    of = {index: {index} for index in tensors}
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in moving:
            ends = [int(k) for k in (*operator.inputs, *operator.outputs) if int(k) in of]
            whole = set().union(*(of[k] for k in ends))
            of.update(dict.fromkeys(whole, whole))
    return list({id(group): group for group in of.values()}.values())


def _observe(
    content: bytes, indices: list[int], samples: np.ndarray, rows: int
) -> dict[int, tuple[float, float]]:
    """Each float tensor's least and greatest value over the samples."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (into,) = interpreter.get_input_details()
    found: dict[int, tuple[float, float]] = {}
    for start in range(0, len(samples), rows):
        batch = np.resize(samples[start : start + rows], (rows, *samples.shape[1:]))
        interpreter.set_tensor(into["index"], batch.astype(into["dtype"]))
        interpreter.invoke()
        for index in indices:
            values = interpreter.get_tensor(index)
            if values.dtype == np.float32 and values.size:
                low, high = found.get(index, (np.inf, -np.inf))
                found[index] = (min(low, float(values.min())), max(high, float(values.max())))
    return found
