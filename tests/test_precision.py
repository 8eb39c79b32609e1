"""Training in mixed precision."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from engine_builders import net, same, stop_at, train


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_resumes_to_the_bit(tmp_path, policy):
    """The scale of the loss is part of a checkpoint; variables are float32, products are not."""
    from zoo.backend import dtype_policy, keras

    with dtype_policy(policy):
        whole, cut, rest = net(), net(), net(seed=9)
    assert keras.config.dtype_policy().name == "float32"  # only while it is open
    assert whole.compute_dtype == policy.removeprefix("mixed_")
    train(whole)
    assert {weight.dtype for weight in whole.trainable_weights} == {"float32"}
    fitted = train(cut, checkpoints=tmp_path, callbacks=[stop_at(7)], checkpoint_every=3)
    assert fitted.interrupted == signal.SIGTERM
    train(rest, checkpoints=tmp_path, resume=True)
    assert same(whole, rest)
    scaled = isinstance(whole.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")


def test_precision_follows_the_devices(monkeypatch):
    """Compute capabilities as the devices tell them: there is no GPU here to ask."""
    from zoo import backend

    def best(*capabilities):
        details = dict(
            enumerate({"compute_capability": one} if one else {} for one in capabilities)
        )
        monkeypatch.setattr(backend, "gpus", lambda: list(details))
        monkeypatch.setattr(
            backend.tf.config.experimental, "get_device_details", lambda gpu: details[gpu]
        )
        return backend.best_precision()

    assert best() == "float32"
    assert best((6, 1)) == "float32"
    assert best((7, 5)) == "mixed_float16"
    assert best((8, 0), (9, 0)) == "mixed_bfloat16"
    assert best((12, 0), (7, 0)) == "mixed_float16"
    assert best((9, 0), None) == "float32"
    assert backend.best_precision(tpu=True) == "mixed_bfloat16"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_what_mixed_precision_trained_ships_in_float32(zoo, tmp_path, policy):
    from conftest import loans

    from zoo.backend import keras
    from zoo.run import Run
    from zoo.train.running import reopen

    words = ["train", "mlp", "--data", loans(tmp_path / "loans.csv"), "--target", "approved",
             "--epochs", 2, "--name", "half", "--runs", tmp_path, "--json"]  # fmt: skip
    code, _, err, document = zoo(*words, "--precision", policy)
    assert code == 0, err
    run = Run(tmp_path / "half")
    assert run.document()["engine"]["precision"] == policy
    assert keras.config.dtype_policy().name == "float32"
    session, base = reopen(run), run.variant("base")
    model = session.load(base.weights)
    rows = session.data.parts["test"]
    logits = model(session.encoded(rows), training=False).numpy()
    scores = base.predictions().scores[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), scores, atol=1e-5)
    assert document["metrics"]["accuracy"] > 0.6
    # Its compression is a training of its own, in float32.
    code, _, err, _ = zoo("compress", "half", "prune:0.5", "int8", "--runs", tmp_path, "--json")
    assert code == 0, err


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "resnet20", "lstm", "gru", "lstm_forecast", "textcnn", "bert_tiny",
             "bert_tiny_mlm", "gpt_tiny", "transformer_seq2seq", "vae", "conv_vae", "nlinear"]
)  # fmt: skip
def test_each_family_can_be_built_in_mixed_precision(name, policy):
    """And answers nearly as in float32, in training and otherwise."""
    from zoo.backend import dtype_policy, seed_everything
    from zoo.registry import models
    from zoo.testing import inputs_for, tiny

    spec, said = models().get(name), []
    for each in ("float32", policy):
        seed_everything(1)
        with dtype_policy(each):
            model = tiny(spec)
        x = inputs_for(spec, model, 8)
        assert np.isfinite(np.asarray(model(x, training=True), "float32")).all()
        said.append(np.asarray(model(x, training=False), "float32"))
    assert model.compute_dtype == policy.removeprefix("mixed_")
    gap = np.abs(said[1] - said[0]).max() / np.abs(said[0]).max()
    assert gap < 0.1


def test_a_run_from_before_precisions_goes_on_in_float32():
    from zoo.train.running import _engine

    stored = {"execution": "auto", "checkpoint_every": 0, "strategy": "auto", "track": []}
    assert _engine({"engine": stored, "execution": {}}).policy() == "float32"


def test_an_unknown_precision_is_refused(zoo, tmp_path):
    code, _, _, document = zoo(
        "train", "mlp", "--precision", "half", "--runs", tmp_path, "--dry-run", "--json"
    )
    assert code == 2
    assert "mixed_float16" in document["error"]["expected"]
    assert list(tmp_path.iterdir()) == []
