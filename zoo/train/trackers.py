"""Trackers, one row each: the scalars of every epoch, for TensorBoard and MLflow.

A tracker's files lie in the run's folder, under ``track``. What it should show follows from
``log.jsonl``: after a resume the epochs from before are completed, and none is there twice.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zoo.errors import ZooError, unknown
from zoo.run import Run, write_atomic


class Writer(Protocol):
    """One open tracker."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, at a step."""

    def close(self) -> None:
        """All is written."""


@dataclass(frozen=True)
class Tracker:
    """One row: the packages it needs, and ``open(run, folder)``, which goes on with what is there."""

    name: str
    packages: tuple[str, ...]
    open: Callable[[Run, Path], Writer]
    view: str  # the command that shows it


class _TensorBoard:
    """Event files can't be changed, so they are written anew when a training goes on."""

    def __init__(self, run: Run, folder: Path) -> None:
        from zoo.backend import tf

        shutil.rmtree(folder, ignore_errors=True)
        self._tf, self._writer = tf, tf.summary.create_file_writer(str(folder))
        lines = [f"    {name}: {value}" for name, value in facts(run).items()]  # Markdown's code
        with self._writer.as_default():
            tf.summary.text("config", "\n".join(lines), step=0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        with self._writer.as_default():
            for name, value in values.items():
                self._tf.summary.scalar(name, value, step=step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """A SQLite store in the run's folder, or the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: Run, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._mlflow = mlflow
        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"
        self._client = mlflow.MlflowClient(uri)
        known = folder / "run.json"
        if known.exists():
            self._id = str(json.loads(known.read_text(encoding="utf-8"))["run_id"])
        else:
            self._id = self._begin(run, folder)
            write_atomic(known, json.dumps({"run_id": self._id}))
        self._there: dict[str, set[int]] = {}

    def _begin(self, run: Run, folder: Path) -> str:
        found = self._client.get_experiment_by_name("glasszoo")
        if found is None:
            at = None if os.environ.get("MLFLOW_TRACKING_URI") else folder.resolve().as_uri()
            experiment = self._client.create_experiment("glasszoo", artifact_location=at)
        else:
            experiment = found.experiment_id
        document = run.document()
        tags = {"model": document["spec"]["name"], "data": document["data"]["name"],
                "experiment": document["experiment"]}  # fmt: skip
        begun = self._client.create_run(experiment, run_name=run.name, tags=tags)
        for name, value in facts(run).items():
            self._client.log_param(begun.info.run_id, name, str(value)[:500])
        return str(begun.info.run_id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        fresh = [name for name in values if step not in self._steps(name)]
        now = time.time_ns() // 1_000_000
        self._client.log_batch(
            self._id, metrics=[Metric(name, values[name], now, step) for name in fresh]
        )
        for name in fresh:
            self._there[name].add(step)

    def _steps(self, name: str) -> set[int]:
        """The steps that the store has of a metric."""
        if name not in self._there:
            history = self._client.get_metric_history(self._id, name)
            self._there[name] = {int(metric.step) for metric in history}
        return self._there[name]

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Tracker] = {
    row.name: row
    for row in (
        Tracker("tensorboard", ("tensorboard",), _TensorBoard, "tensorboard --logdir"),
        Tracker("mlflow", ("mlflow", "sqlalchemy", "alembic"), _MLflow,
                "mlflow ui --backend-store-uri"),
    )
}  # fmt: skip


def facts(run: Run) -> dict[str, Any]:
    """What was trained with which settings, flat."""
    document = run.document()
    return {
        "model": document["spec"]["name"],
        "data": document["data"]["name"],
        "seed": document["seed"],
        **{f"config.{name}": value for name, value in document["config"].items()},
        **{f"options.{name}": value for name, value in document["options"].items()},
    }


def check_trackers(names: Iterable[str]) -> None:
    """Raise :class:`ZooError` for an unknown tracker, or one whose packages are not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        missing = [p for p in TRACKERS[name].packages if importlib.util.find_spec(p) is None]
        if missing:
            raise ZooError(
                f"--track {name} needs packages that are not installed.",
                expected=", ".join(TRACKERS[name].packages),
                received=f"no {' and no '.join(missing)}",
                hint="pip install 'glasszoo[track]'",
                kind="missing_extra",
            )


class Tracking:
    """The trackers of one training; they open with the first epoch that ends."""

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        self._run, self._names = run, tuple(names)
        self._writers: list[Writer] | None = None

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Log an epoch's row, which ``log.jsonl`` holds already."""
        for writer in self._opened(before=int(row["epoch"])):
            writer.scalars(_numbers(row), int(row["epoch"]))

    def finish(self, metrics: Mapping[str, float | None], epochs: int) -> None:
        """Log the metrics of the test split, at the last epoch."""
        named = {f"test_{name}": float(v) for name, v in metrics.items() if v is not None}
        for writer in self._opened(before=epochs + 1):
            writer.scalars(named, epochs)

    def close(self) -> None:
        """End, whether or not the training is done."""
        for writer in self._writers or []:
            writer.close()
        self._writers = []

    def _opened(self, before: int) -> list[Writer]:
        if self._writers is None:
            folder = self._run.path / "track"
            self._writers = [TRACKERS[name].open(self._run, folder / name) for name in self._names]
            for row in self._run.read_log() if self._writers else []:
                if row["epoch"] < before:
                    for writer in self._writers:
                        writer.scalars(_numbers(row), int(row["epoch"]))
        return self._writers


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The scalars of an epoch; its number is the step."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, (int, float)) and name not in ("epoch", "step")
    }
