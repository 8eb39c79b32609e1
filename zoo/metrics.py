"""Every metric, one row each: evaluated on rows, on groups and on all bootstrap resamples at once.

A metric is ``fn(y_true, y_pred, scores, weights) -> values``. ``weights`` is a float array
(resamples, n) that says how often each row counts: all ones give the plain value, ones on a group
give the group's, multinomial counts give a bootstrap resample. So each metric is written once and
its intervals cost a matrix product instead of a loop.

    y_true, y_pred: int (n,) class indices, or float (n,) values for regression
    scores:         float (n, classes) probabilities, or (n,) per-sample losses
    weights:        float (resamples, n), non-negative
    returns:        float64 (resamples,), NaN where undefined (no such rows)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Metric:
    """A row: ``direction`` is +1 where higher is better, -1 where lower is, 0 for neither.

    ``needs`` is "classes" (hard predictions), "scores" (probabilities), "positive" (hard
    predictions and a positive class: ``y_true`` and ``y_pred`` are then 0/1) or "values".
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


def _mean(values: Array, weights: Array) -> Array:
    values = np.asarray(values, dtype=np.float64)
    return _ratio(weights @ values, weights.sum(axis=1, dtype=np.float64))


def _rate(select: Array, within: Array, weights: Array) -> Array:
    """Weighted share of ``select`` among the rows of ``within`` (both boolean (n,))."""
    return _ratio(
        weights @ (select & within).astype(np.float64), weights @ within.astype(np.float64)
    )


