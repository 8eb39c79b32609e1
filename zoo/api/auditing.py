"""Fairness, the audit of all variants against base, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api.benchmarking import benchmark_all, compare_speed
from zoo.api.compressing import compress_all, opened, opened_where_applicable
from zoo.api.explaining import (
    EXPLAIN_BACKGROUND,
    drift_effort,
    explain_one,
    players_of,
)
from zoo.environment import now
from zoo.errors import ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Run, Variant, find_run, list_runs, write_atomic

if TYPE_CHECKING:
    from zoo.train.session import Session

DEFAULT_RECIPES = ("float16", "dynamic", "int8", "prune:0.8", "prune:0.8+int8")


def fairness(
    text: str,
    *,
    variant: str = BASE,
    split: str = "test",
    attributes: Sequence[str] | None = None,
    resamples: int = 1000,
    min_cell: int = 10,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Metrics by group with intervals, and disparities, of variants."""
    run = find_run(text, root)
    results = []
    for item in run.select(variant):
        progress.say(f"{item.name}: metrics by group")
        results.append(_fairness(run, item, split, attributes, resamples, min_cell))
    return {"run": str(run.path), "results": results}


def _fairness(
    run: Run,
    variant: Variant,
    split: str,
    attributes: Sequence[str] | None,
    resamples: int,
    min_cell: int,
) -> dict[str, Any]:
    from zoo.run import predictions_file
    from zoo.schema import FairnessResult
    from zoo.variants import predictions_of
    from zoo_explain.fairness import audit as judge

    data = run.document()["data"]
    try:
        found = judge(
            predictions_of(variant, split),
            task=data["task"],
            positive=data["positive"],
            attributes=None if not attributes else list(attributes),
            resamples=resamples,
            min_cell=min_cell,
            label_groups=tuple(data["label_groups"]),
        )
    except ZooError as error:
        if error.kind != "not_finite":
            raise
        found = {"split": split, "task": data["task"], "positive": data["positive"]}
        found["error"] = error.brief
    bound = variant.bound(variant.artifact, variant.path / predictions_file(split))
    result = FairnessResult(
        **{**found, **bound, "variant": variant.name, "artifact": variant.artifact.name}
    ).model_dump(mode="json")
    variant.upsert("fairness.json", [result], key=("split",), merge=_with_others)
    return result


