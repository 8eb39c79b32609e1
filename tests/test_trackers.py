"""TensorBoard and MLflow, the real ones: every epoch once, after a resume too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import loans

pytest.importorskip("mlflow", reason="the extra `track` is not installed")


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    data = loans(tmp_path / "loans.csv", 200)
    return ("train", "mlp", "--data", data, "--target", "approved", "--set", "hidden=4",
            "--runs", tmp_path / "runs")  # fmt: skip


def board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of TensorBoard's own reader: name -> [(step, value)], in the order of the files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tensor_util.make_ndarray(value.tensor))
                    found.setdefault(value.tag, []).append((event.step, number))
    return found


def flow(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str], str]:
    """The same from MLflow's own client, with the parameters and the status."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    history = {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    return history, run.data.params, run.info.status


def test_both_hold_every_epoch_once_and_the_test_metrics(zoo, words, tmp_path):
    """Killed after the third epoch was logged and before its checkpoint; taken up again."""
    done = zoo(*words, "--epochs", 4, "--name", "a", "--track", "tensorboard,mlflow", "--json")
    assert done.code == 0, done.stderr
    run = tmp_path / "runs" / "a"
    assert json.loads((run / "run.json").read_text())["engine"]["track"] == [
        "tensorboard",
        "mlflow",
    ]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    expected = [(row["epoch"], row["val_loss"]) for row in log]

    def check(metrics):
        assert board(run / "track" / "tensorboard")["val_loss"] == [
            (step, pytest.approx(value)) for step, value in expected
        ]
        history, params, status = flow(run / "track" / "mlflow")
        assert history["val_loss"] == [(s, pytest.approx(v, rel=1e-3)) for s, v in expected]
        assert set(history) >= {"loss", "val_accuracy", "learning_rate", "test_accuracy"}
        assert history["test_accuracy"] == [(4, pytest.approx(metrics["accuracy"], abs=0.05))]
        assert (params["model"], params["options.epochs"], status) == ("mlp", "4", "FINISHED")
        assert len(board(run / "track" / "tensorboard")["test_accuracy"]) == 1

    check(done.document["metrics"])
    document = json.loads((run / "run.json").read_text())
    shutil.rmtree(run / "base")
    for path in sorted((run / "checkpoints").glob("step-*"))[-2:]:
        shutil.rmtree(path)
    (run / "run.json").write_text(json.dumps({**document, "status": "interrupted"}))
    again = zoo("train", "--resume", run, "--json")
    assert again.code == 0, again.stderr
    assert "going on after step" in again.stderr
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(log) > 4
    expected = [(row["epoch"], row["val_loss"]) for row in {r["epoch"]: r for r in log}.values()]
    check(again.document["metrics"])


def test_what_is_wrong_is_said_before_anything_is_written(zoo, words, tmp_path, monkeypatch):
    assert zoo(*words, "--track", "tensorbord", "--json").error["kind"] == "unknown_tracker"
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else find(name, *a)
    )
    error = zoo(*words, "--track", "mlflow", "--json").error
    assert error["kind"] == "missing_extra"
    assert "glasszoo[track]" in error["hint"]
    assert not (tmp_path / "runs").exists()
