"""What is asked for, what a loader returns, and what a training reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError

PARTS = ("train", "val", "test")
#: Cells of free text have at least so many words on average; names and codes have fewer.
LEAST_WORDS = 3


@dataclass(frozen=True)
class Request:
    """What the user asked for; stored in ``run.json`` so that every command sees the same data.

    ``size`` is the side that files of pictures are decoded to, where a setting says so.
    """

    data: str
    target: str | None = None
    task: str | None = None
    sensitive: tuple[str, ...] = ()
    positive: str | None = None
    include_sensitive: bool = False
    split: str | None = None
    split_seed: int = 0
    rare_groups: str = "error"
    offline: bool = False
    horizon: int | None = None
    size: int | None = None

    def document(self) -> dict[str, Any]:
        """As JSON-able values; ``size`` only where there is one, as runs from before have none."""
        document = {**asdict(self), "sensitive": list(self.sensitive)}
        if self.size is None:
            del document["size"]
        return document

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Request:
        """From what :meth:`document` gave."""
        return cls(**{**document, "sensitive": tuple(document["sensitive"])})


@dataclass
class Table:
    """All rows of a data set, in file order.

    ``x`` is a pandas frame of input columns (``kind`` "tabular"), uint8 (n, height, width,
    channels) images, or a list of texts, or for a series its other columns, dates among them; where
    it is large, its counterpart of :mod:`zoo.data.shards`, on disk in the folder ``cache``. ``y``
    holds raw labels (n,) or None for data to predict on; ``groups`` maps an attribute to raw values
    (n,); ``label_groups`` are those that are the label itself; ``split`` holds raw split names
    (n,).
    """

    kind: str
    x: Any
    y: Any
    sha256: str
    target: str
    task: str | None = None
    groups: dict[str, Any] = field(default_factory=dict)
    label_groups: tuple[str, ...] = ()
    split: Any = None
    license: str = "unknown (own data)"
    source: str = "own data"
    notes: list[str] = field(default_factory=list)
    cache: Path | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass
class Data:
    """A data set ready for use: inputs and labels in file order, and the rows of each split.

    ``y`` is int64 (n,) class indices into ``classes``, float64 (n,) for regression, float64 (n,
    values) where a label is several, or zeros where the task makes its own answers. ``parts``
    maps "train", "val" and "test" to int64 row ids. ``groups`` maps an attribute to a pandas
    ``Categorical`` of strings (n,): an array of strings to look at, a few bytes a row to hold.
    ``cache`` is the folder that large data were converted into, None for what is in memory.
    """

    name: str
    kind: str
    task: str
    x: Any
    y: np.ndarray
    classes: tuple[str, ...]
    positive: str | None
    groups: dict[str, Any]
    label_groups: tuple[str, ...]
    parts: dict[str, np.ndarray]
    sha256: str
    license: str
    source: str
    columns: list[dict[str, Any]]
    notes: list[str]
    target: str
    cache: Path | None = None

    def take(self, rows: np.ndarray) -> Any:
        """The inputs of some rows, in the loader's form."""
        return take_rows(self.x, rows)

    def describe(self) -> dict[str, Any]:
        """The facts that ``run.json`` keeps and ``zoo data info`` shows."""
        rows = len(self.y)
        return {
            "name": self.name,
            "kind": self.kind,
            "task": self.task,
            "rows": rows,
            "sizes": {part: len(ids) for part, ids in self.parts.items()},
            "classes": list(self.classes),
            "class_counts": [int((self.y == k).sum()) for k in range(len(self.classes))],
            "positive": self.positive,
            "groups": {
                name: dict(
                    zip(
                        map(str, values.categories), np.bincount(values.codes).tolist(), strict=True
                    )
                )
                for name, values in self.groups.items()
            },
            "label_groups": list(self.label_groups),
            "columns": self.columns,
            "target": self.target,
            "sha256": self.sha256,
            "license": self.license,
            "source": self.source,
            "notes": self.notes,
        }


def take_rows(x: Any, rows: np.ndarray) -> Any:
    """Some rows of inputs: a frame, texts or pictures, in memory or on disk."""
    return x.take(rows) if hasattr(x, "columns") else x[rows]


def texts_of(frame: Any, column: str) -> Any:
    """A column as texts (n,), empty where they are missing; on disk where the frame is."""
    if hasattr(frame, "texts"):
        return frame.texts(column)
    return frame[column].fillna("").astype(str).to_numpy(dtype=str)


def categorical(codes: np.ndarray, names: Any) -> Any:
    """Codes (n,) into names as a ``Categorical``: sorted categories, those that occur."""
    import pandas as pd

    found, place = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    codes = place[codes]
    occurs = np.bincount(codes, minlength=len(found)) > 0
    return pd.Categorical.from_codes(
        (np.cumsum(occurs) - 1)[codes], categories=pd.Index(found[occurs])
    )


def check_unchanged(source: Any, found: str, expected: str | None) -> None:
    """Raise :class:`ZooError` where data are not those a model was trained on."""
    if expected not in (None, found):
        raise ZooError(
            f"{source} has changed since the model was trained.",
            expected=f"SHA-256 {str(expected)[:16]}...",
            received=f"SHA-256 {found[:16]}...",
            hint="Put the old data back, or train again.",
            kind="data_changed",
        )
