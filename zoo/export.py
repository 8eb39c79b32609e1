"""A Keras model as a LiteRT file.

The recipe that converts every kind of model: a ``tf.Module`` that holds the variables, a function
with named inputs and a fixed batch of 1, saved with a signature, then converted from there. Inputs that
are lists or dicts of tensors are flattened, each named after its ``keras.Input`` or its place.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo.quantizable import full_precision, quantizable, unrolled
from zoo.ranges import remeasure
from zoo.signature import arranged, count_of, names_of, rows_of, taken_inputs
from zoo.slim import slim

CALIBRATION_SAMPLES = 256


@dataclass(frozen=True)
class Format:
    """One LiteRT number format: what the converter is told, and whether it needs samples.

    Where it is ``remeasured``, the ranges that the converter finds with them are mended
    (:mod:`zoo.ranges`). To 16 bits the converter calibrates once more where it quantises, so that
    there its own stay.
    """

    name: str
    configure: Callable[[Any, Any], None]
    calibrated: bool
    source: str
    remeasured: bool = False


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
                                    "and activations; inputs and outputs stay float32",
               remeasured=True),
        Format("int16x8", _int16x8, True, f"{_PTQ}: int16 activations, int8 weights"),
    )
}  # fmt: skip


def to_litert(
    model: Any,
    format: str = "float32",
    samples: Any = None,
    batch: int | None = 1,
) -> bytes:
    """Convert a Keras model, one of mixed precision in the precision of its weights.

    Args:
        model: a built Keras 3 model; logits or values as outputs.
        format: a name of :data:`FORMATS`.
        samples: inputs for calibration, (n, ...) arrays in the structure that the model takes them
            in; needed where the format is calibrated, and of a subclass of ``keras.Model`` that has
            no graph: its ``call`` takes them as one argument, and sizes other than the batch stay
            those of the samples.
        batch: rows a call, or None for any number (recurrent layers are then unrolled: a loop over
            batches of any size needs operations that LiteRT lacks).
    Returns the ``.tflite`` file's content, with the signature ``serving_default``. Inputs have the
    names of their ``keras.Input``; an output is called ``output``, those of a list ``output_0`` and so
    on, those of a dict after their keys.
    Raises ``ValueError`` for an unknown format and for samples that lack or do not fit,
    :class:`ZooError` where the converter gives up.
    """
    from zoo.backend import keras

    if format not in FORMATS:
        raise ValueError(f"expected one of {', '.join(FORMATS)}, received {format!r}")
    row = FORMATS[format]
    if samples is not None and count_of(samples):
        samples = arranged(model, samples)
    elif row.calibrated:
        raise ValueError(f"{format} needs samples to calibrate the activations' ranges")
    chosen = rows_of(samples, 0, CALIBRATION_SAMPLES) if row.calibrated else None
    numbers = [] if chosen is None else [np.asarray(one) for one in keras.tree.flatten(chosen)]
    if not all(np.isfinite(one).all() for one in numbers if one.dtype.kind == "f"):
        raise ValueError("expected samples of finite numbers, received some that are not")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with contextlib.ExitStack() as stack:
            stack.enter_context(full_precision(model))
            if row.calibrated:
                stack.enter_context(quantizable(model, chosen))
            elif batch is None:
                stack.enter_context(unrolled(model, samples))
            names, loops = to_saved_model(model, folder, batch, samples)
        job = Job(format, tuple(names), batch or 1)
        given = None if chosen is None else keras.tree.flatten(chosen)
        try:
            if given is not None and loops:
                return _convert_apart(folder, job, given)
            return convert(folder, job, given)
        except Exception as error:  # the converter's class is not public, and others get through
            raise ZooError(
                f"{model.name} could not be converted to LiteRT ({format}).",
                received=_reason(str(error)),
                kind="conversion_failed",
                exit_code=FAILURE,
            ) from error


def _reason(text: str) -> str:
    """What a converter gave up at: the operations that it names, or how its message begins."""
    lacking = re.search(r"TF Select ops: (.+)", text)
    if lacking:
        return f"operations that LiteRT has no kernels for: {lacking[1].strip()}"
    return " ".join(text.split())[:300]


@dataclass(frozen=True)
class Job:
    """What is made of a SavedModel: the format, the inputs' names, rows a call of calibration."""

    format: str
    inputs: tuple[str, ...]
    rows: int


