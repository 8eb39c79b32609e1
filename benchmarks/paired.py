"""Paired differences over seeds or processes, and how sure their mean is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """``(mean, low, high)`` of Student's t interval; the ends are NaN of a single value."""
    from scipy import stats

    mean, n = statistics.mean(values), len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean, float(mean - half), float(mean + half)


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """:func:`t_interval` as JSON takes it: ``{mean, ci_low, ci_high}``, ends null of a single value."""
    mean, *ends = t_interval(values)
    low, high = (None if math.isnan(end) else end for end in ends)
    return {"mean": mean, "ci_low": low, "ci_high": high}
