"""TF-MOT's parts, imported so that nothing else notices."""

from __future__ import annotations

import importlib
import os
from typing import Any

_ROOT = "tensorflow_model_optimization.python.core"
_FLAG = "TF_USE_LEGACY_KERAS"


def mot(path: str) -> Any:
    """A module of TF-MOT, such as ``sparsity.keras.pruning_impl``.

    TensorFlow comes first, or ``tf.keras`` would change for the process. TF-MOT also sets an
    environment variable that would change it for every process started from here: that is undone.
    """
    from zoo.backend import tf  # noqa: F401
    from zoo.quiet import quiet

    before = os.environ.get(_FLAG)
    try:
        with quiet():  # it warns of its own use of distutils
            return importlib.import_module(f"{_ROOT}.{path}")
    finally:
        if before is None:
            os.environ.pop(_FLAG, None)
        else:
            os.environ[_FLAG] = before
