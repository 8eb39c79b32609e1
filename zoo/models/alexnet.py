"""AlexNet in its one-column form (Krizhevsky, arXiv:1404.5997, 2014).

Krizhevsky, Sutskever & Hinton, NeurIPS 2012, without the split over two GPUs and without local
response normalisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras

#: Pictures with a shorter side than this would be used up by the first, strided convolution.
SMALL = 64


def build_alexnet(
    shape: tuple[int, int, int],
    outputs: int,
    filters: tuple[int, ...] = (64, 192, 384, 256, 256),
    dense: int = 4096,
    dropout: float = 0.5,
) -> keras.Model:
    """Pictures from 0 to 1, float32 (batch, height, width, channels) -> logits (batch, outputs)."""
    from zoo.backend import keras

    layers = keras.layers
    small = min(shape[:2]) < SMALL
    inputs = keras.Input(tuple(shape), name="image")
    x = inputs if small else layers.ZeroPadding2D(2, name="pad")(inputs)
    kernels = ((3, 1, "same"), (3, 1, "same")) if small else ((11, 4, "valid"), (5, 1, "same"))
    for number, width in enumerate(filters, start=1):
        size, stride, padding = (*kernels, *((3, 1, "same"),) * 3)[number - 1]
        x = layers.Conv2D(
            width, size, stride, padding=padding, activation="relu", name=f"conv_{number}",
            kernel_initializer="he_normal",
        )(x)  # fmt: skip
        if number in (1, 2, 5):
            pool = 2 if small else 3
            x = layers.MaxPooling2D(pool, 2, name=f"pool_{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = layers.Dropout(dropout, name=f"dropout_{number}")(x)
        x = layers.Dense(
            dense, activation="relu", kernel_initializer="he_normal", name=f"dense_{number}"
        )(x)
    return keras.Model(inputs, layers.Dense(outputs, name="logits")(x), name="alexnet")


SPECS = [
    ModelSpec(
        name="alexnet",
        version="1.0",
        family="alexnet",
        task="multiclass",
        tasks=("binary", "regression"),
        kinds=("image",),
        build=build_alexnet,
        config={"shape": (224, 224, 3), "outputs": 1000, "filters": (64, 192, 384, 256, 256),
                "dense": 4096, "dropout": 0.5},
        tiny={"shape": (16, 16, 1), "outputs": 3, "filters": (4, 6, 6, 6, 6), "dense": 16},
        data="mnist_5k",
        published="56.52 % top-1 accuracy on ImageNet (torchvision)",
        train={"epochs": 10, "batch_size": 64, "learning_rate": 3e-4, "weight_decay": 1e-3,
               "augment": ("affine",), "keep": "last"},
        source="Krizhevsky, Sutskever & Hinton, NeurIPS 2012; Krizhevsky, arXiv:1404.5997, 2014",
        license="Apache-2.0",
        params=61_100_840,
        tags=("image",),
    )
]  # fmt: skip
