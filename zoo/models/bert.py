"""BERT-style encoders on keras_nlp's BERT backbone: classifiers, and their pre-training.

Devlin et al., NAACL 2019; the small sizes are those of Turc et al., "Well-Read Students Learn
Better", 2019. ``bert_*`` read a text and classify it; ``bert_*_mlm`` are the same nets pre-trained to
restore hidden tokens: ``zoo train bert_tiny --init-from RUN`` goes on from one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras


def _backbone(tokens: Any, preset: str, **sizes: Any) -> Any:
    """The backbone and its outputs for ids, filling masked."""
    from zoo.backend import keras

    if preset:
        from zoo.models.presets import load_backbone

        backbone = load_backbone(preset, sizes["vocabulary"])
    else:
        import keras_nlp

        backbone = keras_nlp.models.BertBackbone(
            vocabulary_size=sizes["vocabulary"],
            num_layers=sizes["layers"],
            num_heads=sizes["heads"],
            hidden_dim=sizes["width"],
            intermediate_dim=4 * sizes["width"],
            dropout=sizes["dropout"],
            max_sequence_length=sizes["positions"],
            name="backbone",
        )
    ops = keras.ops
    return backbone, backbone(
        {
            "token_ids": tokens,
            "segment_ids": ops.zeros_like(tokens),
            "padding_mask": ops.cast(ops.not_equal(tokens, 0), "int32"),
        }
    )


def build_bert(
    shape: tuple[int],
    outputs: int,
    vocabulary: int,
    layers: int,
    heads: int,
    width: int,
    positions: int = 512,
    dropout: float = 0.1,
    pool: str = "cls",
    preset: str = "",
) -> keras.Model:
    """Token ids, int32 (batch, time) -> logits or values, float32 (batch, outputs).

    Args:
        pool: ``cls`` takes BERT's own summary of the first token, ``mean`` the mean of all tokens
            that are no filling.
        preset: a published backbone, whose sizes then hold: see :mod:`zoo.models.presets`.
    """
    from zoo.backend import keras

    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    _, found = _backbone(
        tokens, preset, vocabulary=vocabulary, layers=layers, heads=heads, width=width,
        positions=positions, dropout=dropout,
    )  # fmt: skip
    if pool == "cls":
        x = found["pooled_output"]
    elif pool == "mean":
        there = keras.ops.cast(keras.ops.not_equal(tokens, 0), "float32")[..., None]
        x = keras.ops.sum(found["sequence_output"] * there, axis=1) / keras.ops.sum(there, axis=1)
    else:
        raise ValueError(f"pool is cls or mean, not {pool!r}")
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(tokens, keras.layers.Dense(outputs, name="logits")(x), name="bert")


def build_mlm(
    shape: tuple[int],
    vocabulary: int,
    layers: int,
    heads: int,
    width: int,
    positions: int = 512,
    dropout: float = 0.1,
    preset: str = "",
) -> keras.Model:
    """Token ids, int32 (batch, time) -> logits of the true tokens, float32 (batch, time, vocabulary).

    The output layer is the token embedding, transposed, behind a dense layer, as in BERT.
    """
    from zoo.backend import keras
    import keras_nlp  # isort: skip

    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    backbone, found = _backbone(
        tokens, preset, vocabulary=vocabulary, layers=layers, heads=heads, width=width,
        positions=positions, dropout=dropout,
    )  # fmt: skip
    x = keras.layers.Dense(backbone.hidden_dim, activation="gelu", name="mlm_dense")(
        found["sequence_output"]
    )
    x = keras.layers.LayerNormalization(epsilon=1e-12, name="mlm_norm")(x)
    x = backbone.token_embedding(x, reverse=True)
    return keras.Model(tokens, keras_nlp.layers.__dict__ and _Bias(x), name="bert_mlm")
