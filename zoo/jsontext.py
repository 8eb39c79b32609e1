"""JSON text of documents: plain numbers, null for what is not finite."""

from __future__ import annotations

import json
from typing import Any


def dumps(document: Any) -> str:
    """A document as JSON text; NaN and infinities become null, NumPy values plain ones."""
    return json.dumps(_clean(document), indent=1, ensure_ascii=False, allow_nan=False)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _clean(value.tolist())
    if isinstance(value, float) and value - value != 0:  # NaN, Inf
        return None
    return value
