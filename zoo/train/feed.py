"""Training batches: a seeded permutation of row indices, gathered and augmented.

The order of samples and every augmentation are functions of (seed, epoch, step) alone, so a
training can go on from any step and sees what it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from zoo.train.augment import augment
from zoo.train.objective import mixes
from zoo.train.options import TrainOptions

#: Bytes of inputs that a stream makes at a time.
BLOCK_BYTES = 16_000_000


@dataclass
class Samples:
    """Encoded inputs (n, ...) and targets (n, ...): class indices, ids or scaled values.

    ``weights`` float32 say how much each answer counts: None for all alike. They are scaled to a mean
    of 1 in each batch unless they are to be taken ``as_given``. ``draw(x, y, weights, state)`` is run on each batch with the int64 (2,) state of its step: see
    :class:`zoo.tasks.Task`. ``class_weights`` float32 (classes,): how much a row of each class
    counts, None for all alike.
    """

    x: np.ndarray
    y: np.ndarray
    _: KW_ONLY
    weights: np.ndarray | None = None
    draw: Callable[..., tuple[Any, Any, Any]] | None = None
    class_weights: np.ndarray | None = None
    as_given: bool = False

    def __len__(self) -> int:
        return len(self.y)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """``(x, y)``, or ``(x, y, weights)``."""
        return (self.x, self.y) if self.weights is None else (self.x, self.y, self.weights)


@dataclass
class Stream:
    """Samples that are too many to be held: ``load(index)`` makes those of some indices (m,)."""

    load: Callable[[np.ndarray], Samples]
    rows: int
    _: KW_ONLY
    draw: Callable[..., tuple[Any, Any, Any]] | None = None
    class_weights: np.ndarray | None = None
    as_given: bool = False

    def __len__(self) -> int:
        return self.rows


class Feed:
    """The batches of a training.

    Args:
        samples: the training rows. :class:`Samples` are held once, as tensors; of a :class:`Stream`
            some blocks are held at a time. The batches are the same bit for bit.
        seed: of the order and the augmentations.
        whole: leave out an epoch's last batch when it is not full. Models with batch statistics
            need that: a batch of a few rows has none worth the name, and replicas none at all.
        replicas: each batch is filled up to a multiple of so many, and a third element weights
            the rows so that the mean over replicas is the mean over the real rows.
        share: (rank, workers) of this process. Of a stream it makes the inputs of its own replicas'
            rows alone; the others' are zeros.
        classes: number of classes, where targets are class indices that augmentations may mix.
    """

    def __init__(
        self,
        samples: Samples | Stream,
        options: TrainOptions,
        seed: int,
        *,
        whole: bool = False,
        replicas: int = 1,
        share: tuple[int, int] = (0, 1),
        classes: int = 0,
    ) -> None:
        self.rows, self.size, self.seed = len(samples), options.batch_size, seed
        self.replicas, self.share, self.classes = replicas, share, classes
        self.dropped = self.rows % self.size if whole and self.rows > self.size else 0
        #: Steps of one epoch.
        self.steps = math.ceil((self.rows - self.dropped) / self.size)
        self._samples, self._augment = samples, options.augment
        self._options, self._whole = options, whole
        self._mixes = mixes(options)
        self._tensors: tuple[Any, ...] | None = None

    def batches(self, epoch: int = 0, start: int = 0, *, until: int | None = None) -> Any:
        """All batches from step ``start`` of an epoch on, to the end of epoch ``until`` - 1 or
        endless, as one ``tf.data.Dataset``: built once, and at an epoch's end the next one's
        batches are under way.

        Elements are (inputs, targets), or (inputs, targets, weights) where samples are weighted or
        there is more than one replica.
        """
        from zoo.backend import tf

        last = np.iinfo(np.int64).max if until is None else until
        epochs = tf.data.Dataset.range(epoch, last).enumerate()
        epochs = epochs.map(lambda number, epoch: (epoch, tf.where(number == 0, start, 0)))
        if isinstance(self._samples, Stream):
            return epochs.apply(partial(self._streamed, self._samples)).prefetch(4)
        if self._tensors is None:
            self._tensors = tuple(tf.constant(array) for array in self._samples.arrays())

        def indices(epoch: Any, start: Any) -> Any:
            order = tf.numpy_function(self._order, [epoch], np.int64)
            order = tf.ensure_shape(order, (self.rows,))[: self.rows - self.dropped]
            numbers = tf.data.Dataset.range(tf.cast(start, tf.int64), self.steps)
            return numbers.map(
                lambda number: (epoch, number, order[number * self.size : (number + 1) * self.size])
            )

        gather = partial(self._batch, self._tensors)
        return epochs.flat_map(indices).map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4)

    def epoch(self, epoch: int, start: int = 0) -> Any:
        """The batches of one epoch from step ``start`` on."""
        return self.batches(epoch, start, until=epoch + 1)

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of the rows in an epoch, int64 (rows,)."""
        return np.random.default_rng([self.seed, int(epoch)]).permutation(self.rows)

    def trial(self) -> Any:
        """Endless batches to time a step with: of a stream, those of one block, which is held."""
        if not isinstance(self._samples, Stream):
            return self.batches()
        rows = min(self.rows, self._block(_first(self._samples)))
        held = replace(
            self._samples.load(np.arange(rows)),
            draw=self._samples.draw,
            class_weights=self._samples.class_weights,
        )
        feed = Feed(
            held,
            self._options,
            self.seed,
            whole=self._whole,
            replicas=self.replicas,
            classes=self.classes,
        )
        return feed.trial()

    def _block(self, one: Samples) -> int:
        """Rows of a block: whole batches in about :data:`BLOCK_BYTES`."""
        return self.size * max(1, BLOCK_BYTES // (one.x.nbytes * self.size))

    def _streamed(self, stream: Stream, epochs: Any) -> Any:
        """Blocks of whole batches, each made when it is due, and cut into its batches.

        ``epochs`` has elements (epoch, step to begin at).
        """
        from zoo.backend import tf

        one = _first(stream)
        kinds, block = one.arrays(), self._block(one)
        ordered = lru_cache(maxsize=2)(self._order)  # of the present epoch and of the next

        def load(epoch: int, begin: int) -> tuple[np.ndarray, ...]:
            end = min(begin + block, self.rows - self.dropped)
            return self._mine(stream, ordered(int(epoch))[begin:end])

        def begins(epoch: Any, start: Any) -> Any:
            first = tf.cast(start * self.size, tf.int64)
            places = tf.data.Dataset.range(first, self.rows - self.dropped, block)
            return places.map(lambda begin: (epoch, begin))

        def made(epoch: Any, begin: Any) -> tuple[Any, ...]:
            arrays = tf.numpy_function(load, [epoch, begin], [array.dtype for array in kinds])
            for array, kind in zip(arrays, kinds, strict=True):
                array.set_shape((None, *kind.shape[1:]))
            return epoch, begin // self.size, *arrays

        def cut(epoch: Any, first: Any, *arrays: Any) -> Any:
            indices = tf.data.Dataset.range(tf.shape(arrays[0], tf.int64)[0]).batch(self.size)
            return indices.enumerate(first).map(partial(self._batch, arrays, epoch))

        blocks = epochs.flat_map(begins).map(made, num_parallel_calls=2)
        return blocks.prefetch(1).flat_map(cut)

    def _mine(self, stream: Stream, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """The arrays of whole batches, without the rows that other workers' replicas take.

        Weights are made for all rows: every worker needs their sum.
        """
        rank, workers = self.share
        if workers == 1 or self._mixes:  # a row may be mixed with any other of its batch
            return stream.load(index).arrays()
        within = np.arange(len(index)) % self.size
        real = np.full(len(index), self.size)
        real[len(index) // self.size * self.size :] = len(index) % self.size
        filled = -(-real // self.replicas) * self.replicas
        mine = within // (filled // workers) == rank
        found = stream.load(index[mine])
        if found.weights is not None:
            return stream.load(index).arrays()
        made = []
        for part in found.arrays():
            whole = np.zeros((len(index), *part.shape[1:]), part.dtype)
            whole[mine] = part
            made.append(whole)
        return tuple(made)

    def _batch(self, tensors: tuple[Any, ...], epoch: Any, number: Any, index: Any) -> Any:
        """The batch of an epoch's step ``number``: the rows ``index`` (m,) of some tensors."""
        from zoo.backend import tf

        inputs, targets, *rest = (tf.gather(held, index) for held in tensors)
        weights = rest[0] if rest else None
        weights = weights if self._samples.as_given else self._weighted(weights)

        def state(k: int) -> Any:
            return tf.stack([self.seed * 100_003 + epoch, number * 97 + k])

        if self._mixes and targets.dtype.is_integer:
            targets = tf.one_hot(targets, self.classes)
        inputs, targets = augment(self._augment, (inputs, targets), state)
        if self._samples.draw is not None:  # of what the augmentation left: its answer, too
            drawn = self._samples.draw(inputs, targets, weights, state(96))
            inputs, targets, weights = drawn[0], drawn[1], self._weighted(drawn[2])
        if (by_class := self._class_weights(targets)) is not None:
            weights = by_class if weights is None else weights * by_class
        if self.replicas > 1:
            return self._filled(inputs, targets, weights)
        return (inputs, targets) if weights is None else (inputs, targets, weights)

    def _class_weights(self, targets: Any) -> Any:
        """What each row counts by its class, or by its shares of classes: float32 (rows,)."""
        from zoo.backend import tf

        if self._samples.class_weights is None:
            return None
        table = tf.constant(self._samples.class_weights)
        if targets.dtype.is_integer:
            return tf.gather(table, targets)
        if targets.shape[-1] == 1:  # the share of the second of two classes
            targets = tf.concat([1 - targets, targets], axis=-1)
        return tf.linalg.matvec(targets, table)

    def _filled(self, inputs: Any, targets: Any, weights: Any) -> tuple[Any, Any, Any]:
        """A batch filled to a multiple of the replicas, weighted so that filled rows don't count.

        The mean over all rows is then the mean over the real ones.
        """
        from zoo.backend import tf

        real = tf.shape(inputs)[0]
        filled = -(-real // self.replicas) * self.replicas

        def fill(rows: Any) -> Any:
            return tf.concat([rows, tf.repeat(rows[:1], filled - real, axis=0)], axis=0)

        weights = tf.ones([real]) if weights is None else weights
        weights *= tf.cast(filled, tf.float32) / tf.cast(real, tf.float32)
        weights = tf.concat([weights, 0 * tf.repeat(weights[:1], filled - real, axis=0)], axis=0)
        return fill(inputs), fill(targets), weights

    @staticmethod
    def _weighted(weights: Any) -> Any:
        """Weights of mean 1 (None stays None): a mean over elements is then the weighted mean, and so
        is the mean over replicas' means."""
        from zoo.backend import tf

        if weights is None:
            return None
        size = tf.cast(tf.size(weights), tf.float32)
        return weights * size / tf.maximum(tf.reduce_sum(weights), 1e-6)


def _first(stream: Stream) -> Samples:
    return stream.load(np.zeros(1, dtype=np.int64))


def has_batch_statistics(model: Any) -> bool:
    """Whether some layer of a model normalises by the statistics of the batch."""
    from zoo.backend import keras

    return any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for layer in model._flatten_layers()
    )
