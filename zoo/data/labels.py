"""From raw labels to a task and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.data.cells import codes_and_texts, is_number_type
from zoo.data.table import Request, Table
from zoo.errors import ZooError, unknown
from zoo.tasks import get_task

MAX_CLASSES = 1000
#: Whole numbers with at most so many values are classes, unless --task says otherwise.
MAX_NUMBERED_CLASSES = 20
#: The square of a larger target overflows float32, in which models are trained.
MAX_TARGET = 1e18


def infer_task(table: Table, request: Request, notes: list[str]) -> str:
    """The task: asked for, declared by the data set, or inferred from the labels."""
    if request.task is not None:
        get_task(request.task)  # an unknown name is an error of its own
        return request.task
    if table.task is not None:
        return table.task
    import pandas as pd

    labels = pd.Series(table.y).dropna()
    numeric = is_number_type(labels)
    distinct = len(dict.fromkeys(codes_and_texts(labels)[1])) - 1  # without "(missing)"
    if distinct <= 2:
        task = "binary"
    elif not numeric:
        task = "multiclass"
    else:
        whole = bool((labels == labels.round()).all())
        task = "multiclass" if whole and distinct <= MAX_NUMBERED_CLASSES else "regression"
    notes.append(
        f"task inferred from {table.target!r}: {task} ({distinct} distinct "
        f"{'numbers' if numeric else 'labels'}); --task overrides"
    )
    return task


def encode_labels(table: Table, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as int64 class indices with the sorted classes, or as float64 with none.

    Zeros where the task makes its own answers; float64 (n, values) where a label is several.
    """
    import pandas as pd

    if not get_task(task).supervised:
        return np.zeros(len(table), dtype=np.int64), ()
    if table.y is None:
        raise ZooError(
            f"The data for {table.target!r} have no labels, which the task {task} needs.",
            expected="data with a label for each row",
            received=f"{table.kind} data without labels",
            hint="`zoo data list` shows the data sets and their tasks.",
            kind="kind_mismatch",
        )
    if np.ndim(table.y) == 2:
        return np.asarray(table.y, dtype=np.float64), ()
    labels = pd.Series(table.y).reset_index(drop=True)
    missing = labels.isna().to_numpy()
    if missing.any():
        raise ZooError(
            f"The target {table.target!r} is missing in {missing.sum():,} of {len(labels):,} rows.",
            expected="a label in every row",
            received=f"{missing.sum():,} empty cells, the first in data row {missing.argmax() + 1}",
            hint="Drop or fill these rows: a model can't learn from a missing answer.",
            kind="missing_labels",
        )
    if not get_task(task).classes:
        return _target_values(labels, table.target), ()
    return _class_indices(labels, table.target, task)


def _target_values(labels: Any, target: str) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(labels, errors="coerce").to_numpy(np.float64)
    strange = labels[np.isnan(values)]
    if len(strange) or pd.api.types.is_datetime64_any_dtype(labels):
        cell = labels.iloc[0] if not len(strange) else strange.iloc[0]
        raise ZooError(
            f"The target {target!r} is not numeric.",
            expected="a number in every row, for the task regression",
            received=f"values such as {str(cell)[:40]!r}",
            hint="Leave --task away, correct the cells, or choose another --target.",
            kind="not_numeric",
        )
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        shown = ", ".join(f"{row + 1:,}" for row in infinite[:5])
        raise ZooError(
            f"The target {target!r} is infinite in {len(infinite):,} of {len(values):,} rows.",
            expected="a finite number in every row",
            received=f"{values[infinite[0]]:g} in data row{'s' * (len(infinite) > 1)} {shown}"
            + (", ..." if len(infinite) > 5 else ""),
            hint="Drop or correct these rows: no model can come near an infinite answer.",
            kind="bad_values",
        )
    largest = np.abs(values).max()
    if largest > MAX_TARGET:
        raise ZooError(
            f"The target {target!r} holds values too large to learn.",
            expected=f"finite numbers up to {MAX_TARGET:g}",
            received=f"{largest:g}",
            hint="Put it in a larger unit, or take its logarithm.",
            kind="bad_values",
        )
    if np.ptp(values) == 0:
        raise ZooError(
            f"The target {target!r} is constant.",
            expected="a target that varies",
            received=f"{values[0]:g} in every row",
            kind="single_class",
        )
    return values


def _class_indices(labels: Any, target: str, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    codes, names = codes_and_texts(labels)
    names = names[:-1]  # no label is missing
    numeric = is_number_type(labels)
    classes = tuple(dict.fromkeys(sorted(names, key=float if numeric else None)))
    limit = {"binary": 2}.get(task, MAX_CLASSES)
    if len(classes) < 2:
        raise ZooError(
            f"The target {target!r} has a single class.",
            expected="at least two classes",
            received=f"{classes[0]!r} in every row",
            hint="Choose another --target, or more data.",
            kind="single_class",
        )
    if len(classes) > limit:
        hint = "Choose another --target"
        if numeric:
            hint += ", or --task regression: it holds numbers"
        strange = [name for name in classes if not _is_number(name)]
        if 0 < len(strange) < len(classes) / 2:
            hint = f"It holds numbers but for {strange[0]!r}: correct that for regression"
        raise ZooError(
            f"The target {target!r} has too many classes for the task {task}.",
            expected=f"at most {limit:,} classes",
            received=f"{len(classes):,} distinct labels",
            hint=f"{hint}.",
            kind="too_many_classes",
        )
    index = {label: k for k, label in enumerate(classes)}
    return np.array([index[name] for name in names], dtype=np.int64)[codes], classes


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def choose_positive(asked: str | None, classes: tuple[str, ...], task: str) -> str | None:
    """The positive class: asked for, or the last of two; None where there is none."""
    if asked is not None:
        if asked not in classes:
            raise unknown("label", asked, classes, hint="--positive names one of the classes.")
        return asked
    return classes[-1] if len(classes) == 2 else None
