"""Is an explanation any good? Deletion and insertion, a randomised model, a second run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from zoo_explain.attribution.blackbox import BUDGET
from zoo_explain.attribution.engine import Explanation, explain
from zoo_explain.attribution.game import evaluate
from zoo_explain.attribution.methods import METHODS
from zoo_explain.attribution.players import Player, owners

STEPS = 50  # points on a deletion curve, at most
Predict = Callable[[np.ndarray], np.ndarray]


def row_spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of a with that of b: (n, k) twice -> (n,).

    NaN where a row is constant.
    """
    from scipy.stats import rankdata

    first, second = (
        ranks - ranks.mean(axis=1, keepdims=True)
        for ranks in (rankdata(a, axis=1), rankdata(b, axis=1))
    )
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    product = (first * second).sum(axis=1)
    return np.divide(product, scale, out=np.full(len(product), np.nan), where=scale > 0)


def deletion_insertion(
    *,
    predict: Predict,
    x: np.ndarray,
    background: np.ndarray,
    values: np.ndarray,
    players: list[Player],
    targets: np.ndarray,
    seed: int = 0,
    of_row: Callable[[np.ndarray], Predict] | None = None,
) -> dict[str, float | None]:
    """Areas under the deletion and insertion curves (Petsiuk, Das & Saenko, BMVC 2018).

    Deletion replaces a row's players by the background's mean (of token ids, the most frequent),
    the most important first;
    insertion starts from the mean and puts them back in the same order. The curve is the
    explained output (logit or value) as a share of the way from its value at the mean (0) to its
    value at the row (1): shares of the rows' summed way, so that rows where the two coincide
    weigh nothing. Importance is signed by the direction of that way. A faithful explanation has
    a low ``deletion_auc`` and a high ``insertion_auc``; ``random_auc`` is what a random order
    gets in both (its reverse visits the same points). All None where no row moves.

    Args:
        x (n, *shape), background (b, *shape); values float (n, players); targets int (n,);
        of_row as for :func:`zoo_explain.attribution.explain`.
    """
    rng = np.random.default_rng(seed)
    owner = owners(players, int(np.prod(x.shape[1:])))
    every, count = np.arange(len(x)), len(players)
    mean = _centre(background)
    asked = None if of_row is None else [of_row(row) for row in x]

    def outputs(rows: np.ndarray) -> np.ndarray:
        """What each row of x explains, of as many others: (n, *shape) -> (n,)."""
        if asked is None:
            return evaluate(predict, rows)[every, targets]
        parts = [evaluate(one, rows[k : k + 1]) for k, one in enumerate(asked)]
        return np.concatenate(parts)[every, targets]

    at_mean = outputs(np.repeat(mean[None], len(x), axis=0))
    way = outputs(x) - at_mean
    if not np.abs(way).sum():
        return dict.fromkeys(("deletion_auc", "insertion_auc", "random_auc"))
    sign = np.where(way < 0, -1.0, 1.0)

    def auc(rank: np.ndarray, remove: bool) -> float:
        """Rank int (n, players), 0 the first to be removed or inserted."""
        curve = []
        steps = np.unique(np.linspace(0, count, min(count, STEPS) + 1).round())
        for step in steps:
            kept = (rank >= step) if remove else (rank < step)
            mixed = np.where(kept[:, owner].reshape(x.shape), x, mean)
            moved = outputs(mixed) - at_mean
            curve.append(float((sign * moved).sum() / np.abs(way).sum()))
        return float(np.trapezoid(curve, steps / count))

    rank = (-values * sign[:, None]).argsort(axis=1, kind="stable").argsort(axis=1)
    chance = rng.permuted(np.tile(np.arange(count), (len(x), 1)), axis=1)
    return {
        "deletion_auc": auc(rank, remove=True),
        "insertion_auc": auc(rank, remove=False),
        "random_auc": auc(chance, remove=True),
    }


def _centre(background: np.ndarray) -> np.ndarray:
    from scipy.stats import mode

    if np.issubdtype(background.dtype, np.integer):  # a mean of token ids is no token
        return mode(background, axis=0).mode
    return background.mean(axis=0).astype(background.dtype)


@contextmanager
def randomized(model: Any, seed: int) -> Iterator[None]:
    """The model with kernels redrawn from normals of their own mean and spread, then restored."""
    rng = np.random.default_rng(seed)
    kernels = [variable for variable in model.weights if len(variable.shape) > 1]
    kept = [variable.numpy() for variable in kernels]
    try:
        for variable, kernel in zip(kernels, kept, strict=True):
            variable.assign(rng.normal(kernel.mean(), kernel.std() + 1e-6, kernel.shape))
        yield
    finally:
        for variable, kernel in zip(kernels, kept, strict=True):
            variable.assign(kernel)


def quality(
    explanation: Explanation,
    *,
    predict: Predict,
    model: Any,
    x: np.ndarray,
    background: np.ndarray,
    players: list[Player],
    seed: int = 0,
    rows: int = 24,
    budget: int = BUDGET,
    of_row: Callable[[np.ndarray], Predict] | None = None,
) -> dict[str, float | None]:
    """The ``quality`` of an explanation, on its first ``rows`` rows; ``budget`` and ``of_row`` as it
    was explained.

    ``deletion_auc``, ``insertion_auc``, ``random_auc``: see :func:`deletion_insertion`.
    ``randomization_similarity``: mean rank correlation of ``|values|`` with those of the same
    model with random kernels (Adebayo et al., NeurIPS 2018); near 1 means that the explanation
    does not depend on what was learnt; None for black-box methods, which have no weights.
    ``stability``: mean rank correlation between two explanations with another seed and one half
    of the background each; None with a single background row.
    """
    row = METHODS[explanation.method]
    few = slice(0, rows)
    targets, values = explanation.targets[few], explanation.values[few, :, 0]

    def again(function: Predict, part: np.ndarray, new_seed: int) -> np.ndarray:
        result = explain(
            predict=function, model=model, x=x[few], background=part, players=players,
            space=explanation.space, outputs=[""] * outputs, method=explanation.method,
            seed=new_seed, targets=targets, budget=budget, of_row=of_row,
        )  # fmt: skip
        return result.values[..., 0]

    outputs = np.asarray(predict(x[:1])).shape[1]
    found = deletion_insertion(
        predict=predict, x=x[few], background=background, values=values, players=players,
        targets=targets, seed=seed, of_row=of_row,
    )  # fmt: skip
    found |= dict.fromkeys(("randomization_similarity", "stability"))
    if row.white_box:
        with randomized(model, seed):
            random = again(lambda z: model(z, training=False).numpy(), background, seed)
        found["randomization_similarity"] = _agreement(np.abs(values), np.abs(random))
    if len(background) > 1:
        halves = [again(predict, background[i::2], seed + 1 + i) for i in (0, 1)]
        found["stability"] = _agreement(*halves)
    return found


def _agreement(a: np.ndarray, b: np.ndarray) -> float | None:
    """Mean over rows of the rank correlation of a with b, both (n, players); None if undefined.

    Players with nothing to give in both (the blank corners of an image) are left out of a row:
    their ties would pass for agreement.
    """
    rows = [
        row_spearman(first[None, active], second[None, active])[0]
        for first, second in zip(a, b, strict=True)
        if (active := (first != 0) | (second != 0)).any()
    ]
    known = [value for value in rows if not np.isnan(value)]
    return float(np.mean(known)) if known else None
