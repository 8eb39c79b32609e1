"""Measuring artefacts with LoadGen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api.catalogue import runs
from zoo.api.compressing import compress
from zoo.api.training import train
from zoo.errors import ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Run, Variant, find_run

if TYPE_CHECKING:
    from zoo.train.session import Session


def benchmark(
    text: str,
    *,
    variant: str = BASE,
    scenarios: Sequence[str] | None = None,
    seconds: float = 3.0,
    threads: int = 1,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """LoadGen on the artefacts of a run's variants, each in a process of its own."""
    from zoo.train.running import reopen

    run = find_run(text, root)
    chosen = run.select(variant)
    sound, lost = [], []
    for item in chosen:
        try:
            item.artifact  # noqa: B018 - raises where the file is not the one that was made
            sound.append(item)
        except ZooError as error:
            if len(chosen) == 1:
                raise
            lost.append(_unmeasured(run, item.name, "not measured", error.brief))
    rows = benchmark_all(reopen(run), run, sound, scenarios, seconds, threads, progress)
    return {"run": str(run.path), "results": rows + lost}


def benchmark_all(
    session: Session,
    run: Run,
    chosen: Sequence[Variant],
    scenarios: Sequence[str] | None,
    seconds: float,
    threads: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    from zoo.schema import BenchmarkResult
    from zoo_bench.loadgen import SCENARIOS
    from zoo_bench.measure import measure
    from zoo_bench.table import environment

    samples = session.encoded(session.data.parts["test"][:1024])
    machine = environment()
    rows = []
    for item in chosen:
        progress.say(f"{item.name}: LoadGen")
        document = item.document()
        measured = measure(
            item.artifact,
            samples,
            scenarios=scenarios or SCENARIOS,
            seconds=seconds,
            threads=threads,
            log_dir=item.path / "loadgen",
        )
        results = [
            BenchmarkResult(
                **{
                    **row,
                    **item.bound(item.artifact),
                    "environment": machine,
                    "run": run.name,  # stored without the folders of this machine
                    "model": session.spec.name,
                    "variant": item.name,
                    "metrics": document["metrics"],
                }
            ).model_dump(mode="json")
            for row in measured
        ]
        item.upsert("benchmark.json", results, key=("runtime", "scenario", "threads"))
        rows += [{**result, "run": str(run.path)} for result in results]
    return rows


def compare_speed(
    session: Session, chosen: Sequence[Variant], seconds: float, progress: Progress
) -> dict[str, dict[str, Any]]:
    """How many times faster than base each variant is: rounds side by side, with an interval."""
    from zoo_bench.measure import ROUNDS, side_by_side

    base = next(item for item in chosen if item.name == BASE)
    files = {item.name: item.artifact for item in (base, *chosen)}
    if len(files) < 2:
        return {}
    progress.say(f"speed against base: {ROUNDS} rounds side by side")
    samples = session.encoded(session.data.parts["test"][:1024])
    return side_by_side(files, samples, seconds=seconds)


def benchmark_suite(
    name: str, *, root: Path = RUNS, seconds: float | None = None, progress: Progress = QUIET
) -> dict[str, Any]:
    """Train and measure the entries of a suite; a fresh run for each."""
    from zoo_bench.suite import load_suite

    suite = load_suite(name)
    results = []
    for entry in suite.entries:
        trained = train(entry.model, settings=entry.set, root=root, progress=progress)
        run = Run(Path(trained["run"]))
        recipes = [variant for variant in entry.variants if variant != BASE]
        made = compress(str(run.path), recipes, progress=progress)["results"] if recipes else []
        failed = [row for row in made if row["error"]]
        measured = benchmark(
            str(run.path), variant="all", seconds=seconds or entry.seconds, progress=progress
        )
        results += measured["results"]
        results += [_unmeasured(run, row["variant"], "not made", row["error"]) for row in failed]
    return {"run": None, "suite": suite.name, "results": results}


def _unmeasured(run: Run, variant: str, reason: str, error: str) -> dict[str, Any]:
    """The row of a variant that there is nothing to measure of."""
    from zoo.schema import BenchmarkResult
    from zoo_bench.measure import LATENCIES

    return BenchmarkResult(
        run=str(run.path), model=run.document()["spec"]["name"], variant=variant, runtime="litert",
        scenario="SingleStream", batch=1, threads=1, valid=False, reason=reason, error=error,
        latency_ms=dict.fromkeys(LATENCIES),
    ).model_dump(mode="json")  # fmt: skip


def benchmark_model(
    name: str, *, root: Path = RUNS, seconds: float = 3.0, threads: int = 1,
    scenarios: Sequence[str] | None = None, progress: Progress = QUIET,
) -> dict[str, Any]:  # fmt: skip
    """Measure the newest finished run of a model, trained first where there is none."""
    done = [row for row in runs(root) if row["status"] == "done" and row["model"] == name]
    if done:
        text = done[-1]["run"]
        progress.say(f"{name}: measuring the run {Path(text).name}")
    else:
        text = train(name, root=root, progress=progress)["run"]
    return benchmark(
        text, variant="all", scenarios=scenarios, seconds=seconds, threads=threads, root=root,
        progress=progress,
    )  # fmt: skip
