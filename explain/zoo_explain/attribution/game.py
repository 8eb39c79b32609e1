"""What every attribution method is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

ADDITIVE = 1e-3  # additivity error, relative to the outputs' range, below which values "add up"
BATCH_VALUES = 2**18  # input values a call: keeps a CNN's activations in tens of megabytes


@dataclass(frozen=True)
class Game:
    """One explanation to be computed.

    ``predict`` maps (m, *shape) to (m, outputs). ``model`` is the Keras model, where a method
    needs gradients. ``x`` (n, *shape) are explained against ``background`` (b, *shape).
    ``owner`` int (features,) is the player of each flattened feature. ``targets`` int (n,) is the
    output explained in each row. ``output`` (n,) and ``background_output`` (b, outputs) are
    float64 outputs of the explained function. ``budget`` bounds evaluations a row.
    ``of_row(x[k])``, where given, is what row k asks of mixed inputs in place of ``predict``.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    model: Any
    x: np.ndarray
    background: np.ndarray
    owner: np.ndarray
    targets: np.ndarray
    output: np.ndarray
    background_output: np.ndarray
    seed: int
    budget: int
    of_row: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]] | None = None

    def play(self, row: int, inputs: np.ndarray) -> np.ndarray:
        """What row ``row`` explains, of inputs (m, *shape): float64 (m,)."""
        asked = self.predict if self.of_row is None else self.of_row(self.x[row])
        return evaluate(asked, inputs)[:, self.targets[row]]

    def behind(self, row: int, used: np.ndarray) -> np.ndarray:
        """The same of background rows ``used`` (u,), with no player of the row's: (u,)."""
        if self.of_row is None:
            return self.background_output[used, self.targets[row]]
        return self.play(row, self.background[used])

    @property
    def players(self) -> int:
        return int(self.owner.max()) + 1

    def extent(self) -> np.ndarray:
        """The range of each row's explained output over explained and background rows: (n,).

        1 where that output is constant, so that an error of zero stays zero.
        """
        extent = np.empty(len(self.x))
        for target in np.unique(self.targets):
            rows = self.targets == target
            seen = np.append(self.output[rows], self.background_output[:, target])
            extent[rows] = np.ptp(seen) or 1.0
        return extent


@dataclass(frozen=True)
class Attribution:
    """What a method returns.

    ``dense`` float64 (n, *shape), for methods that see every feature, or ``values`` float64
    (n, players) for those that play with players alone. ``background`` int (used,) are the
    background rows that were used. ``base`` float64 (n,), where it is not the mean output over
    these, is what each row's values are added to.
    """

    background: np.ndarray
    dense: np.ndarray | None = None
    values: np.ndarray | None = None
    base: np.ndarray | None = None


def batch_size(shape: tuple[int, ...]) -> int:
    """Rows of (*shape) in one call."""
    return int(np.clip(BATCH_VALUES // max(1, int(np.prod(shape))), 16, 8192))


def evaluate(function: Callable[[np.ndarray], Any], rows: np.ndarray) -> np.ndarray:
    """``function`` on rows (m, *shape) in batches -> float64 (m, outputs)."""
    size = batch_size(rows.shape[1:])
    parts = [
        np.asarray(function(rows[start : start + size]), dtype=np.float64)
        for start in range(0, len(rows), size)
    ]
    return np.concatenate(parts)
