"""Intervals for gaps and extremes over groups, which the percentile bootstrap gets wrong.

The largest difference between groups is never negative, so its bootstrap distribution lies above
zero even where all groups are alike: a percentile interval of a true gap of 0 hardly ever covers it.
What is done instead, for each disparity:

1. an interval for each group as a function of a critical value c: Wilson's for shares, studentised
   for means, Bonett & Price's (JEBS 37(4), 2012) for a paired change of a share;
2. one c for all contrasts at once: the sup-t value, the quantile of the largest studentised
   deviation over all pairs of groups (Montiel Olea & Plagborg-Moller, J. Applied Econometrics 34(1),
   2019), the larger of the bootstrap's and the Gaussian limit's;
3. intervals of pairwise differences and ratios from those of the groups: MOVER (Newcombe, Statistics
   in Medicine 17, 1998; Zou & Donner, ibid. 27, 2008; for ratios Donner & Zou, Statistical Methods
   in Medical Research 21(4), 2012), which for shares keeps its coverage in small groups;
4. the extreme by projection: where every pair lies within its band, the largest lies between the
   largest lower and the largest upper bound. With two groups this is the interval of one signed
   difference; with more it covers at least as often as it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from zoo.metrics import wilson

Array = np.ndarray
GAUSSIAN_DRAWS = 10_000


@dataclass(frozen=True)
class Estimate:
    """One quantity in each of G groups, with its bootstrap.

    ``value`` and its standard ``error`` are (G,); ``draws`` and ``errors``, the same in each
    resample, are (resamples, G). ``band(c)`` gives the groups' intervals (low, high), each (G,).
    """

    value: Array
    error: Array
    draws: Array
    errors: Array
    band: Callable[[float], tuple[Array, Array]]

    def take(self, groups: Array) -> Estimate:
        """The same for some groups, by index."""
        return Estimate(
            self.value[groups],
            self.error[groups],
            self.draws[:, groups],
            self.errors[:, groups],
            lambda c: _pick(self.band(c), groups),
        )


def _pick(band: tuple[Array, Array], groups: Array) -> tuple[Array, Array]:
    return band[0][groups], band[1][groups]


def share(hits: Array, rows: Array, drawn_hits: Array, drawn_rows: Array) -> Estimate:
    """A share in each group from counts (G,) and resampled counts (resamples, G)."""

    def error(hits: Array, rows: Array) -> Array:
        # one more hit and miss (Agresti & Caffo, American Statistician 54(4), 2000): never zero
        adjusted = (hits + 1) / (rows + 2)
        return np.sqrt(adjusted * (1 - adjusted) / (rows + 2))

    return Estimate(
        _over(hits, rows),
        error(hits, rows),
        _over(drawn_hits, drawn_rows),
        error(drawn_hits, drawn_rows),
        lambda c: wilson(hits, rows, c),
    )


def change(gained: Array, lost: Array, rows: Array, drawn: tuple[Array, Array, Array]) -> Estimate:
    """A paired change of a share: rows that became hits and that ceased to be, of all ``rows``."""

    def centre(gained: Array, lost: Array, rows: Array) -> tuple[Array, Array]:
        up, down = (gained + 1) / (rows + 2), (lost + 1) / (rows + 2)
        return up - down, np.sqrt((up + down - (up - down) ** 2) / (rows + 2))

    middle, error = centre(gained, lost, rows)
    return Estimate(
        _over(gained - lost, rows),
        error,
        _over(drawn[0] - drawn[1], drawn[2]),
        centre(*drawn)[1],
        lambda c: (np.maximum(middle - c * error, -1), np.minimum(middle + c * error, 1)),
    )


def mean(
    rows: Array, first: Array, second: Array, drawn: tuple[Array, Array, Array], centre: Array
) -> Estimate:
    """A mean in each group from the number of rows and the sums of the values and their squares.

    The sums are of the values less ``centre`` (G,): far from zero a variance cancels badly.
    """

    def moments(rows: Array, first: Array, second: Array) -> tuple[Array, Array]:
        average = _over(first, rows)
        variance = np.maximum(_over(second, rows) - average**2, 0) * _over(rows, rows - 1)
        return average + centre, np.sqrt(_over(variance, rows))

    value, error = moments(rows, first, second)
    return Estimate(
        value, error, *moments(*drawn), lambda c: (value - c * error, value + c * error)
    )


def _over(top: Array, bottom: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _largest(deviation: Array, errors: Array, pairs: bool) -> Array:
    """Largest |deviation| / error over groups, or over pairs of groups: (resamples,)."""
    largest = np.zeros(len(deviation))
    with np.errstate(divide="ignore", invalid="ignore"):
        if not pairs:
            return np.fmax.reduce(np.abs(deviation) / errors, axis=1, initial=0)
        # one group against those before it, so that memory stays flat
        for i in range(1, deviation.shape[1]):
            between = np.abs(deviation[:, :i] - deviation[:, i : i + 1])
            ratio = between / np.hypot(errors[:, :i], errors[:, i : i + 1])
            largest = np.fmax(largest, np.fmax.reduce(ratio, axis=1))
    return largest


def critical(
    estimates: Sequence[Estimate], confidence: float, *, pairs: bool, seed: int = 0
) -> float:
    """The sup-t critical value over all groups, or pairs of groups, of all estimates at once.

    At least the normal quantile. Infinite where resamples have no spread to studentise with.
    """
    rng = np.random.default_rng(seed)
    drawn, limit = np.zeros(len(estimates[0].draws)), np.zeros(GAUSSIAN_DRAWS)
    for estimate in estimates:
        deviation = estimate.draws - estimate.value
        drawn = np.fmax(drawn, _largest(deviation, estimate.errors, pairs))
        # the bootstrap of a share at 0 or 1 does not move; its limit, with the smoothed error, does
        normal = rng.normal(size=(GAUSSIAN_DRAWS, len(estimate.value))) * estimate.error
        limit = np.fmax(limit, _largest(normal, estimate.error[None], pairs))
    one = NormalDist().inv_cdf((1 + confidence) / 2)
    return max(_quantile(drawn, confidence), _quantile(limit, confidence), one)


def _quantile(values: Array, level: float) -> float:
    """The smallest value that at least ``level`` of them do not exceed (infinities allowed)."""
    return float(np.quantile(values, level, method="inverted_cdf"))


def differences(estimate: Estimate, c: float) -> tuple[Array, Array, Array]:
    """Row group minus column group with its band: three (G, G) arrays (value, low, high).

    Here and in :func:`ratios` the band on the diagonal is NaN: a group is no other than itself.
    """
    value, (low, high) = estimate.value, estimate.band(c)
    down, up = (value - low) ** 2, (high - value) ** 2
    between = value[:, None] - value[None, :]
    lower = between - np.sqrt(down[:, None] + up[None, :])
    upper = between + np.sqrt(up[:, None] + down[None, :])
    return between, _apart(lower), _apart(upper)


def _apart(band: Array) -> Array:
    """A square array with NaN on its diagonal."""
    np.fill_diagonal(band, np.nan)
    return band


def ratios(estimate: Estimate, c: float) -> tuple[Array, Array, Array]:
    """Row group over column group with its band: three (G, G) arrays; shares only.

    Donner & Zou's closed form, its lower limit multiplied out so that a share of 0 is no exception.
    """
    value, (low, high) = estimate.value, estimate.band(c)
    top, bottom = value[:, None], value[None, :]
    product = top * bottom

    def root(top_end: Array, bottom_end: Array) -> tuple[Array, Array, Array]:
        x = top_end[:, None] * (2 * top - top_end[:, None])
        y = bottom_end[None, :] * (2 * bottom - bottom_end[None, :])
        return x, y, np.sqrt(np.maximum(product**2 - x * y, 0))

    with np.errstate(divide="ignore", invalid="ignore"):
        x, _, spread = root(low, high)
        lower = np.where(x > 0, x / (product + spread), 0.0)
        _, y, spread = root(high, low)
        upper = np.where(y > 0, (product + spread) / y, np.inf)
        return np.where(bottom > 0, top / bottom, np.nan), _apart(lower), _apart(upper)


def largest_difference(
    estimates: Sequence[Estimate], confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Interval of the largest difference between any two groups, over all estimates.

    Here and below NaN where there are too few rows for a critical value.
    """
    c = critical(estimates, confidence, pairs=True, seed=seed)
    if not np.isfinite(c):
        return np.nan, np.nan
    low, high = 0.0, 0.0
    for estimate in estimates:
        _, lower, upper = differences(estimate, c)
        low, high = max(low, np.nanmax(lower)), max(high, np.nanmax(upper))
    return low, high


