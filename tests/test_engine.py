"""The training engine: exact checkpoints, execution modes, divergence."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_builders import BATCH, PER_EPOCH, ROWS, net, problem, same, stop_at, train

from zoo.errors import ZooError
from zoo.progress import QUIET
from zoo.tasks import TASKS
from zoo.train.options import TrainOptions

# Checkpoints --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    model = net()
    train(model)
    return model


@pytest.mark.parametrize("step", [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 4])
def test_a_signal_writes_a_checkpoint_and_resume_goes_on_mid_epoch(tmp_path, whole, step):
    """Dropout and shuffling on; a fresh model with another seed takes it up; equal to the bit."""
    from zoo.train.execution import Execution

    fitted = train(
        net(), checkpoints=tmp_path, execution=Execution("graph", 1), callbacks=[stop_at(step)]
    )
    assert fitted.interrupted == signal.SIGTERM
    assert fitted.steps == step
    second = net(seed=99)
    # Another number of steps a call: how steps are divided into calls must not matter.
    fitted = train(second, checkpoints=tmp_path, execution=Execution("graph", 7), resume=True)
    assert fitted.steps == 3 * PER_EPOCH
    assert same(whole, second)


def test_checkpoint_every_so_many_steps(tmp_path):
    """With 4 steps a checkpoint and 10 an epoch there is one at each multiple and each epoch."""
    from zoo.train import checkpoint

    seen = []

    def validate():
        seen.append(sorted(int(path.name[5:]) for path in tmp_path.glob("step-*")))
        return {"val_loss": 1.0}

    train(net(), checkpoints=tmp_path, checkpoint_every=4, validate=validate)
    assert seen[0] == [4, 8]
    assert seen[1] == [12, 16][-checkpoint.KEEP :] or seen[1] == [10, 12, 16]
    assert sorted(int(path.name[5:]) for path in tmp_path.glob("step-*")) == [24, 28, 30]


def test_callbacks_go_on_where_they_were(tmp_path):
    """A plateau's counters and the lowered rate survive; equal to the uninterrupted training."""
    from zoo.backend import keras

    options = TrainOptions(
        epochs=6, batch_size=BATCH, learning_rate=0.01, schedule="constant", keep="last"
    )

    def plateau():
        return keras.callbacks.ReduceLROnPlateau(monitor="val_loss", patience=2, factor=0.5)

    def constant():
        return {"val_loss": 1.0}

    one, two, three = net(), net(), net(seed=3)
    train(one, options, validate=constant, callbacks=[plateau()])
    train(
        two, options, validate=constant, checkpoints=tmp_path,
        callbacks=[plateau(), stop_at(2 * PER_EPOCH + 3)],
    )  # fmt: skip
    reborn = plateau()
    train(three, options, validate=constant, checkpoints=tmp_path, callbacks=[reborn], resume=True)
    assert float(one.optimizer.learning_rate) < 0.004
    assert float(one.optimizer.learning_rate) == float(three.optimizer.learning_rate)
    assert same(one, three)


def test_best_weights_and_patience_survive_a_resume(tmp_path):
    losses = [0.5, 0.2, 0.6, 0.7, 0.8]
    options = TrainOptions(epochs=9, batch_size=BATCH, patience=3)
    first, turn = net(), iter(losses)
    kept = []

    def validate():
        kept.append(first.get_weights())
        return {"val_loss": next(turn)}

    train(
        first, options, validate=validate, checkpoints=tmp_path,
        callbacks=[stop_at(3 * PER_EPOCH + 1)],
    )  # fmt: skip
    second = net(seed=9)
    fitted = train(
        second, options, validate=lambda: {"val_loss": next(turn)}, checkpoints=tmp_path,
        resume=True,
    )  # fmt: skip
    assert fitted.epochs == 5
    assert fitted.best == {"val_loss": 0.2, "epoch": 2}
    for a, b in zip(second.get_weights(), kept[1], strict=True):
        assert np.array_equal(a, b)
    again = train(net(seed=8), options, checkpoints=tmp_path, resume=True)
    assert again.steps == fitted.steps  # it was done: nothing more is trained


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    train(net(), checkpoints=folder)
    return folder


