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


def scale_kernels(layers: Iterable[Any], factor: float) -> None:
    """Multiply the freshly drawn kernels of a Transformer's layers.

    keras_nlp draws those of any width with a deviation of 0.02, which was chosen for 768 inputs. In
    a narrower net the scores of attention are all about the same, and it is slow to learn where to
    look.
    """
    scale((v for layer in layers for v in layer.trainable_variables if v.name == "kernel"), factor)
