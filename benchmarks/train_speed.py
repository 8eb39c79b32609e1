"""Steps a second of ``zoo train``'s loop over bare ``keras.Model.fit``: same model, batch, rows.

    python benchmarks/train_speed.py [MODEL ...] [--processes 6] [--pairs 5]
                                     [--out benchmarks/results/train_speed.json]

Both train the same published configuration on the same encoded rows of the model's own data, side by
side in one process. Each side is called once to compile, then timed in alternating pairs (AB, BA, ...)
of about the same number of steps. ``fit`` gets arrays, its defaults and no validation, and its epoch alone is
timed, without what it does once at its start; the loop gets what
``zoo train`` gives it: the model's augmentations, callbacks and signals, the execution that the
trial chose. Where the model's recipe augments, a second row leaves that out, so that like is
compared with like: ``fit`` on arrays does not augment.

Processes differ by more than the pairs of one do (where memory lies, what the trial chose), so there
are several: each gives the median of its pairs' ratios, since a disturbance on one side makes a wild
one, and the 95 % interval is a t interval of the medians' logarithm over the processes.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from paired import t_interval
from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "train_speed.json"


class Sides:
    """One model twice, each side with a function that trains so many steps."""

    def __init__(self, name: str, augment: bool, execution: str) -> None:
        from zoo.data.table import Request
        from zoo.registry import models
        from zoo.train.preparing import prepare

        spec = models().get(name)
        session = prepare(spec, Request(data=spec.data), settings={}, seed=0, deterministic=False)
        options = session.options if augment else replace(session.options, augment=())
        self.session, self.options, self.execution = session, options, execution
        self.samples = session.samples("train")
        self.chosen: dict[str, Any] = {}
        self.epoch = len(self.samples) // options.batch_size  # whole batches

    def bare(self) -> Callable[[int], float]:
        """``keras.Model.fit`` for some steps -> seconds."""
        from zoo.backend import keras
        from zoo.tasks import get_task
        from zoo.train.loop import compile_model

        class Clock(keras.callbacks.Callback):
            """The epochs alone, without what ``fit`` does once before them."""

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                if epoch == 0:
                    self.began = time.perf_counter()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.seconds = time.perf_counter() - self.began

        clock = Clock()
        model = self.session.build()
        compile_model(model, get_task(self.session.data.task), self.options, 10**6)
        model.compile(optimizer=model.optimizer, loss=model.loss)  # fit's own defaults
        size, x, y = self.options.batch_size, self.samples.x, self.samples.y

        def run(steps: int) -> float:
            """Whole batches, as many as asked: an epoch of the data, several of them, or a part."""
            epochs = max(1, round(steps / self.epoch))
            rows = steps // epochs * size
            model.fit(
                x[:rows], y[:rows], batch_size=size, epochs=epochs, verbose=0, callbacks=[clock]
            )
            return clock.seconds

        run(2)
        return run

    def ours(self, total: int) -> Callable[[int], float]:
        """The loop for some steps -> seconds; it is one training that stands still between."""
        from zoo.progress import QUIET
        from zoo.tasks import get_task
        from zoo.train.execution import Execution
        from zoo.train.loop import _Training, compile_model

        model = self.session.build()
        options = replace(self.options, epochs=10**6)
        training = _Training(
            model, options, self.samples, lambda: {"val_loss": 1.0}, 0, QUIET, (), None, 0, None,
            lambda row: None,
        )  # fmt: skip
        compile_model(model, get_task(self.session.data.task), options, 10**6)
        training.total = total  # what the trial weighs compilation against
        training.prepare(
            Execution.parse(self.execution), lambda choice: self.chosen.update(choice.document())
        )
        self.chosen.setdefault("mode", str(training.execution))
        batches = iter(training.feed.batches())

        def run(steps: int) -> float:
            left, began = steps, time.perf_counter()
            while left > 0:
                done = training.place.step % training.feed.steps
                if done == 0:
                    model.reset_metrics()
                here = min(left, training.feed.steps - done)
                left -= here
                while here > 0:
                    before = training.place.step
                    training.call(batches, here)
                    here -= training.place.step - before
            return time.perf_counter() - began

        run(2)
        return run


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios and its 95 % t interval: (mean, low, high)."""
    mean, low, high = map(math.exp, t_interval([math.log(ratio) for ratio in ratios]))
    return mean, low, high


