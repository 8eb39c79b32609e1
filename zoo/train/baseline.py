"""The baseline trained beside every model: scikit-learn's linear one on the same rows, or the
task's own.

The linear one is trained on the same encoded inputs as the model, but for texts, whose ids no linear
model can use: there on counts of words and pairs of words, weighted by rarity (Sparck Jones, Journal of
Documentation 28, 1972).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.tasks import Task, get_task

if TYPE_CHECKING:
    from zoo.predictions import Predictions
    from zoo.train.session import Session


def linear_model(task: Task, x: Any, y: np.ndarray) -> Callable[[Any], np.ndarray]:
    """Fit on inputs (n, features) with class indices or values (n,).

    Returns a function of inputs (m, features) that gives float64 (m, outputs): log-odds for classes
    (scikit-learn's decision function), values for regression. Logistic regression with its default
    L2 penalty, ridge regression otherwise.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    if not task.classes:
        ridge = Ridge().fit(x, y)
        return lambda inputs: ridge.predict(inputs)[:, None]
    model: Any = LogisticRegression(max_iter=1000, tol=1e-3).fit(x, y)

    def logits(inputs: Any) -> np.ndarray:
        outputs = model.decision_function(inputs)
        if outputs.ndim == 1:  # two classes: the log-odds of the second alone
            pair = np.stack([np.zeros_like(outputs), outputs], axis=1)
            return pair[:, -task.outputs(2) :]
        return outputs

    return logits


def features(session: Session, train: np.ndarray) -> tuple[str, Any, Callable[[np.ndarray], Any]]:
    """What the baseline learns from: how it is called, the features of training rows, and a function
    that gives those of any rows."""
    if session.data.kind != "text":

        def encoded(rows: np.ndarray) -> np.ndarray:
            return session.encoded(rows).reshape(len(rows), -1)

        return "", encoded(train), encoded
    from sklearn.feature_extraction.text import TfidfVectorizer

    from zoo.data.text import words

    counts = TfidfVectorizer(analyzer=_pairs(words), min_df=2, sublinear_tf=True, dtype=np.float32)
    fitted = counts.fit_transform(session.data.take(train))
    return "TF-IDF with ", fitted, lambda rows: counts.transform(session.data.take(rows))


def _pairs(words: Any) -> Any:
    def analyse(text: str) -> list[str]:
        found = words(text)
        return found + [f"{a} {b}" for a, b in itertools.pairwise(found)]

    return analyse


def seasonal(session: Session) -> tuple[str, Predictions]:
    """Name of the seasonal naive forecast with drift, and what it says about the test rows."""
    from zoo.data.series import seasonal_naive
    from zoo.predict import predict_rows

    horizon, season = session.plan["outputs"], session.plan["season"]
    said = predict_rows(
        session, lambda x: seasonal_naive(x, horizon, season), "test", session.data.parts["test"]
    )
    return f"{get_task(session.data.task).baseline} (m = {season})", said


def pixels(session: Session) -> tuple[str, Predictions]:
    """Name of the model whose pixels are independent, and what it says about the test rows.

    A pixel is 1 with the probability of its mean over the training pictures, one half being added on
    either side, so that no pixel is certain.
    """
    from zoo.predict import predict_rows

    task, parts = get_task(session.data.task), session.data.parts
    total, count = 0.0, len(parts["train"])
    for some in np.array_split(parts["train"], -(-count // 1024)):
        total += session.framed(some).y.sum(axis=0, dtype=np.float64)
    share = (total + 0.5) / (count + 1)
    logits = np.log(share / (1 - share))  # and no latent variables

    def same(x: np.ndarray) -> np.ndarray:
        return np.tile(logits, (len(x), 1))

    return task.baseline, predict_rows(session, same, "test", parts["test"])


def linear(session: Session) -> tuple[str, Predictions]:
    """Name of the linear baseline, and what it says about the test rows.

    Where the encoded training rows are too many to be held, it is fitted on a seeded draw of them,
    and its name says so.
    """
    from zoo.predict import CALL_BYTES, to_predictions
    from zoo.train.session import HELD_BYTES

    task, parts = get_task(session.data.task), session.data.parts
    every, test = parts["train"], parts["test"]
    one = session.encoded(every[:1]).nbytes
    drawn = _drawn(len(every), max(HELD_BYTES // one, 1))
    if task.classes:  # one of each class: what is drawn at random may lack the rare ones
        drawn = np.union1d(drawn, np.unique(session.data.y[every], return_index=True)[1])
    train = every[drawn]
    y = session.data.y[train]
    if "target" in session.plan:
        y = (y - session.plan["target"]["mean"]) / session.plan["target"]["scale"]
    prefix, x, of_rows = features(session, train)
    logits, size = linear_model(task, x, y), max(CALL_BYTES // one, 1)
    said = [
        to_predictions(session, logits(of_rows(some)), session.example(some), "test", some)
        for some in (test[k : k + size] for k in range(0, len(test), size))
    ]
    on = "" if len(train) == len(every) else f" on {len(train):,} of {len(every):,} rows"
    return prefix + task.baseline + on, said[0].joined(said[1:])


def _drawn(rows: int, most: int) -> np.ndarray:
    """At most ``most`` of 0 to ``rows`` - 1, sorted."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(rows).choice(rows, most, replace=False))
