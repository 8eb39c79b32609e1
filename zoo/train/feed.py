"""Training batches: a seeded permutation of row indices, gathered and augmented.

The order of samples and every augmentation are functions of (seed, epoch, step) alone, so a
training can go on from any step and sees what it would have seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.train.augment import AUGMENTATIONS
from zoo.train.options import TrainOptions


@dataclass
class Samples:
    """Encoded inputs (n, ...) and targets: int64 class indices or scaled float32 (n,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


class Feed:
    """The batches of a training.

    Args:
        samples: the training rows; both arrays are held once, as tensors.
        seed: of the order and the augmentations.
        whole: leave out an epoch's last batch when it is not full. Models with batch statistics
            need that: a batch of a few rows has none worth the name, and replicas none at all.
        replicas: each batch is filled up to a multiple of so many, and a third element weights
            the rows so that the mean over replicas is the mean over the real rows.
    """

    def __init__(
        self,
        samples: Samples,
        options: TrainOptions,
        seed: int,
        *,
        whole: bool = False,
        replicas: int = 1,
    ) -> None:
        self.rows, self.size, self.seed = len(samples), options.batch_size, seed
        self.replicas = replicas
        self.dropped = self.rows % self.size if whole and self.rows > self.size else 0
        #: Steps of one epoch.
        self.steps = math.ceil((self.rows - self.dropped) / self.size)
        self._samples, self._augment = samples, options.augment
        self._tensors: tuple[Any, Any] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Any:
        """The batches of one epoch from step ``start`` on, as a ``tf.data.Dataset``.

        Elements are (inputs, targets), with more than one replica (inputs, targets, weights).
        """
        from zoo.backend import tf

        if self._tensors is None:
            self._tensors = tf.constant(self._samples.x), tf.constant(self._samples.y)
        x, y = self._tensors
        changes = [AUGMENTATIONS[name] for name in self._augment]
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        order = order[start * self.size : self.rows - self.dropped]

        def gather(number: Any, index: Any) -> tuple[Any, ...]:
            weights = None
            if self.replicas > 1:
                index, weights = self._filled(index)
            inputs = tf.gather(x, index)
            for k, change in enumerate(changes):
                draw = (number + start) * 97 + k
                state = tf.stack([tf.constant(self.seed * 100_003 + epoch, tf.int64), draw])
                inputs = change(inputs, state)
            targets = tf.gather(y, index)
            return (inputs, targets) if weights is None else (inputs, targets, weights)

        dataset = tf.data.Dataset.from_tensor_slices(order).batch(self.size)
        return dataset.enumerate().map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4)

    def _filled(self, index: Any) -> tuple[Any, Any]:
        """Indices filled to a multiple of the replicas, with weights whose mean is 1."""
        from zoo.backend import tf

        real = tf.shape(index)[0]
        filled = -(-real // self.replicas) * self.replicas
        padding = tf.fill([filled - real], index[0])
        weight = tf.cast(filled, tf.float32) / tf.cast(real, tf.float32)
        weights = tf.concat([tf.fill([real], weight), tf.zeros([filled - real])], axis=0)
        return tf.concat([index, padding], axis=0), weights


def has_batch_statistics(model: Any) -> bool:
    """Whether some layer of a model normalises by the statistics of the batch."""
    from zoo.backend import keras

    return any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for layer in model._flatten_layers()
    )
