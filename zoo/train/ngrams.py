"""The baselines of language models: trigrams of the same tokens, and how frequent each token is."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from zoo.tasks import PADDING, get_task

if TYPE_CHECKING:
    from zoo.predictions import Predictions
    from zoo.train.session import Session

#: Taken off every count and given to what was not seen (Ney, Essen & Kneser 1994).
DISCOUNT = 0.75


class Trigrams:
    """Interpolated trigrams with absolute discounting: P(next | the two before).

    Ney, Essen & Kneser, Computer Speech and Language 8, 1994. Each order takes the discount off
    its counts and gives what it freed to the next lower order, the lowest to all tokens alike.
    """

    def __init__(self, rows: np.ndarray, vocabulary: int) -> None:
        """Count ids (n, T), each row begun by its start token and filled with ``PADDING``."""
        self.vocabulary = vocabulary
        counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(3)]
        for row in rows:
            ids = row[row != PADDING].tolist()
            for k, token in enumerate(ids[1:], start=1):
                for order in range(min(3, k + 1)):
                    counts[order][tuple(ids[k - order : k])][token] += 1
        self._seen = [
            {
                context: (np.fromiter(found, np.int64), np.fromiter(found.values(), np.float64))
                for context, found in table.items()
            }
            for table in counts
        ]
        self._lower: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, before: tuple[int, ...]) -> np.ndarray:
        """Probabilities float64 (vocabulary,) of the token after ``before``."""
        uniform = np.full(self.vocabulary, 1 / self.vocabulary)
        found = self._interpolated((), uniform)
        for order in (1, 2):
            if order <= len(before):
                found = self._interpolated(before[-order:], found)
        return found

    def _interpolated(self, context: tuple[int, ...], lower: np.ndarray) -> np.ndarray:
        if context in self._lower:
            return self._lower[context]
        seen = self._seen[len(context)].get(context)
        if seen is None:
            return lower
        tokens, counts = seen
        total = counts.sum()
        found = lower * (DISCOUNT * len(tokens) / total)
        found[tokens] += (counts - DISCOUNT) / total
        if len(context) < 2:
            self._lower[context] = found
        return found


def next_token(session: Session) -> tuple[str, Predictions]:
    """Trigrams of the training rows, and what they say about the test rows."""
    from zoo.predict import to_predictions

    task, rows = get_task(session.data.task), session.data.parts["test"]
    train = session.example(session.data.parts["train"])
    ids = np.concatenate([train.x[:, :1], train.y], axis=1)
    model = Trigrams(ids, session.plan["vocabulary"])
    parts = []
    for k in range(len(rows)):
        example = session.example(rows[k : k + 1])
        logits = np.zeros((1, example.x.shape[1], session.plan["vocabulary"]))
        seen = example.x[0].tolist()
        assert example.weights is not None
        for place in np.flatnonzero(example.weights[0]):
            logits[0, place] = np.log(model(tuple(seen[max(place - 1, 0) : place + 1])))
        parts.append(to_predictions(session, logits, example, "test", rows[k : k + 1]))
    return task.baseline, parts[0].joined(parts[1:])


def frequencies(session: Session) -> tuple[str, Predictions]:
    """How frequent each token is in training, whatever stands beside it, said of the test rows."""
    from zoo.predict import to_predictions

    task, parts = get_task(session.data.task), session.data.parts
    train = session.example(parts["train"]).y
    counts = np.bincount(train.ravel(), minlength=session.plan["vocabulary"]).astype(np.float64)
    counts[session.plan["special"]] = 0.0
    logits = np.log((counts + 0.5) / (counts + 0.5).sum()).astype(np.float32)
    said = []
    for some in np.array_split(parts["test"], -(-len(parts["test"]) // 256)):
        example = session.example(some)
        every = np.broadcast_to(logits, (*example.y.shape, len(logits)))
        said.append(to_predictions(session, every, example, "test", some))
    return task.baseline, said[0].joined(said[1:])


def copied(session: Session) -> tuple[str, Predictions]:
    """What is said of the test rows by taking each source for its answer.

    Its probabilities: as often as a place of the answer holds the source's token in training, that
    one; else all others alike.
    """
    from zoo.predict import to_predictions

    task, parts, plan = get_task(session.data.task), session.data.parts, session.plan
    side, vocabulary = plan["sides"], plan["vocabulary"]
    train = session.example(parts["train"])
    assert train.weights is not None
    share = (train.weights * (train.x[:, :side] == train.y)).sum() / train.weights.sum()
    said = []
    for some in np.array_split(parts["test"], -(-len(parts["test"]) // 256)):
        example = session.example(some)
        source = example.x[:, :side]
        logits = np.full((*source.shape, vocabulary), np.log((1 - share) / (vocabulary - 1)))
        np.put_along_axis(logits, source[..., None], np.log(share), axis=2)
        said.append(to_predictions(session, (logits, source), example, "test", some))
    return task.baseline, said[0].joined(said[1:])
