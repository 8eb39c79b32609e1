"""Two models on the same rows: what changed, for whom, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.metrics import MEANS, SHARES
from zoo.predictions import Predictions
from zoo_explain.fairness import bands
from zoo_explain.fairness.audits import Options, gap, suppressed
from zoo_explain.fairness.measures import (
    BY_LABEL,
    DISPARITIES,
    PAIRED,
    Array,
    View,
    cell_draws,
    chosen,
    row_draws,
    row_value,
    settings,
    view,
)

FEW = 20  # fewer rows than this that changed get Bonett & Price's interval, not the bootstrap's
PERMUTATIONS = 9_999
WHOLE = "(all)"
GAP = "(gap)"
_NO_TEST = "no exact test of a difference of gaps; see the interval"


def compare(
    base: Predictions,
    other: Predictions,
    *,
    task: str,
    variant: str,
    positive: str | None = None,
    attributes: list[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    min_cell: int = 10,
    label_groups: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """The paired comparison of two models: one row for each attribute, group and metric.

    The whole split comes first (attribute and group "(all)"), then each group of each attribute,
    then for each attribute the rows of group "(gap)": how much the largest difference between
    groups grew, which answers whether the change hurt some groups more than others.

    Args:
        base, other: predictions on the same rows in the same order; the groups are ``base``'s.
        variant: what ``other`` is called in the rows.
        task, positive, attributes, min_cell, label_groups: as :func:`zoo_explain.fairness.audit`.
        resamples, seed, confidence: of the paired bootstrap, which draws a row with both answers.

    Returns:
        Rows ``{variant, attribute, group, n, metric, base, value, delta, ci_low, ci_high, p,
        p_adjusted, flips}``. ``p`` is McNemar's exact test of the rows the metric is a share of
        (Psychometrika 12, 1947), or a sign-flip permutation test of the per-row differences of a
        mean; ``p_adjusted`` is Holm's over all rows returned that have a ``p``. ``flips`` counts
        right answers that became wrong and the reverse, among the rows the metric is a share of;
        without classes, the rows whose per-sample error grew (``worse``) or shrank (``better``).

    Raises:
        zoo.errors.ZooError: the two are not on the same rows, or as for ``audit``.
    """
    settings(resamples, confidence, min_cell)
    _same_rows(base, other)
    views = view(base, task, positive), view(other, task, positive)
    options = Options(resamples, seed, confidence, min_cell)
    rows = _attribute(views, WHOLE, np.full(len(base), WHOLE), options, by_label=False)
    for name in chosen(base, attributes):
        rows += _attribute(views, name, base.groups[name], options, by_label=name in label_groups)
    tested = [row for row in rows if row["p"] is not None]
    for row, adjusted in zip(tested, adjust_holm([row["p"] for row in tested]), strict=True):
        row["p_adjusted"] = adjusted
    return [{"variant": variant, **row} for row in rows]


def _same_rows(base: Predictions, other: Predictions) -> None:
    for name, what in (("row", "rows"), ("y_true", "true labels")):
        one, two = getattr(base, name), getattr(other, name)
        if not np.array_equal(one, two):
            differ = int((one != two).sum()) if len(one) == len(two) else None
            raise ZooError(
                f"The two sets of predictions are not on the same {what}.",
                expected=f"the same {what} in the same order, {len(one)} of them",
                received=f"{len(two)}" if differ is None else f"{differ} that differ",
                hint="Predict both on the same split of the same data.",
                kind="unpaired",
            )
    if base.classes != other.classes:
        raise ZooError(
            "The two sets of predictions do not have the same classes.",
            expected=", ".join(base.classes),
            received=", ".join(other.classes),
            kind="unpaired",
        )


def _attribute(
    views: tuple[View, View], attribute: str, labels: Array, options: Options, *, by_label: bool
) -> list[dict[str, Any]]:
    """The rows of one attribute: each group and metric, then the gaps."""
    groups, codes = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
    sizes = np.bincount(codes)
    judged = [name for name in views[0].metrics() if not by_label or name in BY_LABEL]
    shares = [name for name in judged if name in SHARES and name in PAIRED]
    means = [] if views[0].task.classes else [name for name in judged if name in MEANS]
    changes = _shares(views, codes, shares, options) | _means(views, codes, means, options)
    rows = [
        {"attribute": attribute, "group": str(group), "n": int(sizes[g]), "metric": name}
        | change.row(g, sizes[g], options)
        for g, group in enumerate(groups)
        for name, change in changes.items()
    ]
    return rows if attribute == WHOLE else rows + _gaps(attribute, sizes, changes, options)


@dataclass(frozen=True)
class _Change:
    """A metric of both models and its paired change, in each of G groups.

    ``counts`` of a share are its rows that became hits, that ceased to be, and all (3, G).
    """

    base: bands.Estimate
    other: bands.Estimate
    delta: bands.Estimate
    counts: Array | None
    flips: Sequence[dict[str, int | None]]
    test: Callable[[int], float]

    def reason(self, g: int, size: int, min_cell: int) -> str | None:
        """Why the change in group g is not told, if so."""
        counts = None if self.counts is None else (0, int(self.counts[2, g]))
        reason = suppressed(size, counts, min_cell)
        return "one row has no interval" if reason is None and size == 1 else reason

    def interval(self, g: int, confidence: float) -> dict[str, Any]:
        tail = (1 - confidence) / 2
        if self.counts is not None and self.counts[:2, g].sum() < FEW:
            low, high = (end[g] for end in self.delta.band(NormalDist().inv_cdf(1 - tail)))
            kind = "bonett-price"
        else:
            draws = self.delta.draws[:, g]
            low, high = np.quantile(draws[~np.isnan(draws)], [tail, 1 - tail])
            kind = "bootstrap"
        return {"ci_low": float(low), "ci_high": float(high), "interval": kind}

    def row(self, g: int, size: int, options: Options) -> dict[str, Any]:
        reason = self.reason(g, size, options.min_cell)
        if reason is not None:
            return _NOTHING | {"reason": reason}
        return {
            "base": float(self.base.value[g]),
            "value": float(self.other.value[g]),
            "delta": float(self.delta.value[g]),
            **self.interval(g, options.confidence),
            "p": self.test(g),
            "p_adjusted": None,
            "flips": self.flips[g],
        }


_NOTHING: dict[str, Any] = dict.fromkeys(
    ("base", "value", "delta", "ci_low", "ci_high", "p", "p_adjusted", "flips")
)


def _shares(
    views: tuple[View, View], codes: Array, names: Sequence[str], options: Options
) -> dict[str, _Change]:
    """Changes of shares, from the cells of (group, truth, answer before, answer after)."""
    if not names:
        return {}
    base, other = views
    masks: dict[Any, Array] = {}
    for name in names:
        hit, within = SHARES[name]
        (y, one, _), (_, two, _) = base.inputs(name), other.inputs(name)
        rows, before, after = within(y, one), hit(y, one), hit(y, two)
        right, still = one == y, two == y
        for key, mask in (
            ("rows", rows), ("before", before), ("after", after),
            ("gained", ~before & after), ("lost", before & ~after),
            ("correct_to_wrong", right & ~still), ("wrong_to_correct", ~right & still),
        ):  # fmt: skip
            masks[name, key] = mask & rows
    found, _ = cell_draws(
        codes, (base.y, base.p, other.p), masks, {}, options.resamples, options.seed
    )

    def change(name: str) -> _Change:
        plain, drawn = ({k: found[name, k][i] for _, k in masks} for i in (0, 1))
        gained, lost = plain["gained"], plain["lost"]
        return _Change(
            bands.share(plain["before"], plain["rows"], drawn["before"], drawn["rows"]),
            bands.share(plain["after"], plain["rows"], drawn["after"], drawn["rows"]),
            bands.change(
                gained, lost, plain["rows"], (drawn["gained"], drawn["lost"], drawn["rows"])
            ),
            np.stack([gained, lost, plain["rows"]]),
            [
                {key: int(plain[key][g]) for key in ("correct_to_wrong", "wrong_to_correct")}
                for g in range(len(gained))
            ],
            lambda g: mcnemar(int(gained[g]), int(lost[g])),
        )

    return {name: change(name) for name in names}


def _means(
    views: tuple[View, View], codes: Array, names: Sequence[str], options: Options
) -> dict[str, _Change]:
    """Changes of means, from each row's difference."""
    if not names:
        return {}
    values: dict[str, Array] = {}
    for name in names:
        before, after = (row_value(one, name) for one in views)
        values |= {
            f"{name}/before": before,
            f"{name}/after": after,
            f"{name}/delta": after - before,
        }
    estimates, _ = row_draws(codes, values, {}, options.resamples, options.seed)
    before, after = (one.task.sample_score(one.y, one.p, one.s) for one in views)
    flips: list[dict[str, int | None]] = [
        {
            "correct_to_wrong": None,
            "wrong_to_correct": None,
            "worse": int((after > before)[codes == g].sum()),
            "better": int((after < before)[codes == g].sum()),
        }
        for g in range(int(codes.max()) + 1)
    ]

    def change(name: str) -> _Change:
        delta = values[f"{name}/delta"]
        one, two, moved = (estimates[f"{name}/{part}"] for part in ("before", "after", "delta"))
        return _Change(
            one, two, moved, None, flips, lambda g: sign_flip(delta[codes == g], options.seed)
        )

    return {name: change(name) for name in names}


