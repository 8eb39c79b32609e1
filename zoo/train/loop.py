"""The training loop: Keras' own compiled train step over a seeded permutation of row indices.

The order of samples and every augmentation are functions of (seed, epoch, step) alone, so a
training can go on from any epoch and sees what it would have seen.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo.progress import Progress
from zoo.tasks import Task
from zoo.train import checkpoint
from zoo.train.augment import AUGMENTATIONS
from zoo.train.options import TrainOptions

#: Steps that one call of the compiled function makes; a training signal is seen between calls.
STEPS_PER_CALL = 16


@dataclass
class Samples:
    """Encoded inputs float32 (n, ...) and targets: int64 class indices or scaled float32 (n,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class Fitted:
    """What a training did. Times are wall seconds; rates leave the first call (tracing) out."""

    epochs: int
    steps: int
    seconds: float
    steps_per_second: float | None
    samples_per_second: float | None
    execution: str
    best: dict[str, Any] = field(default_factory=dict)
    interrupted: int | None = None  # the signal that ended it early


def batches(samples: Samples, options: TrainOptions, seed: int, epoch: int) -> Any:
    """One epoch as a ``tf.data.Dataset`` of (inputs, targets) batches."""
    from zoo.backend import tf

    x, y = tf.constant(samples.x), tf.constant(samples.y)
    order = np.random.default_rng([seed, epoch]).permutation(len(samples))
    changes = [AUGMENTATIONS[name] for name in options.augment]

    def gather(number: Any, index: Any) -> tuple[Any, Any]:
        inputs = tf.gather(x, index)
        for k, change in enumerate(changes):
            state = tf.stack([tf.constant(seed * 100_003 + epoch, tf.int64), number * 97 + k])
            inputs = change(inputs, state)
        return inputs, tf.gather(y, index)

    dataset = tf.data.Dataset.from_tensor_slices(order).batch(options.batch_size)
    return dataset.enumerate().map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4)


def compile_model(model: Any, task: Task, options: TrainOptions, steps: int, per_call: int) -> None:
    """Compile with the task's loss and build the optimizer's variables."""
    from zoo.backend import keras

    loss = getattr(keras.losses, task.loss)(**task.loss_args)
    model.compile(
        optimizer=options.build_optimizer(steps),
        loss=loss,
        steps_per_execution=per_call,
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)


