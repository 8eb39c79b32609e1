"""Which rows train, validate and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.data.cells import codes_and_texts, is_number_type
from zoo.data.groups import MAX_UNBANDED
from zoo.data.table import PARTS, Request, Table, categorical
from zoo.errors import ZooError

_ALIASES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
#: Of each 20 rows in stratum order: 14 train, 3 validation, 3 test, spread evenly.
_PATTERN = np.array([0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 2, 0])
#: Of each 20 rows of a given training split: 3 become the part that lacks, validation or test.
_CARVE = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0])


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