def _gaps(
    attribute: str, sizes: Array, changes: dict[str, _Change], options: Options
) -> list[dict[str, Any]]:
    """How much each difference between the groups grew."""
    rows = []
    for disparity in DISPARITIES:
        if disparity.kind != "difference" or any(m not in changes for m in disparity.metrics):
            continue
        parts = [changes[metric] for metric in disparity.metrics]
        kept = np.array(
            [
                g
                for g, size in enumerate(sizes)
                if all(part.reason(g, size, options.min_cell) is None for part in parts)
            ],
            dtype=int,
        )
        row = {
            "attribute": attribute,
            "group": GAP,
            "n": int(sizes[kept].sum()),
            "metric": disparity.name,
        }
        if len(kept) < 2:
            metrics = " and ".join(disparity.metrics)
            rows.append(row | _NOTHING | {"reason": f"fewer than two groups have {metrics}"})
            continue
        before, after = (
            gap(
                {
                    metric: getattr(part, side).value[kept]
                    for metric, part in zip(disparity.metrics, parts, strict=True)
                }
            )[0]
            for side in ("base", "other")
        )
        low, high = bands.gap_change(
            [part.base.take(kept) for part in parts],
            [part.other.take(kept) for part in parts],
            [part.delta.take(kept) for part in parts],
            options.confidence,
            options.seed,
        )
        known = bool(np.isfinite([low, high]).all())
        rows.append(
            row
            | _NOTHING
            | {
                "base": before,
                "value": after,
                "delta": after - before,
                "ci_low": float(low) if known else None,
                "ci_high": float(high) if known else None,
                "interval": "sup-t" if known else None,
                "reason": _NO_TEST if known else "too few rows for an interval",
            }
        )
    return rows


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p that rows are as likely to be gained as lost; 1 where none changed."""
    from scipy.stats import binomtest

    changed = gained + lost
    return float(binomtest(gained, changed, 0.5).pvalue) if changed else 1.0


def sign_flip(differences: Array, seed: int = 0, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p that paired differences (n,) are symmetric about 0, by flipping their signs.

    Exact over all signs where there are no more than ``permutations`` of them, else sampled, with
    the observed signs counted among them (Phipson & Smyth, Statistical Applications in Genetics and
    Molecular Biology 9(1), 2010). 1 where no row changed.
    """
    moved = differences[differences != 0]
    count = len(moved)
    if count == 0:
        return 1.0
    observed = abs(moved.sum())
    least = observed - 1e-9 * np.abs(moved).sum()  # sums in another order differ by rounding
    if 2**count <= permutations:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float((np.abs(signs @ moved) >= least).mean())
    rng, extreme, chunk = np.random.default_rng(seed), 0, max(1, 2_000_000 // count)
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        bits = np.frombuffer(rng.bytes(size * (count // 8 + 1)), dtype=np.uint8)
        flipped = np.unpackbits(bits.reshape(size, -1), axis=1, count=count) @ (2 * moved)
        extreme += int((np.abs(moved.sum() - flipped) >= least).sum())
    return (1 + extreme) / (1 + permutations)


def adjust_holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Scand. J. Statistics 6(2), 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def noise_floor(values: dict[str, list[float]]) -> dict[str, Any]:
    """What retraining with another seed does: ``{metric: [value a seed]}`` of sibling runs.

    Returns ``{seeds, metrics: {name: {mean, sd, range95}}}``. 95 % of the differences between two
    such trainings are smaller than ``range95`` (Student's t for two new draws); a change smaller
    than it may well be real on these rows, but is no larger than chance in training. With fewer
    than three seeds ``{seeds, reason}``.
    """
    from scipy.stats import t

    finite = {
        name: np.array([v for v in seeds if v is not None and np.isfinite(v)], dtype=np.float64)
        for name, seeds in values.items()
    }
    enough = {name: seeds for name, seeds in finite.items() if len(seeds) >= 3}
    count = max((len(seeds) for seeds in finite.values()), default=0)
    if not enough:
        return {
            "seeds": count,
            "reason": f"{count} seed{'' if count == 1 else 's'}; three or more are needed",
        }

    def spread(seeds: Array) -> dict[str, float]:
        sd = float(seeds.std(ddof=1))
        wide = float(t.ppf(0.975, len(seeds) - 1)) * sd * np.sqrt(2)
        return {"mean": float(seeds.mean()), "sd": sd, "range95": float(wide)}

    return {"seeds": count, "metrics": {name: spread(seeds) for name, seeds in enough.items()}}
