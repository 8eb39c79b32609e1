"""One set of predictions, judged by group: values, disparities and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from zoo.metrics import MEANS, METRICS, SHARES, cells, interval
from zoo.predictions import Predictions
from zoo_explain.fairness import bands
from zoo_explain.fairness.measures import (
    BY_LABEL,
    CLASS_AVERAGES,
    CROSSED,
    DISPARITIES,
    Array,
    Disparity,
    Function,
    View,
    cell_draws,
    chosen,
    fairlearn_values,
    row_draws,
    row_value,
    settings,
    view,
)

EMPTY: dict[str, Any] = {"value": None, "ci_low": None, "ci_high": None}


@dataclass(frozen=True)
class Options:
    resamples: int
    seed: int
    confidence: float
    min_cell: int


@dataclass(frozen=True)
class Judged:
    """Metrics by group: ``results[name][g]`` is what the document holds, with a ``reason`` where
    there is no value; ``estimates`` hold what disparities are made from."""

    names: list[str]
    sizes: Array
    results: dict[str, list[dict[str, Any]]]
    estimates: dict[str, bands.Estimate] = field(default_factory=dict)

    def known(self, metrics: Sequence[str]) -> Array:
        """Indices of the groups that have all of these metrics."""
        missing = np.array([[r["value"] is None for r in self.results[m]] for m in metrics])
        return np.flatnonzero(~missing.any(axis=0))


def audit(
    predictions: Predictions,
    *,
    task: str,
    positive: str | None = None,
    attributes: list[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    min_cell: int = 10,
    label_groups: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Metrics by group, the disparities between groups, and crossed groups, with intervals.

    Args:
        predictions: what was predicted, with the groups beside it.
        task: a name in :data:`zoo.tasks.TASKS`; its row says which metrics are judged.
        positive: the class that rates are about; the last of two classes unless named. With more
            classes there are no rates without it.
        attributes: which of the groups to judge, all by default.
        resamples, seed, confidence: of the bootstrap.
        min_cell: groups of fewer rows, shares of fewer, and averages over classes of which one
            has fewer, are suppressed.
        label_groups: attributes that are the label itself, judged by accuracy and error alone.

    Returns:
        ``{split, task, positive, attributes, intersections, warnings}``, the fields of
        :class:`zoo.schema.FairnessResult`. ``attributes[name]`` is ``{groups, disparities,
        worst_group}``. Group values are those of fairlearn's MetricFrame; how the intervals are
        made is said in :mod:`zoo_explain.fairness.bands`.

    Raises:
        zoo.errors.ZooError: no rows, values that are not finite, an unknown attribute or class.
    """
    settings(resamples, confidence, min_cell)
    seen = view(predictions, task, positive)
    options = Options(resamples, seed, confidence, min_cell)
    notes: list[str] = []
    names = chosen(predictions, attributes)
    if not names:
        notes.append("There are no groups: nothing was judged. Name columns with --sensitive.")
    judged = {}
    for name in names:
        metrics = seen.metrics()
        if name in label_groups:
            metrics = tuple(metric for metric in metrics if metric in BY_LABEL)
            notes.append(
                f"{name}: the group is the label, so rates by group say nothing; "
                "only accuracy and error are judged."
            )
        judged[name] = _attribute(seen, predictions.groups[name], metrics, options, name, notes)
    return {
        "split": predictions.split,
        "task": task,
        "positive": None if seen.positive is None else predictions.classes[seen.positive],
        "attributes": judged,
        "intersections": _intersections(seen, predictions, names, label_groups, options, notes),
        "warnings": notes,
    }


def judge(seen: View, labels: Array, metrics: Sequence[str], options: Options) -> Judged:
    """Values, intervals and estimates of the metrics in each group of ``labels`` (n,)."""
    groups, codes = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
    sizes = np.bincount(codes, minlength=len(groups))
    metrics = tuple(metrics)
    lacking = {name: seen.unavailable(name) for name in metrics}
    usable = tuple(name for name in metrics if lacking[name] is None)
    estimates, draws, counts = resample(seen, codes, usable, options)
    values = fairlearn_values(seen, codes, usable)
    rarest = sizes.copy()  # rows of the rarest class that occurs in each group
    if seen.task.classes:
        first, rows = cells(codes, seen.y)
        np.minimum.at(rarest, codes[first], rows)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in metrics:
        results[name] = [
            _result(
                name,
                size,
                rarest[g],
                lacking[name],
                np.nan if lacking[name] else values[name][g],
                None if lacking[name] else draws[name][:, g],
                tuple(int(part[g]) for part in counts[name]) if name in counts else None,
                options,
            )
            for g, size in enumerate(sizes)
        ]
    return Judged([str(group) for group in groups], sizes, results, estimates)


