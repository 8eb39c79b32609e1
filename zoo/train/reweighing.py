"""Weights of rows under which a group says nothing about the label.

Kamiran & Calders, "Data preprocessing techniques for classification without discrimination",
Knowledge and Information Systems 33, 2012, section 3.3.
"""

from __future__ import annotations

from urllib.parse import unquote

import numpy as np

#: The step's name in a recipe.
REWEIGH = "reweigh"


def reweighing(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The weight of each row: what its group and label would share if they were independent, over
    what they do.

    Args:
        labels: (n,) classes; ``groups``: (n,) names of groups.
    Returns float32 (n,), whose mean is 1 where every group has every label.
    """
    _, group = np.unique(groups, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    both = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(both, (group, label), 1)
    independent = np.outer(both.sum(axis=1), both.sum(axis=0)) / len(labels)
    return (independent / np.maximum(both, 1))[group, label].astype(np.float32)


def reweighed_by(recipe: str) -> str | None:
    """The attribute that a variant of this recipe was reweighed by, or None."""
    for step in recipe.split("+"):
        name, _, attribute = step.partition(":")
        if name == REWEIGH:
            return unquote(attribute)
    return None