@pytest.mark.parametrize("file", ["state.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_any_damage_is_seen_and_the_one_before_is_used(stored, tmp_path, file, damage):
    import shutil

    from zoo.train import checkpoint

    folder = Path(shutil.copytree(stored, tmp_path / "copy"))
    newest, before = sorted(folder.glob("step-*"), reverse=True)[:2]
    content = (newest / file).read_bytes()
    rng = np.random.default_rng(0)
    for place in sorted({0, len(content) - 1, *rng.integers(0, len(content), 20).tolist()}):
        if damage == "cut":
            (newest / file).write_bytes(content[:place])
        elif damage == "flip":
            (newest / file).write_bytes(
                content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
            )
        else:
            (newest / file).unlink(missing_ok=True)
        found = checkpoint.newest(folder)
        assert found.meta["step"] == int(before.name[5:]), place
        assert len(found.passed) == 1
        assert newest.name in found.passed[0]


def test_without_a_whole_checkpoint_it_starts_at_step_0(tmp_path, whole):
    train(net(), checkpoints=tmp_path)
    for path in tmp_path.glob("step-*"):
        (path / "state.npz").write_bytes(b"")
    model = net()
    train(model, checkpoints=tmp_path, resume=True)
    assert same(whole, model)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    train(net(), checkpoints=tmp_path)
    seed_everything(0)
    with pytest.raises(ZooError, match="another model"):
        train(build_mlp((6,), 1, (16,), 0.3), checkpoints=tmp_path, resume=True)


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path):
    from zoo.train import checkpoint

    train(net(), checkpoints=tmp_path)
    rest = tmp_path / ".tmp-step-000000099-abcd"
    rest.mkdir()
    (rest / "state.npz").write_bytes(b"half")
    assert checkpoint.newest(tmp_path).meta["step"] == 3 * PER_EPOCH
    train(net(), checkpoints=tmp_path, resume=True)
    assert not rest.exists()


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from zoo.train import checkpoint
folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"model/0": np.zeros(1000)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.save(folder, 2, {"model/0": np.zeros(100_000)}, {})
except OSError as error:
    print(error.errno)
found = checkpoint.newest(folder)
print(found.meta["step"], found.passed, sorted(path.name for path in folder.iterdir()))
"""


def test_what_can_not_be_written_leaves_the_checkpoint_before(tmp_path):
    """The system refuses files of more than 50 kB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True
    )
    number, rest = done.stdout.split("\n", 1)
    assert os.strerror(int(number)) == "File too large"
    assert rest.strip() == "1 [] ['step-000000001']"


# Divergence ---------------------------------------------------------------------------------------


def test_divergence_names_the_step_and_the_layer(tmp_path):
    """One row is so large that its product overflows in the first layer: its step is known."""
    samples = problem()
    samples.x[123] = 3e38
    order = np.random.default_rng([5, 0]).permutation(ROWS)
    step = int(np.flatnonzero(order == 123)[0]) // BATCH + 1
    with pytest.raises(ZooError, match="diverged") as error:
        train(net(), None, samples, validate=lambda: {"val_loss": 1.0}, checkpoints=tmp_path)
    assert f"at step {step} (epoch 1): the output of layer 'dense_1'" in error.value.message
    assert error.value.exit_code == 1


def test_divergence_by_the_learning_rate_keeps_a_finite_checkpoint(tmp_path):
    from zoo.train import checkpoint

    samples = problem()
    samples.x *= np.float32(1e15)
    options = TrainOptions(epochs=3, batch_size=BATCH, learning_rate=99.0, optimizer="sgd")
    with pytest.raises(ZooError, match=r"diverged.*at step \d+ \(epoch \d"):
        train(net(), options, samples, checkpoints=tmp_path, checkpoint_every=1,
              validate=lambda: {"val_loss": 1.0})  # fmt: skip
    for array in checkpoint.newest(tmp_path).arrays.values():
        assert np.isfinite(array).all()


