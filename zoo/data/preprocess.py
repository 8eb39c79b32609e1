"""Preprocessing: fitted on training rows, kept as JSON, applied alike to every artefact.

A plan is a JSON-able dict. Tabular: a list of columns, each with the slice of the encoded vector it
fills. Image: the shape that pictures are brought to and the scale of their values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.errors import ZooError

MISSING = "(missing)"
OTHER = "(other)"
MAX_CATEGORIES = 100
BINS = 32


def label_text(value: Any) -> str:
    """A label as text: whole floats without their point, the rest as they are."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def describe_columns(frame: Any, train: np.ndarray) -> list[dict[str, Any]]:
    """What each column is, judged on the training rows: ``{name, kind, used, why, ...}``.

    Kinds: ``numeric``, ``categorical`` (text or booleans with few values), ``date``, ``text`` (text
    with too many values to be categories), ``constant``, ``empty``.
    """
    import pandas as pd

    rows = []
    for name in frame.columns:
        values = frame[name].iloc[train]
        known = values.dropna()
        distinct, missing = int(known.nunique()), int(values.isna().sum())
        row: dict[str, Any] = {"name": str(name), "distinct": distinct, "missing": missing}
        if not len(known):
            kind, why = "empty", "every training cell is empty"
        elif distinct == 1:
            kind, why = "constant", f"always {str(known.iloc[0])[:40]!r}"
        elif pd.api.types.is_datetime64_any_dtype(values):
            kind, why = "date", "days since 1970"
        elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            kind, why = "numeric", "numbers"
        elif distinct > MAX_CATEGORIES and distinct > 0.5 * len(known):
            kind, why = (
                "text",
                f"{distinct:,} distinct values in {len(known):,} rows: not a category",
            )
        elif distinct > MAX_CATEGORIES:
            kind, why = "categorical", f"the {MAX_CATEGORIES} most frequent values, rest {OTHER!r}"
        else:
            kind, why = "categorical", "few distinct values"
        rows.append(
            {**row, "kind": kind, "used": kind in ("numeric", "categorical", "date"), "why": why}
        )
    return rows


def fit(data: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The plan for a :class:`zoo.data.core.Data`, from its training rows alone."""
    plan = _FITS[data.kind](data, options)
    if not data.classes:
        y = data.y[data.parts["train"]]
        plan["target"] = {"mean": float(y.mean()), "scale": float(y.std() or 1.0)}
    return plan


def _numbers(series: Any, kind: str) -> np.ndarray:
    """A numeric or date column as float64 (n,), NaN where missing or infinite."""
    import pandas as pd

    if kind == "date":
        stamp = pd.to_datetime(series, errors="coerce", utc=True)
        return ((stamp - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy(np.float64)
    values = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _texts(series: Any) -> np.ndarray:
    missing = series.isna().to_numpy()
    return np.array(
        [MISSING if gone else label_text(v) for v, gone in zip(series, missing, strict=True)],
        dtype=object,
    )


def bin_edges(known: np.ndarray, bins: int) -> list[float]:
    """Inner limits of at most ``bins`` bins: float64 (n,) -> sorted floats.

    Half are quantiles of the rows, half quantiles of the distinct values, so that a column that is
    mostly zero still tells its large values apart. Piecewise-linear encoding of numbers: Gorishniy,
    Rubachev & Babenko, NeurIPS 2022, section 3.2.
    """
    half = np.linspace(0, 1, bins // 2 + 1)
    limits = np.r_[np.quantile(known, half), np.quantile(np.unique(known), half)]
    inner = np.unique(limits)
    return [float(edge) for edge in inner if known.min() < edge < known.max()]


def _fit_tabular(data: Any, options: dict[str, Any]) -> dict[str, Any]:
    frame = data.take(data.parts["train"])
    bins = int(options.get("bins", BINS))
    columns, start = [], 0
    for described in data.columns:
        if not described["used"]:
            continue
        name, kind = described["name"], described["kind"]
        column: dict[str, Any] = {"name": name, "kind": kind, "start": start}
        if kind == "categorical":
            texts = _texts(frame[name])
            found, counts = np.unique(texts.astype(str), return_counts=True)
            frequent = found[np.argsort(-counts, kind="stable")]
            column["values"] = sorted(str(v) for v in frequent[:MAX_CATEGORIES])
            column["other"] = len(found) > MAX_CATEGORIES
            width = len(column["values"]) + column["other"]
        else:
            values = _numbers(frame[name], kind)
            known = values[~np.isnan(values)]
            edges = bin_edges(known, bins)
            column |= {
                "mean": float(known.mean()),
                "scale": float(known.std() or 1.0),
                "edges": edges,
                "low": float(known.min()),
                "high": float(known.max()),
                "missing": bool(np.isnan(values).any()),
            }
            width = 1 + len(column["edges"]) + column["missing"]
        column["stop"] = start = start + width
        columns.append(column)
    return {"kind": "tabular", "columns": columns, "shape": [start]}


def _apply_tabular(plan: dict[str, Any], frame: Any) -> np.ndarray:
    out = np.zeros((len(frame), plan["shape"][0]), dtype=np.float32)
    for column in plan["columns"]:
        name, start = column["name"], column["start"]
        if name not in frame.columns:
            raise ZooError(
                f"The input has no column {name!r}.",
                expected=f"the columns the model was trained on: "
                f"{', '.join(c['name'] for c in plan['columns'])[:300]}",
                received=", ".join(str(c) for c in frame.columns)[:300],
                kind="unknown_column",
            )
        if column["kind"] == "categorical":
            slot = {value: k for k, value in enumerate(column["values"])}
            rest = len(slot) if column["other"] else -1  # an unseen value without a slot: all zeros
            index = np.array([slot.get(text, rest) for text in _texts(frame[name])])
            rows = np.flatnonzero(index >= 0)
            out[rows, start + index[rows]] = 1.0
            continue
        values = _numbers(frame[name], column["kind"])
        gone = np.isnan(values)
        values = np.where(gone, column["mean"], values)
        out[:, start] = np.clip((values - column["mean"]) / column["scale"], -10, 10)
        limits = [column["low"], *column["edges"], column["high"]]
        for k, low in enumerate(limits[1:-1], start=1):
            # How far the value is into the bin above this edge, from 0 to 1.
            width = max(limits[k + 1] - low, 1e-12)
            out[:, start + k] = np.where(gone, 0.0, np.clip((values - low) / width, 0.0, 1.0))
        if column["missing"]:
            out[gone, column["stop"] - 1] = 1.0
    return out


def _fit_image(data: Any, options: dict[str, Any]) -> dict[str, Any]:
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


_FITS = {"tabular": _fit_tabular, "image": _fit_image}
_APPLIES = {"tabular": _apply_tabular, "image": _apply_image}


def apply(plan: dict[str, Any], x: Any) -> np.ndarray:
    """Encode inputs: a frame or uint8 images (n, ...) -> float32 (n, *plan["shape"])."""
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