def one_process(name: str, pairs: int, seconds: float, augment: bool, execution: str
                ) -> dict[str, Any]:  # fmt: skip
    """Alternating pairs of about ``seconds`` a side, with a trial of their own."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # the trial is measured now
        sides = Sides(name, augment, execution)
        total = sides.session.options.epochs * math.ceil(
            len(sides.samples) / sides.session.options.batch_size
        )
        run = {"fit": sides.bare(), "zoo": sides.ours(total)}
    # Longer than a few calls of the compiled function, and the same for both.
    run["fit"](16)  # warms up
    steps = max(48, int(seconds / (run["fit"](16) / 16)))
    if steps > sides.epoch / 3:  # what an epoch costs once belongs to it
        steps = sides.epoch * max(1, round(steps / sides.epoch))
    rates: dict[str, list[float]] = {"fit": [], "zoo": []}
    for turn in range(pairs):
        for side in ("fit", "zoo") if turn % 2 == 0 else ("zoo", "fit"):
            gc.collect()
            rates[side].append(steps / run[side](steps))
    return {
        "data": sides.session.data.name,
        "batch_size": sides.options.batch_size,
        "augment": list(sides.options.augment),
        "steps_of_an_epoch": sides.epoch,
        "steps_each": steps,
        "execution": sides.chosen,
        "rates": rates,
    }


def measure(
    name: str, processes: int, pairs: int, seconds: float, augment: bool, execution: str
) -> dict[str, Any]:
    """One row: the median of each process's pairs, and their mean with its interval."""
    found = []
    for _ in range(processes):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(one_process, (name, pairs, seconds, augment, execution)))
    rates = {side: [one["rates"][side] for one in found] for side in ("fit", "zoo")}
    ratios = [
        statistics.median(zoo / fit for zoo, fit in zip(ours, theirs, strict=True))
        for ours, theirs in zip(rates["zoo"], rates["fit"], strict=True)
    ]
    ratio, low, high = interval(ratios)
    alike = ("data", "batch_size", "augment", "steps_of_an_epoch")
    return {
        "model": name,
        **{key: found[0][key] for key in alike},
        "execution": [one["execution"] for one in found],
        "processes": processes,
        "pairs": pairs,
        "steps_each": [one["steps_each"] for one in found],
        "steps_per_second": {
            side: statistics.median(itertools.chain(*of)) for side, of in rates.items()
        },
        "ratios": ratios,
        "ratio": ratio,
        "ci_low": low,
        "ci_high": high,
        **measured(),
    }


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--processes", default=6, show_default=True, type=click.IntRange(3))
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(3))
@click.option("--seconds", default=0.5, show_default=True, help="About so long a side of a pair.")
@click.option("--execution", default="auto", show_default=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    names: tuple[str, ...], processes: int, pairs: int, seconds: float, execution: str, out: Path
) -> None:
    """Measure models and write a row each; rows of the others are kept."""
    from zoo.registry import models

    old = json.loads(out.read_text()) if out.exists() else []
    rows = {(row["model"], bool(row["augment"])): row for row in old}
    for name in names or sorted(models().specs):
        for augment in sorted({False, bool(models().get(name).train.get("augment"))}):
            row = measure(name, processes, pairs, seconds, augment, execution)
            rows[name, augment] = row
            modes = sorted({one["mode"] for one in row["execution"]})
            click.echo(
                f"{name}{' with augmentation' if augment else ''} {', '.join(modes)}: "
                f"{row['ratio']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}] of fit "
                f"({', '.join(f'{one:.2f}' for one in row['ratios'])})"
            )
            write_atomic(out, json.dumps([rows[k] for k in sorted(rows)], indent=1) + "\n")


if __name__ == "__main__":
    main()
