"""Shapley values of a function that can only be called.

The game of a row: ``v(S)`` is the mean over background rows b of ``f(x on S, b elsewhere)``, the
interventional value function (Janzing, Minorics & Bloebaum, AISTATS 2020), as in
``shap.maskers.Independent``. shap's own explainers evaluate a few dozen coalitions a call; here a
row's coalitions go to the compiled function in a few calls.
"""

from __future__ import annotations

import math

import numpy as np

from zoo_explain.attribution.game import Attribution, Game, batch_size

EXACT_PLAYERS = 8  # 2^8 coalitions with each of 50 background rows are 12,800 calls a row
EXACT_CALLS = 20_000  # a row; the background is thinned beyond
BUDGET = 2_500  # calls a row that permutation sampling may spend, unless it is told another number


def coalitions(players: int) -> np.ndarray:
    """All subsets, bool (2^players, players); bit i of the row's number is player i."""
    return (np.arange(2**players)[:, None] >> np.arange(players)) & 1 == 1


def shapley(v: np.ndarray, players: int) -> np.ndarray:
    """Shapley values from the value of every coalition: (2^players,) -> (players,).

    Shapley 1953, "A Value for n-Person Games".
    """
    number = np.arange(2**players)
    size = coalitions(players).sum(axis=1)
    weight = np.array([1 / (players * math.comb(players - 1, s)) for s in range(players)])
    values = np.empty(players)
    for i in range(players):
        without = number[(number >> i) & 1 == 0]
        values[i] = weight[size[without]] @ (v[without | (1 << i)] - v[without])
    return values


def _spread(background: np.ndarray, count: int) -> np.ndarray:
    """``count`` background rows, evenly spaced: int (count,)."""
    return np.unique(np.linspace(0, len(background) - 1, count).round().astype(np.int64))


def _play(game: Game, row: int, masks: np.ndarray, met: np.ndarray) -> np.ndarray:
    """Outputs (m,) of row ``row`` where masks, bool (m, players), keep it; elsewhere it is the
    background row ``met``, int (m,)."""
    shape = game.x.shape[1:]
    size, found = batch_size(shape), [np.empty(0)]
    for i in range(0, len(masks), size):  # never all of them: of pictures they are gigabytes
        features = masks[i : i + size, game.owner].reshape(-1, *shape)
        mixed = np.where(features, game.x[row], game.background[met[i : i + size]])
        found.append(game.play(row, mixed))
    return np.concatenate(found)


def exact(game: Game) -> Attribution:
    """Shapley values by enumerating all coalitions; exact for the given background."""
    masks = coalitions(game.players)
    used = _spread(game.background, min(len(game.background), EXACT_CALLS // len(masks)))
    met = np.tile(used, len(masks))
    repeated = np.repeat(masks, len(used), axis=0)
    values, base = np.empty((len(game.x), game.players)), np.empty(len(game.x))
    for row in range(len(game.x)):
        v = _play(game, row, repeated, met).reshape(len(masks), len(used)).mean(axis=1)
        values[row], base[row] = shapley(v, game.players), v[0]
    return Attribution(used, values=values, base=base)


def permutation(game: Game) -> Attribution:
    """Antithetic permutation sampling, stratified over the background.

    Castro, Gomez & Tejada 2009 (permutations); Strumbelj & Kononenko 2014 (one background row a
    permutation: at the same number of calls its variance is never above that of a few
    permutations averaged over the whole background); Mitchell et al. 2022 (each permutation with
    its reverse). Every background row is met equally often, so the values add up to the output
    minus the mean output over the background, exactly. The background is thinned, evenly, where
    one permutation with each of its rows would exceed the budget.
    """
    players, rows = game.players, len(game.x)
    pair = 2 * max(1, players - 1)  # calls for a permutation and its reverse; the ends are known,
    pair += game.of_row is not None  # but for a background row's answer to each row's own question
    used = _spread(game.background, max(2, min(len(game.background), game.budget // pair)))
    pairs = max(1, game.budget // (pair * len(used))) * len(used)
    met = np.tile(used, pairs // len(used))  # the background row of each pair
    opponents = np.repeat(met, players - 1)
    cut = np.arange(1, players)[:, None]
    values, base = np.empty((rows, players)), np.empty(rows)
    for row in range(rows):
        rng = np.random.default_rng([game.seed, row])
        rank = rng.permuted(np.tile(np.arange(players), (pairs, 1)), axis=1)  # (pairs, players)
        prefix = (rank[:, None, :] < cut).reshape(-1, players)  # who has joined after `cut` steps
        alone = game.behind(row, used)
        base[row], start = alone.mean(), np.tile(alone, pairs // len(used))[:, None]
        end = np.full((pairs, 1), game.output[row])
        steps = []
        for masks, first, last in ((prefix, start, end), (~prefix, end, start)):
            inner = _play(game, row, masks, opponents) if players > 1 else np.empty(0)
            chain = np.concatenate([first, inner.reshape(pairs, players - 1), last], axis=1)
            steps.append(np.diff(chain, axis=1))
        by_rank = (steps[0] - steps[1]) / 2  # the reverse loses the player that this one gains
        values[row] = np.take_along_axis(by_rank, rank, axis=1).mean(axis=0)
    return Attribution(used, values=values, base=base)
