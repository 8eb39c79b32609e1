"""Explaining rows of encoded inputs: route, run, check that the values add up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo_explain.attribution.blackbox import BUDGET
from zoo_explain.attribution.game import ADDITIVE, Game, evaluate
from zoo_explain.attribution.methods import METHODS, route
from zoo_explain.attribution.players import Player, fold, owners


@dataclass(frozen=True)
class Explanation:
    """Attributions of n rows.

    One output is explained in each row: the only one, or with several classes the one in
    ``targets`` int (n,). The last axis of ``values``, ``base``, ``output`` and ``dense`` is that
    output, of length one and named by ``outputs``; ``base + values.sum(axis=1) == output`` up to
    ``additivity_error``.

    ``values`` float64 (n, players, 1); ``base`` float64 (n, 1), the mean output over the
    background (of texts: with the row's own filling, at the row's own place); ``output`` float64 (n, 1). ``dense`` float32 (n, *shape, 1) holds the values of
    single features for white-box methods. ``names`` are the players. ``additivity_error`` max and
    mean over rows of ``|base + sum - output|``, divided by the range (max - min) of that output
    over the explained and the background rows. ``additive`` says that its max is at most 1e-3.
    ``artifact_gap`` is the largest difference between the explained Keras model and the artefact
    on the explained rows, in units of the same range (0 for black-box methods, which explain the
    artefact itself). ``background`` is the number of background rows used, and ``note`` says why, if
    that is fewer than were given. ``features`` are
    ``{name, importance}``, importance being the mean ``|value|`` over rows, largest first.
    """

    method: str
    why_method: str
    space: str
    names: list[str]
    outputs: list[str]
    values: np.ndarray
    base: np.ndarray
    output: np.ndarray
    targets: np.ndarray
    dense: np.ndarray | None
    samples: int
    background: int
    seconds: float
    samples_per_second: float
    additive: bool
    additivity_error: dict[str, float]
    artifact_gap: float
    features: list[dict[str, Any]] = field(default_factory=list)
    note: str | None = None

    def document(self) -> dict[str, Any]:
        """The fields of :class:`zoo.schema.ExplainResult` that an explanation knows."""
        names = ("method", "why_method", "space", "samples", "background", "seconds",
                 "samples_per_second", "additive", "additivity_error", "artifact_gap",
                 "features", "note")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``explain.npz`` holds: no object arrays, no pickle."""
        stored = {
            "values": self.values,
            "base": self.base,
            "output": self.output,
            "targets": self.targets,
            "names": np.array(self.names, dtype=np.str_),
            "outputs": np.array(self.outputs, dtype=np.str_),
            "method": np.array(self.method, dtype=np.str_),
        }
        return stored if self.dense is None else stored | {"dense": self.dense}


