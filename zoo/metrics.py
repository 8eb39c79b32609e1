"""Every metric, one row each: evaluated on rows, on groups and on all bootstrap resamples at once.

A metric is ``fn(y_true, y_pred, scores, weights) -> values``. ``weights`` is a float array
(resamples, n) that says how often each row counts: all ones give the plain value, ones on a group
give the group's, multinomial counts give a bootstrap resample. So each metric is written once and
its intervals cost a matrix product instead of a loop.

    y_true, y_pred: int (n,) class indices, or float (n,) or (n, k) values, of which a row's mean counts
    scores:         float (n, classes) probabilities, or (n,) per-sample losses
    weights:        float (resamples, n), non-negative
    returns:        float64 (resamples,), NaN where undefined (no such rows)

Two tables say more about the simple ones: :data:`SHARES` are the share of some rows among others
(so binomial intervals apply), :data:`MEANS` are the mean of one number a row (so paired tests do).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Metric:
    """A row: ``direction`` is +1 where higher is better, -1 where lower is, 0 for neither.

    ``needs`` is "classes" (hard predictions), "scores" (probabilities), "losses" (one per-sample
    loss), "positive" (hard predictions and a positive class: ``y_true`` and ``y_pred`` are then
    0/1), "tokens" (counts and a loss for each window of text) or "values".
    """

    name: str
    function: Callable[[Array, Array, Array, Array], Array]
    direction: int
    unit: str
    needs: str
    source: str


def _ratio(top: Array, bottom: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _share(name: str) -> Callable[[Array, Array, Array, Array], Array]:
    hit, within = SHARES[name]

    def metric(y: Array, p: Array, s: Array, w: Array) -> Array:
        counted = within(y, p)
        return _ratio(w @ (hit(y, p) & counted).astype(np.float64), w @ counted.astype(np.float64))

    return metric


def _mean(name: str) -> Callable[[Array, Array, Array, Array], Array]:
    def metric(y: Array, p: Array, s: Array, w: Array) -> Array:
        return _ratio(w @ MEANS[name](y, p, s), w.sum(axis=1, dtype=np.float64))

    return metric


def _all_rows(y: Array, p: Array) -> Array:
    return np.ones(len(y), dtype=bool)


# name -> (the rows that count as a hit, the rows they are a share of), both (y, p) -> bool (n,)
SHARES: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    "accuracy": (lambda y, p: y == p, _all_rows),
    "selection_rate": (lambda y, p: p == 1, _all_rows),
    "true_positive_rate": (lambda y, p: p == 1, lambda y, p: y == 1),
    "false_positive_rate": (lambda y, p: p == 1, lambda y, p: y == 0),
    "true_negative_rate": (lambda y, p: p == 0, lambda y, p: y == 0),
    "false_negative_rate": (lambda y, p: p == 0, lambda y, p: y == 1),
    "precision": (lambda y, p: y == 1, lambda y, p: p == 1),
}


def sample_log_loss(y: Array, s: Array) -> Array:
    """Negative log-likelihood of the true class, nats: int (n,), float (n, classes) -> (n,)."""
    chosen = np.take_along_axis(np.asarray(s, dtype=np.float64), y[:, None], axis=1)[:, 0]
    return -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))


def sample_brier(y: Array, s: Array) -> Array:
    """Squared error of the probabilities (n,): of class 1 for two classes, else summed over all."""
    s = np.asarray(s, dtype=np.float64)
    if s.shape[1] == 2:
        return (s[:, 1] - y) ** 2
    return ((s - (y[:, None] == np.arange(s.shape[1]))) ** 2).sum(axis=1)


def _by_row(values: Array) -> Array:
    """A number for each row: (n,), or (n, k) -> the means (n,)."""
    return values if values.ndim == 1 else values.mean(axis=1)


def sample_smape(y: Array, p: Array) -> Array:
    """|y - p| over the mean of |y| and |p|, 0 where both are 0, in 0 to 2: (n, k) -> (n,)."""
    y, p = np.asarray(y, np.float64), np.asarray(p, np.float64)
    size = np.abs(y) + np.abs(p)
    return _by_row(np.divide(2 * np.abs(y - p), size, out=np.zeros_like(size), where=size > 0))


# name -> the number a row, (y, p, s) -> float64 (n,), whose weighted mean the metric is
MEANS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "log_loss": lambda y, p, s: sample_log_loss(y, s),
    "brier": lambda y, p, s: sample_brier(y, s),
    "mse": lambda y, p, s: _by_row((np.asarray(y, np.float64) - p) ** 2),
    "mae": lambda y, p, s: _by_row(np.abs(np.asarray(y, np.float64) - p)),
    "smape": lambda y, p, s: sample_smape(y, p),
    "mean_prediction": lambda y, p, s: _by_row(np.asarray(p, np.float64)),
    "mase": lambda y, p, s: np.asarray(s, np.float64),
    "elbo": lambda y, p, s: -np.asarray(s, np.float64),
    "token_loss": lambda y, p, s: np.asarray(s, np.float64),
    "exact_match": lambda y, p, s: p[:, 2].astype(np.float64),
}

accuracy = _share("accuracy")
selection_rate = _share("selection_rate")
true_positive_rate = _share("true_positive_rate")
false_positive_rate = _share("false_positive_rate")
true_negative_rate = _share("true_negative_rate")
false_negative_rate = _share("false_negative_rate")
precision = _share("precision")
log_loss = _mean("log_loss")
brier = _mean("brier")
mse = _mean("mse")
mae = _mean("mae")
mean_prediction = _mean("mean_prediction")
token_loss = _mean("token_loss")
smape = _mean("smape")
mase = _mean("mase")
elbo = _mean("elbo")
exact_match = _mean("exact_match")


def _totals(codes: Array, classes: int, w: Array) -> Array:
    """Weight of each class: int (n,), (resamples, n) -> (resamples, classes).

    A sorted sum and not a product with a one-hot matrix, which is (n, classes) large.
    """
    out = np.zeros((len(w), classes))
    if len(codes):
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        out[:, present] = np.add.reduceat(w[:, order], starts, axis=1, dtype=np.float64)
    return out


def _per_class(y: Array, p: Array, w: Array) -> tuple[Array, Array, Array]:
    """True positives, predicted and actual counts, each (resamples, classes present)."""
    classes = np.union1d(y, p)
    y, p = np.searchsorted(classes, y), np.searchsorted(classes, p)
    right, count = y == p, len(classes)
    return _totals(y[right], count, w[:, right]), _totals(p, count, w), _totals(y, count, w)


def balanced_accuracy(y: Array, p: Array, s: Array, w: Array) -> Array:
    true, _, actual = _per_class(y, p, w)
    recall, known = _ratio(true, actual), actual > 0
    return _ratio(np.where(known, recall, 0.0).sum(axis=1), known.sum(axis=1))


def _macro(top: Array, bottom: Array, predicted: Array, actual: Array) -> Array:
    """Mean over the classes that occur in either; an undefined class counts as 0."""
    present = (predicted + actual) > 0
    values = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 0.0)
    return _ratio(np.where(present, values, 0.0).sum(axis=1), present.sum(axis=1))


def precision_macro(y: Array, p: Array, s: Array, w: Array) -> Array:
    true, predicted, actual = _per_class(y, p, w)
    return _macro(true, predicted, predicted, actual)


def recall_macro(y: Array, p: Array, s: Array, w: Array) -> Array:
    true, predicted, actual = _per_class(y, p, w)
    return _macro(true, actual, predicted, actual)


def f1_macro(y: Array, p: Array, s: Array, w: Array) -> Array:
    true, predicted, actual = _per_class(y, p, w)
    return _macro(2 * true, predicted + actual, predicted, actual)


@dataclass(frozen=True)
class _Ranking:
    """The positives in ascending order of score, and the weight that lies below each.

    Only the running total is (resamples, n) large; the rest has a column for a positive.
    """

    weights: Array  # (resamples, positives)
    below: Array  # weight of all rows with a lower score
    upto: Array  # ... with a lower or the same score
    missed: Array  # weight of positives with a lower score
    total: Array  # (resamples,) weight of all rows
    positives: Array  # (resamples,) weight of the positives


def _rank(positive: Array, score: Array, w: Array) -> _Ranking:
    order = np.argsort(score, kind="stable")
    ordered, hits = score[order], positive[order]
    own, weights = ordered[hits], np.asarray(w[:, order[hits]], dtype=np.float64)
    zero = np.zeros((len(w), 1))
    running = np.concatenate([zero, np.cumsum(w[:, order], axis=1, dtype=np.float64)], axis=1)
    found = np.concatenate([zero, np.cumsum(weights, axis=1)], axis=1)
    return _Ranking(
        weights=weights,
        below=running[:, np.searchsorted(ordered, own, side="left")],
        upto=running[:, np.searchsorted(ordered, own, side="right")],
        missed=found[:, np.searchsorted(own, own, side="left")],
        total=running[:, -1],
        positives=found[:, -1],
    )


def _auc(positive: Array, score: Array, w: Array) -> Array:
    r = _rank(positive, score, w)
    # Ties count half. Positives against positives sum to P^2/2 whatever their order.
    wins = (r.weights * (r.below + r.upto)).sum(axis=1) / 2 - r.positives**2 / 2
    return _ratio(wins, r.positives * (r.total - r.positives))


def _average_precision(positive: Array, score: Array, w: Array) -> Array:
    r = _rank(positive, score, w)
    found = r.total[:, None] - r.below
    hits = r.positives[:, None] - r.missed
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    return _ratio((r.weights * precision).sum(axis=1), r.positives)


def _one_against_rest(binary: Callable[[Array, Array, Array], Array]) -> Callable:
    def metric(y: Array, p: Array, s: Array, w: Array) -> Array:
        if s.shape[1] == 2:
            return binary(y == 1, s[:, 1], w)
        columns = [binary(y == k, s[:, k], w) for k in range(s.shape[1])]
        return np.mean(columns, axis=0)  # NaN where a class is absent, as in scikit-learn

    return metric


roc_auc = _one_against_rest(_auc)
average_precision = _one_against_rest(_average_precision)


def ece(y: Array, p: Array, s: Array, w: Array) -> Array:
    confidence = np.asarray(s, dtype=np.float64).max(axis=1)
    gap = (y == s.argmax(axis=1)) - confidence
    bins = np.minimum((confidence * 15).astype(int), 14)
    by_bin = w @ (gap[:, None] * (bins[:, None] == np.unique(bins)))
    return _ratio(np.abs(by_bin).sum(axis=1), w.sum(axis=1, dtype=np.float64))


def rmse(y: Array, p: Array, s: Array, w: Array) -> Array:
    return np.sqrt(mse(y, p, s, w))


def r2(y: Array, p: Array, s: Array, w: Array) -> Array:
    y = np.asarray(y, np.float64)
    if len(y) == 0 or np.ptp(y) == 0:  # rounding would give a constant target a tiny spread
        return np.full(len(w), np.nan)
    total, centred = w.sum(axis=1, dtype=np.float64), y - y.mean()  # far from zero it cancels badly
    spread = _ratio(w @ centred**2, total) - _ratio(w @ centred, total) ** 2
    return 1 - _ratio(mse(y, p, s, w), spread)


# Of language models each row is a window: y int (n, 2) its judged tokens and their characters, p int
# (n,) how many tokens were predicted right, s float (n,) the mean loss of its tokens, nats. Of those
# that turn one text into another, p is int (n, 3): tokens predicted right, characters that are off in
# the text they make, and whether none is.


def _total_loss(y: Array, s: Array, w: Array) -> Array:
    return w @ (np.asarray(s, np.float64) * y[:, 0])


def perplexity(y: Array, p: Array, s: Array, w: Array) -> Array:
    return np.exp(_ratio(_total_loss(y, s, w), w @ y[:, 0].astype(np.float64)))


def bits_per_character(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _ratio(_total_loss(y, s, w), w @ y[:, 1].astype(np.float64)) / np.log(2)


def token_accuracy(y: Array, p: Array, s: Array, w: Array) -> Array:
    hits = p if p.ndim == 1 else p[:, 0]
    return _ratio(w @ hits.astype(np.float64), w @ y[:, 0].astype(np.float64))


def character_error_rate(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _ratio(w @ p[:, 1].astype(np.float64), w @ y[:, 1].astype(np.float64))


_SOKOLOVA = "Sokolova & Lapalme 2009, Information Processing & Management 45(4)"
_HARDT = "Hardt, Price & Srebro, NeurIPS 2016"

METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("accuracy", accuracy, +1, "share", "classes", _SOKOLOVA),
        Metric("balanced_accuracy", balanced_accuracy, +1, "share", "classes",
               "Brodersen et al., ICPR 2010"),
        Metric("f1_macro", f1_macro, +1, "share", "classes", _SOKOLOVA),
        Metric("precision_macro", precision_macro, +1, "share", "classes", _SOKOLOVA),
        Metric("recall_macro", recall_macro, +1, "share", "classes", _SOKOLOVA),
        Metric("roc_auc", roc_auc, +1, "share", "scores",
               "Fawcett, Pattern Recognition Letters 27(8), 2006"),
        Metric("average_precision", average_precision, +1, "share", "scores",
               "Davis & Goadrich, ICML 2006"),
        Metric("log_loss", log_loss, -1, "nats", "scores", "Good, JRSS B 14(1), 1952"),
        Metric("brier", brier, -1, "squared probability", "scores",
               "Brier, Monthly Weather Review 78(1), 1950"),
        Metric("ece", ece, -1, "share", "scores", "Guo et al., ICML 2017 (15 bins)"),
        Metric("selection_rate", selection_rate, 0, "share", "positive",
               "Dwork et al., ITCS 2012"),
        Metric("true_positive_rate", true_positive_rate, +1, "share", "positive", _HARDT),
        Metric("false_positive_rate", false_positive_rate, -1, "share", "positive", _HARDT),
        Metric("true_negative_rate", true_negative_rate, +1, "share", "positive", _HARDT),
        Metric("false_negative_rate", false_negative_rate, -1, "share", "positive", _HARDT),
        Metric("precision", precision, +1, "share", "positive", _SOKOLOVA),
        Metric("mse", mse, -1, "squared target", "values", "Gauss 1821"),
        Metric("rmse", rmse, -1, "target", "values", "Gauss 1821"),
        Metric("mae", mae, -1, "target", "values", "Willmott & Matsuura, Climate Research 30, 2005"),
        Metric("r2", r2, +1, "share", "values", "Wright, J. Agricultural Research 20, 1921"),
        Metric("mase", mase, -1, "seasonal changes", "losses",
               "Hyndman & Koehler, International Journal of Forecasting 22(4), 2006"),
        Metric("smape", smape, -1, "share", "values",
               "Makridakis, International Journal of Forecasting 9(4), 1993"),
        Metric("elbo", elbo, +1, "nats", "losses", "Kingma & Welling, ICLR 2014"),
        Metric("mean_prediction", mean_prediction, 0, "target", "values",
               "Calders et al., ICDM 2013"),
        Metric("token_loss", token_loss, -1, "nats", "losses", "Bengio et al., JMLR 3, 2003"),
        Metric("perplexity", perplexity, -1, "tokens", "tokens", "Jelinek et al., JASA 62(S1), 1977"),
        Metric("bits_per_character", bits_per_character, -1, "bits", "tokens",
               "Shannon, Bell System Technical Journal 30(1), 1951"),
        Metric("exact_match", exact_match, +1, "share", "tokens", "Rajpurkar et al., EMNLP 2016"),
        Metric("character_error_rate", character_error_rate, -1, "share", "tokens",
               "Levenshtein, Soviet Physics Doklady 10, 1966"),
        Metric("token_accuracy", token_accuracy, +1, "share", "tokens",
               "Devlin et al., NAACL 2019"),
    )
}  # fmt: skip


def evaluate(name: str, y: Array, p: Array, s: Array, weights: Array | None = None) -> float:
    """The plain value of a metric (NaN where undefined); ``weights`` (n,) default to ones."""
    w = np.ones(len(y)) if weights is None else weights
    return float(METRICS[name].function(y, p, s, np.asarray(w, dtype=np.float64)[None, :])[0])


def bootstrap_weights(n: int, resamples: int, seed: int, chunk: int = 64) -> Iterator[Array]:
    """Yield float64 (<= chunk, n) multinomial row counts, ``resamples`` rows in all.

    Efron & Tibshirani 1993, ch. 6: resampling n rows with replacement counts each row
    Multinomial(n, 1/n) times. The chunks shrink where n is large, so memory stays bounded.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, min(chunk, _CHUNK_ELEMENTS // max(n, 1)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n)
        yield counts.reshape(size, n).astype(np.float64)


_CHUNK_ELEMENTS = 2**20  # 8 MB of float64
#: From so many rows on, a bootstrap's rows are brought into order of score first: the metrics sort
#: them for each few resamples, which costs little where they are sorted already.
_SORTED_FROM = 100_000


def cells(*columns: Array) -> tuple[Array, Array]:
    """Rows that agree in all columns, counted: int (n,) each -> (first row, count) of each cell.

    Cells come in lexicographic order of the columns. A metric that looks at classes only sees the
    same in a thousand equal rows as in one row of weight 1,000.
    """
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        _, rank = np.unique(column, return_inverse=True)
        code = code * (rank.max(initial=0) + 1) + rank
        _, code = np.unique(code, return_inverse=True)  # dense again: the product cannot overflow
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return first, counts


def bootstrap_cells(counts: Array, resamples: int, seed: int) -> Iterator[Array]:
    """Yield float64 (resamples in the chunk, cells): how often each cell is drawn.

    The same distribution as :func:`bootstrap_weights` summed over the rows of each cell:
    Multinomial(n, counts / n). The cost depends on the number of cells and not of rows.
    """
    rng, total = np.random.default_rng(seed), int(counts.sum())
    chunk = max(1, min(resamples, _CHUNK_ELEMENTS // max(len(counts), 1)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        yield rng.multinomial(total, counts / total, size=size).astype(np.float64)


def wilson(hits: Array, rows: Array, z: float) -> tuple[Array, Array]:
    """Score interval of a share (Wilson, JASA 22, 1927): hits of rows, normal quantile ``z``.

    Never empty at 0 or 1, where the bootstrap's is (Brown, Cai & DasGupta, Statistical Science
    16(2), 2001, recommend it for small samples). NaN where ``rows`` is 0.
    """
    hits, rows = np.asarray(hits, np.float64), np.asarray(rows, np.float64)
    share = _ratio(hits, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (hits + z**2 / 2) / (rows + z**2)
        half = z / (rows + z**2) * np.sqrt(rows * share * (1 - share) + z**2 / 4)
    # exact at the ends, where rounding would leave the value just outside
    low = np.where(hits == 0, 0.0, np.minimum(middle - half, share))
    high = np.where(hits == rows, 1.0, np.maximum(middle + half, share))
    return np.where(rows > 0, low, np.nan), np.where(rows > 0, high, np.nan)


def share_counts(name: str, y: Array, p: Array) -> tuple[int, int]:
    """Hits and rows of a metric in :data:`SHARES`."""
    hit, within = SHARES[name]
    counted = within(y, p)
    return int((hit(y, p) & counted).sum()), int(counted.sum())


FEW = 10  # a share with fewer hits, or fewer misses, than this gets Wilson's interval


#: Metrics that a resample overstates: a mean of absolute gaps grows with every bit of noise. Their
#: draws are shifted by the bootstrap's estimate of that (Efron & Tibshirani 1993, section 10.2).
BIASED = ("ece",)


def interval(
    value: float, draws: Array, confidence: float, counts: tuple[int, int] | None = None
) -> dict[str, Any]:
    """``{value, ci_low, ci_high, interval}`` of one metric from its bootstrap draws (resamples,).

    ``interval`` is "bootstrap" (percentile) or "wilson": for a share with ``counts`` (hits, rows)
    of which either side is rarer than :data:`FEW`, the percentile interval is far too short, and
    empty at 0 and 1. All None, with a ``reason``, where ``value`` is NaN or no draw is defined.
    """
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or len(draws) == 0:
        empty: dict[str, Any] = dict.fromkeys(("value", "ci_low", "ci_high", "interval"))
        return empty | {"reason": "undefined on these rows"}
    tail = (1 - confidence) / 2
    if counts is not None and min(counts[0], counts[1] - counts[0]) < FEW:
        z = NormalDist().inv_cdf(1 - tail)
        low, high = wilson(np.array(counts[0]), np.array(counts[1]), z)
        kind = "wilson"
    else:
        low, high = np.quantile(draws, [tail, 1 - tail])
        kind = "bootstrap"
    return {"value": float(value), "ci_low": float(low), "ci_high": float(high), "interval": kind}


def intervals(
    names: tuple[str, ...] | list[str],
    y: Array,
    p: Array,
    s: Array,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Each metric's value with a bootstrap interval over rows, as :func:`interval` describes.

    Returns ``{name: {value, ci_low, ci_high, interval}}``; all None where a metric is undefined.
    """
    draws: dict[str, list[Array]] = {name: [] for name in names}
    by_cell = [name for name in names if METRICS[name].needs in ("classes", "positive")]
    by_row = [name for name in names if name not in by_cell]
    if len(y) and by_cell:
        first, counts = cells(y, p)
        for weights in bootstrap_cells(counts, resamples, seed):
            for name in by_cell:
                draws[name].append(METRICS[name].function(y[first], p[first], s, weights))
    if len(y) >= _SORTED_FROM and by_row:
        order = np.argsort(s if s.ndim == 1 else s[:, -1], kind="stable")
        y, p, s = y[order], p[order], s[order]
    if len(y) and by_row:
        for weights in bootstrap_weights(len(y), resamples, seed):
            for name in by_row:
                draws[name].append(METRICS[name].function(y, p, s, weights))
    found = {}
    for name in names:
        value = evaluate(name, y, p, s) if len(y) else np.nan
        drawn = np.concatenate(draws[name]) if draws[name] else np.empty(0)
        if name in BIASED and len(drawn):
            drawn = np.maximum(drawn - (np.nanmean(drawn) - value), 0.0)
        shares = share_counts(name, y, p) if name in SHARES else None
        found[name] = interval(value, drawn, confidence, shares)
    return found
