"""From a request for data to splits: what every loader's table goes through.

A loader returns a :class:`Table`, everything in file order. :func:`open_data` infers the task,
takes sensitive columns out of the inputs, makes groups, splits, and returns :class:`Data`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.cells import FIT_ROWS, fit_rows
from zoo.data.groups import make_groups, named, take_sensitive
from zoo.data.labels import choose_positive, encode_labels, infer_task
from zoo.data.preprocess import describe_columns
from zoo.data.splits import split_rows
from zoo.data.table import LEAST_WORDS, Data, Request, Table, categorical, check_unchanged, texts_of
from zoo.errors import ZooError, unknown
from zoo.tasks import function_of, get_task

MIN_ROWS = 20


def load_table(request: Request, sha256: str | None = None) -> tuple[str, Table]:
    """Name and table of a request: a registered data set, one of a public collection, or a path of
    the user's own."""
    from zoo.data.online import COLLECTIONS, collection_of, load_online
    from zoo.data.own import load_own, looks_like_path
    from zoo.registry import datasets

    registry = datasets()
    if request.data in registry.specs:
        table = registry.get(request.data).load(request)
        for option, asked, there in (
            ("target", request.target, (table.target,)),
            ("split", request.split, ()),
        ):
            if asked is not None and asked not in there:
                raise ZooError(
                    f"Data set {request.data!r} has its own {option}.",
                    expected=f"no --{option}" + "".join(f", or {name!r}" for name in there),
                    received=f"--{option} {asked!r}",
                )
        check_unchanged(request.data, table.sha256, sha256)
        return request.data, table
    if collection_of(request.data):
        return request.data, load_online(request, sha256)
    if looks_like_path(request.data):
        return Path(request.data).name, load_own(request, sha256)
    raise unknown(
        "data set",
        request.data,
        registry.specs,
        hint="Own data is given as a path: --data ./file.csv --target COLUMN; data of a public collection as "
        + ", ".join(found.example for found in COLLECTIONS.values()),
    )


def open_data(request: Request, sha256: str | None = None) -> Data:
    """Load, check, group and split.

    Raises :class:`ZooError` for data that can't be used, and where ``sha256`` is given and the
    data have another.
    """
    name, table = load_table(request, sha256)
    notes = list(table.notes)
    if len(table) < MIN_ROWS:
        raise ZooError(
            f"{request.data} has too few rows.",
            expected=f"at least {MIN_ROWS} rows, to train, validate and test",
            received=f"{len(table)} rows",
            kind="too_few_rows",
        )
    task = infer_task(table, request, notes)
    table = arranged(table, task, request, notes)
    if not get_task(task).supervised:
        table = without_labels(table)
    y, classes = encode_labels(table, task)
    positive = choose_positive(request.positive, classes, task)
    x, raw_groups, label_groups = table.x, dict(table.groups), table.label_groups
    if table.kind == "tabular":
        x, raw_groups = take_sensitive(table, request)
    elif request.sensitive:
        raw_groups = {attr: named(raw_groups, attr) for attr in request.sensitive}
    label_groups = tuple(g for g in label_groups if g in raw_groups)
    if not raw_groups and get_task(task).supervised:
        attribute = "class" if classes else f"{table.target} band"
        raw_groups = {attribute: categorical(y, classes) if classes else y}
        label_groups = (attribute,)
        notes.append(f"no sensitive attribute was given: groups are the label's ({attribute})")
    parts = split_rows(table, request, y, classes, raw_groups, notes)
    groups = {
        attribute: make_groups(
            attribute, values, parts["train"], request, attribute in label_groups, notes
        )
        for attribute, values in raw_groups.items()
    }
    if table.cache is not None:
        notes.append("large: converted once into the user's cache, read from there in chunks")
    if len(parts["train"]) > FIT_ROWS:
        notes.append(
            f"columns are judged and preprocessing is fitted on {FIT_ROWS:,} of the "
            f"{len(parts['train']):,} training rows"
        )
    kind = table.kind
    columns = describe_columns(x, parts["train"]) if kind == "tabular" else []
    column = only_text(columns, x)
    if column is not None:
        kind, x = "text", texts_of(x, column["name"])
        columns = [{**column, "used": True, "why": "free text, the only input"}]
        notes.append(f"the column {column['name']!r} is free text and the only input")
    if kind == "tabular" and not any(column["used"] for column in columns):
        raise ZooError(
            f"{request.data} has no column that can be an input.",
            expected="at least one numeric or categorical column with more than one value",
            received="; ".join(f"{c['name']}: {c['why']}" for c in columns[:8])
            or "no columns besides the target and the sensitive ones",
            kind="no_inputs",
        )
    return Data(
        name=name,
        kind=kind,
        task=task,
        x=x,
        y=y,
        classes=classes,
        positive=positive,
        groups=groups,
        label_groups=label_groups,
        parts=parts,
        sha256=table.sha256,
        license=table.license,
        source=table.source,
        columns=columns,
        notes=notes,
        target=table.target,
        cache=table.cache,
    )


def only_text(columns: list[dict[str, Any]], frame: Any) -> dict[str, Any] | None:
    """The column of free text where it is the only one with anything to learn from, or None."""
    free = [column for column in columns if column["kind"] == "text"]
    if len(free) != 1 or any(column["used"] for column in columns):
        return None
    if len(frame) > FIT_ROWS:
        frame = frame.take(fit_rows(np.arange(len(frame))))
    cells = frame[free[0]["name"]].dropna().astype(str)
    return free[0] if cells.str.split().str.len().mean() >= LEAST_WORDS else None


def arranged(table: Table, task: str, request: Request, notes: list[str]) -> Table:
    """The table with a row for each example of the task, where the loaded one has other rows."""
    name = get_task(task).arrange
    if request.horizon is not None and not name:
        raise ZooError(
            "--horizon is for forecasts.",
            expected="--horizon with the task forecasting",
            received=f"--horizon {request.horizon} and the task {task}",
        )
    if not name:
        return table
    made = function_of(name)(table, request)
    notes += made.notes[len(table.notes) :]
    return made


def without_labels(table: Table) -> Table:
    """The table for a task that makes its own answers: labels become groups, if anything."""
    groups = dict(table.groups)
    if table.y is not None and not groups:
        groups = {"class": table.y}
    return replace(table, y=None, groups=groups, label_groups=())
