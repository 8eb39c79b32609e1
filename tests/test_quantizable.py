"""Integers for attention and recurrence: masked softmax, unrolled loops, conversions that crash."""

from __future__ import annotations

import numpy as np
import pytest

from zoo import quantizable
from zoo.errors import ZooError

TIME, WORDS = 12, 40


def tokens(rows: int, seed: int = 0) -> np.ndarray:
    """Ids of texts of different lengths, filled up behind with 0: int32 (rows, TIME)."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, WORDS, (rows, TIME)).astype("int32")
    for row in ids:
        row[rng.integers(4, TIME + 1) :] = 0
    return ids


def transformer(kind: str, dropout: float = 0.1):
    """A classifier on one of keras-hub's backbones."""
    import keras_hub

    from zoo.backend import keras, seed_everything

    seed_everything(0)
    inputs = keras.Input((TIME,), dtype="int32", name="tokens")
    mask = keras.ops.cast(keras.ops.not_equal(inputs, 0), "int32")
    words = {"token_ids": inputs, "padding_mask": mask}
    size = {"vocabulary_size": WORDS, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 48}
    if kind == "bert":
        backbone = keras_hub.models.BertBackbone(
            num_heads=2, max_sequence_length=TIME, dropout=dropout, **size
        )
        words["segment_ids"] = keras.ops.zeros_like(inputs)
        x = backbone(words)["pooled_output"]
    else:
        backbone = keras_hub.models.GPT2Backbone(
            num_heads=2, max_sequence_length=TIME, dropout=dropout, **size
        )
        x = keras.layers.GlobalAveragePooling1D()(backbone(words))
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x), name=kind)


def learn(model, x, steps=()):
    from zoo.backend import keras

    y = ((x < WORDS // 2) & (x > 0)).sum(1) > (x >= WORDS // 2).sum(1)
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y.astype("int32"), epochs=6, batch_size=32, verbose=0, callbacks=list(steps))


def answers(content: bytes, x: np.ndarray, tmp_path) -> np.ndarray:
    from zoo.predict import Artifact

    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return Artifact(path)(x)


@pytest.mark.parametrize(("kind", "dropout"), [("bert", 0.0), ("gpt2", 0.1)])
def test_transformers_in_int8_say_what_they_said(kind, dropout, tmp_path, monkeypatch):
    """Without dropout Keras takes its fused attention, whose mask is as bad."""
    import contextlib

    from zoo import export
    from zoo.predict import compiled

    model, x = transformer(kind, dropout), tokens(192)
    learn(model, x)
    meant = compiled(model)(x)
    gap = np.abs(answers(export.to_litert(model, "int8", x), x, tmp_path) - meant).max()
    assert gap < 0.15 * meant.std()
    assert np.array_equal(compiled(model)(x), meant)  # the model itself is as before
    monkeypatch.setattr(export, "quantizable", lambda *_: contextlib.nullcontext())
    plain = np.abs(answers(export.to_litert(model, "int8", x), x, tmp_path) - meant).max()
    assert plain > 2 * gap  # the mask it is about


@pytest.mark.parametrize("kind", ["grouped", "dot", "additive"])
def test_kerass_other_attentions_in_int8_say_what_they_said(kind, tmp_path, monkeypatch):
    """Grouped queries have a fused path of their own; Attention and AdditiveAttention no softmax layer."""
    import contextlib

    from zoo import export
    from zoo.backend import keras, seed_everything
    from zoo.predict import compiled

    seed_everything(0)
    inputs = keras.Input((TIME,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(WORDS, 16, mask_zero=kind != "grouped")(inputs)  # it warns of masks
    attended = {
        "grouped": lambda: keras.layers.GroupQueryAttention(8, 4, 2)(x, x, use_causal_mask=True),
        "dot": lambda: keras.layers.Attention()([x, x], use_causal_mask=True),
        "additive": lambda: keras.layers.AdditiveAttention()([x, x]),
    }[kind]()
    pooled = keras.layers.GlobalAveragePooling1D()(attended)
    model, x = keras.Model(inputs, keras.layers.Dense(2)(pooled)), tokens(192)
    learn(model, x)
    meant = compiled(model)(x)
    gap = np.abs(answers(export.to_litert(model, "int8", x), x, tmp_path) - meant).max()
    assert gap < 0.1 * meant.std()
    assert np.array_equal(compiled(model)(x), meant)
    monkeypatch.setattr(export, "quantizable", lambda *_: contextlib.nullcontext())
    plain = np.abs(answers(export.to_litert(model, "int8", x), x, tmp_path) - meant).max()
    assert plain > 2 * gap


def test_pruning_and_rounding_reach_into_keras_hub(tmp_path):
    """Every matrix of every block: half of it zero, on an int8 grid, and so in the artefact."""
    from zoo.compress import keep_zeros, kernels, prune, quantize_aware, to_litert
    from zoo.predict import compiled

    model, x = transformer("bert"), tokens(192)
    matrices = [
        weight.path for weight in model.weights
        if weight.path.endswith("kernel") or weight.path.endswith("embeddings")
    ]  # fmt: skip
    matrices.remove("position_embedding/embeddings")  # only ever added: no kernel
    taken = kernels(model, "all")
    assert {kernel.variable.path for kernel in taken} == set(matrices)
    blocks = [kernel for kernel in taken if "transformer_layer" in kernel.name]
    assert len(blocks) == 2 * 6  # query, key, value, output, and two of the feed-forward part
    with prune(model, 0.5, steps=36, layers=["*transformer_layer*"]) as pruning:
        learn(model, x, [pruning.callback()])
    with keep_zeros(model), quantize_aware(model, x):
        learn(model, x)
    for kernel in blocks:
        matrix = np.asarray(kernel.matrix(kernel.variable.value))
        assert 0.49 < (matrix == 0).mean() < 0.56, kernel.name  # rounding adds a few
        steps = matrix / (np.abs(matrix).max(axis=0) / 127)
        assert np.abs(steps - steps.round()).max() < 1e-2, kernel.name
    meant = compiled(model)(x)
    said = answers(to_litert(model, "int8", x), x, tmp_path)
    assert (said.argmax(1) == meant.argmax(1)).mean() > 0.97


def recurrent(cell: str):
    from zoo.backend import keras, seed_everything

    seed_everything(0)
    inputs = keras.Input((TIME,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(WORDS, 8)(inputs)
    x = keras.layers.Bidirectional(getattr(keras.layers, cell)(8))(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x), name=cell.lower())


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_nets_in_int8(cell, tmp_path):
    from zoo.backend import keras
    from zoo.compress import to_litert
    from zoo.kernels import flat_layers
    from zoo.predict import compiled

    model, x = recurrent(cell), tokens(128)
    learn(model, x)
    meant = compiled(model)(x)
    content = to_litert(model, "int8", x)
    said = answers(content, x, tmp_path)
    assert np.abs(said - meant).max() < 0.3 * meant.std()
    assert not [la for la in flat_layers(model) if isinstance(la, keras.layers.RNN) and la.unroll]


def test_a_conversion_that_crashes_is_an_error(monkeypatch):
    """LiteRT's calibrator does not survive a loop: it takes its own process with it, not ours."""
    from zoo.compress import to_litert

    monkeypatch.setattr(quantizable, "LONGEST_UNROLLED", 0)
    with pytest.raises(ZooError, match="could not be converted") as error:
        to_litert(recurrent("LSTM"), "int8", tokens(8))
    assert error.value.received == "the converter crashed (SIGSEGV)"
    assert error.value.exit_code == 1
