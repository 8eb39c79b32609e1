"""Convolutions over words (Kim, EMNLP 2014): filters of several widths, the largest answer of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras


def build_textcnn(
    shape: tuple[int],
    outputs: int,
    vocabulary: int,
    embedding: int = 64,
    filters: int = 64,
    windows: tuple[int, ...] = (3, 4, 5),
    dropout: float = 0.5,
) -> keras.Model:
    """Word ids, int32 (batch, time) -> logits or values, float32 (batch, outputs).

    Args:
        windows: words that the filters of each kind see.
    """
    from zoo.backend import keras

    layers = keras.layers
    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    x = layers.Embedding(vocabulary, embedding, name="embedding")(tokens)
    x = layers.Dropout(dropout, name="dropout_1")(x)
    parts = []
    for size in windows:
        part = layers.Conv1D(filters, size, padding="same", activation="relu", name=f"conv_{size}")
        parts.append(layers.GlobalMaxPooling1D(name=f"pool_{size}")(part(x)))
    x = layers.Concatenate(name="joined")(parts) if len(parts) > 1 else parts[0]
    x = layers.Dropout(dropout, name="dropout_2")(x)
    return keras.Model(tokens, layers.Dense(outputs, name="logits")(x), name="textcnn")


SPECS = [
    ModelSpec(
        name="textcnn",
        version="1.0",
        family="textcnn",
        task="binary",
        tasks=("multiclass", "regression"),
        kinds=("text",),
        build=build_textcnn,
        config={"shape": (40,), "outputs": 1, "vocabulary": 10_002, "embedding": 64,
                "filters": 64, "windows": (3, 4, 5), "dropout": 0.5},
        tiny={"shape": (7,), "vocabulary": 20, "embedding": 6, "filters": 5},
        data="sentiment",
        published="no figure on this data",
        train={"epochs": 5, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-2},
        skips={"int16x8": "LiteRT's calibration to 16 bits fails on integer inputs"},
        source="Kim, EMNLP 2014",
        license="Apache-2.0",
        params=689665,
        tags=("text", "fast"),
    )
]  # fmt: skip
