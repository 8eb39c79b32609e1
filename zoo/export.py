"""A Keras model as a LiteRT file.

The recipe that converts every kind of model: a ``tf.Module`` that holds the variables, a function
with named inputs and a fixed batch of 1, saved with a signature, then converted from there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo.quantizable import quantizable, unrolled

CALIBRATION_SAMPLES = 256
#: LiteRT's version of an operation that we put into a file, where it is not 1. A runtime that is too
#: old for it refuses the file; EMBEDDING_LOOKUP has known a scale for each row since 4.
VERSIONS = {"EMBEDDING_LOOKUP": 4}


@dataclass(frozen=True)
class Format:
    """One LiteRT number format: what the converter is told, and whether it needs samples."""

    name: str
    configure: Callable[[Any, Any], None]
    calibrated: bool
    source: str


def _float32(converter: Any, tf: Any) -> None:
    converter.optimizations = []


def _float16(converter: Any, tf: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Any, tf: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(converter: Any, tf: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def _int16x8(converter: Any, tf: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]


_PTQ = "TensorFlow post-training quantization guide"

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("float32", _float32, False, "TensorFlow Lite converter"),
        Format("float16", _float16, False, f"{_PTQ}: half-precision weights"),
        Format("dynamic", _dynamic, False, f"{_PTQ}: int8 weights, float activations"),
        Format("int8", _int8, True, f"{_PTQ}; Jacob et al., CVPR 2018: int8 weights (per channel) "
                                    "and activations; inputs and outputs stay float32"),
        Format("int16x8", _int16x8, True, f"{_PTQ}: int16 activations, int8 weights"),
    )
}  # fmt: skip


def to_litert(
    model: Any,
    format: str = "float32",
    samples: np.ndarray | None = None,
    batch: int | None = 1,
) -> bytes:
    """Convert a functional Keras model.

    Args:
        model: one input, logits or values as output.
        format: a name of :data:`FORMATS`.
        samples: float32 (n, ...) inputs for calibration; needed where the format is calibrated.
        batch: rows a call, or None for any number (recurrent layers are then unrolled: a loop over
            batches of any size needs operations that LiteRT lacks).
    Returns the ``.tflite`` file's content, with the signature ``serving_default``.
    Raises :class:`ZooError` where the converter gives up.
    """
    row = FORMATS[format]
    if row.calibrated and (samples is None or not len(samples)):
        raise ValueError(f"{format} needs samples to calibrate the activations' ranges")
    chosen = samples[:CALIBRATION_SAMPLES] if row.calibrated and samples is not None else None
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with contextlib.ExitStack() as stack:
            if row.calibrated:
                stack.enter_context(quantizable(model, chosen))
            elif batch is None:
                stack.enter_context(unrolled(model))
            name, loops = to_saved_model(model, folder, batch)
        job = Job(format, name, batch or 1)
        try:
            if row.calibrated and loops:
                return _convert_apart(folder, job, chosen)
            return convert(folder, job, chosen)
        except Exception as error:  # the converter's class is not public, and others get through
            raise ZooError(
                f"{model.name} could not be converted to LiteRT ({format}).",
                received=" ".join(str(error).split())[:300],
                kind="conversion_failed",
                exit_code=FAILURE,
            ) from error


@dataclass(frozen=True)
class Job:
    """What is made of a SavedModel: the format, the input's name, rows a call of calibration."""

    format: str
    input: str
    rows: int


def convert(folder: Path, job: Job, samples: np.ndarray | None) -> bytes:
    """The ``.tflite`` of a SavedModel; ``samples`` (n, ...) where its format is calibrated."""
    from zoo.backend import tf
    from zoo.quiet import quiet

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=["serving_default"]
    )
    FORMATS[job.format].configure(converter, tf)
    if samples is not None:
        converter.representative_dataset = lambda: (
            (
                "serving_default",
                {job.input: np.resize(samples[k : k + job.rows], (job.rows, *samples.shape[1:]))},
            )
            for k in range(0, len(samples), job.rows)
        )
    with quiet():
        return _tidy(converter.convert())


