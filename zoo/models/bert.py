"""BERT-style encoders on keras_nlp's BERT backbone: classifiers, and their pre-training.

Devlin et al., NAACL 2019; the small sizes are those of Turc et al., "Well-Read Students Learn
Better", 2019. ``bert_*`` read a text and classify it; ``bert_*_mlm`` are the same nets pre-trained to
restore hidden tokens: ``zoo train bert_tiny --init-from RUN`` goes on from one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.models.start import scale_kernels
from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras


def _encoded(tokens: Any, preset: str, sizes: Mapping[str, Any]) -> tuple[Any, Any]:
    """The backbone, and its outputs for ids (batch, time), filling masked."""
    from zoo.backend import keras, keras_nlp

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
    if preset:
        from zoo.models.presets import weights_of

        backbone.load_weights(weights_of(preset))
    ops = keras.ops
    inputs = {
        "token_ids": tokens,
        "segment_ids": ops.zeros_like(tokens),
        "padding_mask": ops.cast(ops.not_equal(tokens, 0), "int32"),
    }
    return backbone, backbone(inputs)


def build_bert(
    shape: tuple[int],
    outputs: int,
    vocabulary: int,
    pool: str = "cls",
    preset: str = "",
    **sizes: Any,
) -> keras.Model:
    """Token ids, int32 (batch, time) -> logits or values, float32 (batch, outputs).

    Args:
        pool: ``cls`` takes BERT's own summary of the first token, ``mean`` the mean of all tokens
            that are no filling.
        preset: a published backbone to start from: see :mod:`zoo.models.presets`.
        sizes: ``layers``, ``heads``, ``width``, ``positions`` (the longest text) and ``dropout``.
    """
    from zoo.backend import keras

    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    backbone, found = _encoded(tokens, preset, {**sizes, "vocabulary": vocabulary})
    if pool == "cls":
        x = found["pooled_output"]
    elif pool == "mean":
        backbone.pooled_dense.trainable = False  # BERT's own summary is not read
        there = keras.ops.expand_dims(keras.ops.not_equal(tokens, 0), -1)
        there = keras.ops.cast(there, "float32")
        x = keras.ops.sum(found["sequence_output"] * there, axis=1) / keras.ops.sum(there, axis=1)
    else:
        raise ValueError(f"pool is cls or mean, not {pool!r}")
    x = keras.layers.Dropout(sizes["dropout"], name="dropout")(x)
    return keras.Model(tokens, keras.layers.Dense(outputs, name="logits")(x), name="bert")


def build_mlm(shape: tuple[int], vocabulary: int, preset: str = "", **sizes: Any) -> keras.Model:
    """Token ids, int32 (batch, time) -> logits of the true tokens, float32 (batch, time, vocabulary).

    The output layer is the token embedding, transposed, behind a dense layer, as in BERT. Without a
    preset kernels start as wide as those of BERT-Base make its outputs. Arguments as in :func:`build_bert`.
    """
    from zoo.backend import keras, keras_nlp

    tokens = keras.Input(tuple(shape), dtype="int32", name="tokens")
    backbone, found = _encoded(tokens, preset, {**sizes, "vocabulary": vocabulary})
    backbone.pooled_dense.trainable = False  # nothing here reads the summary of the first token
    if not preset:
        scale_kernels(backbone.transformer_layers, math.sqrt(_SIZES["base"][2] / sizes["width"]))
    head = keras_nlp.layers.MaskedLMHead(
        token_embedding=backbone.token_embedding,
        intermediate_activation="gelu",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        layer_norm_epsilon=1e-12,
        dtype="float32",  # keras-hub's head adds a float32 bias, whatever the policy
        name="mlm_head",
    )
    every = keras.ops.zeros_like(tokens) + keras.ops.arange(shape[0], dtype="int32")
    model = _hidden_only()(tokens, head(found["sequence_output"], every), name="bert_mlm")
    features = keras.Model(tokens, found["sequence_output"], name="features")
    object.__setattr__(model, "features", features)  # untracked: the same layers once more
    return model


@functools.cache
def _hidden_only() -> type:
    """A functional model of class ``keras.Model`` but for its training step."""
    from zoo.backend import keras, tf

    class HiddenOnly(keras.Model):
        """Learns from the tokens that count alone, and computes no other logits.

        A training step's weights, float32 (batch, time), say which. The loss is the same as that of
        all logits.
        """

        features: Any
        _places: Any = None

        def train_step(self, data: Any) -> Any:
            tokens, truth, weights = data
            flat = tf.reshape(weights, [-1])
            places = tf.where(flat > 0)[:, 0]
            kept = tf.gather(flat, places)
            # One more, which does not count: a mean needs something to be the mean of.
            places, kept = tf.concat([places, [0]], 0), tf.concat([kept, [0.0]], 0)
            share = tf.cast(tf.size(kept), kept.dtype) / tf.cast(tf.size(flat), kept.dtype)
            self._places = places[None]
            try:
                truth = tf.gather(tf.reshape(truth, [-1]), places)[None]
                return super().train_step((tokens, truth, kept[None] * share))  # keeps the mean
            finally:
                self._places = None

        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if self._places is None:
                return super().call(inputs, training=training, mask=mask)
            found = self.features(inputs, training=training)
            flat = tf.reshape(found, [1, -1, found.shape[-1]])
            return self.get_layer("mlm_head")(flat, self._places)

    return HiddenOnly


_SIZES = {"tiny": (2, 2, 128), "mini": (4, 4, 256), "small": (4, 8, 512), "base": (12, 12, 768)}
_TURC = "Turc et al., Well-Read Students Learn Better, 2019: "
_SKIPS = {"int16x8": "LiteRT's calibration to 16 bits fails on integer inputs"}
_LICENSE = "Apache-2.0"
_SOURCE = "Devlin et al., NAACL 2019; sizes: Turc et al. 2019"
_TINY = {"shape": (9,), "vocabulary": 40, "layers": 2, "heads": 2, "width": 16, "positions": 12}


def _config(size: str, vocabulary: int, length: int) -> dict[str, Any]:
    layers, heads, width = _SIZES[size]
    return {"shape": (length,), "vocabulary": vocabulary, "layers": layers, "heads": heads,
            "width": width, "positions": 512, "dropout": 0.1, "preset": ""}  # fmt: skip


def _rate(tiny: float, size: str) -> float:
    """The learning rate of a size by the one that suits ``tiny``.

    Adam's steps do not shrink where more inputs are summed, so that the rate goes with 1 / width (Yang
    et al., "Tensor Programs V", NeurIPS 2021, table 3). At tiny's rate, small diverges.
    """
    return tiny * _SIZES["tiny"][2] / _SIZES[size][2]


def _classifier(
    size: str,
    params: int,
    published: str,
    vocabulary: int = 30_522,
    pool: str = "cls",
    target: Target | None = None,
    tags: tuple[str, ...] = (),
) -> ModelSpec:
    return ModelSpec(
        name=f"bert_{size}",
        version="1.0",
        family="bert",
        task="binary",
        tasks=("multiclass", "regression"),
        kinds=("text",),
        build=build_bert,
        config={**_config(size, vocabulary, 64), "outputs": 1, "pool": pool},
        tiny={**_TINY, "outputs": 2},
        data="sentiment",
        target=target,
        published=published,
        train={"epochs": 3, "batch_size": 32, "learning_rate": _rate(5e-4, size),
               "weight_decay": 1e-2, "schedule": "linear", "warmup": 0.1},
        encoding={"tokenizer": "wordpiece", "vocabulary": min(vocabulary, 4096)},
        skips=_SKIPS,
        preset="zoo.models.presets:read",
        source=_SOURCE,
        license=_LICENSE,
        params=params,
        tags=("text", *tags),
    )  # fmt: skip


def _pretrainer(
    size: str, params: int, vocabulary: int = 4096, tags: tuple[str, ...] = ()
) -> ModelSpec:
    return ModelSpec(
        name=f"bert_{size}_mlm",
        version="1.1",
        family="bert",
        task="masked_lm",
        kinds=("text",),
        build=build_mlm,
        config=_config(size, vocabulary, 64),
        tiny=_TINY,
        data="sentiment",
        published="WordPieces of the training split, no figure on this data",
        train={"epochs": 40, "batch_size": 32, "learning_rate": _rate(1e-3, size),
               "weight_decay": 1e-2, "schedule": "linear", "warmup": 0.05},
        encoding={"tokenizer": "wordpiece", "vocabulary": vocabulary},
        skips=_SKIPS,
        preset="zoo.models.presets:read",
        source=_SOURCE,
        license=_LICENSE,
        params=params,
        tags=("text", *tags),
    )  # fmt: skip


SPECS = [
    # Without pre-training, [CLS] has learnt to look at nothing: the mean of all tokens says more.
    _classifier("tiny", 4386049, _TURC + "GLUE 64.2", pool="mean", target=Target("accuracy", 0.71)),
    _classifier("mini", 11170817, _TURC + "GLUE 65.8", tags=("sibling",)),
    _classifier("small", 28764161, _TURC + "GLUE 71.2", tags=("sibling",)),
    _classifier("base", 109483009, "Devlin et al. 2019: GLUE 79.6", tags=("huge", "sibling")),
    _pretrainer("tiny", 1024256),
    _pretrainer("mini", 4475904, tags=("sibling",)),
    _pretrainer("small", 15501312, tags=("sibling",)),
]
