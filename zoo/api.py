"""The Python twin of every command: arguments in, the documents of ``--json`` out.

The only module that knows all components. Imports are lazy: what a call does not need is not
loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, Interrupted, ZooError
from zoo.progress import Progress
from zoo.run import BASE, Run, Variant, find_run, list_runs, now, write_arrays, write_atomic

if TYPE_CHECKING:
    from zoo.data.core import Request
    from zoo.train.session import Session

RUNS = Path("runs")
DEFAULT_RECIPES = ("float16", "dynamic", "int8", "prune:0.8", "prune:0.8+int8")
EXPLAIN_SAMPLES, EXPLAIN_BACKGROUND = 100, 50
#: Rows of the black-box explanations that drift compares: each costs thousands of predictions.
DRIFT_SAMPLES, DRIFT_BACKGROUND = 40, 20
PATCHES = 7  # an image is shared out among about this many patches a side
EXEMPLARS = 6
QUIET = Progress(quiet=True)


# What there is ------------------------------------------------------------------------------------


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """One document a model, sorted by name; a broken plugin is ``{name, error}``."""
    from zoo.registry import models

    registry = models()
    rows = [spec.document() for spec in registry.glob(pattern)]
    return rows + [{"name": item.name, "error": item.error} for item in registry.broken]


def info(name: str, summary: bool = False) -> dict[str, Any]:
    """A model's document with its config; with ``summary`` also its layers."""
    from zoo.registry import models
    from zoo.train.options import TrainOptions

    spec = models().get(name)
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in spec.config.items()}
    training = TrainOptions.parse(dict(spec.train)).document()
    document = {**spec.document(), "config": config, "training": training}
    if summary:
        model = spec.build(**spec.config)
        document["layers"] = [
            {
                "name": layer.name,
                "type": type(layer).__name__,
                "output": [str(size) for size in layer.output.shape],
                "params": int(layer.count_params()),
            }
            for layer in model.layers
        ]
    return document


def list_data() -> list[dict[str, Any]]:
    """One document a data set that has a name."""
    from zoo.registry import datasets

    registry = datasets()
    rows = [spec.document() for spec in registry.glob(None)]
    return rows + [{"name": item.name, "error": item.error} for item in registry.broken]


def data_info(request: Request) -> dict[str, Any]:
    """A data set's document; what it would be split and grouped into, for supported kinds."""
    from zoo.data.core import open_data
    from zoo.registry import datasets

    spec = datasets().specs.get(request.data)
    document = {} if spec is None else spec.document()
    if spec is None or spec.kind in ("tabular", "image"):
        data = open_data(request)
        found = data.describe()
        document |= {
            "name": data.name,
            "kind": data.kind,
            "rows": found["rows"],
            "task": data.task,
            "classes": found["classes"],
            "groups": list(data.groups),
            "features": len([c for c in data.columns if c["used"]]) or _size(data.x.shape[1:]),
            "license": data.license,
            "source": data.source,
            "sha256": data.sha256,
            "offline": True,
            "sizes": found["sizes"],
            "class_counts": found["class_counts"],
            "group_counts": found["groups"],
            "columns": data.columns,
            "notes": data.notes,
        }
        if spec is None:
            path = Path(request.data)
            files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            document["bytes"] = sum(p.stat().st_size for p in files)
    return document