class _Signals:
    """Turns SIGINT and SIGTERM into a flag while a training runs."""

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

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def fit(
    model: Any,
    task: Task,
    options: TrainOptions,
    train: Samples,
    validate: Callable[[], dict[str, float]],
    *,
    seed: int,
    progress: Progress,
    callbacks: Sequence[Any] = (),
    checkpoints: Any = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    resume: bool = False,
    title: str = "training",
) -> Fitted:
    """Train ``model`` in place.

    Args:
        validate: gives the validation metrics, ``val_loss`` among them, of the present weights.
        callbacks: Keras callbacks; ``on_train_batch_end`` gets the number of steps done in all.
        checkpoints: folder to write one to after each epoch, or None.
        on_epoch: called with each epoch's row for the log.
        resume: go on from the newest whole checkpoint; from the start where there is none.
    Raises :class:`ZooError` when the loss is no longer finite.
    """
    from zoo.backend import keras

    per_epoch = math.ceil(len(train) / options.batch_size)
    total = per_epoch * options.epochs
    per_call = min(STEPS_PER_CALL, per_epoch)
    compile_model(model, task, options, total, per_call)
    best: dict[str, Any] = {"val_loss": math.inf, "epoch": 0}
    best_weights: list[np.ndarray] | None = None
    first, waited = 0, 0
    found = checkpoint.newest(checkpoints) if resume and checkpoints is not None else None
    if found is not None:
        arrays, meta, passed = found
        for text in passed:
            progress.say(f"checkpoint {text}: passed over")
        if arrays:
            checkpoint.restore(model, arrays)
            first, best, waited = meta["epoch"], meta["best"], meta["waited"]
            best_weights = [
                arrays[f"best/{k}"] for k in range(len(model.weights)) if f"best/{k}" in arrays
            ] or None
            progress.say(f"going on after epoch {first} of {options.epochs}")

    watchers = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=options.epochs)
    model.make_train_function()
    model.stop_training = False
    began = time.perf_counter()
    timed_steps, timed_seconds, warm = 0, 0.0, False
    step = first * per_epoch
    done = first
    with _Signals() as signals:
        watchers.on_train_begin()
        progress.start(title, total, step)
        try:
            for epoch in range(first, options.epochs):
                if model.stop_training:
                    break
                model.reset_metrics()
                watchers.on_epoch_begin(epoch)
                iterator = iter(batches(train, options, seed, epoch))
                before, epoch_began = step, time.perf_counter()
                while step < before + per_epoch:
                    call_began = time.perf_counter()
                    logs = model.train_function(iterator)
                    made = min(per_call, before + per_epoch - step)
                    step += made
                    loss = float(logs["loss"])
                    if warm:
                        timed_steps += made
                        timed_seconds += time.perf_counter() - call_began
                    warm = True
                    if not math.isfinite(loss):
                        raise diverged(step, epoch, loss, options)
                    watchers.on_train_batch_end(step, {"loss": loss})
                    progress.advance(step, f"epoch {epoch + 1} loss {loss:.4f}")
                    if signals.received is not None:
                        break
                if signals.received is not None and step < before + per_epoch:
                    break  # mid-epoch: the last epoch's checkpoint stands
                done = epoch + 1
                row = {
                    "epoch": done,
                    "step": step,
                    "loss": loss,
                    **validate(),
                    "learning_rate": float(model.optimizer.learning_rate),
                    "seconds": time.perf_counter() - epoch_began,
                }
                watchers.on_epoch_end(epoch, row)
                on_epoch(row)
                if row["val_loss"] < best["val_loss"]:
                    best, waited = {"val_loss": row["val_loss"], "epoch": done}, 0
                    best_weights = [np.asarray(weight) for weight in model.weights]
                else:
                    waited += 1
                if checkpoints is not None:
                    arrays = checkpoint.state_of(model)
                    arrays |= {f"best/{k}": weight for k, weight in enumerate(best_weights or [])}
                    checkpoint.save(
                        checkpoints, step, arrays, {"epoch": done, "best": best, "waited": waited}
                    )
                shown = " ".join(
                    f"{name} {value:.4f}"
                    for name, value in row.items()
                    if "loss" in name or "val_" in name
                )
                if not progress.terminal:
                    progress.say(f"epoch {done}/{options.epochs} {shown} {row['seconds']:.1f}s")
                if signals.received is not None or (
                    options.patience and waited >= options.patience
                ):
                    break
        finally:
            progress.stop()
            watchers.on_train_end()
    if options.keep == "best" and best_weights is not None and signals.received is None:
        for variable, value in zip(model.weights, best_weights, strict=True):
            variable.assign(value)
    rate = timed_steps / timed_seconds if timed_seconds > 0 else None
    return Fitted(
        epochs=done,
        steps=step,
        seconds=time.perf_counter() - began,
        steps_per_second=rate,
        samples_per_second=None if rate is None else rate * len(train) / per_epoch,
        execution=f"graph:{per_call}",
        best=best,
        interrupted=signals.received,
    )


def diverged(step: int, epoch: int, loss: float, options: TrainOptions) -> ZooError:
    """The error for a loss that is no longer finite."""
    return ZooError(
        f"The training diverged: the loss became {loss} by step {step} (epoch {epoch + 1}).",
        expected="a finite loss",
        received=str(loss),
        hint=f"Lower the learning rate: --set learning_rate={options.learning_rate / 10:g}. "
        "The last checkpoint is kept.",
        kind="diverged",
        exit_code=FAILURE,
    )
