"""Preprocessing: fitted on training rows, kept as JSON, applied alike to every artefact.

A plan is a JSON-able dict. Tabular: a list of columns, each with the slice of the encoded vector it
fills. Image: the shape that pictures are brought to and the scale of their values. Text: the
vocabulary, and how many words are kept. Series: the windows' length and the unit of change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.data import series, text
from zoo.data.cells import (
    OTHER,
    codes_and_texts,
    fit_rows,
    is_number_type,
    label_text,
    nested_type,
    texts,
)
from zoo.data.series import stamps
from zoo.errors import ZooError, unknown
from zoo.tasks import get_task

MAX_CATEGORIES = 100
BINS = 32
#: A text column is one of numbers or dates when at most this share of its known cells is something else.
MAX_STRAY = 0.05
#: Text with at most so many distinct values is a category even where most rows have their own.
ALWAYS_CATEGORY = 20
_ISO_DATE = r"\d{4}-\d{2}-\d{2}([ T].*)?"


def describe_columns(frame: Any, train: np.ndarray) -> list[dict[str, Any]]:
    """What each column is, judged on the training rows: ``{name, kind, used, why, ...}``.

    Kinds: ``numeric``, ``categorical`` (text or booleans with few values), ``date``, ``text`` (text
    with too many values to be categories), ``constant``, ``empty``, ``row number``, ``nested``
    (lists and the like). ``missing`` counts cells that are empty or, in a column of numbers or dates,
    infinite or neither; ``stray`` says that text is among those. Of many rows :func:`fit_rows` are
    judged.
    """
    rows = []
    judged = fit_rows(train)
    frame = frame.take(judged)
    for name in frame.columns:
        kind, why, more = _kind_of(frame[name], judged)
        rows.append(
            {
                "name": str(name),
                **more,
                "kind": kind,
                "used": kind in ("numeric", "categorical", "date"),
                "why": why,
            }
        )
    return rows


def _kind_of(values: Any, rows: np.ndarray) -> tuple[str, str, dict[str, Any]]:
    """Kind, the reason for it, and counts, of a column's cells in ``rows`` of the data."""
    import pandas as pd

    known = int(values.notna().sum())
    more: dict[str, Any] = {"distinct": 0, "missing": len(values) - known, "stray": False}
    if not known:
        return "empty", "every training cell is empty", more
    if is_number_type(values):
        return _kind_of_numbers(values, rows, "numeric", {}, more)
    if nested := nested_type(values):
        return "nested", f"each cell is a {nested}, not a single value", {**more, "distinct": None}
    counts = values.value_counts(dropna=True)
    more["distinct"] = distinct = len(counts)
    if distinct == 1:
        return "constant", f"always {label_text(counts.index[0])[:40]!r}", more
    if pd.api.types.is_datetime64_any_dtype(values):
        return "date", "days since 1970", more
    if not pd.api.types.is_bool_dtype(values):
        cells = counts.index.astype(str).str.strip()
        undated = ~np.asarray(cells.str.fullmatch(_ISO_DATE), dtype=bool)
        undated[~undated] = np.isnan(_numbers(pd.Series(cells[~undated]), "date"))
        unnumbered = np.isnan(pd.to_numeric(cells, errors="coerce").to_numpy(np.float64))
        for kind, strange in (("date", undated), ("numeric", unnumbered)):
            if counts.to_numpy()[strange].sum() <= MAX_STRAY * known:
                stray = dict(zip(cells[strange], counts.to_numpy()[strange], strict=True))
                return _kind_of_numbers(values, rows, kind, stray, more)
    if distinct > ALWAYS_CATEGORY and distinct > 0.5 * known:
        return "text", f"{distinct:,} distinct values in {known:,} rows: not a category", more
    if distinct > MAX_CATEGORIES:
        return "categorical", f"the {MAX_CATEGORIES} most frequent values, rest {OTHER!r}", more
    return "categorical", "few distinct values", more


def _kind_of_numbers(
    values: Any, rows: np.ndarray, kind: str, stray: dict[str, int], more: dict[str, Any]
) -> tuple[str, str, dict[str, Any]]:
    """The same for numbers or dates, among which there may be ``stray`` cells: text -> count."""
    why = {"numeric": "numbers", "date": "days since 1970"}[kind]
    numbers = _numbers(values, kind)
    gone = np.isnan(numbers)
    finite = np.unique(numbers[~gone])
    more |= {"missing": int(gone.sum()), "distinct": len(finite), "stray": bool(stray)}
    if not len(finite):
        return "empty", "no training cell is a finite number", more
    if len(finite) == 1:
        only = values[~gone].iloc[0] if kind == "date" else finite[0]
        return "constant", f"always {label_text(only)!r}", more
    if (
        kind == "numeric" and not gone.any() and np.ptp(numbers / 2 - rows / 2) == 0
    ):  # halves can't overflow
        return "row number", "counts the rows of the file", more
    if stray:
        shown = ", ".join(repr(cell[:20]) for cell in list(stray)[:3])
        why += f"; stray cells ({sum(stray.values()):,}) count as missing: {shown}"
    return kind, why, more


