"""Decisions by group: thresholds of a score for each, by fairlearn's ``ThresholdOptimizer``.

Hardt, Price & Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016. What is learned
is a table of numbers and goes into ``decision.json``; the model itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.errors import ZooError

#: fairlearn's constraints -> the disparity that each is about.
CONSTRAINTS: dict[str, str] = {
    "demographic_parity": "demographic_parity_difference",
    "equalized_odds": "equalized_odds_difference",
    "true_positive_rate_parity": "equal_opportunity_difference",
}
#: A group needs so many rows of each class for thresholds of its own.
LEAST_ROWS = 5
SOURCE = "Hardt, Price & Srebro, NeurIPS 2016; fairlearn.postprocessing.ThresholdOptimizer"


def learn(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, constraint: str
) -> dict[str, Any]:
    """The thresholds of each group under which the constraint holds and accuracy is highest.

    Args:
        scores: (n,) probabilities of the positive class; ``labels``: bool (n,), whether a row is of it;
            ``groups``: (n,) names.
        constraint: of :data:`CONSTRAINTS`.
    Returns ``{groups: {name: rule}, plain: [names]}``. A rule says positive with the probability
    ``p_ignore * constant + (1 - p_ignore) * sum(p * (score OPERATOR threshold))``; groups under ``plain``
    have too few rows of a class, and keep the model's own decision.
    Raises :class:`ZooError` where fewer than two groups are left.
    """
    names, code = np.unique(groups, return_inverse=True)
    both = np.zeros((len(names), 2), int)
    np.add.at(both, (code, labels.astype(int)), 1)
    enough = both.min(axis=1) >= LEAST_ROWS
    if enough.sum() < 2:
        found = ", ".join(
            f"{name}: {n[1]} of {n.sum()}" for name, n in zip(names, both, strict=True)
        )
        raise ZooError(
            "There are too few rows to find thresholds by group.",
            expected=f"at least {LEAST_ROWS} rows of each class in each of two groups",
            received=f"positive validation rows: {found}",
            kind="too_few_rows",
        )
    some = enough[code]
    rules = _optimised(scores[some], labels[some], groups[some], constraint)
    return {
        "groups": {str(name): rules[name] for name in names[enough]},
        "plain": [str(name) for name in names[~enough]],
    }


def _optimised(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, constraint: str
) -> dict[str, dict[str, Any]]:
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Scored(ClassifierMixin, BaseEstimator):
        """An estimator whose inputs are the scores."""

        def fit(self, inputs: Any, labels: Any) -> Any:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, inputs: Any) -> np.ndarray:
            positive = np.asarray(inputs, np.float64)[:, 0]
            return np.stack([1 - positive, positive], axis=1)

    optimizer = ThresholdOptimizer(
        estimator=Scored(), constraints=constraint, prefit=True, predict_method="predict_proba"
    )
    optimizer.fit(scores.astype(np.float64)[:, None], labels.astype(int), sensitive_features=groups)
    rules = {}
    for name, found in optimizer.interpolated_thresholder_.interpolation_dict.items():
        parts = [(found.p0, found.operation0), (found.p1, found.operation1)]
        rules[name] = {
            "parts": [
                # beyond any probability: JSON has no infinity
                {"p": float(p), "operator": rule.operator, "threshold": float(np.clip(rule.threshold, -1, 2))}
                for p, rule in parts if p > 0
            ],
            "p_ignore": float(found.get("p_ignore", 0.0)),
            "constant": float(found.get("prediction_constant", 0.0)),
        }  # fmt: skip
    return rules


def positive_share(rule: Mapping[str, Any], scores: np.ndarray) -> np.ndarray:
    """With what probability a rule says positive: (n,) scores -> float64 (n,)."""
    scores = np.asarray(scores, np.float64)
    said = np.zeros(len(scores))
    for part in rule["parts"]:
        above = (
            scores > part["threshold"] if part["operator"] == ">" else scores < part["threshold"]
        )
        said += part["p"] * above
    return rule["p_ignore"] * rule["constant"] + (1 - rule["p_ignore"]) * said


def randomized(rules: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the answer for some score is drawn."""
    for rule in rules.values():
        edges = np.array([0.0, 1.0, *(part["threshold"] for part in rule["parts"])])
        near = np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
        share = positive_share(rule, near[(near >= 0) & (near <= 1)])  # constant between them
        if np.any((share > 1e-9) & (share < 1 - 1e-9)):
            return True
    return False


def decide(
    decision: Mapping[str, Any],
    rows: np.ndarray,
    groups: np.ndarray,
    y_pred: np.ndarray,
    scores: np.ndarray,
) -> np.ndarray:
    """Class indices (n,) by a stored decision.

    The draw of a row depends on the decision's seed and the row's id alone, so that it comes out the
    same whichever rows it is asked with.

    Args:
        rows: int (n,) ids; ``groups``: (n,) names; ``y_pred``: (n,) the model's own answers, which
            stay for groups under ``plain``; ``scores``: (n, 2) probabilities.
    Raises :class:`ZooError` for a group that the decision does not know.
    """
    unknown = sorted({*map(str, np.unique(groups))} - {*decision["groups"], *decision["plain"]})
    if unknown:
        raise ZooError(
            f"The decision has no rule for {decision['attribute']} = {unknown[0]!r}.",
            expected=f"one of: {', '.join([*decision['groups'], *decision['plain']])}",
            received=", ".join(map(repr, unknown[:5])),
            hint="The groups are those that the training made of the column; a variant that needs no "
            "groups takes any.",
            kind="unknown_group",
        )
    positive = int(decision["positive_index"])
    draws = np.random.default_rng(decision["seed"]).random(int(rows.max()) + 1)[rows]
    answers = np.array(y_pred)
    for name, rule in decision["groups"].items():
        mine = np.asarray(groups) == name
        drawn = draws[mine] < positive_share(rule, scores[mine, positive])
        answers[mine] = np.where(drawn, positive, 1 - positive)
    return answers
