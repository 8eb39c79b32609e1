"""Several devices that train one model together, on ``tf.distribute``: n devices equal one.

Each replica takes its share of the same batch. A batch that does not divide evenly is filled up, and
its rows are weighted so that the mean over replicas is the mean over the real rows
(:class:`zoo.train.feed.Feed`). Batch normalisation is synchronised, and models that have it train on
full batches only, on one device as on many: filled rows would enter the statistics.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError, unknown

#: Names that people know, and why they are not served.
REFUSED = {
    "parameter_server": "Keras 3 does not support ParameterServerStrategy: its optimizers can't "
    "update variables that are spread over servers.",
    "multiworker": "Training on several machines is not served yet.",
    "tpu": "TPUs are not served yet: nothing here was ever run on one.",
}


@dataclass(frozen=True)
class Strategy:
    """``--strategy``: ``kind`` is ``single`` or ``mirrored``; ``devices`` None means all GPUs."""

    kind: str = "single"
    devices: int | None = None

    @classmethod
    def parse(cls, text: str) -> Strategy | None:
        """``auto`` (None), ``single``, ``mirrored`` or ``mirrored:N``."""
        if text in REFUSED or text.replace("-", "_") in REFUSED:
            raise ZooError(
                REFUSED[text.replace("-", "_")],
                expected="--strategy auto, single, mirrored or mirrored:N",
                received=text,
                kind="unsupported_strategy",
            )
        if text == "auto":
            return None
        match = re.fullmatch(r"(single)|mirrored(?::([1-9]\d{0,2}))?", text)
        if match is None:
            raise unknown("strategy", text, ["auto", "single", "mirrored", "mirrored:N"])
        if match[1]:
            return cls()
        return cls("mirrored", int(match[2]) if match[2] else None)


class Replicas:
    """The devices, and how a training step runs on all of them.

    ``strategy`` is a ``tf.distribute`` strategy. Make one a process: several of them break the
    collectives of a CPU.
    """

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        self.count: int = strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Models, optimizers and metrics are made in here."""
        return self.strategy.scope()

    def adopt(self, model: Any, batch_size: int) -> None:
        """Make a model's batch normalisation count the rows of all replicas.

        Raises :class:`ZooError` where the batch can't be shared out evenly, as it then must.
        """
        from zoo.backend import keras
        from zoo.train.feed import has_batch_statistics

        if not has_batch_statistics(model):
            return
        if batch_size % self.count:
            raise ZooError(
                f"A batch of {batch_size} can't be shared out evenly among {self.count} devices.",
                expected=f"a multiple of {self.count}: the model has batch normalisation",
                received=str(batch_size),
                hint=f"--batch-size {-(-batch_size // self.count) * self.count}",
            )
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True

    def step(self, train_step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        """``train_step(batch)`` as a function of a whole batch that all replicas share."""
        from zoo.backend import tf

        def share(batch: Any) -> dict[str, Any]:
            place = tf.distribute.get_replica_context().replica_id_in_sync_group

            def part(rows: Any) -> Any:
                with tf.device("/CPU:0"):  # only its share travels to a device
                    size = tf.shape(rows)[0] // self.count
                    return rows[place * size : (place + 1) * size]

            return train_step(tf.nest.map_structure(part, batch))

        def step(batch: Any) -> dict[str, Any]:
            logs = self.strategy.run(share, args=(batch,))
            mean = tf.distribute.ReduceOp.MEAN
            return {name: self.strategy.reduce(mean, v, axis=None) for name, v in logs.items()}

        return step


def open_replicas(strategy: Strategy | None) -> Replicas | None:
    """The devices that a strategy means; None for one device.

    Must come before TensorFlow computes anything, since ``mirrored:N`` on a machine without GPUs
    divides its CPU. Raises :class:`ZooError` when there are too few devices.
    """
    from zoo.backend import gpus, mirrored

    found = gpus()
    if strategy is None:
        strategy = Strategy("mirrored" if len(found) > 1 else "single")
    if strategy.kind == "single":
        return None
    if strategy.devices is None and len(found) < 2:
        raise ZooError(
            "There are not several devices to train on.",
            expected="two GPUs or more",
            received=f"{len(found)} GPU{'' if len(found) == 1 else 's'}",
            hint="--strategy mirrored:2 divides a CPU in two, to try it out; --strategy single "
            "uses one device.",
            kind="too_few_devices",
        )
    if found and (strategy.devices or 0) > len(found):
        raise ZooError(
            f"There are fewer than {strategy.devices} GPUs.",
            expected=f"at most mirrored:{len(found)}",
            received=f"mirrored:{strategy.devices}",
            kind="too_few_devices",
        )
    try:
        return Replicas(mirrored(strategy.devices or len(found)))
    except RuntimeError as error:
        raise ZooError(
            "The CPU can't be divided any more: this process has computed already.",
            received=" ".join(str(error).split())[:200],
            hint="Train in a process of its own, as the command `zoo train` does.",
            kind="too_late",
        ) from error