def fit(data: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The plan for a :class:`zoo.data.table.Data`, from its training rows alone."""
    plan = _FITS[data.kind](data, options, fit_rows(data.parts["train"]))
    if not data.classes and "target" not in plan and get_task(data.task).supervised:
        mean, scale = _mean_and_scale(data.y[data.parts["train"]])
        plan["target"] = {"mean": mean, "scale": scale}
    return plan


def _numbers(series: Any, kind: str) -> np.ndarray:
    """A numeric or date column as float64 (n,), NaN where missing, infinite or neither."""
    import pandas as pd

    if kind == "date":
        if is_number_type(series):  # a date is never a bare number: no guessing of its unit
            return np.full(len(series), np.nan)
        stamp = stamps(series)
        return ((stamp - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy(np.float64)
    values = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _mean_and_scale(known: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of float64 (n,), 1 for the latter where it is 0.

    Taken of values brought below 1 by a power of two, which costs no digit: the squares of numbers
    beyond 1e154 would overflow.
    """
    exponent = np.frexp(np.abs(known).max())[1]
    small = np.ldexp(known, -exponent)
    mean, scale = np.ldexp([small.mean(), small.std()], exponent)
    return float(mean), float(scale) or 1.0


def bin_edges(known: np.ndarray, bins: int) -> list[float]:
    """Inner limits of at most ``bins`` bins: float64 (n,) -> sorted floats.

    Half are quantiles of the rows, half quantiles of the distinct values, so that a column that is
    mostly zero still tells its large values apart. Piecewise-linear encoding of numbers: Gorishniy,
    Rubachev & Babenko, NeurIPS 2022, section 3.2.
    """
    part = np.linspace(0, 1, bins // 2 + 1)
    with np.errstate(over="ignore", invalid="ignore"):  # between values of 1e308: no edge there
        limits = np.r_[np.quantile(known, part), np.quantile(np.unique(known), part)]
    low, high = known.min(), known.max()
    return [float(edge) for edge in np.unique(limits) if low < edge < high]


def _fit_tabular(data: Any, options: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    frame = data.take(rows)
    bins = int(options.get("bins", BINS))
    columns, start = [], 0
    for described in data.columns:
        if not described["used"]:
            continue
        name, kind = described["name"], described["kind"]
        column: dict[str, Any] = {"name": name, "kind": kind, "start": start}
        if kind == "categorical":
            found, counts = np.unique(texts(frame[name]).astype(str), return_counts=True)
            frequent = found[np.argsort(-counts, kind="stable")]
            column["values"] = sorted(str(v) for v in frequent[:MAX_CATEGORIES])
            column["other"] = len(found) > MAX_CATEGORIES
            width = len(column["values"]) + column["other"]
        else:
            values = _numbers(frame[name], kind)
            known = values[~np.isnan(values)]
            mean, scale = _mean_and_scale(known)
            column |= {
                "mean": mean,
                "scale": scale,
                "edges": bin_edges(known, bins),
                "low": float(known.min()),
                "high": float(known.max()),
                "missing": bool(np.isnan(values).any()),
                "stray": described["stray"],
            }
            width = 1 + len(column["edges"]) + column["missing"]
        column["stop"] = start = start + width
        columns.append(column)
    return {"kind": "tabular", "columns": columns, "shape": [start]}


def text_columns(plan: dict[str, Any]) -> tuple[str, ...]:
    """Columns whose cells are categories: to be read as the text they are, ``01`` not as 1."""
    columns = plan.get("columns", ())
    return tuple(column["name"] for column in columns if column["kind"] == "categorical")


def _apply_tabular(plan: dict[str, Any], frame: Any) -> np.ndarray:
    _check_columns(plan, [str(name) for name in frame.columns])
    out = np.zeros((len(frame), plan["shape"][0]), dtype=np.float32)
    for column in plan["columns"]:
        encode = _encode_category if column["kind"] == "categorical" else _encode_number
        encode(column, frame[column["name"]], out[:, column["start"] : column["stop"]])
    return out


def _check_columns(plan: dict[str, Any], there: list[str]) -> None:
    wanted = [column["name"] for column in plan["columns"]]
    absent = [name for name in wanted if name not in there]
    if absent:
        rest = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        error = unknown("column", absent[0], there)
        raise ZooError(
            f"The input lacks {', '.join(map(repr, absent[:5]))}{rest}.",
            expected=f"the columns the model was trained on: {', '.join(map(repr, wanted))[:300]}",
            received=", ".join(map(repr, there))[:300],
            hint=error.hint,
            kind="unknown_column",
        )


def _encode_category(column: dict[str, Any], series: Any, out: np.ndarray) -> None:
    """One 1 a row into zeros (n, width); an unseen value without a slot stays all zeros."""
    slot = {value: k for k, value in enumerate(column["values"])}
    rest = len(slot) if column["other"] else -1
    codes, names = codes_and_texts(series)
    index = np.array([slot.get(name, rest) for name in names])[codes]
    rows = np.flatnonzero(index >= 0)
    out[rows, index[rows]] = 1.0


def _encode_number(column: dict[str, Any], series: Any, out: np.ndarray) -> None:
    """The standardised value, how far it is into each bin, and whether it is missing."""
    values = _numbers(series, column["kind"])
    gone = np.isnan(values)
    if gone.all() and not column["stray"] and series.notna().any():
        cell = str(series.dropna().iloc[0])
        if label_text(cell).lower() not in ("inf", "-inf"):
            what = {"date": "dates such as 2024-12-31", "numeric": "numbers"}[column["kind"]]
            raise ZooError(
                f"The column {column['name']!r} holds no {what.split()[0]}.",
                expected=f"{what}, as in training",
                received=f"cells such as {cell[:40]!r}",
                kind="bad_column",
            )
    # Halves throughout: the difference of two halves can't overflow.
    limits = np.array([column["low"], *column["edges"], column["high"]]) / 2
    low, width = limits[1:-1], np.diff(limits)[1:]
    half = np.where(gone, column["mean"], values) / 2
    with np.errstate(over="ignore"):  # into infinity, which is clipped like all large values
        scaled = (half - column["mean"] / 2) / column["scale"] * 2
    out[:, 0] = np.clip(scaled, -10, 10)
    inside = np.clip(half, limits[0], limits[-1])
    bin_of = np.searchsorted(low, inside, side="right") - 1  # -1 below the first edge
    bin_of[gone] = -1
    # 1 in the bins that a number is beyond, 0 in those it is not in, and a fraction in its own.
    out[:, 1 : 1 + len(low)] = np.arange(len(low)) < bin_of[:, None]
    rows = np.flatnonzero(bin_of >= 0)
    own = bin_of[rows]
    width = np.where(width > 0, width, 1.0)
    out[rows, 1 + own] = np.clip((inside[rows] - low[own]) / width[own], 0.0, 1.0)
    if column["missing"]:
        out[gone, -1] = 1.0


def _fit_image(data: Any, options: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    shape = list(data.x.shape[1:])
    if "size" in options:
        shape = [int(options["size"]), int(options["size"]), shape[2]]
    return {"kind": "image", "shape": shape, "scale": 1 / 255}


def _apply_image(plan: dict[str, Any], images: np.ndarray) -> np.ndarray:
    height, width, channels = plan["shape"]
    if images.ndim != 4 or images.shape[3] != channels:
        raise ZooError(
            "The pictures don't have the shape the model was trained on.",
            expected=f"(n, {height}, {width}, {channels})",
            received=str(images.shape),
        )
    if images.shape[1:3] != (height, width):
        from zoo.data.images import resize

        images = resize(images, height, width)
    return images.astype(np.float32) * np.float32(plan["scale"])


_FITS = {"tabular": _fit_tabular, "image": _fit_image, "text": text.fit, "series": series.fit}
_APPLIES = {
    "tabular": _apply_tabular,
    "image": _apply_image,
    "text": text.apply,
    "series": series.apply,
}


def apply(plan: dict[str, Any], x: Any) -> np.ndarray:
    """Encode inputs: a frame or uint8 images (n, ...) -> float32 (n, *plan["shape"]); texts -> int32.

    Windows of a series stay float64 in their own unit: their task's row frames them.
    """
    return _APPLIES[plan["kind"]](plan, x)


def display_values(plan: dict[str, Any], frame: Any) -> np.ndarray:
    """Each numeric cell's rank among the training quantiles, 0 to 1, NaN for categories.

    Args:
        plan: a tabular plan. frame: rows (n,). Returns float64 (n, columns), for colouring plots.
    """
    out = np.full((len(frame), len(plan["columns"])), np.nan)
    for k, column in enumerate(plan["columns"]):
        if column["kind"] != "categorical":
            values = _numbers(frame[column["name"]], column["kind"])
            span = max(column["high"] - column["low"], 1e-12)
            edges = np.array([column["low"], *column["edges"], column["high"]])
            if len(edges) > 3:
                ranks = np.interp(values, edges, np.linspace(0, 1, len(edges)))
            else:
                ranks = np.clip((values - column["low"]) / span, 0, 1)
            out[:, k] = np.where(np.isnan(values), np.nan, ranks)
    return out
