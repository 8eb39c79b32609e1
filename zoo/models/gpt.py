"""GPT-style language models on keras_nlp's GPT-2 backbone: each token from those before it.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. The output layer is the
token embedding, transposed (Press & Wolf, EACL 2017). ``gpt_small`` has the shape of nanoGPT's
model of Shakespeare; the names ``gpt2...`` are GPT-2's own sizes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zoo.models.start import scale, scale_kernels
from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras


def build_gpt(
    shape: tuple[int],
    vocabulary: int,
    layers: int,
    heads: int,
    width: int,
    dropout: float = 0.1,
) -> keras.Model:
    """Token ids, int32 (batch, time) -> logits of the next token, float32 (batch, time, vocabulary).

    Filling stands behind a text, where no token that counts sees it, so it needs no mask.
    """
    from zoo.backend import keras, keras_nlp

    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    backbone = keras_nlp.models.GPT2Backbone(
        vocabulary_size=vocabulary,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        dropout=dropout,
        max_sequence_length=shape[0],
        name="backbone",
    )
    # kernels of deviation 1 / sqrt(width), as LeCun's rule has it, and tokens of 0.05: keras_nlp gives
    # them half of what their places get, and the net would long see only where a token stands
    scale_kernels(backbone.transformer_layers, 1 / (0.02 * math.sqrt(width)))
    scale([backbone.token_embedding.embeddings], 5.0)
    x = backbone({"token_ids": tokens, "padding_mask": keras.ops.ones_like(tokens)})
    return keras.Model(tokens, backbone.token_embedding(x, reverse=True), name="gpt")


_OWN = "byte pairs of the training split, no figure on this data"
_GPT2 = "Radford et al. 2019; perplexity on WikiText-2, zero-shot: "


def _spec(
    name: str,
    sizes: tuple[int, int, int],
    params: int,
    *,
    published: str,
    context: int = 120,
    vocabulary: int = 1024,
    epochs: int = 7,
    dropout: float = 0.1,
    target: Target | None = None,
    tags: tuple[str, ...] = (),
) -> ModelSpec:
    layers, heads, width = sizes
    return ModelSpec(
        name=name,
        version="1.0",
        family="gpt",
        task="causal_lm",
        kinds=("text",),
        build=build_gpt,
        config={"shape": (context,), "vocabulary": vocabulary, "layers": layers, "heads": heads,
                "width": width, "dropout": dropout},
        tiny={"shape": (9,), "vocabulary": 40, "layers": 2, "heads": 2, "width": 16},
        data="shakespeare",
        target=target,
        published=published,
        train={"epochs": epochs, "batch_size": 8, "learning_rate": 3e-3, "weight_decay": 0.1,
               "warmup": 0.05},
        skips={"int16x8": "LiteRT's calibration to 16 bits fails on integer inputs"},
        encoding={"tokenizer": "bpe", "vocabulary": vocabulary},
        source="Radford et al., Language Models are Unsupervised Multitask Learners, 2019",
        license="Apache-2.0",
        params=params,
        tags=("text", *tags),
    )  # fmt: skip


SPECS = [
    _spec("gpt_tiny", (4, 4, 128), 939776, published=_OWN, dropout=0.0,
          target=Target("bits_per_character", 2.25)),
    _spec("gpt_mini", (4, 4, 256), 3452416, published=_OWN, tags=("sibling",)),
    _spec("gpt_small", (6, 6, 384), 11086848, published=_OWN, tags=("sibling",)),
    _spec("gpt2", (12, 12, 768), 124439808, published=_GPT2 + "29.41",
          context=1024, vocabulary=50257, tags=("huge", "sibling")),
    _spec("gpt2_medium", (24, 16, 1024), 354823168, published=_GPT2 + "22.76",
          context=1024, vocabulary=50257, tags=("huge", "sibling")),
    _spec("gpt2_large", (36, 20, 1280), 774030080, published=_GPT2 + "19.93",
          context=1024, vocabulary=50257, tags=("huge", "sibling")),
    _spec("gpt2_xl", (48, 25, 1600), 1557611200, published=_GPT2 + "18.34",
          context=1024, vocabulary=50257, tags=("huge", "sibling")),
]  # fmt: skip
