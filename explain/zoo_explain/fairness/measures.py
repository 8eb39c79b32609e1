"""What is judged by group: the views of the predictions, fairlearn's functions, the disparities."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from zoo.errors import ZooError, unknown
from zoo.metrics import MEANS, METRICS, bootstrap_cells, bootstrap_weights, cells, evaluate
from zoo.predictions import Predictions
from zoo.tasks import Task, get_task
from zoo_explain.fairness import bands

Array = np.ndarray

PAIRED = (  # shares of rows that do not depend on the predictions, so two models share them
    "accuracy", "selection_rate", "true_positive_rate", "false_positive_rate",
)  # fmt: skip
BY_LABEL = (
    "accuracy",
    "log_loss",
    "mae",
    "rmse",
    "mase",
    "elbo",
    "token_loss",
)  # what a group that is a label can be judged by
CLASS_AVERAGES = ("balanced_accuracy", "f1_macro")  # of one number a class
CROSSED = (
    "accuracy",
    "selection_rate",
    "mae",
    "mase",
    "elbo",
    "token_loss",
)  # judged in crossed groups


@dataclass(frozen=True)
class Disparity:
    """A row: a comparison over groups of the metrics it names; the worse one counts.

    ``kind`` is "difference" (largest less smallest), "ratio" (smallest over largest) or "worst"
    (the group that does worst).
    """

    name: str
    metrics: tuple[str, ...]
    kind: str
    source: str


_FELDMAN = "Feldman et al., KDD 2015; fairlearn.metrics.demographic_parity_ratio"
_HARDT = "Hardt, Price & Srebro, NeurIPS 2016; fairlearn.metrics."
_SAGAWA = "Sagawa et al., ICLR 2020"

DISPARITIES: tuple[Disparity, ...] = (
    Disparity("demographic_parity_difference", ("selection_rate",), "difference",
              "Dwork et al., ITCS 2012; fairlearn.metrics.demographic_parity_difference"),
    Disparity("demographic_parity_ratio", ("selection_rate",), "ratio", _FELDMAN),
    Disparity("equalized_odds_difference", ("true_positive_rate", "false_positive_rate"),
              "difference", _HARDT + "equalized_odds_difference"),
    Disparity("equalized_odds_ratio", ("true_positive_rate", "false_positive_rate"), "ratio",
              _HARDT + "equalized_odds_ratio"),
    Disparity("equal_opportunity_difference", ("true_positive_rate",), "difference",
              _HARDT + "equal_opportunity_difference"),
    Disparity("accuracy_difference", ("accuracy",), "difference",
              "Buolamwini & Gebru, FAccT 2018"),
    Disparity("worst_group_accuracy", ("accuracy",), "worst", _SAGAWA),
    Disparity("mae_difference", ("mae",), "difference", "Agarwal, Dudik & Wu, ICML 2019"),
    Disparity("worst_group_mae", ("mae",), "worst", _SAGAWA),
    Disparity("token_loss_difference", ("token_loss",), "difference",
              "Agarwal, Dudik & Wu, ICML 2019"),
    Disparity("worst_group_token_loss", ("token_loss",), "worst", _SAGAWA),
    Disparity("mase_difference", ("mase",), "difference", "Agarwal, Dudik & Wu, ICML 2019"),
    Disparity("worst_group_mase", ("mase",), "worst", _SAGAWA),
    Disparity("elbo_difference", ("elbo",), "difference", "Agarwal, Dudik & Wu, ICML 2019"),
    Disparity("worst_group_elbo", ("elbo",), "worst", _SAGAWA),
    Disparity("mean_prediction_difference", ("mean_prediction",), "difference",
              "Calders et al., ICDM 2013"),
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """Predictions as metrics take them: classes or values, and 0/1 where a class is positive."""

    task: Task
    y: Array
    p: Array
    s: Array
    positive: int | None

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, name: str, rows: Any = slice(None)) -> tuple[Array, Array, Array]:
        """``(y, p, s)`` of the rows for the metric ``name``."""
        if METRICS[name].needs == "positive":
            y, p = self.y[rows] == self.positive, self.p[rows] == self.positive
            return y.astype(np.int64), p.astype(np.int64), self.s[:0]
        return self.y[rows], self.p[rows], self.s[rows]

    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are judged by group."""
        rates = self.task.fairness_positive if self.positive is not None else ()
        return self.task.fairness + rates

    def unavailable(self, name: str) -> str | None:
        """Why a metric cannot be computed from these predictions, if so."""
        if METRICS[name].needs == "scores" and self.s.ndim != 2:
            return "the predictions hold no probabilities"
        if METRICS[name].needs == "losses" and self.s.ndim != 1:
            return "the predictions hold no loss for each row"
        return None