def _size(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def runs(root: Path = RUNS) -> list[dict[str, Any]]:
    """One document a run, oldest first."""
    rows = []
    for run in list_runs(root):
        document = run.document()
        result = document["result"] or {}
        rows.append(
            {
                "run": run.name,
                "model": document["spec"]["name"],
                "data": document["data"]["name"],
                "status": document["status"],
                "created": document["created"],
                "seed": document["seed"],
                "metrics": result.get("metrics", {}),
                "variants": run.variants(),
            }
        )
    return rows


def doctor() -> dict[str, Any]:
    """What the installation stands on, and what is wrong with it."""
    import importlib.util
    import os
    import platform

    problems = []
    try:
        from zoo.backend import device, versions

        packages, found = versions(), device()
    except ImportError as error:
        packages, found = {}, {}
        problems.append(f"TensorFlow or Keras can't be imported: {error}")
    for module, package in (
        ("mlperf_loadgen", "mlcommons-loadgen"),
        ("ai_edge_litert", "ai-edge-litert"),
        ("shap", "shap"),
        ("fairlearn", "fairlearn"),
        ("tensorflow_model_optimization", "tensorflow-model-optimization"),
    ):
        if importlib.util.find_spec(module) is None:
            problems.append(f"{package} is not installed: pip install {package}")
    if "tensorflow-cpu" in packages:
        problems.append("tensorflow-cpu is installed beside tensorflow: uninstall it")
    memory = None
    if hasattr(os, "sysconf"):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return {
        "python": platform.python_version(),
        "packages": packages,
        "devices": found,
        "cpus": os.cpu_count(),
        "memory_gb": memory,
        "problems": problems,
    }


# Training -----------------------------------------------------------------------------------------


def train(
    model: str,
    *,
    request: Request | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    root: Path = RUNS,
    name: str | None = None,
    deterministic: bool = False,
    cpus: int | None = None,
    dry_run: bool = False,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Train a model of the registry into a new run; the document of ``zoo train --json``.

    ``request`` defaults to the model's own data set. With ``dry_run`` everything is resolved and
    checked and nothing is written.
    """
    from zoo.data.core import Request
    from zoo.registry import models
    from zoo.run import check_name
    from zoo.train.session import prepare, start

    spec = models().get(model)
    if name is not None and (root / check_name(name)).exists():
        raise ZooError(
            f"{root / name} exists already.",
            expected="a name that is not taken",
            received=name,
            hint=f"Choose another --name, or continue it: zoo train --resume {root / name}",
            kind="run_exists",
        )
    session = prepare(
        spec,
        request or Request(data=spec.data),
        settings=settings or {},
        seed=seed,
        deterministic=deterministic,
    )
    for note in session.data.notes:
        progress.say(f"data: {note}")
    ignored = [f"{c['name']} ({c['why']})" for c in session.data.columns if not c["used"]]
    if ignored:
        progress.say(f"data: not used: {', '.join(ignored)}")
    if dry_run:
        return {
            "model": spec.name,
            "config": session.config,
            "options": session.options.document(),
            "data": session.data.describe(),
        }
    from zoo.backend import set_threads

    set_threads(cpus)
    run, built = start(session, root, name)
    return _train(session, run, built, progress, resume=False)


def resume(text: str, root: Path = RUNS, progress: Progress = QUIET) -> dict[str, Any]:
    """Go on with an interrupted run; of a finished one, its document."""
    from zoo.train.session import reopen

    run = find_run(text, root)
    document = run.document()
    if document["status"] == "done":
        progress.say(f"{run.name} is trained already")
        return document["result"]
    session = reopen(run)
    return _train(session, run, session.build(), progress, resume=True)


def _train(
    session: Session, run: Run, model: Any, progress: Progress, resume: bool
) -> dict[str, Any]:
    from zoo.run import point_latest
    from zoo.train.session import train as train_into
    from zoo.variants import ship_base

    fitted = train_into(session, run, model, progress, resume)
    if fitted.interrupted is not None:
        raise Interrupted(
            fitted.interrupted,
            f"The training of {run.name} was interrupted after epoch {fitted.epochs}.",
            hint=f"Go on with: zoo train --resume {run.path}",
        )
    progress.say(f"{run.name}: writing the variant base")
    base = (
        ship_base(session, run, model, fitted.seconds)
        if BASE not in run.variants()
        else run.variant(BASE)
    )
    metrics = base.document()["metrics"]
    result = {
        "run": str(run.path),
        "model": session.spec.name,
        "data": session.data.name,
        "variant": BASE,
        "experiment": run.document()["experiment"],
        "seed": session.seed,
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
        "steps_per_second": fitted.steps_per_second,
        "samples_per_second": fitted.samples_per_second,
        "execution": fitted.execution,
        "metrics": metrics,
        "baseline": baseline(session),
        "target": _target(session, metrics),
        "best": fitted.best,
    }
    run.update(status="done", result=result, progress={"epochs": fitted.epochs})
    point_latest(run.path.parent, run.name)
    return result


def baseline(session: Session) -> dict[str, Any]:
    """The linear baseline on the same rows and inputs: ``{name, metrics}``."""
    from zoo.predict import point_metrics, to_predictions
    from zoo.tasks import get_task
    from zoo.train.baseline import linear_logits

    task, parts = get_task(session.data.task), session.data.parts
    y = session.data.y[parts["train"]]
    if "target" in session.plan:
        y = (y - session.plan["target"]["mean"]) / session.plan["target"]["scale"]
    logits = linear_logits(task, session.encoded(parts["train"]), y, session.encoded(parts["test"]))
    said = to_predictions(logits, session.plan, session.data, "test", parts["test"])
    return {"name": task.baseline, "metrics": point_metrics(said, task.name)}


def _target(session: Session, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    target = session.spec.target
    claimed = session.data.name == session.spec.data
    reached = metrics.get(target.metric) if claimed else None
    document = {"metric": target.metric, "value": target.value, "reached": reached}
    if not claimed:
        reason = f"the target is a claim about {session.spec.data}, not {session.data.name}"
        return {**document, "hit": False, "reason": reason}
    from zoo.metrics import METRICS

    direction = METRICS[target.metric].direction
    return {**document, "hit": reached is not None and direction * (reached - target.value) >= 0}


# Looking at runs ----------------------------------------------------------------------------------


def evaluate(
    text: str, variant: str = BASE, split: str = "test", root: Path = RUNS
) -> dict[str, Any]:
    """Metrics with intervals of one variant or all, measured on the artefact."""
    from zoo.train.session import reopen
    from zoo.variants import predict_split, score

    run = find_run(text, root)
    chosen = run.select(variant)
    task = run.document()["data"]["task"]
    results, session = [], None
    for item in chosen:
        try:
            predictions = item.predictions(split)
        except ZooError:
            session = session or reopen(run)
            predictions = predict_split(session, item, split)
        result = {**score(predictions, task, item.name), **_bound(item, item.artifact)}
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
    from zoo.train.session import reopen
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
    import json

    import numpy as np
    import pandas as pd

    from zoo.data import preprocess
    from zoo.data.own import read_inputs
    from zoo.predict import Artifact, unscale
    from zoo.tasks import get_task

    data = run.document()["data"]
    plan = json.loads((run.path / "preprocess.json").read_text(encoding="utf-8"))
    inputs = read_inputs(source, plan["kind"])
    x = preprocess.apply(plan, inputs)
    y_pred, scores = get_task(data["task"]).decode(unscale(Artifact(variant.artifact)(x), plan))
    columns: dict[str, Any] = {"row": np.arange(len(x))}
    if data["classes"]:
        columns["prediction"] = [data["classes"][k] for k in y_pred]
        columns |= {f"p({name})": scores[:, k] for k, name in enumerate(data["classes"])}
    else:
        columns["prediction"] = y_pred
    path = output or Path(f"{source.name.split('.')[0]}-predictions.csv")
    write_atomic(path, pd.DataFrame(columns).to_csv(index=False))
    return {"variant": variant.name, "split": None, "n": len(x), "path": str(path)}


def _bound(variant: Variant, *paths: Path) -> dict[str, Any]:
    """Schema version, inputs, environment and time of a stored result."""
    from zoo.backend import versions
    from zoo.schema import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": variant.inputs(*paths),
        "environment": versions(),
        "created": now(),
    }


def compress(
    text: str,
    recipes: Sequence[str],
    *,
    variant: str = BASE,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Make the variants of recipes. A recipe that fails is a row with its ``error``."""
    from zoo.compress.recipe import parse
    from zoo.train.session import reopen

    run = find_run(text, root)
    for recipe in recipes:
        parse(recipe)  # a typo in the last one must not cost the work on the others
    run.variant(variant)
    session = reopen(run)
    return {"run": str(run.path), "results": _compress(session, run, recipes, variant, progress)}


def _compress(
    session: Session, run: Run, recipes: Sequence[str], parent: str, progress: Progress
) -> list[dict[str, Any]]:
    from zoo.compress.recipe import compress as make
    from zoo.compress.recipe import slug

    results = []
    for recipe in recipes:
        try:
            results.append(make(session, run, recipe, progress, parent).document())
        except Interrupted:
            raise
        except ZooError as error:
            if error.exit_code != FAILURE:
                raise
            results.append(_failed_row(slug(recipe.split("+")), recipe, error.message))
        except (RuntimeError, ValueError) as error:  # a converter that gives up
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            results.append(_failed_row(slug(recipe.split("+")), recipe, reason))
    return results


def _failed_row(name: str, recipe: str, error: str) -> dict[str, Any]:
    from zoo.schema import VariantDocument

    row = VariantDocument(variant=name, recipe=recipe, kind="transform", error=error)
    return row.model_dump(mode="json")


# Measuring ----------------------------------------------------------------------------------------


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
    from zoo.train.session import reopen

    run = find_run(text, root)
    chosen = run.select(variant)
    session = reopen(run)
    rows = _benchmark(session, run, chosen, scenarios, seconds, threads, progress)
    return {"run": str(run.path), "results": rows}


def _benchmark(
    session: Session,
    run: Run,
    chosen: Sequence[Variant],
    scenarios: Sequence[str] | None,
    seconds: float,
    threads: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    from zoo_bench.loadgen import SCENARIOS
    from zoo_bench.measure import measure

    from zoo.predict import Artifact
    from zoo.schema import BenchmarkResult

    samples = session.encoded(session.data.parts["test"][:1024])
    rows = []
    for item in chosen:
        progress.say(f"{item.name}: LoadGen")
        document = item.document()
        measured = measure(
            item.artifact,
            {Artifact(item.artifact).input_name: samples},
            scenarios=scenarios or SCENARIOS,
            seconds=seconds,
            threads=threads,
            log_dir=item.path / "loadgen",
        )
        results = [
            BenchmarkResult(
                **{
                    **row,
                    **_bound(item, item.artifact),
                    "run": str(run.path),
                    "model": session.spec.name,
                    "variant": item.name,
                    "metrics": document["metrics"],
                }
            ).model_dump(mode="json")
            for row in measured
        ]
        item.upsert("benchmark.json", results, key=("runtime", "scenario", "threads"))
        rows += results
    return rows


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
        results += measured["results"] + [
            {"run": str(run.path), "model": entry.model, **_unmeasured(row)} for row in failed
        ]
    return {"run": None, "suite": suite.name, "results": results}


def _unmeasured(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"variant": row["variant"], "runtime": "litert", "scenario": "SingleStream", "batch": 1,
            "threads": 1, "valid": False, "reason": "not made", "error": row["error"]}  # fmt: skip


def benchmark_model(
    name: str, *, root: Path = RUNS, seconds: float = 3.0, threads: int = 1,
    scenarios: Sequence[str] | None = None, progress: Progress = QUIET,
) -> dict[str, Any]:  # fmt: skip
    """Measure the newest finished run of a model, trained first where there is none."""
    done = [row for row in runs(root) if row["model"] == name and row["status"] == "done"]
    if done:
        text = done[-1]["run"]
        progress.say(f"{name}: measuring the run {text}")
    else:
        text = train(name, root=root, progress=progress)["run"]
    return benchmark(
        text, variant="all", scenarios=scenarios, seconds=seconds, threads=threads, root=root,
        progress=progress,
    )  # fmt: skip


def explain(
    text: str,
    *,
    variant: str = BASE,
    method: str | None = None,
    samples: int = EXPLAIN_SAMPLES,
    background: int = EXPLAIN_BACKGROUND,
    split: str = "test",
    quality: bool = True,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Attributions of variants: ``explain.json`` and ``explain.npz`` beside each."""
    from zoo.train.session import reopen

    run = find_run(text, root)
    chosen = run.select(variant)
    session = reopen(run)
    results = []
    for item in chosen:
        progress.say(f"{item.name}: explaining {samples} rows")
        results.append(_explain(session, item, method, samples, background, split, quality=quality))
    return {"run": str(run.path), "results": results}


def _explain(
    session: Session,
    variant: Variant,
    method: str | None,
    samples: int,
    background: int,
    split: str,
    *,
    quality: bool = True,
    targets: Any = None,
) -> dict[str, Any]:
    import dataclasses

    import numpy as np
    from zoo_explain import attribution

    from zoo.predict import Artifact
    from zoo.schema import ExplainResult
    from zoo.tasks import get_task

    data, plan = session.data, session.plan
    rng = np.random.default_rng(0)  # the same rows for every variant and every method
    rows = np.sort(rng.permutation(data.parts[split])[:samples])
    behind = np.sort(rng.permutation(data.parts["train"])[:background])
    x = session.encoded(rows)
    task = get_task(data.task)
    names = list(data.classes) if len(data.classes) > 2 else [data.positive or data.target]
    if len(data.classes) == 2:
        names = [data.classes[1]]  # the logit of a binary model is that of its second class
    own = (variant.path / "model.weights.h5").exists()
    arguments: dict[str, Any] = {
        "predict": Artifact(variant.artifact),
        "model": session.load(variant.weights) if own else None,
        "x": x,
        "background": session.encoded(behind),
        "players": _players(plan),
    }
    found = attribution.explain(
        **arguments, space=task.space, outputs=names, method=method, targets=targets
    )
    measured = attribution.quality(found, **arguments) if quality else {}
    scale, shift = 1.0, 0.0
    if "target" in plan:
        scale, shift = plan["target"]["scale"], plan["target"]["mean"]
    found = dataclasses.replace(
        found,
        values=found.values * scale,
        base=found.base * scale + shift,
        output=found.output * scale + shift,
        dense=None if found.dense is None else found.dense * scale,
        features=[{**f, "importance": f["importance"] * scale} for f in found.features],
    )
    document = found.document() | {"artifact_gap": found.artifact_gap}
    result = ExplainResult(
        **{
            **document,
            **_bound(variant, variant.artifact),
            "variant": variant.name,
            "split": split,
            "artifact": variant.artifact.name,
            "output_names": names,
            "quality": measured,
        }
    ).model_dump(mode="json")
    arrays = found.arrays() | {"row": rows}
    if found.dense is not None and plan["kind"] == "tabular":
        arrays.pop("dense")  # the columns' values say it; single codes are no user's feature
    arrays |= _pictures(session, variant, rows, found, split)
    default, _ = attribution.route(arguments["model"], len(arguments["players"]))
    file = "explain.npz" if found.method == default else f"explain-{found.method}.npz"
    write_arrays(variant.path / file, arrays)
    variant.upsert("explain.json", [result], key=("method", "split"))
    return result


def _players(plan: Mapping[str, Any]) -> list[Any]:
    from zoo_explain.attribution import columns_to_players, patches

    if plan["kind"] == "tabular":
        return columns_to_players((c["name"], c["start"], c["stop"]) for c in plan["columns"])
    return patches(tuple(plan["shape"]), max(1, round(max(plan["shape"][:2]) / PATCHES)))


def _pictures(
    session: Session, variant: Variant, rows: Any, found: Any, split: str
) -> dict[str, Any]:
    """What plots need beside the values: colours for numbers, or exemplar pictures."""
    import numpy as np

    from zoo.data.preprocess import display_values

    data = session.data
    if session.plan["kind"] == "tabular":
        return {"display": display_values(session.plan, data.take(rows))}
    chosen = np.arange(len(rows))[:EXEMPLARS]
    said = Variant(variant.run, variant.name).predictions(split)
    place = {row: k for k, row in enumerate(said.row.tolist())}
    index = [place[row] for row in rows[chosen].tolist()]
    name = np.array(data.classes) if data.classes else None
    show = (
        (lambda v: name[v]) if name is not None else (lambda v: np.array([f"{x:.3g}" for x in v]))
    )
    pictures = {
        "images": data.take(rows[chosen]),
        "truth": show(said.y_true[index]),
        "predicted": show(said.y_pred[index]),
    }
    if found.dense is not None:
        pictures["dense"] = np.asarray(found.dense[chosen], dtype=np.float32)
    return pictures


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
    from zoo_explain.fairness import audit as judge

    from zoo.run import predictions_file
    from zoo.schema import FairnessResult

    data = run.document()["data"]
    try:
        said = variant.predictions(split)
    except ZooError:
        from zoo.train.session import reopen
        from zoo.variants import predict_split

        said = predict_split(reopen(run), variant, split)
    found = judge(
        said,
        task=data["task"],
        positive=data["positive"],
        attributes=None if not attributes else list(attributes),
        resamples=resamples,
        min_cell=min_cell,
        label_groups=tuple(data["label_groups"]),
    )
    bound = _bound(variant, variant.artifact, variant.path / predictions_file(split))
    result = FairnessResult(
        **{**found, **bound, "variant": variant.name, "artifact": variant.artifact.name}
    ).model_dump(mode="json")
    variant.upsert("fairness.json", [result], key=("split",))
    return result


# Audit and report ---------------------------------------------------------------------------------


def audit(
    text: str,
    recipes: Sequence[str] = DEFAULT_RECIPES,
    *,
    gates: Sequence[str] = (),
    seconds: float = 1.5,
    private: bool = False,
    min_cell: int = 10,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Compress, benchmark, explain and judge a run's variants, compare them, write the report."""
    from zoo.compress.recipe import parse
    from zoo.gates import judge, parse_gates
    from zoo.schema import AuditDocument, dump
    from zoo.train.session import reopen

    run = find_run(text, root)
    run.variant(BASE)
    for recipe in recipes:
        parse(recipe)
    wanted = parse_gates(gates)
    session = reopen(run)
    failed = [row for row in _compress(session, run, recipes, BASE, progress) if row["error"]]
    chosen = run.select("all")
    measured = _benchmark(session, run, chosen, None, seconds, 1, progress)
    for item in chosen:
        progress.say(f"{item.name}: metrics by group")
        _fairness(run, item, "test", None, 1000, min_cell)
    drift = _drift(session, run, chosen, progress)
    deltas = _deltas(run, chosen, min_cell)
    rows = [_audit_row(item, measured) for item in chosen] + failed
    judged = judge(wanted, rows, deltas, drift)
    document = AuditDocument(
        run=str(run.path),
        report=str(run.path / "report.html"),
        variants=rows,
        deltas=deltas,
        noise_floor=_noise_floor(run),
        drift=drift,
        gates=judged,
        passed=all(gate["passed"] for gate in judged),
        inputs=[
            entry
            for item in chosen
            for entry in item.inputs(item.artifact, item.path / "predictions.npz")
        ],
        environment=_bound(chosen[0])["environment"],
        created=now(),
    ).model_dump(mode="json")
    write_atomic(run.path / "audit.json", dump(document))
    report(str(run.path), private=private, root=root)
    return document


def _audit_row(variant: Variant, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = ("variant", "recipe", "kind", "artifact", "bytes", "bytes_gzip", "sparsity", "metrics",
             "parity", "error")  # fmt: skip
    document = variant.document()
    row = {name: document[name] for name in names}
    for result in measured:
        if result["variant"] == variant.name and result["scenario"] == "SingleStream":
            row |= {"latency_ms": result["latency_ms"], "load_ms": result["load_ms"],
                    "peak_memory_mb": result["peak_memory_mb"]}  # fmt: skip
        if result["variant"] == variant.name and result["scenario"] == "Offline":
            row["throughput"] = result["throughput"]
    return row


def _drift(
    session: Session, run: Run, chosen: Sequence[Variant], progress: Progress
) -> list[dict[str, Any]]:
    """Explain base as the router says, then every variant as a black box on the same rows."""
    import numpy as np
    from zoo_explain.attribution import route
    from zoo_explain.drift import drift

    base = run.variant(BASE)
    progress.say("base: explaining")
    _explain(session, base, None, EXPLAIN_SAMPLES, EXPLAIN_BACKGROUND, "test")
    black, _ = route(None, len(_players(session.plan)))
    arrays: dict[str, dict[str, Any]] = {}
    targets = None
    for item in chosen:
        progress.say(f"{item.name}: explaining the artefact as a black box")
        result = _explain(
            session, item, black, DRIFT_SAMPLES, DRIFT_BACKGROUND, "test",
            quality=item.name != BASE, targets=targets,
        )  # fmt: skip
        own = item.path / f"explain-{result['method']}.npz"
        path = own if own.exists() else item.path / "explain.npz"
        with np.load(path, allow_pickle=False) as stored:
            arrays[item.name] = {name: stored[name] for name in stored.files}
        if item.name == BASE:
            targets = arrays[BASE]["targets"]
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
    """What retraining with another seed does, from the sibling runs there are."""
    from zoo_explain.fairness import noise_floor

    experiment = run.document()["experiment"]
    values: dict[str, list[float]] = {}
    for sibling in list_runs(run.path.parent):
        document = sibling.document()
        if document["experiment"] == experiment and document["status"] == "done":
            for name, value in document["result"]["metrics"].items():
                values.setdefault(name, []).append(value)
    return noise_floor(values)


def report(
    text: str, *, private: bool = False, root: Path = RUNS, progress: Progress = QUIET
) -> dict[str, Any]:
    """Write ``report.html`` and ``report.md`` from the run's documents."""
    from zoo_report import read_bundle, render

    run = find_run(text, root)
    made = render(read_bundle(run.path, private=private))
    html, markdown = run.path / "report.html", run.path / "report.md"
    write_atomic(html, made.html)
    write_atomic(markdown, made.markdown)
    return {"run": str(run.path), "html": str(html), "markdown": str(markdown)}
