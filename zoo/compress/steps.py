"""The steps of compression recipes: one table; a new step is one row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.errors import Interrupted
from zoo.export import FORMATS, to_litert
from zoo.progress import Progress
from zoo.spec import Step
from zoo.tasks import get_task
from zoo.train.loop import fit
from zoo.train.session import Session

#: Of the epochs and the learning rate of the training, what a retraining step uses.
RETRAIN_EPOCHS, RETRAIN_RATE = 0.4, 0.5
#: Share of a pruning's steps during which sparsity grows; the rest recovers accuracy.
GROWTH = 0.6


@dataclass
class Work:
    """What a step works on: the model, changed in place by a retrain, and the training around it."""

    session: Session
    model: Any
    progress: Progress
    title: str

    def calibration(self) -> np.ndarray:
        """Encoded training rows for the activations' ranges: a seeded draw, float32 (n, ...)."""
        rows = self.session.data.parts["train"]
        drawn = np.random.default_rng(0).permutation(len(rows))[:256]
        return self.session.encoded(np.sort(rows[drawn]))


def _no_argument(text: str | None) -> dict[str, Any]:
    if text is not None:
        raise ValueError("no argument")
    return {}


def _sparsity(text: str | None) -> dict[str, Any]:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise ValueError("a sparsity between 0 and 1, such as prune:0.8")
    return {"sparsity": value}


def _prune(work: Work, options: dict[str, Any]) -> None:
    from zoo.compress.prune import Pruner

    session = work.session
    rows = session.samples("train")
    training = replace(
        session.options,
        epochs=max(2, math.ceil(session.options.epochs * RETRAIN_EPOCHS)),
        learning_rate=session.options.learning_rate * RETRAIN_RATE,
        keep="last",  # an earlier epoch would not have the final sparsity yet
        patience=0,
    )
    steps = training.epochs * math.ceil(len(rows) / training.batch_size)
    pruner = Pruner(
        work.model,
        options["sparsity"],
        begin=0,
        end=int(steps * GROWTH),
        every=max(1, steps // 100),
    )
    fitted = fit(
        work.model,
        get_task(session.data.task),
        training,
        rows,
        session.validator(work.model),
        seed=session.seed + 1_000_003,  # another order of samples than the training's
        progress=work.progress,
        callbacks=[pruner.callback()],
        title=work.title,
    )
    pruner.release()
    if fitted.interrupted is not None:
        raise Interrupted(fitted.interrupted, "Pruning was interrupted; nothing was written.")


def _convert(format: str) -> Callable[[Work, dict[str, Any]], bytes]:
    def run(work: Work, options: dict[str, Any]) -> bytes:
        samples = work.calibration() if FORMATS[format].calibrated else None
        return to_litert(work.model, format, samples)

    return run


STEPS: dict[str, Step] = {
    row.name: row
    for row in (
        Step("prune", "retrain", "SPARSITY", "set the smallest weights of each kernel to zero while "
             "training on", _sparsity, _prune, "Zhu & Gupta 2017, with TF-MOT's engine"),
        Step("float16", "transform", "", "half-precision weights", _no_argument,
             _convert("float16"), FORMATS["float16"].source),
        Step("dynamic", "transform", "", "int8 weights, float activations", _no_argument,
             _convert("dynamic"), FORMATS["dynamic"].source),
        Step("int8", "transform", "", "int8 weights and activations, calibrated on training rows",
             _no_argument, _convert("int8"), FORMATS["int8"].source),
    )
}  # fmt: skip