def view(predictions: Predictions, task: str, positive: str | None) -> View:
    """Predictions checked, and the positive class found.

    ``positive`` defaults to the last of two classes; with more classes there is none unless named.
    Raises :class:`zoo.errors.ZooError` for no rows, values that are not finite, an unknown class.
    """
    row, classes = get_task(task), predictions.classes
    if len(predictions) == 0:
        raise ZooError(
            "There are no predictions to judge.",
            expected="at least one row",
            received=f"0 rows in the split {predictions.split!r}",
            hint="Make predictions with `zoo predict` first.",
        )
    for name in ("y_true", "y_pred", "scores"):
        values = np.asarray(getattr(predictions, name))
        broken = ~np.isfinite(values)
        bad = int(broken.any(axis=tuple(range(1, values.ndim))).sum())
        if bad:
            raise ZooError(
                f"{name} holds values that are not finite.",
                expected="finite numbers",
                received=f"{bad} of {len(values)} rows are NaN or infinite",
                hint="A model that diverged predicts NaN; train it with a lower learning rate.",
                kind="not_finite",
            )
    index = None
    if not row.fairness_positive and positive is not None:
        raise ZooError(
            f"The task {task!r} has no positive class.",
            expected="no positive class",
            received=repr(positive),
            hint="Leave --positive out.",
        )
    if positive is not None:
        if positive not in classes:
            raise unknown("class", positive, classes)
        index = classes.index(positive)
    elif row.fairness_positive and len(classes) == 2:
        index = 1
    scores = predictions.scores
    if len(scores) != len(predictions):  # none were kept, which a metric that needs them will say
        scores = np.empty(len(predictions))
    return View(row, predictions.y_true, predictions.y_pred, scores, index)


def chosen(predictions: Predictions, attributes: list[str] | None) -> list[str]:
    """The attributes to judge: those named, or all. Raises ``ZooError`` for one that is not there."""
    names = sorted(predictions.groups) if attributes is None else list(dict.fromkeys(attributes))
    for name in names:
        if name not in predictions.groups:
            raise unknown("attribute", name, predictions.groups)
        if len(predictions.groups[name]) != len(predictions):
            raise ZooError(
                f"The attribute {name!r} does not have a group for each row.",
                expected=f"{len(predictions)} groups",
                received=str(len(predictions.groups[name])),
            )
    return names


def settings(resamples: int, confidence: float, min_cell: int) -> None:
    """Raises ``ZooError`` for settings no interval can be made with."""
    for name, value, good, expected in (
        ("resamples", resamples, resamples >= 20, "at least 20"),
        ("confidence", confidence, 0.5 <= confidence < 1, "from 0.5 to below 1, such as 0.95"),
        ("min_cell", min_cell, min_cell >= 1, "at least 1"),
    ):
        if not good:
            raise ZooError(
                f"{name} does not allow an interval.", expected=expected, received=str(value)
            )


Counts = dict[Any, tuple[Array, Array]]
Draws = dict[str, Array]
Function = Callable[[Array, Array], Array]


