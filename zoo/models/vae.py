"""Variational autoencoders of binary pictures (Kingma & Welling, ICLR 2014; Rezende et al., ICML 2014).

A model's output is one tensor, ``[logits of the pixels | means | log variances]``, from which the
evidence lower bound of a picture follows: see :class:`zoo.tasks.Task` ``generative``.
"""

from __future__ import annotations

import functools
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras

#: Rows of the fixed noise, and the seed it is drawn with: the same in every model and artefact.
NOISE_ROWS, NOISE_SEED = 1024, 20_140_416


@functools.cache
def _layers() -> tuple[Any, Any]:
    """The two layers that Keras has not; made on first use, so that `zoo list` stays instant."""
    from zoo.backend import keras

    ops = keras.ops

    class Latent(keras.layers.Layer):
        """A draw from N(mean, variance): float32 (batch, latents).

        In training the noise is new in every step. Otherwise it is a row of a fixed table of normal
        numbers, chosen by the picture's own bits: an artefact must answer the same picture alike, and
        a single draw is what makes the bound an honest estimate. The row is the sum of a fixed whole
        number for each pixel that is on, modulo the table's rows, in whole numbers that no number
        format rounds. Training never sees the table.
        """

        def __init__(self, latents: int, pixels: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            rng = np.random.default_rng(NOISE_SEED)
            self.table = rng.standard_normal((NOISE_ROWS, latents)).astype(np.float32)
            self.keys = rng.integers(1, NOISE_ROWS, pixels).astype(np.int32)
            self.generator = keras.random.SeedGenerator()

        def call(self, mean: Any, log_variance: Any, pictures: Any, training: bool = False) -> Any:
            if training:
                noise = keras.random.normal(ops.shape(mean), dtype="float32", seed=self.generator)
            else:
                bits = ops.reshape(ops.cast(pictures > 0.5, "int32"), (-1, len(self.keys)))
                row = ops.mod(ops.sum(bits * self.keys, axis=1), NOISE_ROWS)
                noise = ops.take(ops.convert_to_tensor(self.table), row, axis=0)
            spread = ops.exp(0.5 * ops.cast(log_variance, "float32"))  # too large for float16 soon
            return ops.cast(ops.cast(mean, "float32") + spread * noise, self.compute_dtype)

    class ScaledGradient(keras.layers.Layer):
        """What came in, unchanged; in training its gradient is ``factor`` times as large.

        On the way from the code to the loss this weighs the divergence by beta, while the loss that
        is shown, kept by and judged by stays the bound itself.
        """

        def __init__(self, factor: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training or self.factor == 1.0:
                return inputs
            return ops.stop_gradient(inputs * (1.0 - self.factor)) + inputs * self.factor

    return Latent, ScaledGradient


def build(
    convolutional: bool,
    shape: tuple[int, int, int],
    latents: int = 32,
    width: int = 512,
    dropout: float = 0.0,
    beta: float = 1.0,
) -> keras.Model:
    """Binary pictures, float32 (batch, h, w, c) -> float32 (batch, h * w * c + 2 * latents).

    Args:
        convolutional: convolutions of stride 2 and back, with ``width`` filters in the middle;
            otherwise two dense layers of ``width`` either way.
        latents: dimensions of the code. dropout: within encoder and decoder, in training.
        beta: weight of the divergence in training (Higgins et al., ICLR 2017).
    """
    from zoo.backend import keras

    layers, (latent, scaled) = keras.layers, _layers()
    pixels = math.prod(shape)
    pictures = keras.Input(tuple(shape), name="pictures")
    encode, decode = (_convolutional if convolutional else _dense)(shape, width, dropout)
    x = encode(pictures)
    mean = layers.Dense(latents, name="mean")(x)
    log_variance = layers.Dense(latents, name="log_variance")(x)
    code = latent(latents, pixels, name="code")(mean, log_variance, pictures)
    logits = layers.Reshape((pixels,), name="logits")(decode(code))
    told = [scaled(beta, name=f"{name}_told")(tensor)
            for name, tensor in (("mean", mean), ("log_variance", log_variance))]  # fmt: skip
    return keras.Model(pictures, layers.Concatenate(name="bound")([logits, *told]), name="vae")


def _dense(shape: tuple[int, int, int], width: int, dropout: float) -> tuple[Any, Any]:
    from zoo.backend import keras

    layers = keras.layers

    def encode(x: Any) -> Any:
        x = layers.Flatten(name="flat")(x)
        for k in (1, 2):
            x = layers.Dense(width, "swish", name=f"encode_{k}")(x)
            x = layers.Dropout(dropout, name=f"encode_drop_{k}")(x)
        return x

    def decode(x: Any) -> Any:
        for k in (1, 2):
            x = layers.Dense(width, "swish", name=f"decode_{k}")(x)
            x = layers.Dropout(dropout, name=f"decode_drop_{k}")(x)
        return layers.Dense(math.prod(shape), name="pixels")(x)

    return encode, decode


def _convolutional(shape: tuple[int, int, int], width: int, dropout: float) -> tuple[Any, Any]:
    from zoo.backend import keras

    layers = keras.layers
    height, wide = (-(-side // 4) for side in shape[:2])  # after two strides of 2
    conv = {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "swish"}

    def encode(x: Any) -> Any:
        x = layers.Conv2D(width // 2, name="encode_1", **conv)(x)
        x = layers.Conv2D(width, name="encode_2", **conv)(x)
        x = layers.Dropout(dropout, name="encode_drop")(layers.Flatten(name="flat")(x))
        return layers.Dense(4 * width, "swish", name="encode_3")(x)

    def decode(x: Any) -> Any:
        x = layers.Dense(4 * width, "swish", name="decode_1")(x)
        x = layers.Dropout(dropout, name="decode_drop")(x)
        x = layers.Dense(height * wide * width, "swish", name="decode_2")(x)
        x = layers.Reshape((height, wide, width), name="grid")(x)
        x = layers.Conv2DTranspose(width // 2, name="decode_3", **conv)(x)
        x = layers.Conv2DTranspose(width // 2, name="decode_4", **conv)(x)
        spare = (4 * height - shape[0], 4 * wide - shape[1])
        if any(spare):  # sides that 4 does not divide
            x = layers.Cropping2D(((0, spare[0]), (0, spare[1])), name="crop")(x)
        return layers.Conv2D(shape[2], 3, padding="same", name="pixels")(x)

    return encode, decode


def _spec(name: str, convolutional: bool, source: str, params: int, **more: Any) -> ModelSpec:
    config, tiny = more.pop("config"), more.pop("tiny")
    return ModelSpec(
        name=name,
        version="1.0",
        family="vae",
        task="generative",
        kinds=("image",),
        build=partial(build, convolutional),
        config={"shape": (28, 28, 1), "latents": 32, "width": 512, "dropout": 0.0, "beta": 1.0, **config},
        tiny={"shape": (6, 7, 1), "latents": 3, "width": 8, **tiny},
        data="mnist_5k",
        source=source,
        license="Apache-2.0",
        params=params,
        skips={"int16x8": "LiteRT's int16 calibration gives up on the whole numbers that choose the "
               "noise; int8 converts"},
        tags=("picture",),
        **more,
    )  # fmt: skip


#: Pixels that move by one either way are what keeps 3,400 pictures from being learnt by heart.
_TRAIN = {"epochs": 60, "learning_rate": 3e-3, "augment": ("nudge",)}

SPECS = [
    _spec("vae", False, "Kingma & Welling, ICLR 2014", 1379152, config={}, tiny={},
          published="no figure on this data", train=_TRAIN,
          target=Target("elbo", -105.0)),
    _spec("conv_vae", True, "Kingma & Welling, ICLR 2014; Salimans, Kingma & Welling, ICML 2015",
          427473, config={"width": 32}, tiny={"width": 4}, published="no figure on this data",
          train={**_TRAIN, "epochs": 30}),
    _spec("beta_vae", False, "Higgins et al., ICLR 2017", 1379152, config={"beta": 4.0}, tiny={},
          published="no figure on this data", train=_TRAIN),
]  # fmt: skip