def convert(folder: Path, job: Job, samples: Sequence[np.ndarray] | None) -> bytes:
    """The ``.tflite`` of a SavedModel; ``samples``, (n, ...) of each input, where it is calibrated."""
    from tensorflow.lite.python.convert import mlir_quantize

    from zoo.backend import tf
    from zoo.quiet import quiet

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=["serving_default"]
    )
    row = FORMATS[job.format]
    row.configure(converter, tf)

    def batches(inputs: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for k in range(0, len(inputs[0]), job.rows):
            yield {name: np.resize(rows[k : k + job.rows], (job.rows, *rows.shape[1:]))
                   for name, rows in zip(job.inputs, inputs, strict=True)}  # fmt: skip

    with quiet():
        if samples is None:
            return slim(converter.convert())
        given = samples
        converter.representative_dataset = lambda: (
            ("serving_default", batch) for batch in batches(given)
        )
        # Private names, of the TensorFlow that pyproject.toml pins.
        converter._experimental_calibrate_only = row.remeasured
        content = converter.convert()
        if row.remeasured:
            content = mlir_quantize(remeasure(content, batches(given)))
        return slim(content)


def _convert_apart(folder: Path, job: Job, samples: Sequence[np.ndarray]) -> bytes:
    """:func:`convert` in a process of its own: calibrating a loop may end the process it runs in.

    Raises ``RuntimeError`` with the last line it said, or the signal that ended it.
    """
    from zoo.run import write_arrays

    made, given = folder / "made.tflite", folder / "samples.npz"
    write_arrays(given, {str(place): rows for place, rows in enumerate(samples)})
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
        samples = [stored[str(place)] for place in range(len(job.inputs))]
    (folder / "made.tflite").write_bytes(convert(folder, job, samples))


def to_saved_model(
    model: Any, folder: Path, batch: int | None = None, samples: Any = None
) -> tuple[list[str], bool]:
    """Write a Keras model as a SavedModel with the signature ``serving_default``.

    Args:
        folder: where to; it exists and is empty.
        batch: rows a call, or None for any number.
        samples: inputs of a model without a graph of its own.
    Returns the names of the signature's inputs, flattened, and whether the graph holds loops or
    branches. Raises ``ValueError`` where a model without a graph comes without samples.
    """
    from zoo.backend import tf
    from zoo.quiet import quiet

    names, serve = _serving(model, batch, samples)
    module = tf.Module()
    module.variables_held = [variable.value for variable in model.variables]
    module.serve = serve
    with quiet():
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    graph = serve.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for made in graph.library.function for node in made.node_def)]
    return names, any(node.op.endswith(("While", "If", "Case")) for node in nodes)


def to_onnx(model: Any, batch: int | None = None, samples: Any = None) -> bytes:
    """Convert a Keras model to ONNX (opset 17), by tf2onnx.

    Args:
        batch: rows a call, or None for any number.
        samples: inputs of a model without a graph of its own.
    Raises :class:`ZooError` where the extra ``onnx`` is not installed.
    """
    require_onnx()
    import tf2onnx

    from zoo.quiet import quiet

    _, serve = _serving(model, batch, samples)
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


def _serving(model: Any, batch: int | None, samples: Any = None) -> tuple[list[str], Any]:
    """The inputs' names, and the model in inference mode as a function of them with a signature."""
    from zoo.backend import keras, tf

    taken = taken_inputs(model, samples)
    names = names_of(taken, "input")
    specs = [tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype, name=name)
             for tensor, name in zip(keras.tree.flatten(taken), names, strict=True)]  # fmt: skip

    @tf.function(input_signature=specs)
    def serve(*inputs: Any) -> dict[str, Any]:
        found = model(keras.tree.pack_sequence_as(taken, inputs), training=False)
        return dict(zip(names_of(found, "output"), keras.tree.flatten(found), strict=True))

    return names, serve


if __name__ == "__main__":
    _apart(Path(sys.argv[1]), Job(**json.loads(sys.argv[2])))