def cell_draws(
    codes: Array,
    columns: tuple[Array, ...],
    masks: Mapping[Any, Array],
    functions: Mapping[str, Function],
    resamples: int,
    seed: int,
) -> tuple[Counts, Draws]:
    """Bootstrap what depends on classes only, over the cells of (group, classes).

    ``codes`` int (n,) are groups 0..G-1, ``columns`` the classes that decide everything else.
    ``masks`` are boolean (n,); each comes back as its counts (G,) and resampled counts
    (resamples, G). ``functions`` take (rows (k,), weights (r, k)) and give (r,); each comes back as
    (resamples, G).
    """
    first, counts = cells(codes, *columns)
    group = codes[first]  # ascending, as cells are in order
    size = int(codes.max()) + 1
    member = group[:, None] == np.arange(size)
    table = np.stack([member & mask[first][:, None] for mask in masks.values()], axis=1)
    table = table.reshape(len(first), -1).astype(np.float64)
    starts = np.searchsorted(group, np.arange(size + 1))
    sums, drawn = [], {name: [] for name in functions}  # type: ignore[var-annotated]
    for weights in bootstrap_cells(counts, resamples, seed):
        sums.append(weights @ table)
        for name, function in functions.items():
            drawn[name].append(_by_group(function, first, starts, weights))
    plain = (counts @ table).reshape(len(masks), size)
    resampled = np.concatenate(sums).reshape(resamples, len(masks), size)
    found = {key: (plain[i], resampled[:, i]) for i, key in enumerate(masks)}
    return found, {name: np.concatenate(parts) for name, parts in drawn.items()}


def row_draws(
    codes: Array,
    values: Mapping[str, Array],
    functions: Mapping[str, Function],
    resamples: int,
    seed: int,
) -> tuple[dict[str, bands.Estimate], Draws]:
    """Bootstrap what each row has a number of its own for.

    ``values`` float (n,) come back as estimates of their means by group; ``functions`` as in
    :func:`cell_draws`.
    """
    size = int(codes.max()) + 1
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(size + 1))
    slices = [slice(*pair) for pair in pairwise(starts)]
    rows = np.diff(starts).astype(np.float64)
    centre, table = {}, {}
    for name, value in values.items():
        ordered = np.asarray(value, dtype=np.float64)[order]
        centre[name] = np.array([ordered[part].mean() for part in slices])
        ordered = ordered - np.repeat(centre[name], np.diff(starts))
        table[name] = np.stack([np.ones_like(ordered), ordered, ordered**2], axis=1)
    moments, drawn = {name: [] for name in values}, {name: [] for name in functions}  # type: ignore[var-annotated]
    for weights in bootstrap_weights(len(codes), resamples, seed):
        for name, columns in table.items():
            parts = [weights[:, part] @ columns[part] for part in slices]
            moments[name].append(np.stack(parts, axis=2))  # (r, 3, G)
        for name, function in functions.items():
            drawn[name].append(_by_group(function, order, starts, weights))
    estimates = {}
    for name, columns in table.items():
        first, second = (np.array([columns[part, k].sum() for part in slices]) for k in (1, 2))
        resampled = np.concatenate(moments[name])
        estimates[name] = bands.mean(
            rows, first, second, (resampled[:, 0], resampled[:, 1], resampled[:, 2]), centre[name]
        )
    return estimates, {name: np.concatenate(parts) for name, parts in drawn.items()}


def _by_group(function: Function, rows: Array, starts: Array, weights: Array) -> Array:
    pairs = pairwise(starts)
    return np.stack([function(rows[a:b], weights[:, a:b]) for a, b in pairs], axis=1)


def row_value(view: View, name: str) -> Array:
    """The number a row of a metric in :data:`zoo.metrics.MEANS`, float64 (n,)."""
    return MEANS[name](*view.inputs(name))