def smallest_ratio(
    estimates: Sequence[Estimate], confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Interval of the smallest ratio between any two groups, over all estimates."""
    c = critical(estimates, confidence, pairs=True, seed=seed)
    low, high = 1.0, 1.0
    for estimate in estimates:
        _, lower, upper = ratios(estimate, c)
        low, high = min(low, np.nanmin(lower)), min(high, np.nanmin(upper))
    return low, high


def extreme(estimate: Estimate, confidence: float, sign: int, seed: int = 0) -> tuple[float, float]:
    """Interval of the smallest (``sign`` +1: higher is better) or largest (-1) group's value."""
    c = critical([estimate], confidence, pairs=False, seed=seed)
    if not np.isfinite(c):
        return np.nan, np.nan
    low, high = estimate.band(c)
    return (low.min(), high.min()) if sign > 0 else (low.max(), high.max())


def gap_change(
    base: Sequence[Estimate],
    other: Sequence[Estimate],
    changes: Sequence[Estimate],
    confidence: float,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of how much the largest difference grew from ``base`` to ``other``, paired.

    Where groups a and b are furthest apart in ``other``, the gap grew by at most what their signed
    difference grew by; where they are in ``base``, by at least that. So the bounds are those of
    the paired changes' contrasts, over the pairs that may be furthest apart. Which pairs may is
    read off each band at a tenth of the error, the contrasts get the rest (Berger & Boos, JASA
    89(427), 1994).
    """
    nuisance, rest = 1 - 0.1 * (1 - confidence), 1 - 0.8 * (1 - confidence)
    levels = ((base, nuisance), (other, nuisance), (changes, rest))
    values = [critical(estimates, level, pairs=True, seed=seed) for estimates, level in levels]
    if not np.isfinite(values).all():
        return np.nan, np.nan
    bands = [differences(estimate, values[2]) for estimate in changes]

    def candidates(estimates: Sequence[Estimate], c: float) -> list[Array]:
        found = [differences(estimate, c) for estimate in estimates]
        least = max(np.nanmax(low) for _, low, _ in found)
        return [high >= least for *_, high in found]

    low = min(
        band[1][may].min(initial=np.inf)
        for band, may in zip(bands, candidates(base, values[0]), strict=True)
    )
    high = max(
        band[2][may].max(initial=-np.inf)
        for band, may in zip(bands, candidates(other, values[1]), strict=True)
    )
    return low, high