def resample(
    seen: View, codes: Array, names: Sequence[str], options: Options
) -> tuple[dict[str, bands.Estimate], dict[str, Array], dict[str, tuple[Array, Array]]]:
    """Estimates, draws (resamples, G), and for shares (hits, rows) of each metric by group."""
    masks: dict[tuple[str, str], Array] = {}
    values: dict[str, Array] = {}
    by_cell: dict[str, Function] = {}
    by_row: dict[str, Function] = {}
    for name in names:
        if name in SHARES:
            y, p, _ = seen.inputs(name)
            hit, within = SHARES[name]
            masks[name, "rows"] = within(y, p)
            masks[name, "hits"] = hit(y, p) & masks[name, "rows"]
        elif name in MEANS:
            values[name] = row_value(seen, name)
        else:
            kind = by_cell if METRICS[name].needs in ("classes", "positive") else by_row
            kind[name] = partial(_metric, seen, name)
    estimates: dict[str, bands.Estimate] = {}
    draws: dict[str, Array] = {}
    counts: dict[str, tuple[Array, Array]] = {}
    if masks or by_cell:
        found, draws = cell_draws(
            codes, (seen.y, seen.p), masks, by_cell, options.resamples, options.seed
        )
        for name in {name for name, _ in masks}:
            hits, rows = found[name, "hits"], found[name, "rows"]
            estimates[name] = bands.share(hits[0], rows[0], hits[1], rows[1])
            counts[name] = hits[0], rows[0]
    if values or by_row:
        means, more = row_draws(codes, values, by_row, options.resamples, options.seed)
        estimates |= means
        draws |= more
    return estimates, draws | {name: e.draws for name, e in estimates.items()}, counts


def _metric(seen: View, name: str, rows: Array, weights: Array) -> Array:
    return METRICS[name].function(*seen.inputs(name, rows), weights)


def _result(
    name: str,
    size: int,
    rarest: int,
    lacking: str | None,
    value: float,
    draws: Array | None,
    counts: tuple[int, ...] | None,
    options: Options,
) -> dict[str, Any]:
    """A metric in one group, or the reason why it is not told."""
    reason = lacking or suppressed(size, counts, options.min_cell)
    if reason is None and name in CLASS_AVERAGES and rarest < options.min_cell:
        reason = f"an average over classes, one of fewer than {options.min_cell} {_rows(options.min_cell)}"
    if reason is None and counts is not None and counts[1] == 0:
        reason = "no rows it is a share of"
    if reason is None and np.isnan(value):
        reason = "undefined on these rows"
    if reason is not None or draws is None:
        return EMPTY | {"reason": reason}
    found = interval(value, draws, options.confidence, counts)  # type: ignore[arg-type]
    if counts is not None:
        found["rows"] = counts[1]
    elif size == 1:
        found |= {"ci_low": None, "ci_high": None, "reason": "one row has no interval"}
    return found


def suppressed(size: int, counts: tuple[int, ...] | None, min_cell: int) -> str | None:
    """Why a value is not told: too few rows in the group, or in what the value is a share of."""
    if size < min_cell:
        return f"{size} {_rows(size)}, fewer than {min_cell}"
    if counts is not None and counts[1] < min_cell:
        return f"a share of fewer than {min_cell} {_rows(min_cell)}"
    return None


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


def _attribute(
    seen: View,
    labels: Array,
    metrics: Sequence[str],
    options: Options,
    attribute: str,
    notes: list[str],
) -> dict[str, Any]:
    judged = judge(seen, labels, metrics, options)
    notes += _notes(attribute, judged, options.min_cell)
    disparities = {
        row.name: disparity(row, judged, options)
        for row in DISPARITIES
        if all(metric in judged.results for metric in row.metrics)
    }
    worst = [row for row in disparities.values() if row.get("group") is not None]
    return {
        "groups": [
            {
                "group": name,
                "n": int(judged.sizes[g]),
                "metrics": {metric: rows[g] for metric, rows in judged.results.items()},
            }
            for g, name in enumerate(judged.names)
        ],
        "disparities": disparities,
        "worst_group": worst[0]["group"] if worst else None,
    }


def _notes(attribute: str, judged: Judged, min_cell: int) -> list[str]:
    """What was left out of an attribute, one line a group."""
    found = []
    if len(judged.names) == 1:
        found.append(f"{attribute}: there is one group, so there is nothing to compare.")
    for g, name in enumerate(judged.names):
        size = int(judged.sizes[g])
        if size < min_cell:
            found.append(
                f"{attribute}: {name!r} has {size} {_rows(size)}, fewer than {min_cell}; its "
                "values are suppressed and it enters no disparity."
            )
            continue
        reasons: dict[str, list[str]] = {}
        for metric, rows in judged.results.items():
            if rows[g]["value"] is None:
                reasons.setdefault(rows[g]["reason"], []).append(metric)
        found += [
            f"{attribute}: {name!r} has no {', '.join(metrics)} ({reason})."
            for reason, metrics in reasons.items()
        ]
    return found


