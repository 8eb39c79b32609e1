"""Players: what an attribution is given to. A user's column, an image patch, a time step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError


@dataclass(frozen=True)
class Player:
    """One player of the Shapley game.

    ``index`` int (m,) are the positions of its values in the *flattened* encoded input: the
    one-hot block and the missing flag of a column, or the pixels of a patch.
    """

    name: str
    index: np.ndarray


def columns_to_players(columns: Iterable[tuple[str, int, int]]) -> list[Player]:
    """``(name, start, stop)`` slices of the encoded vector -> players, one a name.

    Slices of one name (a one-hot block here, its missing flag there) become one player.
    """
    slices: dict[str, list[np.ndarray]] = {}
    for name, start, stop in columns:
        slices.setdefault(name, []).append(np.arange(start, stop))
    return [Player(name, np.concatenate(parts)) for name, parts in slices.items()]


def patches(shape: tuple[int, ...], size: int) -> list[Player]:
    """A regular grid over an image: (height, width, channels) -> players ``r0c0``, ``r0c1``, ...

    A patch is ``size`` x ``size`` pixels with all channels; the last row and column are smaller
    where ``size`` does not divide the side.
    """
    pixels = np.arange(np.prod(shape)).reshape(shape)
    return [
        Player(f"r{r}c{c}", pixels[top : top + size, left : left + size].ravel())
        for r, top in enumerate(range(0, shape[0], size))
        for c, left in enumerate(range(0, shape[1], size))
    ]


def owners(players: list[Player], features: int) -> np.ndarray:
    """The player that owns each encoded feature: int (features,).

    Raises :class:`zoo.errors.ZooError` unless every feature belongs to exactly one player:
    otherwise the values could not add up to the output.
    """
    index = np.concatenate([player.index for player in players]) if players else np.empty(0, int)
    if not np.array_equal(np.sort(index), np.arange(features)):
        raise ZooError(
            "The players do not cover the encoded input.",
            expected=f"each of {features} encoded features in exactly one player",
            received=f"{len(players)} players with {len(index)} features, "
            f"{len(np.unique(index))} of them distinct",
            kind="bad_players",
        )
    sizes = [len(player.index) for player in players]
    owner = np.empty(features, dtype=np.int64)
    owner[index] = np.repeat(np.arange(len(players)), sizes)
    return owner


def fold(dense: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Feature attributions (n, *shape) -> their sums by player, float64 (n, players)."""
    flat = dense.reshape(len(dense), -1).astype(np.float64)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(owner.max() + 1))
    return np.add.reduceat(flat[:, order], starts, axis=1)
