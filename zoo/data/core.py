"""From a request for data to splits: what every loader's table goes through.

A loader returns a :class:`Table`, everything in file order. :func:`open_data` infers the task,
takes sensitive columns out of the inputs, makes groups, splits, and returns :class:`Data`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.preprocess import (
    FIT_ROWS,
    MISSING,
    OTHER,
    codes_and_texts,
    describe_columns,
    fit_rows,
    is_number_type,
)
from zoo.errors import ZooError, unknown
from zoo.tasks import function_of, get_task

PARTS = ("train", "val", "test")
MIN_ROWS = 20
MAX_CLASSES = 1000
#: More groups than this can't be told apart by any measure, nor read.
MAX_GROUPS = 100
#: Whole numbers with at most so many values are classes, unless --task says otherwise.
MAX_NUMBERED_CLASSES = 20
#: Numeric attributes with more values than this are banded.
MAX_UNBANDED = 10
#: The square of a larger target overflows float32, in which models are trained.
MAX_TARGET = 1e18
_ALIASES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
#: Of each 20 rows in stratum order: 14 train, 3 validation, 3 test, spread evenly.
_PATTERN = np.array([0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 2, 0])
#: Of each 20 rows of a given training split: 3 become the part that lacks, validation or test.
_CARVE = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0])


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


def load_table(request: Request, sha256: str | None = None) -> tuple[str, Table]:
    """Name and table of a request: a registered data set, or a path of the user's own."""
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
    if looks_like_path(request.data):
        return Path(request.data).name, load_own(request, sha256)
    raise unknown(
        "data set",
        request.data,
        registry.specs,
        hint="Own data is given as a path: --data ./file.csv --target COLUMN",
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
        raw_groups = {attr: _named(raw_groups, attr) for attr in request.sensitive}
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


#: Cells of free text have at least so many words on average; names and codes have fewer.
LEAST_WORDS = 3


def only_text(columns: list[dict[str, Any]], frame: Any) -> dict[str, Any] | None:
    """The column of free text where it is the only one with anything to learn from, or None."""
    free = [column for column in columns if column["kind"] == "text"]
    if len(free) != 1 or any(column["used"] for column in columns):
        return None
    if len(frame) > FIT_ROWS:
        frame = frame.take(fit_rows(np.arange(len(frame))))
    cells = frame[free[0]["name"]].dropna().astype(str)
    return free[0] if cells.str.split().str.len().mean() >= LEAST_WORDS else None


def _named(available: Mapping[str, Any], name: str) -> Any:
    if name not in available:
        error = unknown("column", name, available, hint="--sensitive names columns of the data.")
        whole = next((column for column in available if "," in column and name in column), None)
        if whole is not None:
            error.hint = f"A name with a comma stands in double quotes: --sensitive '\"{whole}\"'"
        raise error
    return available[name]


def take_sensitive(table: Table, request: Request) -> tuple[Any, dict[str, Any]]:
    """Inputs without the sensitive columns, and the raw values of each attribute.

    ``table.groups`` are attributes that the data set itself declares (derived ones stay inputs);
    ``--sensitive`` chooses among them or names further columns.
    """
    groups = dict(table.groups)
    x = table.x
    if request.sensitive:
        available = {**{str(column): None for column in x.columns}, **groups}
        chosen = {}
        for name in request.sensitive:
            declared = _named(available, name)
            chosen[name] = x[name] if declared is None else declared
        if not request.include_sensitive:
            x = x.drop(columns=[name for name in chosen if name in x and name not in groups])
        groups = chosen
    added = {name: values for name, values in groups.items() if name not in x}
    if request.include_sensitive and added:
        x = x.assign(**added)
    return x, groups


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


def make_groups(
    attribute: str,
    values: Any,
    train: np.ndarray,
    request: Request,
    is_label: bool,
    notes: list[str],
) -> Any:
    """The groups (n,) of an attribute, a ``Categorical``: numbers with more than 10 values become bands.

    The bands' limits are the quartiles of the training rows. A missing value is ``(missing)``.
    """
    import pandas as pd

    series = pd.Series(values).reset_index(drop=True)
    if is_number_type(series) and series.nunique() > MAX_UNBANDED:
        codes, names = _bands(attribute, series.to_numpy(np.float64, na_value=np.nan), train, notes)
    else:
        codes, names = codes_and_texts(series)
    found = categorical(codes, names)
    counts = np.bincount(found.codes)
    rare = found.categories[counts == 1]
    if len(rare) and not is_label:
        if request.rare_groups == "error":
            shown = ", ".join(repr(str(name)) for name in rare[:5])
            more = f", ... ({len(rare):,} in all)" if len(rare) > 5 else ""
            raise ZooError(
                f"In {attribute!r} there are groups of a single row: {shown}{more}.",
                expected="at least 2 rows in every group, and better 100",
                received="1 row",
                hint="One row gives no interval and points at a person. Correct the data, or pass "
                "--rare-groups merge to put such rows into the group '(other)'.",
                kind="rare_group",
            )
        merged = [OTHER if name in rare else name for name in found.categories]
        notes.append(f"groups of {attribute!r} with a single row ({len(rare)}) became {OTHER!r}")
        found = categorical(found.codes, merged)
    groups = len(counts) - len(rare)
    if groups > MAX_GROUPS and not is_label:
        raise ZooError(
            f"The attribute {attribute!r} has too many groups.",
            expected=f"at most {MAX_GROUPS} groups",
            received=f"{groups:,} distinct values",
            hint="Choose another --sensitive column, or put its values into fewer groups.",
            kind="too_many_groups",
        )
    if len(counts) == 1:
        notes.append(f"the attribute {attribute!r} has a single group: nothing to compare")
    return found


def _bands(
    attribute: str, known: np.ndarray, train: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Bands of float64 (n,), as codes and names, limited by the quartiles of the training rows.

    The limits are rounded to as few digits as keep them apart, so that they are what they say.
    """
    finite = known[train][np.isfinite(known[train])]
    quartiles = np.unique(np.quantile(finite, [0.25, 0.5, 0.75])) if len(finite) else np.zeros(1)
    for digits in range(3, 18):
        shown = [_plain(f"{edge:.{digits}g}") for edge in quartiles]
        if len(set(shown)) == len(shown):
            break
    edges = np.array([float(text) for text in shown])
    labels = [f"< {shown[0]}"]
    labels += [f"{low} to < {high}" for low, high in itertools.pairwise(shown)]
    labels += [f">= {shown[-1]}"]
    notes.append(f"group {attribute!r} is banded at the training quartiles: {', '.join(shown)}")
    band = np.searchsorted(edges, known, side="right")
    return np.where(np.isnan(known), len(labels), band), [*labels, MISSING]


def _plain(number: str) -> str:
    """A number's text without an exponent, as long as that is readable."""
    value = float(number)
    if 1e-4 <= abs(value) < 1e12:
        return np.format_float_positional(value, trim="-")
    return number


def split_rows(
    table: Table,
    request: Request,
    y: np.ndarray,
    classes: tuple[str, ...],
    groups: Mapping[str, Any],
    notes: list[str],
) -> dict[str, np.ndarray]:
    """Row ids of each part; a function of the data and ``--split-seed``, never of ``--seed``.

    A given split is obeyed; where it lacks validation or test rows, 15 % of its training rows become
    those. Otherwise 70/15/15. Rows are shuffled within strata of label and groups and dealt in a
    fixed pattern, so that even a small stratum is shared out in proportion.
    """
    n = len(y)
    seed = [request.split_seed, int(table.sha256[:15], 16)]
    order = np.random.default_rng(seed).permutation(n)
    strata = _strata(y, classes, groups)[order]
    order = order[np.argsort(strata, kind="stable")]
    if table.split is None:
        part = np.empty(n, dtype=np.int64)
        part[order] = np.resize(_PATTERN, n)
        parts = {name: np.flatnonzero(part == k) for k, name in enumerate(PARTS)}
    else:
        parts = _given(table.split)
        lacks = set(PARTS) - set(parts)
        if lacks in ({"val"}, {"test"}):
            (name,) = lacks
            inside = order[np.isin(order, parts["train"])]
            carved = inside[np.resize(_CARVE, len(inside)) == 1]
            parts[name] = np.sort(carved)
            parts["train"] = np.setdiff1d(parts["train"], carved)
            notes.append(f"the given split has no {name} rows: 15 % of train became that")
    empty = [name for name in ("train", "test", "val") if not len(parts.get(name, ()))]
    if empty:
        sizes = ", ".join(f"{name} {len(parts.get(name, ())):,}" for name in PARTS)
        raise ZooError(
            f"The split column leaves {empty[0]} without rows.",
            expected="a split column that fills train and one of test and val, or both",
            received=sizes,
            hint="Correct the column, or name another with --split.",
            kind="empty_split",
        )
    absent = [classes[k] for k in range(len(classes)) if not (y[parts["train"]] == k).any()]
    if absent:
        raise ZooError(
            f"{len(absent)} class(es) have no training rows: {', '.join(absent[:5])}.",
            expected="every class in the training split",
            received=f"{len(parts['train']):,} training rows without them",
            hint="Add rows, merge or drop these classes, or choose another --split.",
        )
    return {name: parts[name].astype(np.int64) for name in PARTS}


def _strata(y: np.ndarray, classes: tuple[str, ...], groups: Mapping[str, Any]) -> np.ndarray:
    """One integer (n,) for each combination of label (quartile for values) and groups."""
    import pandas as pd

    keys = {"label": y if classes else _quarter(y.reshape(len(y), -1).mean(axis=1))}
    for name, values in groups.items():
        series = pd.Series(values).reset_index(drop=True)
        if is_number_type(series) and series.nunique() > MAX_UNBANDED:
            keys[f"group {name}"] = _quarter(series.to_numpy(np.float64, na_value=np.nan))
        else:
            keys[f"group {name}"] = categorical(*codes_and_texts(series)).codes
    frame = pd.DataFrame(keys)
    return frame.groupby(list(frame.columns), sort=True).ngroup().to_numpy()


def _quarter(values: np.ndarray) -> np.ndarray:
    """Which quarter of all rows a value (n,) lies in, 0 to 3; 4 where it is missing."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values), dtype=np.int64)
    quarter = np.searchsorted(np.quantile(known, [0.25, 0.5, 0.75]), values)
    return np.where(np.isnan(values), 4, quarter)


def split_part(name: Any) -> str | None:
    """The part of the split that a name means ("training", "dev"...); None for another word."""
    return _ALIASES.get(str(name).strip().lower())


def _given(split: Any) -> dict[str, np.ndarray]:
    codes, names = codes_and_texts(split)
    said = np.array([split_part(name) or "" for name in names])
    strange = [name for k, name in enumerate(names) if not said[k] and (codes == k).any()]
    if strange:
        raise ZooError(
            f"The split column holds {strange[0][:40]!r}.",
            expected=f"one of: {', '.join(_ALIASES)}",
            received=", ".join(repr(name[:40]) for name in strange[:5]),
            hint="--split COLUMN names the column that says train, val or test.",
            kind="bad_split",
        )
    rows = said[codes]
    return {name: np.flatnonzero(rows == name) for name in PARTS if (rows == name).any()}


def is_split_column(values: Any) -> bool:
    """Whether a column says train and test (and perhaps validation) and nothing else."""
    import pandas as pd

    series = pd.Series(values)
    if series.isna().any() or series.nunique() > len(_ALIASES):
        return False
    names = {split_part(value) for value in series.unique()}
    return None not in names and {"train", "test"} <= names
