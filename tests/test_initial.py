"""Where a training starts: another run's weights, and options from a file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import loans


@pytest.fixture
def words(tmp_path):
    """``words("name", ...)``: a short training on loans."""
    data = loans(tmp_path / "loans.csv", 200)

    def make(name, *more):
        return ("train", "mlp", "--data", data, "--target", "approved", "--epochs", 1, "--name",
                name, "--runs", tmp_path / "runs", "--json", *more)  # fmt: skip

    return make


@pytest.fixture
def first(zoo, words, tmp_path):
    """A run to start from."""
    assert zoo(*words("first", "--set", "hidden=32,32")).code == 0
    return tmp_path / "runs" / "first"


def weights(run):
    from zoo.train.initial import rebuild

    return {layer.name: layer.get_weights() for layer in rebuild(run).layers if layer.weights}


def test_layers_of_equal_name_and_shape_are_taken(zoo, first, words, tmp_path):
    """The first layer agrees, the second is wider, the last has other inputs."""
    from zoo.run import Run

    rate = ("--set", "learning_rate=1e-9", "--set", "weight_decay=0")
    done = zoo(*words("next", "--init-from", first, "--set", "hidden=32,16", *rate))
    assert done.code == 0, done.stderr
    assert "1 layer (dense_1) from first; 2 layers (dense_2, logits) start anew" in done.stderr
    run = Run(tmp_path / "runs" / "next")
    init = run.document()["init"]
    assert init["taken"] == ["dense_1"]
    assert init["left"] == ["dense_2", "logits"]
    before, after = weights(Run(first)), weights(run)
    np.testing.assert_allclose(after["dense_1"][0], before["dense_1"][0], atol=1e-6)
    plain = zoo(*words("plain", "--set", "hidden=32,16", *rate)).document
    assert plain["experiment"] != done.document["experiment"]
    assert not np.allclose(weights(Run(tmp_path / "runs" / "plain"))["dense_1"][0],
                           before["dense_1"][0], atol=1e-3)  # fmt: skip


def test_a_run_without_a_common_layer_is_refused(zoo, run_cnn, words, tmp_path):
    done = zoo(*words("next", "--init-from", run_cnn))
    assert done.code == 2
    assert done.error["kind"] == "no_layer_fits"
    assert not (tmp_path / "runs" / "next").exists()
    assert zoo(*words("next", "--init-from", "nowhere")).error["kind"] == "unknown_run"


def test_resume_starts_from_the_same_weights(zoo, first, words, tmp_path):
    """Interrupted before its first checkpoint, it starts from the other run again, or says why not."""
    same = ("--init-from", first, "--set", "hidden=32,32", "--deterministic")
    whole = zoo(*words("whole", *same)).document
    run = tmp_path / "runs" / "whole"
    begun = shutil.copytree(run, tmp_path / "runs" / "begun")
    shutil.rmtree(begun / "base")
    for checkpoint in (begun / "checkpoints").glob("step-*"):
        shutil.rmtree(checkpoint)
    document = json.loads((begun / "run.json").read_text())
    (begun / "run.json").write_text(json.dumps({**document, "status": "interrupted"}))
    again = zoo("train", "--resume", begun, "--json").document
    assert again["metrics"] == whole["metrics"]
    shutil.rmtree(begun / "base")
    for checkpoint in (begun / "checkpoints").glob("step-*"):
        shutil.rmtree(checkpoint)
    (begun / "run.json").write_text(json.dumps({**document, "status": "interrupted"}))
    path = first / "base" / "model.weights.h5"
    shutil.copy(run / "base" / "model.weights.h5", path)
    assert zoo("train", "--resume", begun, "--json").error["kind"] == "changed_weights"
    shutil.rmtree(first)
    assert zoo("train", "--resume", begun, "--json").error["kind"] == "unknown_run"


def test_a_file_holds_options_and_settings_and_the_command_line_wins(zoo, tmp_path):
    data = loans(tmp_path / "loans.csv", 200)
    (tmp_path / "a.toml").write_text(
        f'model = "mlp"\ndata = "{data}"\ntarget = "approved"\nsensitive = "sex"\nepochs = 7\n'
        f'split-seed = 3\nseed = 4\nruns = "{tmp_path / "runs"}"\nlearning_rate = 0.5\n'
        "deterministic = true\n[set]\nhidden = [5, 4]\nwarmup = 0.1\n"
    )
    found = zoo("train", "--config", tmp_path / "a.toml", "--dry-run", "--json")
    assert found.code == 0, found.stderr
    document = found.document
    assert document["config"]["hidden"] == [5, 4]
    assert document["options"]["epochs"] == 7
    assert (document["options"]["learning_rate"], document["options"]["warmup"]) == (0.5, 0.1)
    assert [c["name"] for c in document["data"]["columns"]] == ["age", "income", "city"]
    more = ("--set", "epochs=2", "--set", "learning_rate=0.1", "--name", "x", "--seed", 9)
    done = zoo("train", "--config", tmp_path / "a.toml", *more, "--json").document
    run = json.loads((tmp_path / "runs" / "x" / "run.json").read_text())
    assert done["epochs"] == 2
    assert run["seed"] == 9
    assert run["options"]["learning_rate"] == 0.1
    assert run["options"]["deterministic"] is True
    assert run["data"]["request"]["split_seed"] == 3


@pytest.mark.parametrize(
    ("text", "kind"),
    [("epocs = 3", "unknown_setting"), ("epochs = 'x'", "bad_input"), ("set = 3", "bad_input"),
     ("seed = 'x'", "bad_input"), ("resume = 'latest'", "unknown_setting")],
)  # fmt: skip
def test_wrong_files_are_said(zoo, tmp_path, text, kind):
    (tmp_path / "a.toml").write_text(text)
    done = zoo("train", "mlp", "--config", tmp_path / "a.toml", "--dry-run", "--json")
    assert done.code == 2
    assert done.error["kind"] == kind