def _tidy(content: bytes) -> bytes:
    """The same ``.tflite``, smaller: short names, and tied embeddings stored once."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for graph in model.subgraphs:
        _shorten_names(model, graph)
        _share_tables(model, graph)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _shorten_names(model: Any, graph: Any) -> None:
    """Take the names of activations away, and leave constants the first of theirs.

    A fused operation is named after all that it was made of, which is a hundredth of a small int8
    file. Inputs and outputs keep their names, and the signature its own.
    """
    kept = {*graph.inputs, *graph.outputs}
    for index, tensor in enumerate(graph.tensors):
        if index not in kept:
            constant = _content(model, tensor) is not None
            first = tensor.name.partition(b";")[0]  # model/layer/operation
            tensor.name = first.partition(b"/")[2] or first if constant else None


def _share_tables(model: Any, graph: Any) -> None:
    """Look the rows of an embedding up in the output layer that is its transpose, where one is.

    The converter stores such a table twice: in steps of one size for the lookup (GATHER), and of one
    size a row for the product, which are finer. EMBEDDING_LOOKUP reads the latter, as floats.
    """
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator as Kind

    def readers(tensor: int, kind: int) -> list[Any]:
        """The operators that read a tensor, if all are of this kind."""
        found = [op for op in graph.operators if op.inputs is not None and tensor in op.inputs]
        kinds = {model.operatorCodes[op.opcodeIndex].builtinCode for op in found}
        return found if kinds == {kind} else []

    matrices = {
        k: found for k, tensor in enumerate(graph.tensors) if (found := _matrix(model, tensor))
    }
    for own in [k for k in matrices if readers(k, Kind.FULLY_CONNECTED)]:
        for table in [k for k in matrices if readers(k, Kind.GATHER)]:
            if _alike(matrices[table], matrices[own]):
                for gather in readers(table, Kind.GATHER):
                    _look_up(model, graph, gather, own)
                model.buffers[graph.tensors[table].buffer].data = None


def _matrix(model: Any, tensor: Any) -> Matrix | None:
    """A constant int8 matrix with one scale, or one a row; None for anything else."""
    content, steps = _content(model, tensor), tensor.quantization
    if content is None or steps is None or steps.scale is None or len(tensor.shape) != 2:
        return None
    rows, columns = tensor.shape
    if content.size != rows * columns or len(steps.scale) not in (1, rows):
        return None
    scale, zero = (np.reshape(v, (-1, 1)).astype(float) for v in (steps.scale, steps.zeroPoint))
    values = (content.view(np.int8).reshape(rows, columns) - zero) * scale
    return Matrix(values, scale, (-128 - zero) * scale, (127 - zero) * scale)


class Matrix(NamedTuple):
    """What int8 numbers stand for: float64 (rows, columns); the rest is (rows or 1, 1)."""

    values: np.ndarray
    step: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _alike(coarse: Matrix, fine: Matrix) -> bool:
    """Whether both are roundings of one matrix; the first may be cut at calibration's range."""
    if coarse.values.shape != fine.values.shape or len(coarse.step) > 1:
        return False
    apart = np.abs(coarse.values - np.clip(fine.values, coarse.low, coarse.high))
    return bool((apart <= 0.51 * (coarse.step + fine.step)).all())