def disparity(row: Disparity, judged: Judged, options: Options) -> dict[str, Any]:
    """One disparity over the groups that have its metrics."""
    groups = judged.known(row.metrics)
    if len(groups) < 2:
        return EMPTY | {"reason": f"fewer than two groups have {' and '.join(row.metrics)}"}
    values = {m: np.array([judged.results[m][g]["value"] for g in groups]) for m in row.metrics}
    estimates = [judged.estimates[m].take(groups) for m in row.metrics]
    found, low, high = _KINDS[row.kind](values, estimates, options)
    if found.get("value") is None:
        return EMPTY | found
    names = [judged.names[g] for g in groups]
    for key in ("between", "group"):
        if key in found:
            index = found[key]
            found[key] = [names[i] for i in index] if key == "between" else names[index]
    if len(groups) < len(judged.names):
        found["excluded"] = [name for name in judged.names if name not in names]
    if all(metric in SHARES for metric in row.metrics):
        low, high = max(low, 0.0), min(high, 1.0)
    if not np.isfinite([low, high]).all():
        return EMPTY | found | {"reason": "too few rows for an interval"}
    return found | {"ci_low": float(low), "ci_high": float(high), "interval": "sup-t"}


Values = dict[str, Array]
Estimates = Sequence[bands.Estimate]


def _between(metric: str, values: Array) -> list[int]:
    """Index of the worst and the best group, or lowest and highest where neither is better."""
    ends = [int(values.argmin()), int(values.argmax())]
    return ends[::-1] if METRICS[metric].direction < 0 else ends


def gap(values: Values) -> tuple[float, str]:
    """The largest difference over the metrics, and the metric it is of."""
    gaps = {name: float(value.max() - value.min()) for name, value in values.items()}
    name = max(gaps, key=gaps.__getitem__)
    return gaps[name], name


def _difference(values: Values, estimates: Estimates, options: Options) -> tuple:
    value, name = gap(values)
    found = {"value": value, "between": _between(name, values[name]), "metric": name}
    return found, *bands.largest_difference(estimates, options.confidence, options.seed)


def _ratio(values: Values, estimates: Estimates, options: Options) -> tuple:
    zero = [name for name, value in values.items() if value.max() == 0]
    if zero:
        return {"reason": f"the {' and '.join(zero)} of every group is 0"}, np.nan, np.nan
    ratios = {name: float(value.min() / value.max()) for name, value in values.items()}
    name = min(ratios, key=ratios.__getitem__)
    found = {"value": ratios[name], "between": _between(name, values[name]), "metric": name}
    return found, *bands.smallest_ratio(estimates, options.confidence, options.seed)


def _worst(values: Values, estimates: Estimates, options: Options) -> tuple:
    (name, value), direction = next(iter(values.items())), METRICS[next(iter(values))].direction
    group = _between(name, value)[0]
    found = {"value": float(value[group]), "group": group, "metric": name}
    return found, *bands.extreme(estimates[0], options.confidence, direction, options.seed)


_KINDS = {"difference": _difference, "ratio": _ratio, "worst": _worst}


def _intersections(
    seen: View,
    predictions: Predictions,
    names: Sequence[str],
    label_groups: tuple[str, ...],
    options: Options,
    notes: list[str],
) -> list[dict[str, Any]]:
    """The groups of each pair of attributes together, those of ``min_cell`` rows and more."""
    crossed = []
    for pair in combinations(names, 2):
        metrics = [m for m in seen.metrics() if m in CROSSED]
        if set(pair) & set(label_groups):
            metrics = [m for m in metrics if m in BY_LABEL]
        columns = [np.asarray(predictions.groups[name], dtype=np.str_) for name in pair]
        levels, codes = zip(*(np.unique(c, return_inverse=True) for c in columns), strict=True)
        joint = codes[0] * len(levels[1]) + codes[1]
        present, sizes = np.unique(joint, return_counts=True)
        kept = present[sizes >= options.min_cell]
        if len(kept) < len(present):
            notes.append(
                f"{' x '.join(pair)}: {len(present) - len(kept)} of {len(present)} crossed groups "
                f"have fewer than {options.min_cell} rows and are left out."
            )
        if not len(kept) or not metrics:
            continue
        rows = np.flatnonzero(np.isin(joint, kept))
        part = View(seen.task, seen.y[rows], seen.p[rows], seen.s[rows], seen.positive)
        # zero-padded codes sort as text the way they sort as numbers
        judged = judge(part, np.char.zfill(joint[rows].astype(np.str_), 19), metrics, options)
        for g, code in enumerate(kept):
            first, second = divmod(int(code), len(levels[1]))
            crossed.append(
                {
                    "attributes": list(pair),
                    "group": [str(levels[0][first]), str(levels[1][second])],
                    "n": int(judged.sizes[g]),
                    "metrics": {m: judged.results[m][g] for m in metrics},
                }
            )
    return crossed