# Execution ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glasszoo" / "execution.json"


def test_a_trial_leaves_no_trace_and_is_remembered(cache, whole, monkeypatch):
    from zoo.train import execution

    monkeypatch.setattr(execution, "WORTHWHILE_SECONDS", 0.0)
    monkeypatch.setattr(execution, "MARGIN", 1e9)  # graph, whatever the figures
    monkeypatch.setattr(execution, "TURN_SECONDS", (0.01, 0.01))
    choices = []
    one, two = net(), net()
    fitted = train(one, execution=None, on_choice=choices.append)
    assert fitted.execution.startswith("graph:")
    assert same(whole, one)
    figures = choices[0].seconds_per_step
    assert figures["graph"] > 0
    assert figures["xla"] > 0
    assert list(json.loads(cache.read_text()).values()) == [figures]
    train(two, execution=None, on_choice=choices.append)
    assert choices[1].seconds_per_step == figures
    assert "remembered" in choices[1].reason


def test_short_trainings_do_not_wait_for_xla(cache):
    choices = []
    train(net(), execution=None, on_choice=choices.append)
    assert "xla" not in choices[0].seconds_per_step
    assert "XLA was not tried" in choices[0].reason
    cache.write_text("{ damaged")
    train(net(), execution=None, on_choice=choices.append)
    assert choices[1].reason.startswith("measured")


def test_the_faster_execution_is_chosen(cache, monkeypatch):
    """With figures that are remembered, the choice is arithmetic."""
    from zoo.train import execution

    model = net()
    for graph, xla, expected in (
        (0.010, 0.005, "xla:50"),
        (0.010, 0.0099, "graph:25"),
        (0.010, None, "graph:25"),
        (1.0, 3.0, "graph:1"),
        (1e-6, None, f"graph:{execution.MOST_STEPS}"),
    ):
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({"key": {"graph": graph, "xla": xla}}))
        choice, compiled = execution.choose(model, lambda: None, 10**6, "key", lambda text: None)
        assert str(choice.execution) == expected
        assert compiled == {}


def test_xla_learns_the_same():
    """To rounding, since XLA fuses; and without dropout, whose draws are others under XLA."""
    from zoo.train.execution import Execution

    whole, model = net(dropout=0), net(dropout=0)
    train(whole)
    fitted = train(model, execution=Execution("xla", 5))
    assert fitted.execution == "xla:5"
    for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("text", ["", "fast", "graph:0", "xla:-1", "graph:1.5", "graph:", "GRAPH"])
def test_unknown_executions_are_refused(text):
    from zoo.train.execution import Execution

    with pytest.raises(ZooError, match="not known"):
        Execution.parse(text)


def test_models_with_batch_statistics_get_full_batches_only():
    from zoo.backend import keras
    from zoo.train.feed import Feed, has_batch_statistics

    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.BatchNormalization()])
    assert has_batch_statistics(model)
    assert not has_batch_statistics(net())
    sizes = [
        len(y) for _, y in Feed(problem(70), TrainOptions(batch_size=32), 0, whole=True).epoch(0)
    ]
    assert sizes == [32, 32]
    few = Feed(problem(20), TrainOptions(batch_size=32), 0, whole=True)
    assert few.dropped == 0
    assert [len(y) for _, y in few.epoch(0)] == [20]


# The command --------------------------------------------------------------------------------------


