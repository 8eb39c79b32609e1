"""A Keras model as a LiteRT file.

The recipe that converts every kind of model: a ``tf.Module`` that holds the variables, a function
with named inputs and a fixed batch of 1, saved with a signature, then converted from there.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import FAILURE, ZooError

CALIBRATION_SAMPLES = 256


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
        batch: rows a call, or None for any number (which recurrent layers do not convert with).
    Returns the ``.tflite`` file's content, with the signature ``serving_default``.
    Raises :class:`ZooError` where the converter gives up.
    """
    from zoo.backend import tf
    from zoo.quiet import quiet

    row = FORMATS[format]
    if row.calibrated and (samples is None or not len(samples)):
        raise ValueError(f"{format} needs samples to calibrate the activations' ranges")
    with tempfile.TemporaryDirectory() as folder:
        name = to_saved_model(model, Path(folder), batch)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        row.configure(converter, tf)
        if row.calibrated and samples is not None:
            chosen = samples[:CALIBRATION_SAMPLES]
            size = batch or 1
            converter.representative_dataset = lambda: (
                (
                    "serving_default",
                    {name: np.resize(chosen[k : k + size], (size, *chosen.shape[1:]))},
                )
                for k in range(0, len(chosen), size)
            )
        try:
            with quiet():
                return converter.convert()
        except Exception as error:  # its own class is not public, and others get through
            raise ZooError(
                f"{model.name} could not be converted to LiteRT ({format}).",
                received=" ".join(str(error).split())[:300],
                kind="conversion_failed",
                exit_code=FAILURE,
            ) from error


def to_saved_model(model: Any, folder: Path, batch: int | None = None) -> str:
    """Write a functional Keras model as a SavedModel with the signature ``serving_default``.

    Args:
        folder: where to; it exists and is empty.
        batch: rows a call, or None for any number.
    Returns the name of the signature's input; its output is called ``output``.
    """
    from zoo.backend import tf
    from zoo.quiet import quiet

    name, serve = _serving(model, batch)
    module = tf.Module()
    module.variables_held = [variable.value for variable in model.variables]
    module.serve = serve
    with quiet():
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return name


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
