"""Recurrent text models: a plain recurrent net, LSTM, GRU, and an LSTM in both directions.

Elman, Cognitive Science 14, 1990; Hochreiter & Schmidhuber, Neural Computation 9(8), 1997; Cho et
al., EMNLP 2014; both directions with the largest value over time: Conneau et al., EMNLP 2017.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras


def build(
    cell: str,
    both: bool,
    shape: tuple[int],
    outputs: int,
    vocabulary: int,
    embedding: int = 64,
    width: int = 64,
    dropout: float = 0.5,
) -> keras.Model:
    """Word ids, int32 (batch, time) -> logits or values, float32 (batch, outputs).

    Args:
        cell: a recurrent layer of Keras. both: read in both directions and pool over time.
        vocabulary: ids, filling and unknown among them. Filling stands in front of a short text
            and is read like a word, so that a file for phones needs no mask.
    """
    from zoo.backend import keras

    layers = keras.layers
    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    x = layers.Embedding(vocabulary, embedding, name="embedding")(tokens)
    x = layers.Dropout(dropout, name="dropout_1")(x)
    recurrent = getattr(layers, cell)(width, return_sequences=both, name="recurrent")
    if both:
        x = layers.Bidirectional(recurrent, name="both")(x)
        x = layers.GlobalMaxPooling1D(name="pool")(x)
    else:
        x = recurrent(x)
    x = layers.Dropout(dropout, name="dropout_2")(x)
    return keras.Model(tokens, layers.Dense(outputs, name="logits")(x), name=cell.lower())


_NO_RANGE = "LiteRT's calibration to 16 bits fails on integer inputs"


def _spec(
    name: str,
    cell: str,
    params: int,
    source: str,
    target: Target | None = None,
    both: bool = False,
    embedding: int = 64,
    dropout: float = 0.5,
    **train: Any,
) -> ModelSpec:
    return ModelSpec(
        name=name,
        version="1.0",
        family="recurrent",
        task="binary",
        tasks=("multiclass", "regression"),
        kinds=("text",),
        build=partial(build, cell, both),
        config={"shape": (40,), "outputs": 1, "vocabulary": 10_002, "embedding": embedding,
                "width": 64, "dropout": dropout},
        tiny={"shape": (7,), "vocabulary": 20, "embedding": 6, "width": 5},
        data="sentiment",
        target=target,
        published="" if target else "no figure on this data",
        train={"epochs": 3, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2, **train},
        skips={"int16x8": _NO_RANGE},
        source=source,
        license="Apache-2.0",
        params=params,
        tags=("text",),
    )  # fmt: skip


SPECS = [
    _spec("rnn", "SimpleRNN", 648449, "Elman, Cognitive Science 14, 1990"),
    _spec("lstm", "LSTM", 673217, "Hochreiter & Schmidhuber, Neural Computation 9(8), 1997",
          Target("accuracy", 0.745)),
    _spec("gru", "GRU", 1317569, "Cho et al., EMNLP 2014", Target("accuracy", 0.753),
          embedding=128, dropout=0.6, label_smoothing=0.1),
    _spec("bilstm", "LSTM", 706305, "Schuster & Paliwal, IEEE TSP 45, 1997; Conneau et al., EMNLP "
          "2017", both=True),
]  # fmt: skip
