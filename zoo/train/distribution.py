"""Several devices that train one model together, on ``tf.distribute``: n devices equal one, but for draws.

Each replica takes its share of the same batch. A batch that does not divide evenly is filled up, and
its rows are weighted so that the mean over replicas is the mean over the real rows
(:class:`zoo.train.feed.Feed`). Batch normalisation is synchronised, and models that have it train on
full batches only, on one device as on many: filled rows would enter the statistics.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError, unknown
from zoo.train.resolvers import tf_config

#: A CPU may be divided into so many devices, or into as many as it has cores.
MOST_PARTS = 8
#: Names that people know, and why they are not served.
REFUSED = {
    "parameter_server": "Keras 3 does not support ParameterServerStrategy: its optimizers can't "
    "update variables that are spread over servers.",
}


@dataclass(frozen=True)
class Strategy:
    """``--strategy``: ``kind`` is ``single``, ``mirrored``, ``multiworker`` or ``tpu``.

    ``devices`` is for ``mirrored``: None means all GPUs.
    """

    kind: str = "single"
    devices: int | None = None

    @classmethod
    def parse(cls, text: str) -> Strategy | None:
        """``auto`` (None), ``single``, ``mirrored``, ``mirrored:N``, ``multiworker`` or ``tpu``."""
        if text in REFUSED or text.replace("-", "_") in REFUSED:
            raise ZooError(
                REFUSED[text.replace("-", "_")],
                expected="--strategy auto, single, mirrored, mirrored:N, multiworker or tpu",
                received=text,
                kind="unsupported_strategy",
            )
        if text == "auto":
            return None
        match = re.fullmatch(r"(single|multiworker|tpu)|mirrored(?::([1-9]\d{0,2}))?", text)
        if match is None:
            known = ["auto", "single", "mirrored", "mirrored:N", "multiworker", "tpu"]
            raise unknown("strategy", text, known)
        if match[1]:
            return cls(match[1])
        return cls("mirrored", int(match[2]) if match[2] else None)


class Replicas:
    """The devices, and how a training step runs on all of them.

    ``strategy`` is a ``tf.distribute`` strategy. Make one a process: several of them break the
    collectives of a CPU. ``workers`` processes take part, this one being number ``rank``; number 0
    is the chief, the only one that writes.
    """

    def __init__(self, strategy: Any, workers: int = 1, rank: int = 0) -> None:
        self.strategy, self.workers, self.rank = strategy, workers, rank
        self.count: int = strategy.num_replicas_in_sync
        self._sum: Any = None

    @property
    def chief(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def total(self, values: list[float]) -> list[float]:
        """The sums of some numbers over the workers; all of them must ask at the same time."""
        if self.workers == 1:
            return values
        from zoo.backend import tf

        if self._sum is None:

            @tf.function
            def over_workers(mine: Any) -> Any:
                found = self.strategy.run(tf.identity, args=(mine,))
                return self.strategy.reduce(tf.distribute.ReduceOp.SUM, found, axis=None)

            self._sum = over_workers
        each = self.count // self.workers  # every replica of a worker adds the same
        return [float(v) / each for v in self._sum(tf.constant(values, tf.float64))]

    def agreed(self, received: int | None) -> int | None:
        """The signal that any worker received: they must stop at the same step."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        sums = self.total([float(received == number) for number in numbers])
        return next((n for n, count in zip(numbers, sums, strict=True) if count), None)

    def of_chief(self, value: float) -> float:
        """The chief's value: what is decided by it is decided alike on all workers."""
        return self.total([value if self.chief else 0.0])[0]

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

    def step(self, model: Any) -> Callable[[Any], dict[str, Any]]:
        """``model.train_step(batch)`` as a function of a whole batch that all replicas share."""
        from zoo.backend import tf

        def share(batch: Any) -> dict[str, Any]:
            place = tf.distribute.get_replica_context().replica_id_in_sync_group

            def part(rows: Any) -> Any:
                with tf.device("/CPU:0"):  # only its share travels to a device
                    size = tf.shape(rows)[0] // self.count
                    return rows[place * size : (place + 1) * size]

            return dict(model.train_step(tf.nest.map_structure(part, batch)))

        def step(batch: Any) -> dict[str, Any]:
            with _own_draws():
                logs = self.strategy.run(share, args=(batch,))
            mean = tf.distribute.ReduceOp.MEAN
            return {name: self.strategy.reduce(mean, v, axis=None) for name, v in logs.items()}

        return step


#: Far from what a seed grows by in any training; odd, so that no two replicas share a seed.
_APART = 0x9E3779B1


