"""A LiteRT file with the same numbers in fewer bytes: short names, tied embeddings and equal lists once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

#: Of a constant's bytes in a file (schema.fbs: ``force_align: 16``).
ALIGNMENT = 16
#: LiteRT's version of an operation that is put into a file, where it is not 1. A runtime too old for it
#: refuses the file; EMBEDDING_LOOKUP has known a scale for each row since 4.
VERSIONS = {"EMBEDDING_LOOKUP": 4}


def slim(content: bytes) -> bytes:
    """A ``.tflite`` from the converter -> one that answers alike."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for graph in model.subgraphs:
        _shorten_names(model, graph)
        _share_tables(model, graph)
    builder = _builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _builder() -> Any:
    """What writes a file: a vector once, however many tables hold it.

    An int8 layer of n channels has 2 n zero points of 8 bytes, all of them 0: of a small Transformer
    they are a tenth of the file. FlatBuffers lets tables share what they point to.
    """
    import flatbuffers

    class Sharing(flatbuffers.Builder):
        def __init__(self) -> None:
            super().__init__(1024)
            self._written: dict[Any, int] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 - flatbuffers' own name
            key = (x.dtype.str, x.size, hashlib.sha256(x.tobytes()).digest())
            if key not in self._written:
                if x.dtype == np.uint8:  # a constant's bytes, which the schema wants aligned
                    self.Prep(ALIGNMENT, x.size)
                self._written[key] = super().CreateNumpyVector(x)
            return self._written[key]

    return Sharing()


def _shorten_names(model: Any, graph: Any) -> None:
    """Take the names of activations away, and leave constants the first of theirs.

    A fused operation is named after all that it was made of, which is a hundredth of a small int8
    file. Inputs and outputs keep their names, and the signature its own.
    """
    kept = {*graph.inputs, *graph.outputs}
    for index, tensor in enumerate(graph.tensors):
        if index not in kept and tensor.name:
            constant = _content(model, tensor) is not None
            first = tensor.name.partition(b";")[0]  # model/layer/operation
            tensor.name = first.partition(b"/")[2] or first if constant else None


def _share_tables(model: Any, graph: Any) -> None:
    """Look the rows of an embedding up in the output layer that is its transpose, where one is.

    The converter stores such a table twice: in steps of one size for the lookup (GATHER), and of one
    size a row for the product, which are finer. EMBEDDING_LOOKUP reads the latter, as floats.
    """
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    read: dict[int, list[Any]] = {}  # tensor -> the operators that read it
    for operator in graph.operators:
        for index in () if operator.inputs is None else set(map(int, operator.inputs)):
            read.setdefault(index, []).append(operator)

    def only_by(kind: int) -> Iterator[int]:
        """The constant matrices that operators of one kind read, and no others."""
        for index, found in list(read.items()):
            kinds = {model.operatorCodes[op.opcodeIndex].builtinCode for op in found}
            if index >= 0 and kinds == {kind} and _matrix(model, graph.tensors[index]):
                yield index

    products = list(only_by(BuiltinOperator.FULLY_CONNECTED))
    for table in only_by(BuiltinOperator.GATHER):
        if all(_takes_rows(graph, gather, table) for gather in read[table]):
            coarse = graph.tensors[table]
            for fine in products:
                if _alike(model, coarse, graph.tensors[fine]):
                    for gather in read[table]:
                        _look_up(model, graph, gather, fine)
                    model.buffers[coarse.buffer].data = None
                    break


class _Matrix(NamedTuple):
    """A constant int8 matrix (rows, columns) with one scale and zero point, or one a row (rows, 1)."""

    whole: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    def values(self) -> np.ndarray:
        return (self.whole - self.zero) * self.scale


def _matrix(model: Any, tensor: Any) -> _Matrix | None:
    content, steps = _content(model, tensor), tensor.quantization
    if content is None or steps is None or steps.scale is None or len(_shape(tensor)) != 2:
        return None
    rows, columns = _shape(tensor)
    if content.size != rows * columns or len(steps.scale) not in (1, rows):
        return None
    zero = [0] if steps.zeroPoint is None else steps.zeroPoint
    scale, zero = (np.reshape(v, (-1, 1)).astype(np.float32) for v in (steps.scale, zero))
    return _Matrix(content.view(np.int8).reshape(rows, columns), scale, zero)


def _alike(model: Any, one: Any, two: Any) -> bool:
    """Whether both are roundings of one matrix; the first may be cut at calibration's range."""
    if _shape(one) != _shape(two):
        return False
    coarse, fine = _matrix(model, one), _matrix(model, two)
    if coarse is None or fine is None or len(coarse.scale) > 1:
        return False
    low, high = ((end - coarse.zero) * coarse.scale for end in (-128, 127))
    apart = np.abs(coarse.values() - np.clip(fine.values(), low, high))
    return bool((apart <= 0.51 * (coarse.scale + fine.scale)).all())


def _takes_rows(graph: Any, gather: Any, table: int) -> bool:
    """Whether a GATHER looks up rows of the table by ids, int32 (batch, time)."""
    from tensorflow.lite.python.schema_py_generated import TensorType

    options, ids = gather.builtinOptions, graph.tensors[int(gather.inputs[1])]
    return bool(
        gather.inputs[0] == table
        and (options is None or (options.axis == 0 and options.batchDims == 0))
        and ids.type == TensorType.INT32
        and len(_shape(ids)) == 2
    )


def _look_up(model: Any, graph: Any, gather: Any, table: int) -> None:
    """Put RESHAPE, EMBEDDING_LOOKUP, RESHAPE and QUANTIZE in the place of a GATHER of rows."""
    from tensorflow.lite.python import schema_py_generated as schema

    def tensor(shape: list[int], type: int, data: np.ndarray | None = None) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.buffer = [abs(n) for n in shape], type, 0  # 0: of activations
        made.shapeSignature = shape if min(shape) < 0 else None
        if data is not None:
            made.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = data.view(np.uint8)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(name: str, inputs: list[int], output: int) -> Any:
        kind = getattr(schema.BuiltinOperator, name)
        kinds = [code.builtinCode for code in model.operatorCodes]
        if kind not in kinds:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = kind
            code.version = VERSIONS.get(name, 1)
            model.operatorCodes.append(code)
            kinds.append(kind)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = kinds.index(kind), inputs, [output]
        return made

    def constant(*values: int) -> int:
        return tensor([len(values)], schema.TensorType.INT32, np.array(values, np.int32))

    ids, rows = int(gather.inputs[1]), int(gather.outputs[0])
    batch, length = _shape(graph.tensors[ids])
    signature = graph.tensors[ids].shapeSignature
    if signature is not None and len(signature):
        batch = int(signature[0])
    width = _shape(graph.tensors[table])[1]
    flat = tensor([max(batch * length, -1)], schema.TensorType.INT32)
    found = tensor([max(batch * length, -1), width], schema.TensorType.FLOAT32)
    shaped = tensor([batch, length, width], schema.TensorType.FLOAT32)
    place = graph.operators.index(gather)
    graph.operators[place : place + 1] = [
        operator("RESHAPE", [ids, constant(-1)], flat),
        operator("EMBEDDING_LOOKUP", [flat, table], found),
        operator("RESHAPE", [found, constant(-1, length, width)], shaped),
        operator("QUANTIZE", [shaped], rows),
    ]


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))  # None: a scalar


def _content(model: Any, tensor: Any) -> np.ndarray | None:
    """The bytes of a constant; None of an activation."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else np.asarray(data, dtype=np.uint8)