def test_run_json_records_the_execution_and_resume_keeps_it(zoo, cache, tmp_path):
    from conftest import loans

    words = ("--data", loans(tmp_path / "loans.csv"), "--target", "approved", "--set", "hidden=8",
             "--batch-size", "64", "--runs", tmp_path / "runs")  # fmt: skip
    code, _, _, document = zoo("train", "mlp", *words, "--epochs", 2, "--name", "a", "--json")
    assert code == 0
    run = json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    assert run["execution"]["mode"] == document["execution"]
    assert run["execution"]["seconds_per_step"]["graph"] > 0
    assert run["engine"]["execution"] == "auto"
    code, *_, document = zoo("train", "mlp", *words, "--epochs", 1, "--name", "b", "--execution",
                             "graph:3", "--checkpoint-every", 2, "--json")  # fmt: skip
    assert document["execution"] == "graph:3"
    assert zoo("train", "mlp", *words, "--execution", "warp", "--json").code == 2
    import shutil

    shutil.rmtree(tmp_path / "runs" / "a" / "base")
    run["status"] = "interrupted"
    run["execution"]["mode"] = "graph:5"
    (tmp_path / "runs" / "a" / "run.json").write_text(json.dumps(run))
    cache.unlink()
    code, *_, document = zoo("train", "--resume", "a", "--runs", tmp_path / "runs", "--json")
    assert code == 0
    assert document["execution"] == "graph:5"


# Spikes and the bar -------------------------------------------------------------------------------


def spiky():
    """Rows with labels that no weights explain, far out, all in the fourth step of epoch 2."""
    samples = problem()
    order = np.random.default_rng([5, 1]).permutation(ROWS)
    rows = order[3 * BATCH : 3 * BATCH + 4]
    samples.x[rows] *= 1e4
    samples.y[rows] = 1 - (samples.x[rows, :1] > 0)
    return samples


def test_a_spike_goes_back_and_skips_the_batches(tmp_path):
    """Far rows make the loss of some calls jump: recorded, and the weights stay good."""
    from zoo.train.execution import Execution

    rows, said = [], []

    class Listener(type(QUIET)):
        def say(self, text):
            said.append(text)

    options = TrainOptions(epochs=2, batch_size=BATCH, learning_rate=0.01, keep="last",
                           spike_recovery=20.0)  # fmt: skip
    from zoo.train.loop import fit

    model = net(dropout=0)
    fitted = fit(
        model, TASKS["binary"], options, spiky(), lambda: {"val_loss": 1.0}, seed=5,
        progress=Listener(quiet=True), on_epoch=rows.append, checkpoints=tmp_path,
        checkpoint_every=1, execution=Execution("graph", 1),
    )  # fmt: skip
    assert fitted.steps == 2 * PER_EPOCH
    spikes = [spike for row in rows for spike in row.get("spikes", [])]
    assert 3 + PER_EPOCH + 1 in [spike["step"] for spike in spikes], spikes
    for spike in spikes:
        assert spike["loss"] > 20 * spike["usual"]
        assert spike["back_to"] == spike["step"] - 1
    assert sum(text.startswith("loss spike of") for text in said) == len(spikes)
    good = problem()
    logits = model(good.x, training=False).numpy()
    assert ((logits > 0) == good.y).mean() > 0.6
    assert all(np.isfinite(w).all() for w in model.get_weights())
    json.dumps(rows, allow_nan=False)


def test_recovery_from_numbers_that_are_not_finite_and_its_end(tmp_path):
    from zoo.train import loop
    from zoo.train.execution import Execution

    samples = problem()
    samples.x[17] = np.nan
    rows = []
    options = TrainOptions(epochs=2, batch_size=BATCH, spike_recovery=50.0, keep="last")
    model = net()
    train(model, options, samples, validate=lambda: {"val_loss": 1.0}, checkpoints=tmp_path,
          execution=Execution("graph", 1), on_epoch=rows.append)  # fmt: skip
    assert [len(row["spikes"]) for row in rows] == [1, 1]  # each epoch meets the row once
    assert rows[0]["spikes"][0]["loss"] is None
    assert all(np.isfinite(w).all() for w in model.get_weights())
    samples.x[:] = np.nan  # nothing but spikes: it gives up
    with pytest.raises(ZooError, match="diverged"):
        train(net(), TrainOptions(epochs=12, batch_size=BATCH, spike_recovery=50.0), samples,
              validate=lambda: {"val_loss": 1.0}, execution=Execution("graph", 1))  # fmt: skip
    assert loop.RECOVERIES < 12  # one an epoch: a ReLU hides them from the loss


