"""The classic small convolutional classifier: Conv-Pool-Conv-Pool-Conv-Dense.

LeCun et al., Proceedings of the IEEE 86(11), 1998, with ReLU and dropout, trained on pictures that
are slightly turned, shifted and scaled (Simard, Steinkraus & Platt, ICDAR 2003).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras


def build_cnn(
    shape: tuple[int, int, int],
    outputs: int,
    filters: tuple[int, ...] = (32, 64, 64),
    dense: int = 64,
    dropout: float = 0.4,
) -> keras.Model:
    """Pictures from 0 to 1, float32 (batch, height, width, channels) -> logits (batch, outputs)."""
    from zoo.backend import keras

    layers = keras.layers
    inputs = keras.Input(tuple(shape), name="image")
    x = inputs
    # Small pictures would be used up by unpadded convolutions: 22 pixels leave 3 for the third.
    padding = "valid" if min(shape[:2]) >= 22 else "same"
    for number, width in enumerate(filters, start=1):
        x = layers.Conv2D(width, 3, padding=padding, activation="relu", name=f"conv_{number}")(x)
        if number < len(filters):
            x = layers.MaxPooling2D(name=f"pool_{number}")(x)
    x = layers.Dropout(dropout, name="dropout_1")(layers.Flatten(name="flatten")(x))
    x = layers.Dense(dense, activation="relu", name="dense")(x)
    x = layers.Dropout(dropout, name="dropout_2")(x)
    return keras.Model(inputs, layers.Dense(outputs, name="logits")(x), name="cnn")


SPECS = [
    ModelSpec(
        name="cnn",
        version="1.0",
        family="cnn",
        task="multiclass",
        tasks=("binary", "regression"),
        kinds=("image",),
        build=build_cnn,
        config={"shape": (28, 28, 1), "outputs": 10, "filters": (32, 64, 64), "dense": 64,
                "dropout": 0.4},
        tiny={"shape": (16, 16, 1), "outputs": 3, "filters": (4, 4, 8), "dense": 8},
        data="mnist_5k",
        target=Target("accuracy", 0.975),
        train={"epochs": 30, "batch_size": 32, "learning_rate": 1.5e-3, "weight_decay": 1e-3,
               "augment": ("affine",), "keep": "last"},
        source="LeCun, Bottou, Bengio & Haffner, Proceedings of the IEEE 86(11), 1998",
        license="Apache-2.0",
        params=93322,
        tags=("image", "fast"),
    )
]  # fmt: skip
