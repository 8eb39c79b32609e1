"""The linear baseline trained beside every model: scikit-learn on the same rows.

On the same encoded inputs as the model, but for texts, whose ids no linear model can use: there on
counts of words and pairs of words, weighted by rarity (Sparck Jones, Journal of Documentation 28,
1972).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.tasks import Task, get_task

if TYPE_CHECKING:
    from zoo.predictions import Predictions
    from zoo.train.session import Session


def linear_logits(task: Task, x: Any, y: np.ndarray, test: Any) -> np.ndarray:
    """Fit on inputs (n, features) with class indices or values (n,); return outputs for ``test``.

    Returns float64 (m, outputs): log-odds for classes (scikit-learn's decision function), values
    for regression. Logistic regression with its default L2 penalty, ridge regression otherwise.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    if not task.classes:
        return Ridge().fit(x, y).predict(test)[:, None]
    model: Any = LogisticRegression(max_iter=1000, tol=1e-3).fit(x, y)
    outputs = model.decision_function(test)
    if outputs.ndim == 1:  # two classes: the log-odds of the second alone
        pair = np.stack([np.zeros_like(outputs), outputs], axis=1)
        return pair[:, -task.outputs(2) :]
    return outputs


def inputs(session: Session, train: np.ndarray, test: np.ndarray) -> tuple[str, Any, Any]:
    """What the baseline learns from: how it is called, and the features of both sets of rows."""
    if session.data.kind != "text":
        x, y = (session.encoded(rows).reshape(len(rows), -1) for rows in (train, test))
        return "", x, y
    from sklearn.feature_extraction.text import TfidfVectorizer

    from zoo.data.text import words

    counts = TfidfVectorizer(analyzer=_pairs(words), min_df=2, sublinear_tf=True, dtype=np.float32)
    fitted = counts.fit_transform(session.data.take(train))
    return "TF-IDF with ", fitted, counts.transform(session.data.take(test))


def _pairs(words: Any) -> Any:
    def analyse(text: str) -> list[str]:
        found = words(text)
        return found + [f"{a} {b}" for a, b in itertools.pairwise(found)]

    return analyse


def linear(session: Session) -> tuple[str, Predictions]:
    """Name of the linear baseline, and what it says about the test rows."""
    from zoo.predict import to_predictions

    task, parts = get_task(session.data.task), session.data.parts
    y = session.data.y[parts["train"]]
    if "target" in session.plan:
        y = (y - session.plan["target"]["mean"]) / session.plan["target"]["scale"]
    prefix, x, test = inputs(session, parts["train"], parts["test"])
    outputs, example = linear_logits(task, x, y, test), session.example(parts["test"])
    return prefix + task.baseline, to_predictions(session, outputs, example, "test", parts["test"])
