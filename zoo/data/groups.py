"""Who is judged apart: sensitive columns, and the groups that their values make."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.cells import MISSING, OTHER, codes_and_texts, is_number_type
from zoo.data.table import Request, Table, categorical
from zoo.errors import ZooError, unknown

#: More groups than this can't be told apart by any measure, nor read.
MAX_GROUPS = 100
#: Numeric attributes with more values than this are banded.
MAX_UNBANDED = 10


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
            declared = named(available, name)
            chosen[name] = x[name] if declared is None else declared
        if not request.include_sensitive:
            x = x.drop(columns=[name for name in chosen if name in x and name not in groups])
        groups = chosen
    added = {name: values for name, values in groups.items() if name not in x}
    if request.include_sensitive and added:
        x = x.assign(**added)
    return x, groups


def named(available: Mapping[str, Any], name: str) -> Any:
    if name not in available:
        error = unknown("column", name, available, hint="--sensitive names columns of the data.")
        whole = next((column for column in available if "," in column and name in column), None)
        if whole is not None:
            error.hint = f"A name with a comma stands in double quotes: --sensitive '\"{whole}\"'"
        raise error
    return available[name]


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


def as_known(values: Any, known: Sequence[str]) -> np.ndarray:
    """The groups, of those ``known``, of new values of an attribute: strings (n,).

    Numbers fall into bands where the groups are bands of ours; a value that was merged with other rare
    ones is of their group. What is of no known group stays as it is.
    """
    import pandas as pd

    series = pd.Series(values).reset_index(drop=True)
    codes, texts = codes_and_texts(series)
    merged = {text: OTHER for text in texts if OTHER in known and text not in known}
    found = np.array([merged.get(text, text) for text in texts], dtype=object)[codes]
    limits = {name: _limits(name) for name in known if name != MISSING}
    if is_number_type(series) and all(limits.values()):
        numbers = series.to_numpy(np.float64, na_value=np.nan)
        for name, ends in limits.items():
            assert ends is not None
            found[(numbers >= ends[0]) & (numbers < ends[1])] = name
    return found.astype(np.str_)


def _limits(name: str) -> tuple[float, float] | None:
    """From where to where a band goes that :func:`_bands` named; None of another group."""
    band = re.fullmatch(r"< (\S+)|(\S+) to < (\S+)|>= (\S+)", name)
    if band is None:
        return None
    try:
        low, high = band[2] or band[4], band[1] or band[3]
        return float(low or -np.inf), float(high or np.inf)
    except ValueError:
        return None


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
