"""The training loop: Keras' own train step, compiled, over batches that any step can be resumed at."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.environment import cpu_model, versions
from zoo.errors import ZooError
from zoo.kernels import all_kernels
from zoo.progress import Progress
from zoo.run import hash_of
from zoo.tasks import Task
from zoo.train import checkpoint
from zoo.train.divergence import diverged, locate
from zoo.train.execution import STEPS_PER_CALL, Choice, Execution, Step, choose, compile_step
from zoo.train.feed import Feed, Samples, Stream, has_batch_statistics
from zoo.train.objective import build_loss
from zoo.train.options import TrainOptions

__all__ = ["Fitted", "Samples", "compile_model", "fit"]


@dataclass
class Fitted:
    """What a training did. Times are wall seconds; rates leave the first call (tracing) out."""

    epochs: int  # finished ones
    steps: int
    seconds: float  # of all its processes, when it was resumed
    steps_per_second: float | None
    samples_per_second: float | None
    execution: str
    best: dict[str, Any] = field(default_factory=dict)
    interrupted: int | None = None  # the signal that ended it early
    dropped: int = 0  # rows left out of each epoch: see Feed


def compile_model(model: Any, task: Task, options: TrainOptions, steps: int) -> None:
    """Compile with the loss of the task and the options and build the optimizer's variables."""
    loss = build_loss(task, options)
    penalise(model, options)
    model.compile(optimizer=options.build_optimizer(steps), loss=loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)


def penalise(model: Any, options: TrainOptions) -> None:
    """Let the loss hold the options' l1 and l2 penalties of every kernel (embeddings aside)."""
    from zoo.backend import keras

    if options.l1 or options.l2:
        for kernel in all_kernels(model):
            if kernel.default:
                kernel.variable.regularizer = keras.regularizers.L1L2(options.l1, options.l2)


#: Spikes: a loss is usual after so many calls, by a moving average with this memory; so many
#: recoveries are one too many.
CALLS, MEMORY, RECOVERIES = 5, 0.9, 10