def _look_up(model: Any, graph: Any, gather: Any, table: int) -> None:
    """Put RESHAPE, EMBEDDING_LOOKUP, RESHAPE and QUANTIZE in the place of a GATHER of rows."""
    from tensorflow.lite.python import schema_py_generated as schema

    def tensor(shape: list[int], type: int, data: np.ndarray | None = None) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.buffer = [abs(n) for n in shape], type, len(model.buffers)
        made.shapeSignature = shape if min(shape) < 0 else None
        buffer = schema.BufferT()
        buffer.data = None if data is None else data.view(np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(name: str, inputs: list[int], output: int) -> Any:
        kind = getattr(schema.BuiltinOperator, name)
        codes = [code.builtinCode for code in model.operatorCodes]
        if kind not in codes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = kind
            code.version = VERSIONS.get(name, 1)
            model.operatorCodes.append(code)
            codes.append(kind)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = codes.index(kind), inputs, [output]
        return made

    def constant(*values: int) -> int:
        return tensor([len(values)], schema.TensorType.INT32, np.array(values, np.int32))

    ids, rows = int(gather.inputs[1]), int(gather.outputs[0])
    batch, length = graph.tensors[ids].shape
    if (signature := graph.tensors[ids].shapeSignature) is not None and len(signature):
        batch = int(signature[0])
    width, number = int(graph.tensors[table].shape[1]), int(batch * length)
    flat = tensor([max(number, -1)], schema.TensorType.INT32)
    found = tensor([max(number, -1), width], schema.TensorType.FLOAT32)
    shaped = tensor([int(batch), int(length), width], schema.TensorType.FLOAT32)
    place = graph.operators.index(gather)
    graph.operators[place : place + 1] = [
        operator("RESHAPE", [ids, constant(-1)], flat),
        operator("EMBEDDING_LOOKUP", [flat, table], found),
        operator("RESHAPE", [found, constant(-1, int(length), width)], shaped),
        operator("QUANTIZE", [shaped], rows),
    ]


def _content(model: Any, tensor: Any) -> np.ndarray | None:
    """The bytes of a constant; None of an activation."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else np.asarray(data, dtype=np.uint8)


def _convert_apart(folder: Path, job: Job, samples: np.ndarray | None) -> bytes:
    """:func:`convert` in a process of its own: calibrating a loop may end the process it runs in.

    Raises ``RuntimeError`` with the last line it said, or the signal that ended it.
    """
    from zoo.run import write_arrays

    made, given = folder / "made.tflite", folder / "samples.npz"
    write_arrays(given, {} if samples is None else {"samples": samples})
    words = [sys.executable, "-P", "-m", "zoo.export", str(folder), json.dumps(asdict(job))]
    packages = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    if done.returncode < 0:
        raise RuntimeError(f"the converter crashed ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        raise RuntimeError(said[-1] if said else f"the converter ended with {done.returncode}")
    return made.read_bytes()


def _apart(folder: Path, job: Job) -> None:
    """What :func:`_convert_apart` starts."""
    with np.load(folder / "samples.npz", allow_pickle=False) as stored:
        samples = stored["samples"] if "samples" in stored.files else None
    (folder / "made.tflite").write_bytes(convert(folder, job, samples))


def to_saved_model(model: Any, folder: Path, batch: int | None = None) -> tuple[str, bool]:
    """Write a functional Keras model as a SavedModel with the signature ``serving_default``.

    Args:
        folder: where to; it exists and is empty.
        batch: rows a call, or None for any number.
    Returns the name of the signature's input (its output is called ``output``), and whether the graph
    holds loops or branches.
    """
    from zoo.backend import tf
    from zoo.quiet import quiet

    name, serve = _serving(model, batch)
    module = tf.Module()
    module.variables_held = [variable.value for variable in model.variables]
    module.serve = serve
    with quiet():
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    graph = serve.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for made in graph.library.function for node in made.node_def)]
    return name, any(node.op.endswith(("While", "If", "Case")) for node in nodes)


def to_onnx(model: Any, batch: int | None = None) -> bytes:
    """Convert a functional Keras model to ONNX (opset 17), by tf2onnx.

    Args:
        batch: rows a call, or None for any number.
    Raises :class:`ZooError` where the extra ``onnx`` is not installed.
    """
    require_onnx()
    import tf2onnx

    from zoo.quiet import quiet

    _, serve = _serving(model, batch)
    with quiet():
        made, _ = tf2onnx.convert.from_function(
            serve, input_signature=serve.input_signature, opset=17
        )
    return made.SerializeToString()


def require_onnx() -> None:
    """Raise :class:`ZooError` where the extra ``onnx`` is not installed."""
    missing = [
        name for name in ("tf2onnx", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ZooError(
            "ONNX needs packages that are not installed.",
            expected="the extra onnx: tf2onnx and onnxruntime",
            received=f"no {' and no '.join(missing)}",
            hint="pip install 'glasszoo[onnx]'",
            kind="missing_extra",
        )


def _serving(model: Any, batch: int | None) -> tuple[str, Any]:
    """The input's name, and the model in inference mode as a function with a signature."""
    from zoo.backend import tf

    (tensor,) = model.inputs
    name = tensor.name.split(":")[0]

    @tf.function(
        input_signature=[tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype, name=name)]
    )
    def serve(inputs: Any) -> dict[str, Any]:
        return {"output": model(inputs, training=False)}

    return name, serve


if __name__ == "__main__":
    _apart(Path(sys.argv[1]), Job(**json.loads(sys.argv[2])))
