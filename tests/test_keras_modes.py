"""Keras' own quantisation as a recipe: packed weights that run in Keras, from run to report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import loans

from zoo.compress.recipe import parse
from zoo.errors import ZooError
from zoo.predict import PACKED, KerasArtifact, open_artifact, pack


def text_model(name: str):
    from zoo.backend import seed_everything
    from zoo.registry import models
    from zoo.testing import inputs_for, tiny

    seed_everything(3)
    spec = models().get(name)
    model = tiny(spec)
    return (
        {"model": name, "config": {**spec.config, **spec.tiny}},
        model,
        inputs_for(spec, model, 8),
    )


def test_variants_that_run_in_keras(zoo, run_mlp, tmp_path):
    """Made, read back, scored, measured, judged and explained like any other; refused by exports."""
    from zoo.predictions import Predictions

    recipes = ["keras:int8", "keras:int4", "prune:0.6+keras:int8"]
    code, _, error, document = zoo("compress", run_mlp, *recipes, "--json")
    assert code == 0, error
    assert "Keras covers 100%" in error
    rows = {row["variant"]: row for row in document["results"]}
    assert list(rows) == ["keras-int8", "keras-int4", "prune-0.6_keras-int8"]
    for name, row in rows.items():
        path = run_mlp / name / "packed.npz"
        said = Predictions.load(run_mlp / name / "predictions.npz")
        assert (row["artifact"], row["runtime"]) == ("packed.npz", "keras")
        assert row["bytes"] == path.stat().st_size < (run_mlp / "base/model.tflite").stat().st_size
        assert row["metrics"]["accuracy"] == pytest.approx(np.mean(said.y_true == said.y_pred))
        assert 0 < row["parity"]["max_abs"] < row["parity"]["spread"]
    assert rows["keras-int8"]["parity"]["max_abs"] < rows["keras-int4"]["parity"]["max_abs"]
    with np.load(run_mlp / "prune-0.6_keras-int8" / "packed.npz") as stored:
        kernels = [
            v for v in (stored[k] for k in stored.files) if v.dtype == np.int8 and v.size > 999
        ]
    assert kernels
    assert all(np.mean(kernel == 0) >= 0.599 for kernel in kernels)

    for format in ("litert", "saved_model"):
        code, _, error, _ = zoo("export", run_mlp, "--variant", "keras-int8", "--format", format)
        assert code == 2
        assert "answers wrongly" in error
    code, _, error, document = zoo(
        "benchmark", run_mlp, "--variant", "keras-int8", "--seconds", "0.1", "--json"
    )
    assert code == 0, error
    for row in document["results"]:
        assert row["runtime"] == "keras"
        assert row["error"] is None
        assert row["queries"] > 0
    code, _, error, document = zoo("fairness", run_mlp, "--variant", "keras-int8", "--json")
    assert code == 0, error
    code, _, error, document = zoo(
        "explain", run_mlp, "--variant", "keras-int8", "--samples", "2", "--json"
    )
    assert code == 0, error
    assert document["results"][0]["artifact"] == "packed.npz"
    code, _, error, _ = zoo(
        "predict", run_mlp, loans(tmp_path / "more.csv", 20), "--variant", "keras-int8",
        "--output", tmp_path / "said.csv",
    )  # fmt: skip
    assert code == 0, error
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 21
    code, _, error, _ = zoo("eval", run_mlp, "--variant", "all", "--split", "val")
    assert code == 0, error
    code, _, error, _ = zoo("compress", run_mlp, "prune:0.5", "--variant", "keras-int8")
    assert code == 2
    assert "converted for good" in error


@pytest.mark.parametrize("recipe", ["keras", "keras:", "keras:int2", "keras:int8+prune:0.5"])
def test_wrong_arguments_say_what_there_is(recipe):
    with pytest.raises(ZooError) as error:
        parse(recipe)
    assert error.value.exit_code == 2
    assert "keras:gptq" in str(error.value) or "last step" in str(error.value)


def test_calibrated_modes_are_for_chains_of_blocks(zoo, run_mlp):
    code, _, error, _ = zoo("compress", run_mlp, "keras:gptq")
    assert code == 2
    assert "TransformerDecoder" in error
    assert not (run_mlp / "keras-gptq").exists()


def test_a_decoder_that_reads_an_encoder_is_no_chain():
    from zoo import keras_modes

    _, model, ids = text_model("transformer_seq2seq")
    with pytest.raises(ZooError, match="does not apply") as error:
        keras_modes.quantize(model, "awq", ids)
    assert "more than the one before" in str(error.value.received)


def test_a_model_without_such_layers_is_refused():
    from zoo import keras_modes
    from zoo.backend import keras

    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs), name="pictures")
    with pytest.raises(ZooError) as error:
        keras_modes.quantize(model, "int8")
    assert error.value.exit_code == 2
    assert "Dense, EinsumDense, Embedding, ReversibleEmbedding" in error.value.expected
    assert "Conv2D" in error.value.received


@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_calibration_is_repeatable_and_its_file_is_read_back(mode, tmp_path):
    from zoo import keras_modes

    made = []
    for _ in range(2):
        facts, model, ids = text_model("gpt_tiny")
        expected = model(ids, training=False).numpy()
        layers = keras_modes.quantize(model, mode, ids)
        assert len(layers) == 12  # six in each of two blocks
        made.append(pack(model, {**facts, "mode": mode}))
    assert made[0] == made[1]
    said = model(ids, training=False).numpy()
    assert 0 < np.abs(said - expected).max() < 0.4 * np.abs(expected).max()  # of random weights
    path = tmp_path / "packed.npz"
    path.write_bytes(made[0])
    artifact = open_artifact(path)
    assert isinstance(artifact, KerasArtifact)
    assert artifact.input_name == "tokens"
    assert np.allclose(artifact(ids), said, atol=1e-6)


@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_calibration_looks_at_all_rows_in_every_block(mode):
    """Keras 3.15 listens at a function that it does not call, and hands on the first row alone."""
    from zoo import keras_modes

    def packed(ids, rows):
        _, model, _ = text_model("gpt_tiny")
        keras_modes.quantize(model, mode, ids[rows])
        names = [layer.path.split("/")[0] for layer in keras_modes.blocks(model, mode)]
        assert names == ["transformer_layer_0", "transformer_layer_1"]  # as the model calls them
        return [np.concatenate([np.asarray(w, np.float64).ravel() for w in layer.weights])
                for layer in keras_modes.blocks(model, mode)]  # fmt: skip

    _, _, ids = text_model("gpt_tiny")
    whole, part = packed(ids, slice(None)), packed(ids, slice(1))
    assert all((a != b).any() for a, b in zip(whole, part, strict=True))


def test_a_damaged_file_says_so(tmp_path):
    from zoo import keras_modes

    facts, model, _ = text_model("mlp")
    keras_modes.quantize(model, "int8")
    path = tmp_path / "packed.npz"
    content = pack(model, {**facts, "mode": "int8"})
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ZooError, match="packed Keras weights"):
        KerasArtifact(path)
    other = {**facts, "config": {**facts["config"], "hidden": [9, 4]}, "mode": "int8"}
    path.write_bytes(pack(model, other))
    with pytest.raises(ZooError, match="packed Keras weights"):
        KerasArtifact(path)
    with np.load(path) as stored:
        assert json.loads(str(stored[PACKED]))["mode"] == "int8"


def test_speeds_of_two_runtimes_are_not_compared(tmp_path):
    from zoo_bench.measure import side_by_side

    files = {"base": tmp_path / "model.tflite", "keras-int8": tmp_path / "packed.npz"}
    x = {"features": np.zeros((4, 6), np.float32)}
    found = side_by_side(files, x, rounds=1, seconds=0.01)
    assert found["keras-int8"]["ratio"] is None
    assert "base in litert" in found["keras-int8"]["reason"]
