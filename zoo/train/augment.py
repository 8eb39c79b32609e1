"""Augmentations, one row each: pure functions of a batch and a seed, so that resume repeats them.

Pictures are float32 (batch, height, width, channels) from 0 to 1; a seed is int64 (2,), the state of
the draw. Each picture gets a draw of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Limits of the random affine change: radians, relative scale, share of the side length.
TURN, ZOOM, SHIFT = 0.2, 0.12, 0.09
#: Limits of the single changes: 15 degrees, relative scale; padding of a crop as a share of the side.
ROTATION, SCALE, PADDING = math.radians(15), 0.15, 0.125
#: Parameters of the beta distributions that shares are drawn from.
MIXUP, CUTMIX = 0.2, 1.0
#: RandAugment: so many changes, each of this strength from 0 to 1 (the paper's 9 of 30).
CHANGES, STRENGTH = 2, 0.3


@dataclass(frozen=True)
class Augmentation:
    """One row.

    ``change(images, seed)`` gives pictures of the same shape. Where it ``mixes``, it gives
    ``(images, partner, share)``: each picture is its own by the ``share`` (batch,) and that of row
    ``partner`` (batch,) by the rest; targets are mixed alike.
    """

    name: str
    change: Callable[[Any, Any], Any]
    source: str
    mixes: bool = False


def augment(names: Sequence[str], batch: tuple[Any, Any], state: Callable[[int], Any]) -> Any:
    """A batch (images, targets) after the augmentations ``names``.

    Args:
        batch: where some row mixes, targets must be floats: (batch, classes), or (batch, 1).
        state: gives the seed of the k-th augmentation.
    """
    images, targets = batch
    for k, name in enumerate(names):
        row = AUGMENTATIONS[name]
        if row.mixes:
            from zoo.backend import tf

            images, partner, share = row.change(images, state(k))
            share = share[:, None]
            targets = share * targets + (1 - share) * tf.gather(targets, partner)
        else:
            images = row.change(images, state(k))
    return images, targets


# Geometry -----------------------------------------------------------------------------------------


def _warp(images: Any, matrix: Sequence[Any], shift: Sequence[Any], smooth: bool = True) -> Any:
    """Pictures seen through an affine map about their centre; what comes in from outside is 0.

    Args:
        matrix: (a, b, c, d), each (batch,): output pixel (x, y) shows input (ax + by, cx + dy).
        shift: (right, down) in pixels that are added to it, each (batch,).
    """
    from zoo.backend import tf

    size = tf.shape(images)
    x = (tf.cast(size[2], tf.float32) - 1) / 2
    y = (tf.cast(size[1], tf.float32) - 1) / 2
    a, b, c, d = matrix
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(
            [
                a,
                b,
                x - (a * x + b * y) + shift[0],
                c,
                d,
                y - (c * x + d * y) + shift[1],
                zero,
                zero,
            ],
            axis=1,
        ),
        output_shape=size[1:3],
        fill_value=0.0,
        interpolation="BILINEAR" if smooth else "NEAREST",
        fill_mode="CONSTANT",
    )


def _draw(images: Any, seed: Any, count: int, low: float = -1.0, high: float = 1.0) -> Any:
    """Uniform numbers, float32 (count, batch)."""
    from zoo.backend import tf

    return tf.random.stateless_uniform((count, tf.shape(images)[0]), seed, low, high)


def _other(seed: Any, k: int) -> Any:
    """The seed of another draw of the same augmentation."""
    from zoo.backend import tf

    return tf.stack([seed[0], seed[1] + (k << 40)])


def _sides(images: Any) -> tuple[Any, Any]:
    """Height and width as floats."""
    from zoo.backend import tf

    size = tf.cast(tf.shape(images), tf.float32)
    return size[1], size[2]


def affine(images: Any, seed: Any) -> Any:
    """Turn, scale and shift each picture a little."""
    from zoo.backend import tf

    height, width = _sides(images)
    draw = _draw(images, seed, 4)
    angle, scale = draw[0] * TURN, 1 + draw[1] * ZOOM
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    shift = draw[2] * SHIFT * width, draw[3] * SHIFT * height
    return _warp(images, (cosine, -sine, sine, cosine), shift)


def flip(images: Any, seed: Any) -> Any:
    """Mirror half of the pictures, left to right."""
    from zoo.backend import tf

    mirrored = _draw(images, seed, 1, 0.0)[0] < 0.5
    return tf.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def crop(images: Any, seed: Any) -> Any:
    """Pad each picture with zeros and cut its size out again, at whole pixels."""
    from zoo.backend import tf

    height, width = _sides(images)
    draw = _draw(images, seed, 2)
    shift = [tf.round(d * tf.maximum(1.0, tf.round(PADDING * side)))
             for d, side in ((draw[0], width), (draw[1], height))]  # fmt: skip
    one, zero = tf.ones_like(draw[0]), tf.zeros_like(draw[0])
    return _warp(images, (one, zero, zero, one), shift, smooth=False)


def nudge(images: Any, seed: Any) -> Any:
    """Move each picture by at most one pixel either way."""
    from zoo.backend import tf

    moves = tf.clip_by_value(tf.round(1.5 * _draw(images, seed, 2)), -1.0, 1.0)
    one, zero = tf.ones_like(moves[0]), tf.zeros_like(moves[0])
    return _warp(images, (one, zero, zero, one), (moves[0], moves[1]), smooth=False)


def rotation(images: Any, seed: Any) -> Any:
    """Turn each picture by up to 15 degrees."""
    from zoo.backend import tf

    angle = _draw(images, seed, 1)[0] * ROTATION
    zero = tf.zeros_like(angle)
    return _warp(
        images, (tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)), (zero, zero)
    )


def zoom(images: Any, seed: Any) -> Any:
    """Scale each picture by up to 15 %."""
    from zoo.backend import tf

    scale = 1 + _draw(images, seed, 1)[0] * SCALE
    zero = tf.zeros_like(scale)
    return _warp(images, (scale, zero, zero, scale), (zero, zero))


# Mixing -------------------------------------------------------------------------------------------


def _share(images: Any, seed: Any, alpha: float) -> tuple[Any, Any]:
    """Each row's partner, int64 (batch,), and its own share, Beta(alpha, alpha), float32 (batch,)."""
    from zoo.backend import tf

    rows = tf.shape(images)[0]
    partner = tf.argsort(_draw(images, seed, 1)[0])
    gammas = tf.random.stateless_gamma((2, rows), _other(seed, 1), alpha)
    total = gammas[0] + gammas[1]  # both can underflow to 0 for a small alpha
    return partner, tf.where(total > 0, gammas[0] / tf.maximum(total, 1e-38), 1.0)


