"""Faster kernels for batch normalisation, AdamW and dropout, in the step that is compiled here.

Keras makes the statistics of a batch, the normalisation and their gradients of a dozen element-wise
operations, each of which reads and writes the whole tensor; a residual network spends a fifth of its
step on that. Adam's update is a dozen more for each variable. The kernels compute the same numbers
(Ioffe & Szegedy, ICML 2015, algorithm 1; Kingma & Ba, ICLR 2015, section 2's last paragraph), up to
rounding. Dropout chooses between values and zeros by an operation that broadcasts, which is slow; a
product with the mask gives the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


def fusible(layer: Any, inputs: Any, mask: Any) -> bool:
    """Whether the kernel computes what a ``BatchNormalization`` layer does in training."""
    return (
        layer.trainable
        and mask is None
        and layer.compute_dtype == "float32"
        and not layer.synchronized
        and not layer.renorm
        and len(inputs.shape) == 4
        and layer.axis in (-1, 3)
    )


@contextlib.contextmanager
def fused_kernels() -> Iterator[None]:
    """While it is open, what is traced of a training step on one device uses them where they serve."""
    from zoo.backend import keras, tf

    places = (
        (keras.layers.BatchNormalization, "call", _normalization),
        (keras.optimizers.Adam, "_backend_update_step", _adam),
        (keras.optimizers.Adam, "_apply_weight_decay", _decay),
        (tf.nn.experimental, "stateless_dropout", _dropout),  # which Keras calls
    )
    usual = [getattr(place, name) for place, name, _ in places]
    for (place, name, exchange), found in zip(places, usual, strict=True):
        setattr(place, name, exchange(found))
    try:
        yield
    finally:
        for (place, name, _), found in zip(places, usual, strict=True):
            setattr(place, name, found)


def _normalization(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``BatchNormalization.call`` by the kernel, ``usual`` where that computes something else."""
    from zoo.backend import keras, tf

    def call(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training or not fusible(self, inputs, mask):
            return usual(self, inputs, training=training, mask=mask)
        ops = keras.ops
        x, channels = ops.cast(inputs, "float32"), (inputs.shape[-1],)
        scale = self.gamma if self.scale else ops.ones(channels)
        offset = self.beta if self.center else ops.zeros(channels)
        rows = tf.cast(tf.size(x) // channels[0], tf.float32)
        unbiased = rows / (rows - 1)  # times the variance of the batch, is what the kernel keeps
        normal, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=ops.cast(scale, "float32"),
            offset=ops.cast(offset, "float32"),
            mean=ops.cast(self.moving_mean, "float32"),
            variance=ops.cast(self.moving_variance, "float32") * unbiased,
            epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum,
            is_training=True,
        )
        self.moving_mean.assign(ops.cast(mean, self.moving_mean.dtype))
        self.moving_variance.assign(ops.cast(variance / unbiased, self.moving_variance.dtype))
        return ops.cast(normal, self.compute_dtype)

    return call


def _adam(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``Adam._backend_update_step`` by the kernel, variable by variable, with the decay of weights.

    What the kernel does not compute is left to ``Adam.update_step``.
    """
    from zoo.backend import tf

    def update(self: Any, gradients: Any, variables: Any, learning_rate: Any) -> None:
        rate = tf.cast(learning_rate, tf.float32)
        step = tf.cast(self.iterations + 1, tf.float32)
        powers = {f"beta{k}_power": tf.pow(beta, step)
                  for k, beta in ((1, self.beta_1), (2, self.beta_2))}  # fmt: skip
        decay = None if self.weight_decay is None else rate * self.weight_decay
        for gradient, variable in zip(gradients, variables, strict=True):
            single = variable.dtype == "float32"
            if single and decay is not None and self._use_weight_decay(variable):
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=variable.handle, alpha=decay, delta=variable.value
                )
            # Of a sparse gradient, Keras squares a row's parts, not their sum.
            if self.amsgrad or isinstance(gradient, tf.IndexedSlices) or not single:
                self.update_step(gradient, variable, learning_rate)
                continue
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                **powers,
                lr=rate,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )

    return update


def _decay(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``Adam._apply_weight_decay`` of those variables that :func:`_adam` leaves to it."""

    def decay(self: Any, variables: Any) -> None:
        usual(self, [variable for variable in variables if variable.dtype != "float32"])

    return decay


def _dropout(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``tf.nn.experimental.stateless_dropout`` by a product, ``usual`` for other numbers."""
    from zoo.backend import tf

    def dropout(x: Any, rate: Any, seed: Any, noise_shape: Any = None, **options: Any) -> Any:
        x = tf.convert_to_tensor(x)
        if x.dtype != tf.float32 or options:
            return usual(x, rate, seed, noise_shape=noise_shape, **options)
        shape = tf.shape(x) if noise_shape is None else noise_shape
        kept = tf.random.stateless_uniform(shape, seed) >= rate
        return x * (tf.cast(kept, tf.float32) * (1 / (1 - rate)))

    return dropout