class _Signals:
    """Turns the first SIGINT or SIGTERM into a flag while a training runs; a second one ends it."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *error: object) -> None:
        self._restore()


@dataclass
class _Place:
    """Where a training is: everything about it that is no variable and no callback."""

    step: int = 0  # steps done in all
    best: dict[str, Any] = field(default_factory=lambda: {"val_loss": math.inf, "epoch": 0})
    waited: int = 0
    seconds: float = 0.0
    usual: float | None = None  # the loss of a call, a moving average
    calls: int = 0  # that it stands for
    spikes: list[dict[str, Any]] = field(default_factory=list)  # of this epoch
    recoveries: int = 0

    def meta(self) -> dict[str, Any]:
        best = {**self.best, "val_loss": None} if math.isinf(self.best["val_loss"]) else self.best
        names = ("waited", "seconds", "usual", "calls", "spikes", "recoveries")
        return {"best": best, **{name: getattr(self, name) for name in names}}

    @classmethod
    def of(cls, meta: dict[str, Any]) -> _Place:
        best = dict(meta["best"])
        if best["val_loss"] is None:
            best["val_loss"] = math.inf
        return cls(
            meta["step"], best, meta["waited"], meta["seconds"], meta.get("usual"),
            meta.get("calls", 0), meta.get("spikes", []), meta.get("recoveries", 0),
        )  # fmt: skip


def fit(
    model: Any,
    task: Task,
    options: TrainOptions,
    train: Samples | Stream,
    validate: Callable[[], dict[str, float]],
    *,
    seed: int,
    progress: Progress,
    callbacks: Sequence[Any] = (),
    checkpoints: Path | None = None,
    checkpoint_every: int = 0,
    execution: Execution | None = Execution(),
    on_choice: Callable[[Choice], None] = lambda choice: None,
    replicas: Any = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    resume: bool = False,
    title: str = "training",
) -> Fitted:
    """Train ``model`` in place.

    Args:
        validate: gives the validation metrics, ``val_loss`` among them, of the present weights.
        callbacks: Keras callbacks; ``on_train_batch_end`` gets the number of steps done in all.
        checkpoints: folder to write one to after each epoch, or None.
        checkpoint_every: also write one each so many steps (0: after epochs only).
        execution: how steps are run; None measures it and tells ``on_choice``.
        replicas: the :class:`zoo.train.distribution.Replicas` that hold the model, or None.
        on_epoch: called with each epoch's row for the log.
        resume: go on from the newest whole checkpoint; from the start where there is none.
    A signal (SIGINT, SIGTERM) ends the training after the present call, with a checkpoint.
    Raises :class:`ZooError` when the loss is no longer finite; the last checkpoint is a good one.
    """
    training = _Training(
        model, options, train, validate, seed, progress, callbacks, checkpoints, checkpoint_every,
        replicas, on_epoch,
    )  # fmt: skip
    with contextlib.nullcontext() if replicas is None else replicas.scope():
        compile_model(model, task, options, training.total)
    return training.run(execution, on_choice, resume, title)


def _finite(arrays: dict[str, np.ndarray]) -> bool:
    """Whether all floating numbers of a state are finite."""
    return all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")


class _Training:
    """The state of one :func:`fit`."""

    def __init__(
        self,
        model: Any,
        options: TrainOptions,
        train: Samples | Stream,
        validate: Callable[[], dict[str, float]],
        seed: int,
        progress: Progress,
        callbacks: Sequence[Any],
        checkpoints: Path | None,
        checkpoint_every: int,
        replicas: Any,
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> None:
        from zoo.backend import keras

        self.model, self.options, self.validate = model, options, validate
        self.progress, self.callbacks, self.on_epoch = progress, list(callbacks), on_epoch
        self.folder, self.every, self.replicas = checkpoints, checkpoint_every, replicas
        if replicas is not None:
            replicas.adopt(model, options.batch_size)
        self.feed = Feed(
            train,
            options,
            seed,
            whole=has_batch_statistics(model),
            replicas=1 if replicas is None else replicas.count,
            share=(0, 1) if replicas is None else (replicas.rank, replicas.workers),
            classes=model.output_shape[-1] if hasattr(model, "output_shape") else 0,
        )
        self.total = self.feed.steps * options.epochs
        self.place = _Place()
        self.best_weights: list[np.ndarray] | None = None
        self.watchers = keras.callbacks.CallbackList(
            self.callbacks, model=model, epochs=options.epochs
        )
        self.anchor: tuple[int, dict[str, np.ndarray]] | None = None
        self.step: Step
        self.execution: Execution
        self.batches: Any = None  # the iterator, which stands at ``place``
        self.stop: int | None = None  # the signal that ends the training
        self.timed_steps, self.timed_seconds, self.warm = 0, 0.0, False
        self.validated: list[float] = []  # the metric, or else the loss, of each validation
        self.clock = 0.0  # when the training would have begun, had it not been interrupted

    def run(
        self,
        execution: Execution | None,
        on_choice: Callable[[Choice], None],
        resume: bool,
        title: str,
    ) -> Fitted:
        """Train from the start or from the newest checkpoint to the end, a signal, or NaN."""
        arrays = self.take_up() if resume else {}
        with _Signals() as signals:
            self.prepare(execution, on_choice)
            self.model.stop_training = False
            self.watchers.on_train_begin()
            checkpoint.restore_callbacks(self.callbacks, arrays)
            self.clock = time.perf_counter() - self.place.seconds
            self.anchor = (self.place.step, checkpoint.state_of(self.model))
            self.progress.start(title, self.total, self.place.step)
            try:
                while not (self.finished() or self.stop):
                    self.epoch(signals)
            finally:
                self.batches = None
                self.progress.stop()
                self.watchers.on_train_end()
        self.place.seconds = time.perf_counter() - self.clock
        if self.stop is None and self.options.keep == "best" and self.best_weights:
            for variable, value in zip(self.model.weights, self.best_weights, strict=True):
                variable.assign(value)
        rate = self.timed_steps / self.timed_seconds if self.timed_seconds > 0 else None
        rows = self.feed.rows - self.feed.dropped
        return Fitted(
            epochs=self.place.step // self.feed.steps,
            steps=self.place.step,
            seconds=self.place.seconds,
            steps_per_second=rate,
            samples_per_second=None if rate is None else rate * rows / self.feed.steps,
            execution=str(self.execution),
            best=self.place.best,
            interrupted=self.stop,
            dropped=self.feed.dropped,
        )

    def finished(self) -> bool:
        """Whether all is done: every epoch, or early stopping's patience at the end of one."""
        if self.place.step % self.feed.steps:
            return False
        tired = self.options.patience and self.place.waited >= self.options.patience
        return bool(self.place.step >= self.total or tired or self.model.stop_training)

    def take_up(self) -> dict[str, np.ndarray]:
        """Put the newest whole checkpoint back and say which; its arrays, none if there is none."""
        if self.folder is None:
            return {}
        checkpoint.clean(self.folder)
        found = checkpoint.newest(self.folder)
        for text in found.passed:
            self.progress.say(f"checkpoint {text}: passed over")
        if not found.arrays:
            self.progress.say("there is no whole checkpoint: starting at step 0")
            return {}
        try:
            checkpoint.restore(self.model, found.arrays)
        except ValueError as error:
            raise ZooError(
                "The checkpoint is of another model than the one that is built now.",
                received=" ".join(str(error).split())[:200],
                hint="Train again, or with the version of the package that began this run.",
                kind="bad_checkpoint",
            ) from error
        self.place = _Place.of(found.meta)
        best = [name for name in found.arrays if name.startswith("best/")]
        self.best_weights = [found.arrays[f"best/{k}"] for k in range(len(best))] or None
        self.progress.say(
            f"going on after step {self.place.step:,} of {self.total:,} "
            f"(epoch {self.place.step // self.feed.steps + 1} of {self.options.epochs})"
        )
        return found.arrays

    def prepare(self, execution: Execution | None, on_choice: Callable[[Choice], None]) -> None:
        """Choose how steps are executed and compile them."""
        ready: dict[str, Step] = {}
        if execution is None and self.replicas is not None:
            # Keras turns XLA off under distribution, so there is nothing to choose from.
            execution = Execution("graph", STEPS_PER_CALL)
        if execution is None:
            trial = self.feed.trial()
            choice, ready = choose(
                self.model,
                lambda: iter(trial),
                self.total - self.place.step,
                self.key(),
                self.progress.say,
            )
            execution = choice.execution
            on_choice(choice)
        self.execution = execution
        self.step = ready.get(execution.kind) or compile_step(self.model, execution, self.replicas)

    def key(self) -> str:
        """What a measured execution holds for: model, shapes, optimizer, processor, versions."""
        installed = versions()
        layers = [
            [type(layer).__name__, [list(weight.shape) for weight in layer.weights]]
            for layer in self.model._flatten_layers()
        ]
        shape = list(self.model.input_shape) if hasattr(self.model, "input_shape") else None
        return hash_of(
            [
                layers, shape, self.options.batch_size, self.options.optimizer,
                self.options.augment, self.model.dtype_policy.name, cpu_model(), sorted(os.sched_getaffinity(0))
                if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                installed.get("tensorflow"), installed.get("keras"),
            ]
        )[:32]  # fmt: skip

    def epoch(self, signals: _Signals) -> None:
        """The rest of the present epoch, its validation and its checkpoint."""
        place, per_epoch = self.place, self.feed.steps
        epoch, done = divmod(place.step, per_epoch)
        if done == 0:
            self.model.reset_metrics()
            self.watchers.on_epoch_begin(epoch)
        if self.batches is None:
            feed = self.feed.batches(epoch, done, until=self.options.epochs)
            self.batches = iter(feed)
        began = time.perf_counter()
        end, loss = (epoch + 1) * per_epoch, math.nan
        while place.step < end:
            loss = self.call(self.batches, end - place.step)
            self.watchers.on_train_batch_end(place.step, {"loss": loss})
            self.progress.advance(place.step, self.live(epoch, loss))
            self.stop = self.agreed(signals)
            due = self.every > 0 and place.step % self.every == 0
            if place.step < end and (self.stop or due):
                self.save()
                if self.stop:
                    return
        if self.options.spike_recovery and not _finite(checkpoint.state_of(self.model)):
            self.recover(math.nan)
        validated = self.validate()
        if self.replicas is not None:
            validated["val_loss"] = self.replicas.of_chief(validated["val_loss"])
        if not math.isfinite(validated["val_loss"]) and not self.options.spike_recovery:
            raise self.diverged(validated["val_loss"])
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": place.step,
            "loss": loss,
            **validated,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": time.perf_counter() - began,
        }
        if place.spikes:
            row["spikes"], place.spikes = place.spikes, []
        self.validated += [v for name, v in row.items() if name.startswith("val_")][-1:]
        self.watchers.on_epoch_end(epoch, row)
        self.on_epoch(row)
        if row["val_loss"] < place.best["val_loss"]:
            place.best, place.waited = {"val_loss": row["val_loss"], "epoch": epoch + 1}, 0
            self.best_weights = [np.array(weight) for weight in self.model.weights]
        else:
            place.waited += 1
        self.save()
        self.stop = self.agreed(signals)
        if not self.progress.terminal:
            shown = " ".join(
                f"{name} {value:.4f}"
                for name, value in row.items()
                if "loss" in name or "val_" in name
            )
            self.progress.say(
                f"epoch {epoch + 1}/{self.options.epochs} {shown} {row['seconds']:.1f}s"
            )

    def live(self, epoch: int, loss: float) -> str:
        """What the bar shows: loss, the last validation's metric, samples a second."""
        shown = [f"epoch {epoch + 1} loss {loss:.4f}"]
        shown += [f"val {value:.4f}" for value in self.validated[-1:]]
        if self.timed_seconds > 0:
            rows = (self.feed.rows - self.feed.dropped) / self.feed.steps
            shown.append(f"{self.timed_steps / self.timed_seconds * rows:,.0f}/s")
        return " ".join(shown)

    def agreed(self, signals: _Signals) -> int | None:
        """The signal to stop for; workers of a cluster stop at the same step."""
        received = signals.received
        return received if self.replicas is None else self.replicas.agreed(received)

    def call(self, iterator: Any, left: int) -> float:
        """One call of the compiled function; the epoch's mean loss so far."""
        place = self.place
        count = min(self.execution.steps, left)
        if self.every:
            count = min(count, self.every - place.step % self.every)
        before = self.tracked()
        began = time.perf_counter()
        made, loss = self.step(iterator, count)
        seconds = time.perf_counter() - began
        place.step += made
        if self.options.spike_recovery:
            own = self.own_loss(before)
            if self.spiked(own):
                self.recover(own)
                return before[0]
        elif not math.isfinite(loss):
            raise self.diverged(loss)
        if self.warm:
            self.timed_steps += made
            self.timed_seconds += seconds
        self.warm = True
        return loss

    def tracked(self) -> tuple[float, float]:
        """Keras' running mean of this epoch's loss, and the weight of the rows behind it."""
        if not self.options.spike_recovery:
            return 0.0, 0.0
        total, count = (float(v) for v in self.model._loss_tracker.variables)
        return (total / count if count else 0.0), count

    def own_loss(self, before: tuple[float, float]) -> float:
        """The mean loss of one call: what it did to the running mean."""
        mean, count = self.tracked()
        own = (mean * count - before[0] * before[1]) / max(count - before[1], 1e-9)
        return own if self.replicas is None else self.replicas.of_chief(own)

    def spiked(self, own: float) -> bool:
        """Whether a call's loss is far above the usual; otherwise it becomes part of it."""
        place = self.place
        if not math.isfinite(own):
            return True
        known = place.usual is not None and place.calls >= CALLS
        if known and own > self.options.spike_recovery * abs(place.usual or 0.0):
            return True
        place.usual = own if place.usual is None else MEMORY * place.usual + (1 - MEMORY) * own
        place.calls += 1
        return False

    def recover(self, own: float) -> None:
        """Back to the last good state, but on with the batches: those since then are skipped.

        Chowdhery et al., PaLM, 2022, section 5.1.
        """
        assert self.anchor is not None
        place, (since, state) = self.place, self.anchor
        if place.recoveries >= RECOVERIES:
            raise self.diverged(own)
        checkpoint.restore(self.model, state)
        self.model.optimizer.iterations.assign(place.step)  # the schedule goes by the batches
        self.model.reset_metrics()
        place.recoveries += 1
        place.spikes.append({"step": place.step, "loss": own if math.isfinite(own) else None,
                             "usual": place.usual, "back_to": since})  # fmt: skip
        usual = "" if place.usual is None else f", usually {place.usual:.4g}"
        self.progress.say(
            f"loss spike of {own:.4g} at step {place.step:,}{usual}: back to the weights of step "
            f"{since:,}; the batches since are skipped"
        )
        self.save()

    def save(self) -> None:
        """A checkpoint of this very place, and the anchor that a divergence is replayed from."""
        arrays = checkpoint.state_of(self.model)
        if not _finite(arrays):  # a finite loss, but weights that are not: never kept
            if not self.options.spike_recovery:
                raise self.diverged(math.nan)
            return self.recover(math.nan)
        self.anchor = (self.place.step, arrays)
        if self.folder is None:
            return
        self.place.seconds = time.perf_counter() - self.clock
        arrays = arrays | checkpoint.callback_state(self.callbacks)
        arrays |= {f"best/{k}": weight for k, weight in enumerate(self.best_weights or [])}
        checkpoint.save(self.folder, self.place.step, arrays, self.place.meta())

    def diverged(self, loss: float) -> ZooError:
        """The error for a training that left the finite numbers, with the step and the layer."""
        assert self.anchor is not None
        where = locate(self.model, self.step, self.feed, *self.anchor, self.place.step)
        return diverged(where, self.feed.steps, loss, self.options)
