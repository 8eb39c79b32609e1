"""Looking at runs: metrics, comparisons, predictions."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.run import BASE, RUNS, Run, Variant, check_output, find_run, write_atomic

if TYPE_CHECKING:
    import numpy as np

#: Digits that float32 has, and a bit: more of them would be noise to read.
DIGITS = 7


def evaluate(
    text: str, variant: str = BASE, split: str = "test", root: Path = RUNS
) -> dict[str, Any]:
    """Metrics with intervals of one variant or all, measured on the artefact."""
    from zoo.variants import predictions_of, score

    run = find_run(text, root)
    chosen = run.select(variant)
    task = run.document()["data"]["task"]
    results = []
    for item in chosen:
        predictions = predictions_of(item, split)
        result = {**score(predictions, task, item.name), **item.bound(item.artifact)}
        item.upsert("metrics.json", [result], key=("split",))
        results.append(result)
    return {"run": str(run.path), "results": results}


def compare(first: str, second: str, root: Path = RUNS, variant: str = BASE) -> dict[str, Any]:
    """Two runs side by side; a paired comparison where they were tested on the same rows."""
    import numpy as np

    from zoo_explain.fairness import compare as paired

    pair = [find_run(text, root) for text in (first, second)]
    documents = [run.document() for run in pair]
    chosen = [run.variant(variant) for run in pair]
    said = [item.predictions() for item in chosen]
    same = np.array_equal(said[0].row, said[1].row) and np.array_equal(
        said[0].y_true, said[1].y_true
    )
    deltas = None
    if same:
        data = documents[0]["data"]
        deltas = paired(
            said[0],
            said[1],
            task=data["task"],
            variant=pair[1].name,
            positive=data["positive"],
            label_groups=tuple(data["label_groups"]),
        )
    return {
        "runs": [str(run.path) for run in pair],
        "variant": variant,
        "same_experiment": documents[0]["experiment"] == documents[1]["experiment"],
        "seeds": [document["seed"] for document in documents],
        "metrics": [item.document()["metrics"] for item in chosen],
        "deltas": deltas,
        "reason": None if same else "the two were tested on different rows",
    }


def predict(
    text: str,
    *,
    source: Path | None = None,
    variant: str = BASE,
    split: str = "test",
    output: Path | None = None,
    root: Path = RUNS,
) -> dict[str, Any]:
    """Predictions of a variant's artefact: on a split (npz), or on the user's own input (CSV)."""
    from zoo.train.running import reopen
    from zoo.variants import predict_split

    run = find_run(text, root)
    chosen = run.select(variant)
    if source is not None:
        if len(chosen) > 1:
            raise ZooError("Own input is predicted by one variant at a time.", received="all")
        return {"run": str(run.path), "results": [_predict_own(run, chosen[0], source, output)]}
    if output is not None:
        raise ZooError("--output goes with an INPUT; a split's predictions stay in the run.")
    session = reopen(run)
    results = []
    for item in chosen:
        said = predict_split(session, item, split)
        path = item.path / ("predictions.npz" if split == "test" else f"predictions-{split}.npz")
        results.append({"variant": item.name, "split": split, "n": len(said), "path": str(path)})
    return {"run": str(run.path), "results": results}


def _predict_own(run: Run, variant: Variant, source: Path, output: Path | None) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    from zoo.data import preprocess
    from zoo.data.images import picture_names
    from zoo.data.own import read_inputs
    from zoo.data.table import take_rows
    from zoo.decision import decide
    from zoo.predict import CALL_BYTES, open_artifact, unscale
    from zoo.tasks import function_of, get_task

    data, plan = run.document()["data"], run.plan()
    task, named = get_task(data["task"]), source.is_dir() and plan["kind"] == "image"
    begins = ["row", *(["file"] if named else []), *([] if task.answers else ["prediction"])]
    path = _output_beside(source, begins) if output is None else check_output(output)
    decision = variant.decision()
    inputs, values = read_inputs(source, plan, None if decision is None else decision["attribute"])
    groups = None if decision is None else _groups_of(source, values, decision, variant)
    artifact, parts = open_artifact(variant.artifact), []

    def classified(rows: np.ndarray) -> dict[str, Any]:
        assert task.decode is not None
        outputs = artifact(preprocess.apply(plan, take_rows(inputs, rows)))
        y_pred, scores = task.decode(unscale(outputs, plan))
        if decision is not None and groups is not None:
            y_pred = decide(decision, rows, groups[rows], y_pred, scores)
        if not data["classes"]:
            return {"prediction": y_pred}
        names = [data["classes"][int(k)] for k in y_pred]
        return {
            "prediction": names,
            **{f"p({name})": scores[:, k] for k, name in enumerate(data["classes"])},
        }

    some = max(1, CALL_BYTES // (4 * int(np.prod(plan["shape"]))))
    for start in range(0, len(inputs), some):
        rows = np.arange(start, min(start + some, len(inputs)))
        found = (
            function_of(task.answers)(plan, inputs, rows, artifact)
            if task.answers
            else classified(rows)
        )
        parts.append(pd.DataFrame(found))
    answers = pd.concat(parts, ignore_index=True)
    answers.insert(0, "row", np.arange(len(answers)))
    if named:
        answers.insert(1, "file", picture_names(source))
    if "target" in plan:
        digits = _digits(float(answers["prediction"].abs().max()), plan["target"]["scale"])
        answers["prediction"] = [f"{value:.{digits}g}" for value in answers["prediction"]]
    write_atomic(path, answers.to_csv(index=False, float_format=f"%.{DIGITS}g"))
    return {"variant": variant.name, "split": None, "n": len(answers), "path": str(path)}


def _groups_of(
    source: Path, values: Any, decision: Mapping[str, Any], variant: Variant
) -> np.ndarray:
    """Each row's group, by a file's values for a variant that decides by group: strings (n,)."""
    from zoo.data.groups import as_known

    if values is None:
        raise ZooError(
            f"Variant {variant.name!r} decides by group, and {source} does not say which.",
            expected=f"a column {decision['attribute']!r} with one of: {', '.join(decision['order'])}",
            received=f"{source.suffix or 'a folder'} without it",
            hint="Add it, or predict with a variant that needs no groups.",
            kind="needs_groups",
        )
    return as_known(values, decision["order"])


def _output_beside(source: Path, begins: list[str]) -> Path:
    """Where an input's predictions go unless told otherwise: ``NAME-predictions.csv``, here.

    Raises :class:`ZooError` where that is the input, or another file than earlier predictions, whose
    header begins with the columns ``begins``.
    """
    from zoo.data.own import READERS

    name = Path(os.path.abspath(source)).name or "input"
    known = [ending for endings in READERS for ending in endings]
    longest = max(
        (e for e in known if source.is_file() and name.lower().endswith(e)), key=len, default=""
    )
    path = Path(f"{name[: len(name) - len(longest)]}-predictions.csv")
    if not path.exists():
        return path
    if path.samefile(source):
        raise ZooError(
            f"The predictions would overwrite their input, {source}.",
            expected="another file for --output",
            received=str(path),
        )
    header = b""
    if path.is_file():
        with path.open("rb") as file:
            header = file.readline(10_000)
    if header.rstrip().split(b",")[: len(begins)] != [column.encode() for column in begins]:
        raise ZooError(
            f"{path} exists already, and holds no predictions.",
            expected=f"no such file, or one of earlier predictions: {','.join(begins)},...",
            received=repr(header[:80].decode(errors="replace").rstrip()),
            hint="Name another file with --output.",
            kind="file_exists",
        )
    return path


def _digits(largest: float, scale: float) -> int:
    """Digits of predictions up to ``largest`` that tell :data:`DIGITS` of the target's ``scale``."""
    ahead = math.log10(largest / scale) if 0 < largest < math.inf else 0.0
    return min(DIGITS + max(0, math.floor(ahead)), 17)
