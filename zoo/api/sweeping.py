"""Trying many recipes, and taking the one that meets what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api.auditing import report
from zoo.api.benchmarking import benchmark_all
from zoo.api.compressing import compress_all, opened
from zoo.environment import now
from zoo.errors import ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Variant, find_run, predictions_file, write_atomic

if TYPE_CHECKING:
    from zoo.train.session import Session

SWEEP_SECONDS = 1.5


def sweep(
    text: str,
    recipes: Sequence[str] = (),
    *,
    limits: Mapping[str, float] | None = None,
    prefer: str = "size",
    split: str = "val",
    seconds: float = SWEEP_SECONDS,
    threads: int = 1,
    min_cell: int = 10,
    private: bool = False,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Try recipes, measure each artefact, find the Pareto fronts and choose under constraints.

    Args:
        recipes: those to try; by default the grid that :func:`zoo.compress.sweep.grid` derives.
        limits: constraints, names of :data:`zoo.compress.sweep.LIMITS` -> the most allowed. The
            smallest variant that meets all is ``chosen``, None where none does or none is given.
        prefer: what the chosen one should have least of: ``size``, ``gzip`` or ``latency``.
        split: the rows that losses are judged on. Those of ``val`` by default, so that the numbers
            on the test rows, beside them, are no flattery.
        seconds, threads: of the latency's measurement.
        min_cell: groups of fewer rows are not judged.
    """
    from zoo.compress.recipe import parse
    from zoo.compress.sweep import FRONTS, choose, front, grid, missed
    from zoo.registry import models
    from zoo.schema import Input, SweepDocument, dump
    from zoo.variants import predictions_of

    run = find_run(text, root)
    base = run.variant(BASE)
    limits = dict(limits or {})
    chosen_recipes = list(recipes) or grid(models().get(run.document()["spec"]["name"]).skips)
    for recipe in chosen_recipes:
        if parse(recipe)[-1].step.decides:
            raise ZooError(
                f"A sweep compares models, and {recipe!r} is a decision on the outputs of one.",
                expected="steps of compression",
                received=recipe,
                hint=f"zoo audit {run.path} {recipe}",
            )
    session, planned = opened(run, chosen_recipes)
    for part in (split, "test"):
        size = len(predictions_of(base, part, session))
        if size < min_cell:
            raise ZooError(
                f"The {part} split of {run.name} is too small to judge losses on.",
                expected=f"at least {min_cell} rows, as --min-cell says",
                received=f"{size}",
                hint=f"--min-cell {size}",
                kind="too_few_rows",
            )
    made = compress_all(session, run, planned, BASE, progress)
    found = [base, *(run.variant(row["variant"]) for row in made if not row["error"])]
    measured = {
        row["variant"]: row
        for row in benchmark_all(session, run, found, ("SingleStream",), seconds, threads, progress)
    }
    failed = [{"variant": r["variant"], "recipe": r["recipe"], "error": r["error"]} for r in made
              if r["error"]]  # fmt: skip
    rows = []
    for item in found:
        progress.say(f"{item.name}: losses by group")
        try:
            rows.append(_row(session, item, measured[item.name], split, min_cell))
        except ZooError as error:
            if item.name == BASE or error.kind != "not_finite":
                raise
            recipe = item.document()["recipe"]
            failed.append({"variant": item.name, "recipe": recipe, "error": error.brief})
    for row in (*rows, *failed):
        row["missed"] = missed(row, limits)
        row["front"] = []
    for name, (given, gained) in FRONTS.items():
        best = front(rows, given, gained)
        for row in rows:
            row["front"] += [name] if row["variant"] in best else []
    candidates = [row for row in (*rows, *failed) if row["variant"] != BASE]
    document = SweepDocument(
        run=run.name,  # stored without the folders of this machine
        report="report.html",
        split=split,
        metric=rows[0]["metric"],
        limits=limits,
        prefer=prefer,
        chosen=choose(candidates, limits, prefer) if limits else None,
        results=[*rows, *failed],
        inputs=[
            Input(**entry)
            for item in found
            for entry in item.inputs(item.artifact, item.path / predictions_file(split))
        ],
        environment=base.bound()["environment"],
        created=now(),
    ).model_dump(mode="json")
    write_atomic(run.path / "sweep.json", dump(document))
    written = report(str(run.path), private=private, root=root)
    full = {row["variant"]: row for row in (base.document(), *made)}
    results = [{**full[row["variant"]], **row} for row in document["results"]]
    return {**document, "run": written["run"], "report": written["html"], "results": results}


def _row(
    session: Session, item: Variant, measured: Mapping[str, Any], split: str, min_cell: int
) -> dict[str, Any]:
    """A variant's costs, and its losses on the split and on the test rows."""
    document = item.document()
    names = ("variant", "recipe", "runtime", "bytes", "bytes_gzip", "sparsity", "metrics")
    return {
        **{name: document[name] for name in names},
        **_losses(session, item, split, min_cell),
        "test": _losses(session, item, "test", min_cell),
        "p90_ms": measured["latency_ms"].get("p90"),
        "error": measured["error"],
    }


def _losses(session: Session, item: Variant, split: str, min_cell: int) -> dict[str, Any]:
    from zoo.compress.sweep import judged
    from zoo.metrics import METRICS
    from zoo.tasks import get_task
    from zoo.variants import predictions_of
    from zoo_explain.fairness import compare

    data = item.run.document()["data"]
    deltas = compare(
        predictions_of(item.run.variant(BASE), split, session),
        predictions_of(item, split, session),
        task=data["task"],
        variant=item.name,
        positive=data["positive"],
        min_cell=min_cell,
        label_groups=tuple(data["label_groups"]),
    )
    return judged(deltas, get_task(data["task"]).fairness, lambda metric: METRICS[metric].direction)