def mixup(images: Any, seed: Any) -> tuple[Any, Any, Any]:
    """A weighted mean of each picture and another one of the batch."""
    from zoo.backend import tf

    partner, share = _share(images, seed, MIXUP)
    own = share[:, None, None, None]
    return own * images + (1 - own) * tf.gather(images, partner), partner, share


def cutmix(images: Any, seed: Any) -> tuple[Any, Any, Any]:
    """A box of another picture of the batch in each picture; the share is what remains."""
    from zoo.backend import tf

    partner, share = _share(images, seed, CUTMIX)
    height, width = _sides(images)
    middle = _draw(images, _other(seed, 2), 2, 0.0)
    half = tf.sqrt(1 - share) / 2

    def inside(side: Any, place: Any) -> Any:
        low, high = (tf.round(side * (place - half)), tf.round(side * (place + half)))
        pixels = tf.range(side)[None]
        return (pixels >= low[:, None]) & (pixels < high[:, None])

    box = inside(height, middle[0])[:, :, None] & inside(width, middle[1])[:, None, :]
    mixed = tf.where(box[..., None], tf.gather(images, partner), images)
    return mixed, partner, 1 - tf.reduce_mean(tf.cast(box, tf.float32), axis=(1, 2))


# RandAugment --------------------------------------------------------------------------------------


def _blend(images: Any, other: Any, factor: Any) -> Any:
    """``other`` at factor 0, the pictures at 1, beyond them above it: factor (batch,)."""
    from zoo.backend import tf

    return tf.clip_by_value(other + factor[:, None, None, None] * (images - other), 0.0, 1.0)


def _grey(images: Any) -> Any:
    """Luminance, (batch, height, width, 1); the mean of channels that are not red, green, blue."""
    from zoo.backend import tf

    if images.shape[-1] == 3:
        return tf.tensordot(images, tf.constant([[0.299], [0.587], [0.114]]), 1)
    return tf.reduce_mean(images, axis=-1, keepdims=True)


def _autocontrast(images: Any) -> Any:
    from zoo.backend import tf

    low = tf.reduce_min(images, (1, 2), keepdims=True)
    span = tf.reduce_max(images, (1, 2), keepdims=True) - low
    return tf.where(span > 0, (images - low) / tf.maximum(span, 1e-6), images)


def _equalize(images: Any) -> Any:
    """Each channel's values replaced by their rank, from 0 to 1."""
    from zoo.backend import tf

    size = tf.shape(images)
    flat = tf.reshape(tf.transpose(images, (0, 3, 1, 2)), (size[0] * size[3], size[1] * size[2]))
    ordered = tf.sort(flat, axis=1)
    upto = tf.cast(tf.searchsorted(ordered, flat, side="right"), tf.float32)
    lowest = tf.cast(tf.searchsorted(ordered, ordered[:, :1], side="right"), tf.float32)
    pixels = tf.cast(size[1] * size[2], tf.float32)
    ranks = (upto - lowest) / tf.maximum(pixels - lowest, 1.0)
    ranks = tf.where(lowest < pixels, ranks, flat)  # one value all over stays as it is
    return tf.transpose(tf.reshape(ranks, (size[0], size[3], size[1], size[2])), (0, 2, 3, 1))


