"""The ranges of a calibrated LiteRT file's activations, mended where the converter's calibrator errs.

- An operation that may run in place (MUL, ADD, SUB and others) writes its output over its input, and
  the calibrator reads the input's buffer afterwards: the input's range becomes the union with the
  output's. What is added to a residual, or rescaled, then has too large a scale, hundreds of times
  where a branch is small beside its residual. An interpreter that keeps every tensor sees the real ones.
- Operations of :data:`SAME_SCALE` share one scale among inputs and outputs, and the converter takes that
  of one of them: values of a wider one saturate. All of them get the range of the widest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

#: Operations whose 8-bit inputs and outputs must have the same scale, and whose outputs may span less.
#: MAXIMUM, MINIMUM and SELECT_V2 are left to the converter: they cut values off on purpose, or put
#: the huge numbers of a mask in.
SAME_SCALE = (
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE",
    "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D", "MIRROR_PAD", "PACK", "PAD", "PADV2",
    "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2",
    "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE",
    "TILE", "TOPK_V2", "TRANSPOSE", "UNPACK",
)  # fmt: skip


def remeasure(content: bytes, batches: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """A calibrated ``.tflite``, of float32 values with ranges -> the same with ranges that are right.

    The bodies of loops and branches keep the calibrator's ranges: of a loop an interpreter shows the
    last turn alone. So does a tensor in which no number is finite.

    Args:
        batches: what it was calibrated with: of each of the signature's inputs as many rows as a call
            takes.
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
    found = _observe(content, sorted(ranged), batches)
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

    kinds = {getattr(BuiltinOperator, name) for name in SAME_SCALE}
    of = {index: {index} for index in tensors}
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in kinds:
            ends = [int(k) for k in (*operator.inputs, *operator.outputs) if int(k) in of]
            whole = set().union(*(of[k] for k in ends))
            of.update(dict.fromkeys(whole, whole))
    return list({id(group): group for group in of.values()}.values())


def _observe(
    content: bytes, indices: list[int], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[int, tuple[float, float]]:
    """Each float32 tensor's least and greatest finite value over the samples."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    into = interpreter.get_signature_runner().get_input_details()
    shapes: dict[str, tuple[int, ...]] = {}
    found: dict[int, tuple[float, float]] = {}
    for batch in batches:
        if shapes != (shapes := {name: rows.shape for name, rows in batch.items()}):
            for name, details in into.items():
                interpreter.resize_tensor_input(details["index"], shapes[name])
            interpreter.allocate_tensors()
        for name, details in into.items():
            interpreter.set_tensor(details["index"], batch[name].astype(details["dtype"]))
        interpreter.invoke()
        for index in indices:
            values = interpreter.get_tensor(index)
            finite = values[np.isfinite(values)] if values.dtype == np.float32 else values[:0]
            if finite.size:
                low, high = found.get(index, (np.inf, -np.inf))
                found[index] = (min(low, float(finite.min())), max(high, float(finite.max())))
    return found