def fairlearn_values(view: View, codes: Array, names: tuple[str, ...]) -> dict[str, Array]:
    """Each metric in each group (G,), by fairlearn's MetricFrame over fairlearn's and
    scikit-learn's functions; by :func:`zoo.metrics.evaluate` what neither has. fairlearn gives 0
    for a rate of no rows; the caller tells those apart.
    """
    known = _peers()
    by_cell: dict[str, Callable] = {}
    by_row: dict[str, Callable] = {}
    losses: dict[str, Array] = {}
    for name in names:
        if view.y.ndim > 1:
            continue  # MetricFrame takes one value a row
        if name in MEANS and METRICS[name].needs in ("scores", "losses"):
            # a row of probabilities fits no column of a MetricFrame, its loss does
            by_row[name], losses[name] = (
                partial(_mean_of, known["mean_prediction"]),
                row_value(view, name),
            )
        elif name in known and METRICS[name].needs == "positive":
            by_cell[name] = partial(_on_positive, known[name], view.positive)
        elif name in known:
            kind = by_cell if METRICS[name].needs == "classes" else by_row
            kind[name] = known[name]
    values: dict[str, Array] = {}
    if by_cell:  # equal rows are one row with a weight: the same values, a hundred times sooner
        rows, counts = cells(codes, view.y, view.p)
        params = {name: {"sample_weight": counts} for name in by_cell}
        values |= _frame(by_cell, view.y[rows], view.p[rows], codes[rows], params)
    if by_row:
        params = {name: {"value": loss} for name, loss in losses.items()}
        values |= _frame(by_row, view.y, view.p, codes, params)
    members = [np.flatnonzero(codes == g) for g in range(int(codes.max()) + 1)]
    for name in set(names) - set(values):
        values[name] = np.array([evaluate(name, *view.inputs(name, rows)) for rows in members])
    return values


def _frame(
    functions: dict[str, Callable], y: Array, p: Array, codes: Array, params: dict[str, Any]
) -> dict[str, Array]:
    from fairlearn.metrics import MetricFrame

    with warnings.catch_warnings():
        # a class predicted but absent from a small group is no news
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", message="A single label was found")
        frame = MetricFrame(
            metrics=functions, y_true=y, y_pred=p, sensitive_features=codes, sample_params=params
        )
        by_group = frame.by_group
    return {name: by_group[name].to_numpy(dtype=np.float64) for name in functions}


def _mean_of(function: Callable, y_true: Any, y_pred: Any, value: Any) -> float:
    return function(y_true, value)


def _on_positive(
    function: Callable, positive: int | None, y_true: Any, y_pred: Any, sample_weight: Any
) -> float:
    one, other = (np.asarray(part) == positive for part in (y_true, y_pred))
    return function(one.astype(int), other.astype(int), sample_weight=sample_weight)


def _peers() -> dict[str, Callable]:
    """fairlearn's and scikit-learn's own function of each metric, on classes, 0/1 or values."""
    import fairlearn.metrics as fair
    import sklearn.metrics as learn

    return {
        "accuracy": learn.accuracy_score,
        "balanced_accuracy": learn.balanced_accuracy_score,
        "f1_macro": partial(learn.f1_score, average="macro", zero_division=0),
        "precision_macro": partial(learn.precision_score, average="macro", zero_division=0),
        "recall_macro": partial(learn.recall_score, average="macro", zero_division=0),
        "selection_rate": fair.selection_rate,
        "true_positive_rate": partial(fair.true_positive_rate, pos_label=1),
        "false_positive_rate": partial(fair.false_positive_rate, pos_label=1),
        "true_negative_rate": partial(fair.true_negative_rate, pos_label=1),
        "false_negative_rate": partial(fair.false_negative_rate, pos_label=1),
        "precision": partial(learn.precision_score, zero_division=np.nan),
        "mae": learn.mean_absolute_error,
        "mse": learn.mean_squared_error,
        "rmse": learn.root_mean_squared_error,
        "mean_prediction": fair.mean_prediction,
    }