def accuracy(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _mean(y == p, w)


def _per_class(y: Array, p: Array, w: Array) -> tuple[Array, Array, Array]:
    """True positives, predicted and actual counts, each (resamples, classes present)."""
    classes = np.union1d(y, p)
    is_y = (y[:, None] == classes).astype(np.float64)
    is_p = (p[:, None] == classes).astype(np.float64)
    return w @ (is_y * is_p), w @ is_p, w @ is_y


def balanced_accuracy(y: Array, p: Array, s: Array, w: Array) -> Array:
    true, _, actual = _per_class(y, p, w)
    recall = _ratio(true, actual)
    return _nanmean(recall)


def _nanmean(values: Array) -> Array:
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


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


def _ranked(y: Array, score: Array, w: Array) -> tuple[Array, Array]:
    """Weights of positives and negatives at each distinct score, ascending: (resamples, distinct)."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positive = y[order].astype(bool)
    weights = np.asarray(w[:, order], dtype=np.float64)
    return (
        np.add.reduceat(weights * positive, starts, axis=1),
        np.add.reduceat(weights * ~positive, starts, axis=1),
    )


def _auc(y: Array, score: Array, w: Array) -> Array:
    positive, negative = _ranked(y, score, w)
    below = np.cumsum(negative, axis=1) - negative / 2
    return _ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def _average_precision(y: Array, score: Array, w: Array) -> Array:
    positive, negative = _ranked(y, score, w)
    positive, negative = positive[:, ::-1], negative[:, ::-1]
    hits = np.cumsum(positive, axis=1)
    found = hits + np.cumsum(negative, axis=1)
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    return _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))


def _one_against_rest(binary: Callable[[Array, Array, Array], Array]) -> Callable:
    def metric(y: Array, p: Array, s: Array, w: Array) -> Array:
        if s.shape[1] == 2:
            return binary(y == 1, s[:, 1], w)
        columns = [binary(y == k, s[:, k], w) for k in range(s.shape[1])]
        return np.mean(columns, axis=0)  # NaN where a class is absent, as in scikit-learn

    return metric


roc_auc = _one_against_rest(_auc)
average_precision = _one_against_rest(_average_precision)


def sample_log_loss(y: Array, s: Array) -> Array:
    """Negative log-likelihood of the true class, nats: int (n,), float (n, classes) -> (n,)."""
    chosen = np.take_along_axis(np.asarray(s, dtype=np.float64), y[:, None], axis=1)[:, 0]
    return -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))


def log_loss(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _mean(sample_log_loss(y, s), w)


def brier(y: Array, p: Array, s: Array, w: Array) -> Array:
    s = np.asarray(s, dtype=np.float64)
    if s.shape[1] == 2:
        return _mean((s[:, 1] - y) ** 2, w)
    return _mean(((s - (y[:, None] == np.arange(s.shape[1]))) ** 2).sum(axis=1), w)


def ece(y: Array, p: Array, s: Array, w: Array) -> Array:
    confidence = np.asarray(s, dtype=np.float64).max(axis=1)
    gap = (y == s.argmax(axis=1)) - confidence
    bins = np.minimum((confidence * 15).astype(int), 14)
    totals = [np.abs(w @ (gap * (bins == b))) for b in np.unique(bins)]
    return _ratio(np.sum(totals, axis=0), w.sum(axis=1, dtype=np.float64))


def selection_rate(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _mean(p == 1, w)


def true_positive_rate(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _rate(p == 1, y == 1, w)


def false_positive_rate(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _rate(p == 1, y == 0, w)


def true_negative_rate(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _rate(p == 0, y == 0, w)


def false_negative_rate(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _rate(p == 0, y == 1, w)


def precision(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _rate(y == 1, p == 1, w)


def mse(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _mean((np.asarray(y, np.float64) - p) ** 2, w)


def rmse(y: Array, p: Array, s: Array, w: Array) -> Array:
    return np.sqrt(mse(y, p, s, w))


def mae(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _mean(np.abs(np.asarray(y, np.float64) - p), w)


def r2(y: Array, p: Array, s: Array, w: Array) -> Array:
    centred = np.asarray(y, np.float64) - np.mean(y)  # a variance far from zero cancels badly
    spread = _mean(centred**2, w) - _mean(centred, w) ** 2
    return 1 - _ratio(mse(y, p, s, w), spread)


def mean_prediction(y: Array, p: Array, s: Array, w: Array) -> Array:
    return _mean(p, w)


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
        Metric("mean_prediction", mean_prediction, 0, "target", "values",
               "Calders et al., ICDM 2013"),
    )
}  # fmt: skip


def evaluate(name: str, y: Array, p: Array, s: Array, weights: Array | None = None) -> float:
    """The plain value of a metric (NaN where undefined); ``weights`` (n,) default to ones."""
    w = np.ones(len(y)) if weights is None else weights
    return float(METRICS[name].function(y, p, s, np.asarray(w, dtype=np.float64)[None, :])[0])


def bootstrap_weights(n: int, resamples: int, seed: int, chunk: int = 64):
    """Yield float32 (<= chunk, n) multinomial row counts, ``resamples`` rows in all.

    Efron & Tibshirani 1993, ch. 6: resampling n rows with replacement counts each row
    Multinomial(n, 1/n) times.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n)
        yield counts.reshape(size, n).astype(np.float32)


def intervals(
    names: tuple[str, ...] | list[str],
    y: Array,
    p: Array,
    s: Array,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, dict[str, float | None]]:
    """Each metric's value with a percentile bootstrap interval over rows.

    Returns ``{name: {value, ci_low, ci_high}}``; all None where the metric is undefined.
    """
    draws: dict[str, list[Array]] = {name: [] for name in names}
    for weights in bootstrap_weights(len(y), resamples, seed):
        for name in names:
            draws[name].append(METRICS[name].function(y, p, s, weights))
    tail = (1 - confidence) / 2
    result = {}
    for name in names:
        value = evaluate(name, y, p, s)
        sampled = np.concatenate(draws[name]) if draws[name] else np.empty(0)
        sampled = sampled[~np.isnan(sampled)]
        known = not np.isnan(value) and len(sampled) > 0
        low, high = np.quantile(sampled, [tail, 1 - tail]) if known else (None, None)
        result[name] = {
            "value": value if not np.isnan(value) else None,
            "ci_low": None if low is None else float(low),
            "ci_high": None if high is None else float(high),
        }
    return result
