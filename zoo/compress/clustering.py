"""Weight clustering of Keras 3 models with TF-MOT's centroids and gradients.

Each kernel shares a few values: its centroids, which are trained. The forward pass sees each weight's
nearest centroid; the gradient goes to the centroids, summed or averaged over their members, and
straight through to the weights, which decide anew which centroid is nearest (Han, Mao & Dally, "Deep
Compression", ICLR 2016; Cho et al., DKM, ICLR 2022, for training the assignment).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.compress.mot import mot
from zoo.compress.pruning import Masks, kept
from zoo.kernels import Kernel, kernels
from zoo.overrides import Attached, override, reading, restore

#: name -> TF-MOT's way to choose the first centroids.
INITIAL = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "linear": "LINEAR",
    "density": "DENSITY_BASED",
    "random": "RANDOM",
}
AGGREGATION = {"sum": "SUM", "mean": "AVG"}
#: A kernel with at most so many values, and so many weights for each, counts as clustered.
MOST_VALUES, WEIGHTS_PER_VALUE = 256, 4


@dataclass
class Clustered:
    """One kernel under clustering: TF-MOT's algorithm, and the centroids as a Keras variable."""

    of: Kernel
    algorithm: Any
    centroids: Any
    attribute: str  # where the layer holds the centroids meanwhile

    def values(self, weights: Any) -> Any:
        """Weights -> their nearest centroids, with TF-MOT's gradients."""
        from zoo.backend import tf

        @tf.custom_gradient
        def densely(values: Any) -> Any:  # Adam would square the members' slices one by one
            return tf.identity(values), tf.convert_to_tensor

        weights = tf.convert_to_tensor(weights)
        dtype = tf.float64 if weights.dtype == tf.float64 else tf.float32
        centroids = tf.cast(self.centroids.value, dtype)
        self.algorithm.cluster_centroids = densely(centroids)
        indices = nearest(tf.cast(weights, dtype), centroids)
        found = self.algorithm.get_clustered_weight(indices, tf.cast(weights, dtype))
        return tf.cast(found, weights.dtype)


def nearest(weights: Any, centroids: Any) -> Any:
    """Index of each weight's nearest centroid, int32 in the weights' shape.

    TF-MOT's own compares every weight with every centroid at once: memory for as many numbers as
    their product, in each step.
    """
    from zoo.backend import tf

    order = tf.argsort(centroids)
    ordered = tf.gather(centroids, order)
    between = (ordered[1:] + ordered[:-1]) / 2
    place = tf.searchsorted(between, tf.reshape(weights, [-1]))
    return tf.reshape(tf.gather(order, place), tf.shape(weights))


class Clusterer(Attached):
    """Holds kernels to a few shared values while a model trains; see :func:`cluster`."""

    def __init__(
        self, model: Any, chosen: Sequence[Kernel], first: Sequence[np.ndarray], aggregation: str
    ) -> None:
        from zoo.backend import tf

        super().__init__(model)
        algorithms = mot("clustering.keras.clustering_algorithm")
        config = mot("clustering.keras.cluster_config")
        self._stack = ExitStack()
        masks = self._stack.enter_context(Masks(model, chosen))  # a pruned kernel keeps its zeros
        masks.apply([tf.not_equal(m.kernel.value, 0) for m in masks.kernels])
        self.kernels: list[Clustered] = []
        for kernel, centroids in zip(chosen, first, strict=True):
            attribute = f"zoo_{kernel.attribute}_centroids"
            variable = _attach(kernel, attribute, centroids)
            algorithm = algorithms.ClusteringAlgorithm(
                variable.value, getattr(config.GradientAggregation, AGGREGATION[aggregation])
            )
            made = Clustered(kernel, algorithm, variable, attribute)
            self.kernels.append(made)
            override(
                kernel.layer,
                {kernel.attribute: reading(kernel.layer, kernel.attribute, made.values)},
            )

    def _release(self) -> None:
        """Give the layers their own weights back, each at its centroid's value."""
        for made in reversed(self.kernels):
            restore(made.of.layer)
            made.of.variable.assign(made.values(made.of.variable.value))
            _detach(made.of, made.attribute)
        self.kernels = []
        self._stack.close()


