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