@contextlib.contextmanager
def _own_draws() -> Iterator[None]:
    """What is traced meanwhile draws other numbers on each replica, where Keras' are the same on all:
    row 1 of each would drop the same units."""
    from zoo.backend import keras, tf

    usual = keras.random.SeedGenerator.next

    def own(self: Any, ordered: bool = True) -> Any:
        seed, replica = usual(self, ordered), tf.distribute.get_replica_context()
        if replica is None:
            return seed
        place = tf.cast(replica.replica_id_in_sync_group, tf.int64)
        moved = tf.cast(seed, tf.int64) + place * _APART
        return tf.cast(tf.bitwise.bitwise_and(moved, 0xFFFFFFFF), seed.dtype)

    keras.random.SeedGenerator.next = own
    try:
        yield
    finally:
        keras.random.SeedGenerator.next = usual


def cluster() -> tuple[int, int]:
    """``(workers, rank of this process)`` from ``TF_CONFIG``, as Kubeflow and Vertex set it.

    Where a launcher has variables of its own instead (:mod:`zoo.train.resolvers`), it is set.
    Raises :class:`ZooError` where it is missing, damaged or has parameter servers.
    """
    hint = "--local-workers 2 starts a cluster of two processes on this machine."
    text = ""
    try:
        text = tf_config(os.environ) or ""
        if text:
            os.environ["TF_CONFIG"] = text  # where TensorFlow looks
        config = json.loads(text)
        tasks = {kind: list(hosts) for kind, hosts in config["cluster"].items()}
        kind, index = config["task"]["type"], int(config["task"]["index"])
        order = [(name, k) for name in ("chief", "worker") for k in range(len(tasks.get(name, ())))]
        if "ps" in tasks:
            raise ZooError(REFUSED["parameter_server"], received="TF_CONFIG with ps tasks",
                           expected="chief and worker tasks", hint=hint,
                           kind="unsupported_strategy")  # fmt: skip
        return len(order), order.index((kind, index))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = "" if isinstance(error, json.JSONDecodeError) else f" ({error})"
        raise ZooError(
            "--strategy multiworker needs to know its cluster.",
            expected='TF_CONFIG={"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            '"worker", "index": 0}}, with another index on each machine',
            received=f"TF_CONFIG={text}" if text else f"no TF_CONFIG{why}",
            hint=hint,
            kind="bad_cluster",
        ) from error


def _tpu() -> Any:
    """The strategy of the TPU that ``TPU_NAME`` names, else of the one in this machine."""
    from zoo.backend import tf, tpu

    try:
        return tpu(os.environ.get("TPU_NAME", "local"))
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ZooError(
            "There is no TPU to train on.",
            expected="a TPU VM, or the name of a TPU in TPU_NAME",
            received=" ".join(str(error).split())[:200],
            hint="--strategy auto takes what there is.",
            kind="no_tpu",
        ) from error


def is_chief(strategy: Strategy | None) -> bool:
    """Whether this process writes the run; known before TensorFlow is."""
    return strategy is None or strategy.kind != "multiworker" or cluster()[1] == 0


def open_replicas(strategy: Strategy | None) -> Replicas | None:
    """The devices that a strategy means; None for one device.

    Must come before TensorFlow computes anything, since ``mirrored:N`` on a machine without GPUs
    divides its CPU. Raises :class:`ZooError` when there are too few devices.
    """
    from zoo.backend import gpus, mirrored, multiworker

    found = gpus()
    if strategy is None:
        strategy = Strategy("mirrored" if len(found) > 1 else "single")
    if strategy.kind == "single":
        return None
    if strategy.kind == "multiworker":
        workers, rank = cluster()
        return Replicas(multiworker(), workers, rank)
    if strategy.kind == "tpu":
        return Replicas(_tpu())
    if strategy.devices is None and len(found) < 2:
        raise ZooError(
            "There are not several devices to train on.",
            expected="two GPUs or more",
            received=f"{len(found)} GPU{'' if len(found) == 1 else 's'}",
            hint="--strategy mirrored:2 divides a CPU in two, to try it out; --strategy single "
            "uses one device.",
            kind="too_few_devices",
        )
    most = len(found) or max(MOST_PARTS, os.cpu_count() or 1)
    if (strategy.devices or 0) > most:
        raise ZooError(
            f"There are not {strategy.devices} devices to train on.",
            expected=f"at most mirrored:{most}",
            received=f"mirrored:{strategy.devices} and {len(found)} GPUs",
            hint="Parts of a CPU are there to try it out: more of them make it slower."
            if not found
            else None,
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
