"""The linear baseline trained beside every model: scikit-learn on the same encoded inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.tasks import Task


def linear_logits(task: Task, x: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit on (n, ...) inputs with class indices or values (n,); return outputs for ``test``.

    Returns float64 (m, outputs): log-odds for classes (scikit-learn's decision function), values
    for regression. Logistic regression with its default L2 penalty, ridge regression otherwise.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    x, test = x.reshape(len(x), -1), test.reshape(len(test), -1)
    if not task.classes:
        return Ridge().fit(x, y).predict(test)[:, None]
    model: Any = LogisticRegression(max_iter=1000, tol=1e-3).fit(x, y)
    outputs = model.decision_function(test)
    if outputs.ndim == 1:  # two classes: the log-odds of the second alone
        pair = np.stack([np.zeros_like(outputs), outputs], axis=1)
        return pair[:, -task.outputs(2) :]
    return outputs
