"""Two short measurements before a training: a learning-rate range test and a batch-size finder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo.progress import Progress
from zoo.tasks import get_task

if TYPE_CHECKING:
    from zoo.train.session import Session

#: Learning rates of the range test: so many steps from the lowest to the highest, exponentially.
STEPS, LOWEST, HIGHEST = 120, 1e-6, 3.0
#: Smoothing of the losses, and how many times the lowest one ends the test.
MEMORY, ENOUGH = 0.9, 4.0
#: The recommended rate is this share of the one where the loss was lowest.
BELOW = 0.1
#: Batch sizes that are tried; each is timed for so many seconds, in turns that alternate.
SIZES, TURNS, SECONDS = (16, 32, 64, 128, 256, 512, 1024), 3, 0.25
#: A smaller batch is good enough at this share of the best throughput.
SHARE = 0.8


def range_test(session: Session, progress: Progress) -> dict[str, Any]:
    """The learning-rate range test (Smith, WACV 2017).

    A fresh model takes a step at each of rising rates. Returns ``{recommended, lowest_at, rates,
    losses}``, losses being smoothed and ending where they exploded.
    """
    from zoo.train.execution import Execution, compile_step
    from zoo.train.feed import Feed, has_batch_statistics
    from zoo.train.loop import compile_model

    model, options = session.build(), replace(session.options, schedule="constant", warmup=0.0)
    compile_model(model, get_task(session.data.task), options, STEPS)
    feed = Feed(session.samples("train"), options, session.seed, whole=has_batch_statistics(model),
                classes=model.output_shape[-1])  # fmt: skip
    batches, step = iter(feed.batches()), compile_step(model, Execution("graph", 1))
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    raw: list[float] = []
    progress.start("learning rates", STEPS)
    try:
        for number, rate in enumerate(rates, 1):
            model.optimizer.learning_rate = float(rate)
            model.reset_metrics()  # the loss of this batch alone
            raw.append(step(batches, 1)[1])
            progress.advance(number, f"loss {raw[-1]:.4f}")
            if not math.isfinite(raw[-1]) or smoothed(raw)[-1] > ENOUGH * abs(min(smoothed(raw))):
                break
    finally:
        progress.stop()
    losses = [value for value in smoothed(raw) if math.isfinite(value)]
    return {**recommend_rate(rates[: len(losses)].tolist(), losses),
            "rates": rates[: len(losses)].tolist(), "losses": losses}  # fmt: skip


def smoothed(values: Sequence[float]) -> list[float]:
    """An exponential moving average, corrected for its start (Kingma & Ba, ICLR 2015)."""
    found, mean = [], 0.0
    for number, value in enumerate(values, 1):
        mean = MEMORY * mean + (1 - MEMORY) * value
        found.append(mean / (1 - MEMORY**number))
    return found


def recommend_rate(rates: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    """``{recommended, lowest_at}``: a tenth of the rate at which the smoothed loss was lowest.

    Raises :class:`ZooError` when the loss never fell.
    """
    lowest = int(np.argmin(losses)) if len(losses) else 0
    if lowest == 0:
        raise ZooError(
            "The loss never fell in the range test.",
            expected=f"a loss that falls at some rate between {LOWEST:g} and {HIGHEST:g}",
            received=f"{len(losses)} steps, the first loss the lowest",
            hint="Are the inputs finite and the labels right? `zoo data info` shows them.",
            kind="no_descent",
            exit_code=FAILURE,
        )
    return {"recommended": float(f"{rates[lowest] * BELOW:.2g}"), "lowest_at": rates[lowest]}


def batch_sizes(session: Session, progress: Progress) -> dict[str, Any]:
    """Samples a second at rising batch sizes, up to a quarter of the rows or the memory's end.

    Returns ``{recommended, sizes: [{batch_size, samples_per_second, steps_per_epoch}]}``.
    """
    from zoo.backend import tf
    from zoo.train.feed import has_batch_statistics
    from zoo.train.loop import compile_model

    model, task = session.build(), get_task(session.data.task)
    compile_model(model, task, session.options, STEPS)
    samples = session.samples("train")
    whole = has_batch_statistics(model)
    sizes = [size for size in SIZES if size * 4 <= len(samples)] or [min(SIZES[0], len(samples))]
    turns: dict[int, Callable[[], float]] = {}
    rates: dict[int, float] = {}
    progress.start("batch sizes", len(sizes) * (TURNS + 1))
    try:
        for size in sizes:
            try:
                turn = _turn(model, samples, replace(session.options, batch_size=size), whole)
                turn()  # traces
            except tf.errors.ResourceExhaustedError:
                progress.say(f"a batch of {size} does not fit into memory")
                break
            turns[size] = turn
            progress.advance(len(turns))
        for number in range(TURNS):
            for k, (size, turn) in enumerate(turns.items(), 1):
                rates[size] = max(rates.get(size, 0.0), turn())
                progress.advance((number + 1) * len(sizes) + k, f"{size}: {rates[size]:,.0f}/s")
    finally:
        progress.stop()
    if not rates:
        raise ZooError(
            f"Not even a batch of {sizes[0]} fits into memory.",
            hint="A smaller model, or smaller inputs.",
            kind="out_of_memory",
            exit_code=FAILURE,
        )
    rows = [
        {"batch_size": size, "samples_per_second": rate,
         "steps_per_epoch": math.ceil(len(samples) / size)}
        for size, rate in rates.items()
    ]  # fmt: skip
    return {"recommended": recommend_size(rows), "sizes": rows}


def _turn(model: Any, samples: Any, options: Any, whole: bool) -> Callable[[], float]:
    """A function that trains for :data:`SECONDS` and gives the samples a second."""
    from zoo.train.execution import Execution, compile_step
    from zoo.train.feed import Feed

    feed = Feed(samples, options, 0, whole=whole, classes=model.output_shape[-1])
    batches, step = iter(feed.batches()), compile_step(model, Execution("graph"))

    def turn() -> float:
        began, made, count = time.perf_counter(), 0, 2
        while time.perf_counter() - began < SECONDS:
            made += step(batches, count)[0]
            count = min(64, 2 * count)
        return float(made * options.batch_size / (time.perf_counter() - began))

    return turn


def recommend_size(rows: Sequence[dict[str, Any]]) -> int:
    """The smallest batch that has :data:`SHARE` of the best throughput: more steps an epoch."""
    best = max(row["samples_per_second"] for row in rows)
    return min(r["batch_size"] for r in rows if r["samples_per_second"] >= SHARE * best)