def cluster(
    model: Any,
    number: int,
    *,
    layers: Sequence[str] | str | None = None,
    initial: str = "kmeans++",
    aggregation: str = "sum",
) -> Clusterer:
    """Train a Keras 3 model on with at most ``number`` different values in each kernel.

    Args:
        model: a built Keras 3 model.
        number: values a kernel, 2 to 256. Zeros of a pruned kernel stay zero: one of the values is
            then 0, and the others are shared out to negative and positive weights.
        layers: which kernels, as :func:`zoo.compress.kernels` takes them.
        initial: the first centroids: ``kmeans++``, ``linear``, ``density`` or ``random``.
        aggregation: a centroid's gradient is the ``sum`` or the ``mean`` of its members'.

    Compile after this call, fit, then leave the ``with`` block or call ``release()``::

        >>> import numpy as np, keras
        >>> from zoo.compress import cluster
        >>> x = np.random.default_rng(0).normal(size=(64, 40)).astype("float32")
        >>> model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(64), keras.layers.Dense(1)])
        >>> with cluster(model, 8):
        ...     model.compile("adam", "mse")
        ...     _ = model.fit(x, x[:, 0], batch_size=16, verbose=0)
        >>> len(np.unique(model.layers[0].get_weights()[0])) <= 8
        True

    Returns the handle. Raises ``ValueError`` for a wrong argument or a model without kernels.
    """
    if not 2 <= number <= MOST_VALUES:
        raise ValueError(f"expected 2 to {MOST_VALUES} values, received {number}")
    for what, value, table in (
        ("initial", initial, INITIAL),
        ("aggregation", aggregation, AGGREGATION),
    ):
        if value not in table:
            raise ValueError(f"expected {what} to be one of {', '.join(table)}, received {value!r}")
    chosen = kernels(model, layers)
    first = [_first(kernel, number, INITIAL[initial]) for kernel in chosen]
    return Clusterer(model, chosen, first, aggregation)


def keep_clusters(model: Any) -> Clusterer:
    """Let each kernel that is clustered already train on with the number of values it has.

    For a clustered model under :func:`~zoo.compress.quantize_aware`, which comes after it and is
    released before; :func:`zoo.compress.quantizing.snap` then rounds what is at its centroids to the
    grid. Does nothing to kernels with many values. Returns the handle.
    """
    chosen, first = [], []
    for kernel in kernels(model, "all"):
        values = np.unique(np.asarray(kernel.variable))
        if len(values) <= MOST_VALUES and kernel.size >= WEIGHTS_PER_VALUE * len(values):
            chosen.append(kernel)
            first.append(values)
    return Clusterer(model, chosen, first, "sum")


def _first(kernel: Kernel, number: int, initial: str) -> np.ndarray:
    """TF-MOT's first centroids, float32 (number,), sorted; one is 0 for a kernel with zeros.

    A kernel that has no more than so many values keeps those it has.
    """
    from zoo.backend import tf

    weights = tf.cast(kernel.variable.value, tf.float32)
    own = np.unique(np.asarray(weights))
    if len(own) <= number:
        return own

    centroids = mot("clustering.keras.clustering_centroids")
    config = mot("clustering.keras.cluster_config")
    make = centroids.CentroidsInitializerFactory.get_centroid_initializer(
        getattr(config.CentroidInitialization, initial)
    )
    made = make(weights, number, preserve_sparsity=bool(np.any(own == 0))).get_cluster_centroids()
    return np.sort(np.asarray(made, dtype=np.float32))


def _attach(kernel: Kernel, attribute: str, centroids: np.ndarray) -> Any:
    """The centroids as a trainable variable of the layer; one that is 0 stays 0."""
    from zoo.backend import keras, tf

    free = tf.constant(centroids != 0)

    class KeepZero(keras.constraints.Constraint):
        def __call__(self, values: Any) -> Any:
            return kept(values, free)

    variable = keras.Variable(
        centroids,
        trainable=kernel.variable.trainable,
        dtype=kernel.variable.dtype,
        name=attribute,
    )
    variable.constraint = KeepZero()
    layer = kernel.layer
    layer._tracker.unlock()  # as Keras' own LoRA does it
    setattr(layer, attribute, variable)
    layer._tracker.lock()
    return variable


def _detach(kernel: Kernel, attribute: str) -> None:
    layer = kernel.layer
    layer._tracker.unlock()
    delattr(layer, attribute)
    layer._tracker.lock()
