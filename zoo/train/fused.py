"""Faster kernels for what Keras makes of many operations, in the step that is compiled here.

A step of a small net is mostly element-wise operations, each of which reads and writes whole tensors.
The kernels compute the same numbers up to rounding, with fewer of them:

- batch normalisation (Ioffe & Szegedy, ICML 2015, algorithm 1) is one operation and its gradient;
- Adam's update (Kingma & Ba, ICLR 2015, section 2's last paragraph) is one for each variable, and so is
  its decay of weights (Loshchilov & Hutter, ICLR 2019);
- layer normalisation (Ba, Kiros & Hinton, 2016) and GELU's tanh form (Hendrycks & Gimpel, 2016) have
  their gradients in closed form;
- a masked softmax adds and multiplies, where Keras chooses between tensors that it broadcasts;
- dropout multiplies by its mask, and draws 16 random bits for each number instead of 32: other numbers
  are left out than Keras would, as many, and the rate is exact to 1 / 65,536.
"""

from __future__ import annotations

import contextlib
import math
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
        (keras.layers.LayerNormalization, "call", _layer_normalization),
        (keras.layers.Softmax, "call", _softmax),
        (tf.nn, "gelu", _gelu),  # which Keras calls
        (tf.nn.experimental, "stateless_dropout", _dropout),  # which Keras calls, too
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
        # The kernel keeps the variance of the batch times this; a single row has none.
        unbiased = rows / tf.maximum(rows - 1, 1)
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


def _plain(optimizer: Any) -> bool:
    """Whether an Adam updates as Adam does: another class's update is its own."""
    from zoo.backend import keras

    return type(optimizer).update_step is keras.optimizers.Adam.update_step


def _adam(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``Adam._backend_update_step`` by the kernel, variable by variable, with the decay of weights.

    What the kernel does not compute is left to ``Adam.update_step``.
    """
    from zoo.backend import tf

    def update(self: Any, gradients: Any, variables: Any, learning_rate: Any) -> None:
        if not _plain(self):
            return usual(self, gradients, variables, learning_rate)
        rate = tf.cast(learning_rate, tf.float32)
        step = tf.cast(self.iterations + 1, tf.float32)
        powers = {f"beta{k}_power": tf.pow(beta, step)
                  for k, beta in ((1, self.beta_1), (2, self.beta_2))}  # fmt: skip
        decay = None if self.weight_decay is None else rate * self.weight_decay
        for gradient, variable in zip(gradients, variables, strict=True):
            single = variable.dtype == "float32"
            if single and decay is not None and self._use_weight_decay(variable.value):
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
        return None

    return update


def _decay(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``Adam._apply_weight_decay`` of those variables that :func:`_adam` leaves to it."""

    def decay(self: Any, variables: Any) -> None:
        left = [v for v in variables if v.dtype != "float32"] if _plain(self) else variables
        usual(self, left)

    return decay


def _layer_normalization(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``LayerNormalization.call`` over the last axis, ``usual`` for others."""
    from zoo.backend import tf

    def normalised(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any]:
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        scale = tf.math.rsqrt(variance + epsilon)
        normal = centred * scale

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            through = upstream * gamma
            along = normal * tf.reduce_mean(through * normal, -1, keepdims=True)
            of_x = scale * (through - tf.reduce_mean(through, -1, keepdims=True) - along)
            of_gamma = tf.raw_ops.BiasAddGrad(out_backprop=upstream * normal)
            return of_x, of_gamma, tf.raw_ops.BiasAddGrad(out_backprop=upstream)

        return tf.nn.bias_add(normal * gamma, beta), gradient

    def call(self: Any, inputs: Any) -> Any:
        last = len(inputs.shape) - 1
        axis = [self.axis] if isinstance(self.axis, int) else [*self.axis]
        plain = (
            inputs.dtype == tf.float32
            and self.compute_dtype == "float32"
            and last > 0
            and not self.rms_scaling
            and axis in ([-1], [last])
            and self.gamma is not None
            and self.beta is not None
        )
        if not plain:
            return usual(self, inputs)
        run = tf.custom_gradient(lambda x, gamma, beta: normalised(x, gamma, beta, self.epsilon))
        return run(inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta))

    return call


def _softmax(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``Softmax.call`` with a mask by a sum and a product, ``usual`` without one."""
    from zoo.backend import tf

    def call(self: Any, inputs: Any, mask: Any = None) -> Any:
        axis = [self.axis] if isinstance(self.axis, int) else [*self.axis]
        plain = mask is not None and inputs.dtype == tf.float32
        if not plain or axis not in ([-1], [len(inputs.shape) - 1]):
            return usual(self, inputs, mask=mask)
        mask = tf.convert_to_tensor(mask)
        if mask.dtype != tf.bool:
            mask = tf.cast(mask, tf.float32) > 0.5  # as Keras reads numbers
        there = tf.cast(mask, tf.float32)
        return tf.nn.softmax(inputs + (there - 1) * 1e9) * there

    return call


def _gelu(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``tf.nn.gelu`` in its tanh form, ``usual`` for the exact one."""
    from zoo.backend import tf

    slope, cubic = math.sqrt(2 / math.pi), 0.044715

    @tf.custom_gradient
    def bent(x: Any) -> tuple[Any, Any]:
        square = x * x
        tanh = tf.tanh(x * (slope + slope * cubic * square))
        share = 0.5 + 0.5 * tanh

        def gradient(upstream: Any) -> Any:
            inner = slope / 2 + 1.5 * slope * cubic * square
            return upstream * (share + x * tf.raw_ops.TanhGrad(y=tanh, dy=inner))

        return x * share, gradient

    def gelu(features: Any, approximate: bool = False, name: Any = None) -> Any:
        features = tf.convert_to_tensor(features)
        if not approximate or features.dtype != tf.float32:
            return usual(features, approximate, name)
        return bent(features)

    return gelu


def _dropout(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``tf.nn.experimental.stateless_dropout`` by a product, ``usual`` for other numbers."""
    from zoo.backend import tf

    def dropout(x: Any, rate: Any, seed: Any, noise_shape: Any = None, **options: Any) -> Any:
        x = tf.convert_to_tensor(x)
        least = round(rate * 2**16) if isinstance(rate, float) else 0
        if x.dtype != tf.float32 or options or not 0 < least < 2**16:
            return usual(x, rate, seed, noise_shape=noise_shape, **options)
        shape = tf.shape(x) if noise_shape is None else noise_shape
        count = tf.reduce_prod(shape)
        words = tf.random.stateless_uniform(
            [(count + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32
        )
        bits = tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:count]
        kept = tf.reshape(bits >= tf.constant(least, tf.uint16), shape)
        return x * (tf.cast(kept, tf.float32) * (2**16 / (2**16 - least)))

    return dropout
