"""Retraining that was interrupted goes on as if it had not been; replicas keep identical masks."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.run import Run, workshop

ROWS, BATCH, EPOCHS = 300, 32, 3
STEPS = EPOCHS * math.ceil(ROWS / BATCH)
ZOO = [sys.executable, "-m", "zoo.cli"]


def problem():
    from zoo.train.feed import Samples

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 40)).astype("float32")
    return Samples(x, (x[:, :1] + 0.5 * x[:, 1:2] > 0).astype("float32"))


def net(seed: int = 0):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    seed_everything(seed)
    return build_mlp((40,), 1, (32, 32), 0.3)


def attach(step: str, model, samples):
    from zoo.compress import cluster, prune, quantize_aware

    return {
        "prune": lambda: prune(model, 0.8, steps=STEPS, every=3),
        "cluster": lambda: cluster(model, 4),
        "qat": lambda: quantize_aware(model, samples.x[:64], decay=0.9),
    }[step]()


def retrain(step: str, folder: Path | None, stop: int = 0, seed: int = 0):
    """Train on under a step; the weights at the end, and what the step held. ``stop`` interrupts."""
    from zoo.backend import keras
    from zoo.progress import QUIET
    from zoo.tasks import TASKS
    from zoo.train.execution import Execution
    from zoo.train.loop import fit
    from zoo.train.options import TrainOptions

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == stop:
                signal.raise_signal(signal.SIGTERM)

    samples, model = problem(), net(seed)
    with attach(step, model, samples) as handle:
        fitted = fit(
            model, TASKS["binary"],
            TrainOptions(epochs=EPOCHS, batch_size=BATCH, learning_rate=0.01, keep="last"),
            samples, lambda: {"val_loss": 1.0}, seed=5, progress=QUIET, checkpoints=folder,
            callbacks=[handle.callback(), Stop()], resume=folder is not None and not stop,
            execution=Execution("graph", 1),
        )  # fmt: skip
        assert (fitted.interrupted is not None) == bool(stop)
        held = [np.array(variable) for variable in handle.variables]
    return [*map(np.array, model.weights), *held]


@functools.cache
def unbroken(step: str):
    return retrain(step, None)


@pytest.mark.parametrize(
    ("step", "stop"),  # the 4th step is between two renewals of the masks
    [("prune", 4), ("prune", 17), ("cluster", 17), ("qat", 17)],
)
def test_a_retraining_is_taken_up_to_the_bit(step, stop, tmp_path):
    whole = unbroken(step)
    retrain(step, tmp_path, stop)
    # A resumed process starts from the parent's weights again; those of its checkpoint count.
    resumed = retrain(step, tmp_path)
    assert len(whole) == len(resumed)
    for one, two in zip(whole, resumed, strict=True):
        assert np.array_equal(one, two)


def test_masks_are_in_the_checkpoint(tmp_path):
    from zoo.train import checkpoint

    retrain("prune", tmp_path, stop=17)
    found = checkpoint.newest(tmp_path)
    masks = [value for name, value in found.arrays.items() if name.startswith("held/0/")]
    weights = [value for name, value in found.arrays.items() if name.startswith("model/")]
    assert {mask.shape for mask in masks} == {(40, 32), (32, 32), ()}
    for mask in masks:
        if mask.ndim == 2:
            (kernel,) = [weight for weight in weights if weight.shape == mask.shape]
            assert 0.3 < (mask == 0).mean() < 0.81
            assert (kernel[mask == 0] == 0).all()


def test_kill_and_compress_again(zoo, run_mlp):
    """kill -9 in the pruning; the same command goes on and ends with the bits of an unbroken one."""
    document = json.loads((run_mlp / "run.json").read_text())
    Run(run_mlp).update(
        options={**document["options"], "epochs": 15, "deterministic": True},
        engine={**document["engine"], "checkpoint_every": 3},
    )
    whole = Path(shutil.copytree(run_mlp, run_mlp.parent / "whole"))
    words = [*ZOO, "compress", "--json"]
    recipe = "prune:0.8+qat"
    beside = subprocess.Popen(
        [*words, whole, recipe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with subprocess.Popen([*words, run_mlp, recipe], stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                process.kill()
                break
        assert process.wait(60) == -9
    checkpoints = run_mlp / "checkpoints" / "prune-0.8"
    assert list(checkpoints.glob("step-*/manifest.json"))
    assert Run(run_mlp).variants() == ["base"]
    done = subprocess.run([*words, run_mlp, recipe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stderr
    assert beside.wait(120) == 0
    for variant in ("prune-0.8", "prune-0.8_qat"):
        one, two = (run / variant / "model.tflite" for run in (run_mlp, whole))
        assert one.read_bytes() == two.read_bytes(), variant
    assert not checkpoints.exists()
    assert not (run_mlp / "checkpoints" / "prune-0.8_qat").exists()


def test_checkpoints_of_another_parent_are_thrown_away(run_mlp):
    from zoo.errors import ZooError

    run = Run(run_mlp)

    def leave(recipe):
        """Whether a checkpoint was there; one is when it is left, as by an interruption."""
        base = run.variant("base")
        with contextlib.suppress(KeyboardInterrupt), workshop(run, "x", base, recipe) as folder:
            kept = (folder / "step-000000001").exists()
            (folder / "step-000000001").mkdir(exist_ok=True)
            with pytest.raises(ZooError, match="another process"):
                workshop(run, "x", base, recipe).__enter__()
            raise KeyboardInterrupt
        return kept

    assert leave("prune:0.5") is False
    assert leave("prune:0.5") is True
    path = run_mlp / "base" / "variant.json"
    path.write_text(path.read_text().replace('"recipe": ""', '"recipe": "" '))
    assert leave("prune:0.5") is False
    with workshop(run, "x", run.variant("base"), "prune:0.5") as folder:
        pass
    assert not folder.exists()


def test_replicas_keep_identical_masks():
    """Two parts of the CPU: every copy of a mask and of a kernel is the same, and one device's.

    A distilled student is one device's, too.
    """
    script = Path(__file__).parent / "compress_mirrored.py"
    both = [
        subprocess.Popen([sys.executable, "-W", "ignore", script, devices], text=True,
                         stdout=subprocess.PIPE)
        for devices in "12"
    ]  # fmt: skip
    texts = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    one, two = map(json.loads, texts)
    assert one["copies"] == 1
    assert two["copies"] == 2
    for found in (one, two):
        assert found["differ"] == 0
        assert found["sparsity"] == pytest.approx(0.75, abs=1e-3)
    # The replicas' gradients are summed in another order: a weight at the threshold may differ.
    same = np.mean(np.array(one["mask"]) == np.array(two["mask"]))
    assert same > 0.99
    assert two["student"] == pytest.approx(one["student"], abs=1e-5)  # the teacher counts once
    # Activations' ranges are the first replica's, of half the rows.
    assert two["rounded"] == pytest.approx(one["rounded"], abs=0.02)
