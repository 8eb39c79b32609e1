"""A Keras model as a LiteRT file.

The recipe that converts every kind of model: a ``tf.Module`` that holds the variables, a function
with named inputs and a fixed batch of 1, saved with a signature, then converted from there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def to_litert(model: Any, format: str = "float32", samples: np.ndarray | None = None) -> bytes:
    """Convert a functional Keras model.

    Args:
        model: one input, logits or values as output.
        format: a name of :data:`FORMATS`.
        samples: float32 (n, ...) inputs for calibration; needed where the format is calibrated.
    Returns the ``.tflite`` file's content, with the signature ``serving_default`` of batch 1.
    """
    from zoo.backend import tf
    from zoo.quiet import quiet

    row = FORMATS[format]
    if row.calibrated and (samples is None or not len(samples)):
        raise ValueError(f"{format} needs samples to calibrate the activations' ranges")
    (tensor,) = model.inputs
    name = tensor.name.split(":")[0]
    module = tf.Module()
    module.variables_held = [variable.value for variable in model.variables]

    @tf.function(input_signature=[tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=name)])
    def serve(inputs: Any) -> dict[str, Any]:
        return {"output": model(inputs, training=False)}

    module.serve = serve
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            tf.saved_model.save(module, folder, signatures={"serving_default": serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        row.configure(converter, tf)
        if row.calibrated and samples is not None:
            chosen = samples[:CALIBRATION_SAMPLES]
            converter.representative_dataset = lambda: (
                ("serving_default", {name: sample[None]}) for sample in chosen
            )
        with quiet():
            return converter.convert()
