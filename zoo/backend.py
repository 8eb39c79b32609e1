"""The only module that chooses Keras, devices, strategy, precision and seeds.

Import Keras and TensorFlow from here: ``from zoo.backend import keras, tf``. TensorFlow comes first,
since TF-MOT imported before it would turn ``tf.keras`` into tf_keras for the whole process.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise ImportError("Glasszoo needs KERAS_BACKEND=tensorflow: TF-MOT and LiteRT build on it.")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _quiet_import() -> tuple[Any, Any]:
    """Import TensorFlow and Keras without the lines their C++ prints before logging is set up."""
    if "tensorflow" in sys.modules:
        import keras
        import tensorflow as tf

        return tf, keras
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()  # what it says of absent GPUs goes to the sink as well
        import keras
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
    return tf, keras


tf, keras = _quiet_import()
# ``tf.keras`` is decided at its first use, and TF-MOT, once imported, would make that tf_keras. SHAP
# looks at it, so it is decided here.
assert tf.keras.Model is keras.Model, "tf.keras must be Keras 3: unset TF_USE_LEGACY_KERAS"


def set_threads(cpus: int | None) -> None:
    """Use at most ``cpus`` CPU cores, 0 or None for all; must come before any computation."""
    if cpus:
        tf.config.threading.set_intra_op_parallelism_threads(cpus)
        tf.config.threading.set_inter_op_parallelism_threads(cpus)


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and Keras; with ``deterministic`` also forbid nondeterministic kernels."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


PACKAGES = ("tensorflow", "keras", "keras-hub", "keras-nlp", "tensorflow-model-optimization",
            "tf-keras", "ai-edge-litert", "shap", "fairlearn", "scikit-learn", "numpy", "pandas",
            "mlcommons-loadgen")  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in ("glasszoo", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device() -> dict[str, Any]:
    """What the work runs on: processor, cores, accelerators."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
        "platform": f"{platform.system()} {platform.machine()}",
    }
