"""An encoder-decoder Transformer of keras_nlp's layers: from one text to another.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017; layers normalised first (Xiong et al., ICML
2020). Source and answer share one embedding, so that a letter finds its place in the source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras


def build_seq2seq(
    shape: tuple[int],
    vocabulary: int,
    layers: int,
    heads: int,
    width: int,
    dropout: float = 0.1,
) -> keras.Model:
    """Source and answer so far, int32 (batch, 2 * time) -> logits of the answer's next tokens,
    float32 (batch, time, vocabulary).

    The first half of the input is the source, filling behind it; the second begins with the start
    token. One input, so that everything that takes a model takes this one.
    """
    from zoo.backend import keras, keras_nlp

    side = shape[0] // 2
    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    embedding = keras_nlp.layers.ReversibleEmbedding(vocabulary, width, name="embedding")
    place = keras_nlp.layers.PositionEmbedding(side, name="place")
    vectors = embedding(tokens)
    x, y = vectors[:, :side], vectors[:, side:]
    x, y = x + place(x), y + place(y)
    there = keras.ops.not_equal(tokens[:, :side], 0)
    options = {"intermediate_dim": 4 * width, "num_heads": heads, "dropout": dropout,
               "activation": "gelu", "normalize_first": True}  # fmt: skip
    for k in range(layers):
        x = keras_nlp.layers.TransformerEncoder(**options, name=f"encoder_{k}")(
            x, padding_mask=there
        )
    x = keras.layers.LayerNormalization(name="encoder_norm")(x)
    for k in range(layers):
        y = keras_nlp.layers.TransformerDecoder(**options, name=f"decoder_{k}")(
            y, x, encoder_padding_mask=there
        )
    y = keras.layers.LayerNormalization(name="decoder_norm")(y)
    return keras.Model(tokens, embedding(y, reverse=True), name="transformer_seq2seq")


SPECS = [
    ModelSpec(
        name="transformer_seq2seq",
        version="1.0",
        family="seq2seq",
        task="seq2seq",
        kinds=("text",),
        build=build_seq2seq,
        config={"shape": (98,), "vocabulary": 100, "layers": 2, "heads": 4, "width": 96,
                "dropout": 0.1},
        tiny={"shape": (16,), "vocabulary": 30, "layers": 1, "heads": 2, "width": 16},
        data="shakespeare",
        published="damaged lines, no figure on this data",
        train={"epochs": 15, "batch_size": 32, "learning_rate": 2e-3, "weight_decay": 1e-2,
               "warmup": 0.05},
        encoding={"tokenizer": "characters", "pairs": True},
        skips={"int16x8": "LiteRT's calibration to 16 bits fails on integer inputs"},
        source="Vaswani et al., NeurIPS 2017",
        license="Apache-2.0",
        params=536928,
        tags=("text",),
    )
]  # fmt: skip