def _smooth(images: Any) -> Any:
    """Each pixel as a mean of its 3 x 3 neighbours, the middle five times; the border as it was."""
    from zoo.backend import tf

    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    channels = images.shape[-1]
    filters = tf.tile(kernel[:, :, None, None], (1, 1, channels, 1))
    inner = tf.nn.depthwise_conv2d(images, filters, (1, 1, 1, 1), "VALID")
    edge = tf.pad(tf.ones_like(inner), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return tf.where(edge > 0, tf.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0))), images)


def _photometric(images: Any, factor: Any) -> list[Any]:
    """The changes of colour, each of the same strength; ``factor`` (batch,) is about 1."""
    from zoo.backend import tf

    mean = tf.reduce_mean(_grey(images), (1, 2), keepdims=True)
    bits = 2.0 ** (8 - round(4 * STRENGTH))
    return [
        images,
        _autocontrast(images),
        _equalize(images),
        tf.where(images < 1 - STRENGTH, images, 1 - images),  # solarize
        tf.floor(images * (bits - 1e-3)) / (bits - 1),  # posterize
        _blend(images, _grey(images), factor),  # colour
        _blend(images, mean + tf.zeros_like(images), factor),  # contrast
        _blend(images, tf.zeros_like(images), factor),  # brightness
        _blend(images, _smooth(images), factor),  # sharpness
    ]


#: Changes of place among RandAugment's: turn, two shears, two shifts.
_PLACES = 5


def randaugment(images: Any, seed: Any) -> Any:
    """:data:`CHANGES` of the paper's 14 changes in a row, drawn for each picture."""
    from zoo.backend import tf

    for turn in range(CHANGES):
        draw = _draw(images, _other(seed, turn), 2)
        sign = tf.sign(draw[0])
        colours = _photometric(images, 1 + sign * 0.9 * STRENGTH)
        kinds = len(colours) + _PLACES
        kind = tf.cast(tf.floor((draw[1] + 1) / 2 * kinds), tf.int32)
        places = tf.one_hot(kind - len(colours), _PLACES) * sign[:, None]  # 0, or -1 or 1
        angle = places[:, 0] * STRENGTH * math.radians(30)
        across, down = places[:, 1] * STRENGTH * 0.3, places[:, 2] * STRENGTH * 0.3
        height, width = _sides(images)
        moved = _warp(
            images,
            (tf.cos(angle), -tf.sin(angle) + across, tf.sin(angle) + down, tf.cos(angle)),
            (places[:, 3] * STRENGTH * 0.45 * width, places[:, 4] * STRENGTH * 0.45 * height),
        )
        chosen = tf.zeros_like(images)
        for k, changed in enumerate(colours):
            chosen = tf.where((kind == k)[:, None, None, None], changed, chosen)
        images = tf.where((kind >= len(colours))[:, None, None, None], moved, chosen)
    return images


AUGMENTATIONS: dict[str, Augmentation] = {
    row.name: row
    for row in (
        Augmentation("affine", affine, "Simard, Steinkraus & Platt, ICDAR 2003"),
        Augmentation("flip", flip, "Krizhevsky, Sutskever & Hinton, NeurIPS 2012"),
        Augmentation("nudge", nudge, "Simard, Steinkraus & Platt, ICDAR 2003"),
        Augmentation("crop", crop, "He et al., CVPR 2016, section 4.2: 4 pixels of 32"),
        Augmentation("rotation", rotation, "Simard, Steinkraus & Platt, ICDAR 2003"),
        Augmentation("zoom", zoom, "Simard, Steinkraus & Platt, ICDAR 2003"),
        Augmentation("mixup", mixup, "Zhang et al., ICLR 2018", mixes=True),
        Augmentation("cutmix", cutmix, "Yun et al., ICCV 2019", mixes=True),
        Augmentation("randaugment", randaugment, "Cubuk et al., NeurIPS 2020"),
    )
}


def binary(plan: Mapping[str, Any]) -> Callable[..., tuple[Any, Any, Any]]:
    """Pixels that are 1 with the probability of their brightness, drawn anew in every step.

    Salakhutdinov & Murray, ICML 2008.
    """

    def draw(x: Any, y: Any, weights: Any, state: Any) -> tuple[Any, Any, Any]:
        from zoo.backend import tf

        bits = tf.cast(tf.random.stateless_uniform(tf.shape(x), state) < x, tf.float32)
        return bits, tf.reshape(bits, tf.shape(y)), weights

    return draw