def _with_others(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """A new fairness result with the attributes of the stored one that it did not judge.

    They stay only where both judged the same file's same predictions.
    """
    if new["inputs"] != old["inputs"] or new["positive"] != old["positive"]:
        return dict(new)
    again = set(new["attributes"])
    judged = (*(f"{name}:" for name in again), *(f"{a} x {b}:" for a in again for b in again))
    return {
        **new,
        "attributes": {**old["attributes"], **new["attributes"]},
        "intersections": [
            *(row for row in old["intersections"] if not set(row["attributes"]) <= again),
            *new["intersections"],
        ],
        "warnings": [
            *(text for text in old["warnings"] if not text.startswith(judged)),
            *new["warnings"],
        ],
    }


def audit(
    text: str,
    recipes: Sequence[str] | None = None,
    *,
    gates: Sequence[str] = (),
    seconds: float = 1.5,
    private: bool = False,
    min_cell: int = 10,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Compress, benchmark, explain and judge a run's variants, compare them, write the report.

    Without ``recipes``, those of :data:`DEFAULT_RECIPES` that apply to the model.
    """
    from zoo.gates import judge, parse_gates
    from zoo.schema import AuditDocument, Input, dump

    run = find_run(text, root)
    run.variant(BASE)
    wanted = parse_gates(gates)
    if recipes is None:
        session, planned, _ = opened_where_applicable(run, DEFAULT_RECIPES, BASE, progress)
    else:
        session, planned = opened(run, recipes)
    failed = [row for row in compress_all(session, run, planned, BASE, progress) if row["error"]]
    chosen = run.select("all")
    measured = benchmark_all(session, run, chosen, None, seconds, 1, progress)
    speed = compare_speed(session, chosen, seconds / 5, progress)
    broken = {}  # the variants whose outputs are not finite, and what was said of them
    for item in chosen:
        progress.say(f"{item.name}: metrics by group")
        broken[item.name] = _fairness(run, item, "test", None, 1000, min_cell)["error"]
    sound = [item for item in chosen if item.name == BASE or not broken[item.name]]
    drift = _drift(session, run, sound, progress)
    deltas = _deltas(run, sound, min_cell)
    rows = [_audit_row(item, measured, speed.get(item.name)) for item in chosen]
    rows = [row | {"error": row["error"] or broken[row["variant"]]} for row in rows] + failed
    judged = judge(wanted, rows, deltas, drift)
    document = AuditDocument(
        run=run.name,  # stored without the folders of this machine
        report="report.html",
        variants=rows,
        deltas=deltas,
        noise_floor=_noise_floor(run),
        drift=drift,
        gates=judged,
        passed=all(gate["passed"] for gate in judged),
        inputs=[
            Input(**entry)
            for item in chosen
            for entry in item.inputs(item.artifact, item.path / "predictions.npz")
        ],
        environment=chosen[0].bound()["environment"],
        created=now(),
    ).model_dump(mode="json")
    write_atomic(run.path / "audit.json", dump(document))
    made = report(str(run.path), private=private, root=root)
    return {**document, "run": made["run"], "report": made["html"]}


def _audit_row(
    variant: Variant, measured: Sequence[Mapping[str, Any]], speed: Mapping[str, Any] | None
) -> dict[str, Any]:
    names = ("variant", "recipe", "kind", "artifact", "runtime", "bytes", "bytes_gzip", "sparsity", "metrics",
             "parity", "error")  # fmt: skip
    document = variant.document()
    row = {name: document[name] for name in names} | {"speed": speed}
    for result in measured:
        if result["variant"] != variant.name:
            continue
        row["error"] = row["error"] or result["error"]
        if result["scenario"] == "SingleStream":
            row |= {"latency_ms": result["latency_ms"], "load_ms": result["load_ms"],
                    "peak_memory_mb": result["peak_memory_mb"]}  # fmt: skip
        if result["scenario"] == "Offline":
            row["throughput"] = result["throughput"]
    return row


def _drift(
    session: Session, run: Run, chosen: Sequence[Variant], progress: Progress
) -> list[dict[str, Any]]:
    """Explain base as the router says, then every variant as a black box on the same rows."""
    from zoo_explain.attribution import route
    from zoo_explain.drift import drift

    base = run.variant(BASE)
    progress.say("base: explaining")
    explain_one(session, base, None, None, EXPLAIN_BACKGROUND, "test")
    effort = drift_effort(session.plan)
    black, _ = route(None, len(players_of(session.plan, effort["most"])))
    arrays: dict[str, dict[str, Any]] = {}
    targets = None
    for item in chosen:
        progress.say(f"{item.name}: explaining the artefact as a black box")
        result, arrays[item.name] = explain_one(
            session, item, black, quality=item.name != BASE, targets=targets, modest=True, **effort
        )
        if item.name == BASE:
            targets = arrays[BASE]["targets"]
            if result["note"]:
                progress.say(f"drift: {result['note']}")
    return [
        {"variant": name, **drift(arrays[BASE], found)}
        for name, found in arrays.items()
        if name != BASE
    ]


def _deltas(run: Run, chosen: Sequence[Variant], min_cell: int) -> list[dict[str, Any]]:
    """Each variant against base, paired; Holm's adjustment over all variants together."""
    from zoo_explain.fairness import adjust_holm
    from zoo_explain.fairness import compare as paired

    data = run.document()["data"]
    base = run.variant(BASE).predictions()
    rows: list[dict[str, Any]] = []
    for item in chosen:
        if item.name != BASE:
            rows += paired(
                base,
                item.predictions(),
                task=data["task"],
                variant=item.name,
                positive=data["positive"],
                min_cell=min_cell,
                label_groups=tuple(data["label_groups"]),
            )
    tested = [row for row in rows if row["p"] is not None]
    for row, adjusted in zip(tested, adjust_holm([row["p"] for row in tested]), strict=True):
        row["p_adjusted"] = adjusted
    return rows


def _noise_floor(run: Run) -> dict[str, Any]:
    """What retraining with another seed does, from the sibling runs there are: one of each seed."""
    from zoo_explain.fairness import noise_floor

    experiment = run.document()["experiment"]
    values: dict[str, list[float]] = {}
    seeds = set()
    for sibling in (run, *list_runs(run.path.parent)):
        try:
            document = sibling.document()
        except ZooError:  # damaged: no seed of ours, and `zoo runs` says what is wrong with it
            continue
        mine = document["experiment"] == experiment and document["status"] == "done"
        if mine and document["seed"] not in seeds:
            seeds.add(document["seed"])
            for name, value in document["result"]["metrics"].items():
                values.setdefault(name, []).append(value)
    return noise_floor(values)


def report(
    text: str, *, private: bool = False, root: Path = RUNS, progress: Progress = QUIET
) -> dict[str, Any]:
    """Write ``report.html`` and ``report.md`` from the run's documents."""
    from zoo_report import read_bundle, render

    run = find_run(text, root)
    try:
        made = render(read_bundle(run.path, private=private))
    except ZooError:
        raise
    except ValueError as error:  # a file that is not what its name says
        raise ZooError(
            f"The documents of run {run.name!r} can't be shown.",
            expected="documents as the commands write them",
            received=" ".join(str(error).split()),
            hint=f"Remove the damaged file and make it again: zoo audit {run.path}",
            kind="bad_document",
        ) from error
    html, markdown = run.path / "report.html", run.path / "report.md"
    write_atomic(html, made.html)
    write_atomic(markdown, made.markdown)
    return {"run": str(run.path), "html": str(html), "markdown": str(markdown)}
