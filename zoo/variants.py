"""Shipping a variant: weights, artefact, parity, predictions and metrics, in one folder at once."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.decision import decide
from zoo.errors import ZooError
from zoo.kernels import kernels
from zoo.metrics import intervals
from zoo.predict import compiled, open_artifact, point_metrics, predict_rows, runtime_of
from zoo.predictions import Predictions
from zoo.run import BASE, Run, Variant, sha256_file, write_arrays, write_atomic
from zoo.tasks import function_of, get_task
from zoo.train.running import reopen
from zoo.train.session import Session

ARTIFACT = "model.tflite"
#: What a report draws of a variant beside its numbers: see :mod:`zoo.train.pictures`.
SHOWN = "shown.npz"
PARITY_SAMPLES, PARITY_CALL = 256, 32


def sparsity(model: Any) -> dict[str, Any]:
    """Zeros over the prunable kernels and over all weights, and each kernel's own share."""
    layers = []
    zeros = total = 0
    for kernel in kernels(model):
        values = np.asarray(kernel.variable)
        layers.append(
            {"name": kernel.name, "weights": values.size, "sparsity": float(np.mean(values == 0))}
        )
        zeros += int((values == 0).sum())
        total += values.size
    weights = [np.asarray(weight) for weight in model.weights]
    every = sum(weight.size for weight in weights)
    return {
        "layers": layers,
        "sparsity": zeros / total if total else None,
        "sparsity_total": sum(int((w == 0).sum()) for w in weights) / every if every else None,
    }


def parity(
    session: Session, model: Any, artifact: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """How far the artefact's outputs are from the Keras model's on validation rows."""
    rows = session.data.parts["val"][:PARITY_SAMPLES]
    reference, task = compiled(model), get_task(session.data.task)
    gaps, values, same = [], [], []
    for some in np.array_split(rows, -(-len(rows) // PARITY_CALL)):
        x = session.encoded(some)
        meant, said = reference(x), artifact(x)
        gaps.append(np.abs(meant - said).max())
        values.append(np.array([meant.sum(), np.square(meant, dtype=np.float64).sum(), meant.size]))
        if task.classes and task.decode is not None:
            same.append(task.decode(said)[0] == task.decode(meant)[0])
    total, squares, count = np.sum(values, axis=0)
    return {
        "max_abs": float(max(gaps)),
        "spread": float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0))),
        "agreement": float(np.mean(np.concatenate(same))) if same else None,
        "n": len(rows),
        "split": "val",
        "against": "keras",
    }


def ship(
    session: Session,
    run: Run,
    name: str,
    *,
    recipe: str,
    kind: str,
    model: Any,
    content: bytes,
    parent: Variant | None,
    own_weights: bool,
    options: dict[str, Any],
    seconds: float,
    file: str = ARTIFACT,
) -> Variant:
    """Write a variant's folder: it appears by rename, whole.

    Args:
        model: the Keras model whose weights the artefact was made from.
        content: of the artefact, whose name is ``file``.
        own_weights: whether the variant keeps Keras weights of its own (base and retrained ones).
    """
    data = session.data
    with run.new_variant(name) as folder:
        (folder / file).write_bytes(content)
        if own_weights:
            model.save_weights(folder / "model.weights.h5")
        artifact = open_artifact(folder / file)
        rows = data.parts["test"]
        said = predict_rows(session, artifact, "test", rows)
        shown = get_task(data.task).shown
        if shown:
            write_arrays(folder / SHOWN, function_of(shown)(session, model, artifact))
        fields = {
            "recipe": recipe,
            "kind": kind,
            "parent": None if parent is None else {"variant": parent.name, "sha256": parent.sha256},
            "artifact": file,
            "runtime": runtime_of(folder / file),
            "bytes": len(content),
            "bytes_gzip": len(gzip.compress(content, 9, mtime=0)),
            **sparsity(model),
            "parity": parity(session, model, artifact),
            "model": _model_of(session),
            "options": options,
            "seconds": seconds,
        }
        complete(folder, name, [file], said, data.task, fields)
    return run.variant(name)


def complete(
    folder: Path,
    name: str,
    files: Sequence[str],
    said: Predictions,
    task: str,
    fields: Mapping[str, Any],
) -> None:
    """Write what every variant's folder ends with: predictions, metrics, and its document.

    Args:
        files: those that decide what the variant answers; the documents are bound to them.
        said: what it answered on the test rows.
        fields: of ``variant.json``, all but those that follow from the other arguments.
    """
    from zoo.environment import now, versions
    from zoo.schema import MetricsDocument, ResultList, VariantDocument, dump

    write_arrays(folder / "predictions.npz", said.arrays() | more_columns(said, task))
    bound: dict[str, Any] = {
        "variant": name,
        "inputs": [
            {"path": f"{name}/{file}", "sha256": sha256_file(folder / file)} for file in files
        ],
        "environment": versions(),
        "created": now(),
    }
    document = VariantDocument(**{**fields, **bound, "metrics": point_metrics(said, task)})
    scored = MetricsDocument(results=[score(said, task, name)], **bound).model_dump(mode="json")
    write_atomic(folder / "metrics.json", dump({**ResultList().model_dump(), **scored}))
    write_atomic(folder / "variant.json", dump(document))


def _model_of(session: Session) -> dict[str, Any] | None:
    """What a variant says about its model where that is not the run's own."""
    if not session.distilled:
        return None
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in session.config.items()}
    return {"name": session.spec.name, "version": session.spec.version, "config": config}


def score(predictions: Predictions, task: str, variant: str) -> dict[str, Any]:
    """Metrics with intervals: one element of what ``zoo eval --json`` prints."""
    return {
        "variant": variant,
        "split": predictions.split,
        "n": len(predictions),
        "metrics": intervals(
            get_task(task).metrics, predictions.y_true, predictions.y_pred, predictions.scores
        ),
    }


def more_columns(predictions: Predictions, task: str) -> dict[str, np.ndarray]:
    """The task's own columns of the predictions' file."""
    columns = get_task(task).columns
    return {} if columns is None else columns(predictions)


def predict_split(session: Session, variant: Variant, split: str) -> Predictions:
    """Predictions of a variant's artefact on a split, stored in its folder."""
    rows = session.data.parts[split]
    said = decided(
        predict_rows(session, open_artifact(variant.artifact), split, rows), variant.decision()
    )
    variant.write_predictions(said, more_columns(said, session.data.task))
    return said


def decided(predictions: Predictions, decision: Mapping[str, Any] | None) -> Predictions:
    """Predictions with the answers that a variant's decision makes of them."""
    if decision is None:
        return predictions
    said = predictions
    groups = said.groups[decision["attribute"]]
    answers = decide(decision, said.row, groups, said.y_pred, said.scores)
    return replace(said, y_pred=answers.astype(said.y_pred.dtype))


def predictions_of(item: Variant, split: str, session: Session | None = None) -> Predictions:
    """A variant's predictions on a split: the stored ones, made and stored where there are none.

    ``session`` is the run's, opened where it is needed and not given.
    """
    try:
        return item.predictions(split)
    except ZooError as error:
        if error.kind != "missing_predictions":
            raise
        return predict_split(session or reopen(item.run), item, split)


def ship_base(session: Session, run: Run, model: Any, seconds: float) -> Variant:
    """Write the variant ``base`` of a trained model."""
    from zoo.export import to_litert

    return ship(
        session,
        run,
        BASE,
        recipe="",
        kind="base",
        model=model,
        content=to_litert(model),
        parent=None,
        own_weights=True,
        options={},
        seconds=seconds,
    )