def test_resume_after_a_spike_is_exact(tmp_path):
    """What is usual, and the skipped batches, survive; checkpoints fall between calls."""
    from zoo.train.execution import Execution

    samples = spiky()
    options = TrainOptions(epochs=3, batch_size=BATCH, learning_rate=0.01, keep="last",
                           spike_recovery=10.0)  # fmt: skip
    more = {"execution": Execution("graph", 1), "checkpoint_every": 1,
            "validate": lambda: {"val_loss": 1.0}}  # fmt: skip
    whole, first, second = net(), net(), net(seed=9)
    rows = []
    train(whole, options, samples, on_epoch=rows.append, checkpoints=tmp_path / "a", **more)
    assert any("spikes" in row for row in rows)
    train(first, options, samples, checkpoints=tmp_path / "b",
          callbacks=[stop_at(PER_EPOCH + 6)], **more)  # fmt: skip
    train(second, options, samples, checkpoints=tmp_path / "b", resume=True, **more)
    assert same(whole, second)


def test_without_spikes_recovery_changes_nothing(whole):
    model = net()
    train(model, TrainOptions(epochs=3, batch_size=BATCH, learning_rate=0.01, keep="last",
                              spike_recovery=100.0))  # fmt: skip
    assert same(whole, model)


def test_the_bar_shows_loss_metric_and_throughput():
    from zoo.train.execution import Execution
    from zoo.train.loop import fit

    shown = []

    class Bar(type(QUIET)):
        def advance(self, done, live=""):
            shown.append((done, live))

    fit(net(), TASKS["binary"], TrainOptions(epochs=2, batch_size=BATCH), problem(),
        lambda: {"val_loss": 0.5, "val_accuracy": 0.75}, seed=0, progress=Bar(quiet=True),
        execution=Execution("graph", 4))  # fmt: skip

    assert shown[-1][0] == 2 * PER_EPOCH
    assert re.fullmatch(r"epoch 2 loss \d\.\d{4} val 0\.7500 [\d,]+/s", shown[-1][1])
    assert re.fullmatch(r"epoch 1 loss \d\.\d{4}", shown[0][1])  # nothing is known yet


def test_divergence_that_validation_meets_first(tmp_path):
    """In the last step of an epoch, of which the running loss does not know."""
    with pytest.raises(ZooError, match="diverged"):
        train(net(), None, problem(), validate=lambda: {"val_loss": np.inf}, checkpoints=tmp_path)


def test_divergence_of_embeddings_has_a_place(tmp_path):
    """Their gradient is a few rows, and no array."""
    from zoo.backend import keras, seed_everything

    seed_everything(0)
    words = keras.Input((6,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(words))
    model = keras.Model(words, keras.layers.Dense(1)(x))
    samples = problem()
    samples.x = np.abs(10 * samples.x[:, :6]).astype("int32") % 20
    options = TrainOptions(epochs=3, batch_size=BATCH, learning_rate=1e38, optimizer="sgd")
    with pytest.raises(ZooError, match=r"diverged.*at step \d+ \(epoch \d"):
        train(model, options, samples, checkpoints=tmp_path, validate=lambda: {"val_loss": 1.0})


def test_what_a_checkpoint_does_not_hold_is_left_or_a_count_of_none():
    """A fresh training holds nothing; an older checkpoint lacks what came to be counted since."""
    from zoo.backend import keras, tf
    from zoo.train.checkpoint import restore_callbacks

    callback = keras.callbacks.Callback()
    callback.held = [tf.Variable([1.0, 0.0]), tf.Variable(-1)]
    restore_callbacks([callback], {})
    assert [variable.numpy().tolist() for variable in callback.held] == [[1.0, 0.0], -1]
    restore_callbacks([callback], {"held/0/0": np.array([0.0, 1.0])})
    assert [variable.numpy().tolist() for variable in callback.held] == [[0.0, 1.0], 0]