def explain(
    *,
    predict: Callable[[np.ndarray], np.ndarray],
    model: Any,
    x: np.ndarray,
    background: np.ndarray,
    players: list[Player],
    space: str,
    outputs: list[str],
    method: str | None = None,
    seed: int = 0,
    targets: np.ndarray | None = None,
    budget: int = BUDGET,
    of_row: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]] | None = None,
) -> Explanation:
    """Attribute the output of a model to players.

    Args:
        predict: the artefact that ships: encoded inputs (m, *shape) -> logits or values
            (m, outputs). Called with batches of any size up to 8,192 rows.
        model: the functional Keras model with the same weights, or None where the weights exist
            in the artefact alone.
        x: rows to explain (n, *shape).
        background: rows that stand for "feature unknown" (b, *shape).
        players: who gets the values; they share out all encoded features.
        space: what the outputs are, "logit" or "value".
        outputs: names of the model's outputs; of a binary model its one, the positive class.
        method: a name of :data:`zoo_explain.attribution.methods.METHODS`, or None for the router.
        seed: of permutation sampling. Two variants explained with one seed play the same
            coalitions, so their difference is not sampling noise.
        targets: int (n,), the output explained in each row; the artefact's largest by default.
            To compare variants, pass the targets of the first to all.
        budget: evaluations of ``predict`` a row that permutation sampling may spend.
        of_row: where ``predict`` looks up in its input what it answers (the place of a gap in a
            text), a row (*shape) -> ``predict`` with what that row looks up. Otherwise a mixed
            input would be asked another question. White-box methods keep the row's ids anyway.

    Raises:
        ZooError: when the arrays do not fit each other, the method does not apply, the model is
            not the artefact's twin, or an additive method's values do not add up.
    """
    x, background = np.asarray(x), np.asarray(background)
    _check(x, background)
    owner = owners(players, int(np.prod(x.shape[1:])))
    method, why = route(model, len(players), method)
    row = METHODS[method]

    started = time.perf_counter()
    shipped = _outputs(predict, x, outputs)
    explained = predict if not row.white_box else _inference(model)
    everything = _outputs(explained, x, outputs) if row.white_box else shipped
    if targets is None:
        targets = shipped.argmax(axis=1)
    targets = np.asarray(targets, dtype=np.int64)
    if targets.shape != (len(x),) or not np.isin(targets, np.arange(len(outputs))).all():
        raise ZooError(
            "The targets do not fit the rows.",
            expected=f"{len(x)} integers from 0 to {len(outputs) - 1}",
            received=f"shape {targets.shape}, values {np.unique(targets)[:10]}",
        )
    every = np.arange(len(x))
    game = Game(
        predict=explained,
        model=model,
        x=x,
        background=background,
        owner=owner,
        targets=targets,
        output=everything[every, targets],
        background_output=_outputs(explained, background, outputs),
        seed=seed,
        budget=budget,
        of_row=of_row,
    )
    extent = game.extent()
    gap = float(np.max(np.abs(shipped[every, targets] - game.output) / extent))
    if gap > 0.1:
        raise ZooError(
            "The Keras model is not the twin of the artefact that ships.",
            expected="outputs that differ by at most 10 % of their range",
            received=f"a difference of {100 * gap:.0f} %",
            hint="Explain the artefact itself: leave the model out.",
            kind="model_is_not_the_artifact",
            exit_code=FAILURE,
        )
    found = row.run(game)
    values = found.values if found.dense is None else fold(found.dense, owner)
    assert values is not None  # a method returns either
    seconds = time.perf_counter() - started

    base = game.background_output[found.background].mean(axis=0)[targets]
    base = base if found.base is None else found.base
    error = np.abs(base + values.sum(axis=1) - game.output) / extent
    if not np.isfinite(error).all() or (row.additive and error.max() > ADDITIVE):
        raise ZooError(
            f"The values of {row.title} do not add up to the model's output.",
            expected=f"an error of at most {ADDITIVE:g} of the output's range",
            received=f"{error.max():.2g}",
            hint="Use --method permutation.",
            kind="not_additive",
            exit_code=FAILURE,
        )
    importance = np.abs(values).mean(axis=0)
    return Explanation(
        method=method,
        why_method=why,
        space=space,
        names=[player.name for player in players],
        outputs=list(outputs) if len(outputs) == 1 else ["predicted class"],
        values=values[..., None],
        base=base[:, None],
        output=game.output[:, None],
        targets=targets,
        dense=None if found.dense is None else found.dense[..., None].astype(np.float32),
        samples=len(x),
        background=len(found.background),
        seconds=seconds,
        samples_per_second=len(x) / seconds,
        additive=bool(error.max() <= ADDITIVE),
        additivity_error={"max": float(error.max()), "mean": float(error.mean())},
        artifact_gap=gap,
        features=[
            {"name": players[i].name, "importance": float(importance[i])}
            for i in np.argsort(-importance, kind="stable")
        ],
        note=None
        if len(found.background) == len(background)
        else f"{len(found.background)} of {len(background)} background rows were used, evenly "
        f"spaced: {row.thinning.format(budget=budget)}",
    )


def _check(x: np.ndarray, background: np.ndarray) -> None:
    if not len(x) or not len(background) or x.shape[1:] != background.shape[1:]:
        raise ZooError(
            "The rows to explain and the background do not fit each other.",
            expected="at least one row of each, of one shape",
            received=f"{x.shape} and {background.shape}",
        )


def _inference(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: model(rows, training=False).numpy()


def _outputs(
    function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, names: list[str]
) -> np.ndarray:
    output = evaluate(function, rows)
    if output.shape != (len(rows), len(names)) or not np.isfinite(output).all():
        finite = "" if np.isfinite(output).all() else ", some not finite"
        raise ZooError(
            "The model's outputs cannot be explained.",
            expected=f"finite values of shape ({len(rows)}, {len(names)}), one for each of "
            f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}",
            received=f"shape {output.shape}{finite}",
            exit_code=FAILURE,
        )
    return output
