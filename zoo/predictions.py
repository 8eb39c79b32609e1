"""``predictions.npz``: what a variant said about a split, with the groups beside it. No pickle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """Predictions on one split.

    ``row`` int64 (n,) are global row ids; ``y_true`` and ``y_pred`` are class indices of one
    integer dtype, floats for regression, or what the task's row says; ``scores`` are (n, classes)
    probabilities, or (n,) per-sample losses where there are no classes; ``classes`` are the sorted
    labels as strings (empty for regression); ``groups`` maps an attribute to strings (n,), missing
    being ``(missing)``.
    """

    row: np.ndarray
    y_true: np.ndarray
    y_pred: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    split: str = "test"

    def __len__(self) -> int:
        return len(self.row)

    def joined(self, others: Sequence[Predictions]) -> Predictions:
        """These rows and those of other predictions on the same split after them."""
        if not others:
            return self
        every = [self, *others]

        def column(get: Callable[[Predictions], np.ndarray]) -> np.ndarray:
            return np.concatenate([get(part) for part in every])

        return replace(
            self,
            row=column(lambda part: part.row),
            y_true=column(lambda part: part.y_true),
            y_pred=column(lambda part: part.y_pred),
            scores=column(lambda part: part.scores),
            groups={n: np.concatenate([p.groups[n] for p in every]) for n in self.groups},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the file, by name."""
        stored: dict[str, Any] = {
            "row": self.row.astype(np.int64),
            "y_true": self.y_true,
            "y_pred": self.y_pred,
            "scores": self.scores,
            "classes": np.array(self.classes, dtype=np.str_),
            "split": np.array(self.split, dtype=np.str_),
        }
        for name, values in self.groups.items():
            stored[f"group_{quote(name, safe='')}"] = np.asarray(values, dtype=np.str_)
        return stored

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a file. Raises ``ValueError``, ``KeyError`` or ``zipfile.BadZipFile`` for another."""
        # opened here, since NumPy leaves a file open that turns out to be torn
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            groups = {
                unquote(key.removeprefix("group_")): stored[key]
                for key in stored.files
                if key.startswith("group_")
            }
            return cls(
                row=stored["row"],
                y_true=stored["y_true"],
                y_pred=stored["y_pred"],
                scores=stored["scores"],
                classes=tuple(str(name) for name in stored["classes"]),
                groups=groups,
                split=str(stored["split"]),
            )
