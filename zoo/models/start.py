"""Where random weights of published networks start, other than their library draws them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def scale(variables: Iterable[Any], factor: float) -> None:
    """Multiply freshly drawn variables, where they have values."""
    from zoo.backend import valueless

    if not valueless():
        for variable in variables:
            variable.assign(variable * factor)
