"""Augmentations, one row each: pure functions of a batch and a seed, so that resume repeats them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Limits of the random affine change: radians, relative scale, share of the side length.
TURN, ZOOM, SHIFT = 0.2, 0.12, 0.09


def affine(images: Any, seed: Any) -> Any:
    """Turn, scale and shift each picture a little (Simard, Steinkraus & Platt, ICDAR 2003).

    Args:
        images: float32 (batch, height, width, channels). seed: int64 (2,), the state of the draw.
    Returns the same shape; what comes in from outside is 0.
    """
    from zoo.backend import tf

    size = tf.shape(images)
    height, width = tf.cast(size[1], tf.float32), tf.cast(size[2], tf.float32)
    draw = tf.random.stateless_uniform((4, size[0]), seed, -1.0, 1.0)
    angle, scale = draw[0] * TURN, 1 + draw[1] * ZOOM
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(angle)
    transforms = tf.stack(
        [
            cosine, -sine, x - (cosine * x - sine * y) + draw[2] * SHIFT * width,
            sine, cosine, y - (sine * x + cosine * y) + draw[3] * SHIFT * height,
            zero, zero,
        ],
        axis=1,
    )  # fmt: skip
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=size[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


AUGMENTATIONS: dict[str, Callable[[Any, Any], Any]] = {"affine": affine}
