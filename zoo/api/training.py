"""Training a model into a run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import Interrupted, ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Run, find_run

if TYPE_CHECKING:
    from zoo.data.table import Request
    from zoo.predictions import Predictions
    from zoo.train.distribution import Replicas
    from zoo.train.session import Session
    from zoo.train.trackers import Tracking


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
    execution: str = "auto",
    checkpoint_every: int = 0,
    strategy: str = "auto",
    precision: str = "auto",
    init_from: str | None = None,
    track: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Train a model of the registry into a new run; the document of ``zoo train --json``.

    ``request`` defaults to the model's own data set. With ``dry_run`` everything is resolved and
    checked and nothing is written. ``execution`` is ``auto``, ``graph``, ``graph:N``, ``xla`` or
    ``xla:N``; ``checkpoint_every`` so many steps a checkpoint is written besides after each epoch;
    ``strategy`` is ``auto``, ``single``, ``mirrored`` (all GPUs) or ``mirrored:N``; ``precision`` one
    of :data:`zoo.train.session.PRECISIONS`. ``init_from`` is a run whose weights are taken where layers agree
    in name and shapes; ``track`` names trackers of :data:`zoo.train.trackers.TRACKERS`.
    """
    from zoo.data.table import Request
    from zoo.registry import models
    from zoo.run import check_name
    from zoo.train.preparing import prepare
    from zoo.train.running import start
    from zoo.train.session import Engine

    spec = models().get(model)
    from zoo.train.distribution import Strategy, is_chief, open_replicas

    devices = Strategy.parse(strategy)
    chief = is_chief(devices)
    if name is not None and (root / check_name(name)).exists() and chief:
        raise ZooError(
            f"{root / name} exists already.",
            expected="a name that is not taken",
            received=name,
            hint=f"Choose another --name, or continue it: zoo train --resume {root / name}",
            kind="run_exists",
        )
    if not dry_run and (cpus or (devices is not None and devices.kind != "single")):
        from zoo.backend import set_threads

        set_threads(cpus)  # both before anything is computed, as preparing texts does
        open_replicas(devices)
    session = prepare(
        spec,
        request or Request(data=spec.data),
        settings=settings or {},
        seed=seed,
        deterministic=deterministic,
        engine=Engine(execution, checkpoint_every, strategy, tuple(track), precision),
        init=None if init_from is None else find_run(init_from, root),
    )
    for note in session.data.notes:
        progress.say(f"data: {note}")
    ignored = [f"{c['name']} ({c['why']})" for c in session.data.columns if not c["used"]]
    if ignored:
        progress.say(f"data: not used: {', '.join(ignored)}")
    if dry_run:
        session.check_build()
        return {
            "model": spec.name,
            "config": session.config,
            "options": session.options.document(),
            "data": session.data.describe(),
        }
    replicas = session.replicas()
    with _own_root(root, replicas) as folder:
        run, built = start(session, folder, name, replicas)
        if (init := run.document()["init"]) is not None:
            left = f"; {_some(init['left'])} start anew" if init["left"] else ""
            progress.say(f"init: {_some(init['taken'])} from {init['run']}{left}")
        return _train(session, run, built, progress, False, replicas)


def resume(
    text: str, root: Path = RUNS, progress: Progress = QUIET, cpus: int | None = None
) -> dict[str, Any]:
    """Go on with an interrupted run; of a finished one, its document.

    ``cpus`` is of this machine and no part of the run: given anew each time, all cores otherwise.
    """
    from zoo.train.checkpoint import newest
    from zoo.train.running import initialise, reopen

    run = find_run(text, root)
    document = run.document()
    if document["status"] == "done" and BASE in run.variants():
        progress.say(f"{run.name} is trained already")
        return {**document["result"], "run": str(run.path)}
    if cpus:
        from zoo.backend import set_threads

        set_threads(cpus)  # before anything is computed
    session = reopen(run)
    replicas = session.replicas()
    with _own_root(run.path.parent, replicas) as folder:
        if folder != run.path.parent:
            run = Run(Path(shutil.copytree(run.path, folder / run.name)))
        begun = bool(newest(run.path / "checkpoints").arrays)
        model = session.build_to_train(replicas, filled=begun)
        initialise(run, model, begun)
        return _train(session, run, model, progress, True, replicas)


def _some(names: Sequence[str]) -> str:
    """``3 layers (a, b, c)``"""
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(names)} layer{'s' * (len(names) != 1)} ({shown})"


def train_cluster(words: Sequence[str], workers: int, progress: Progress = QUIET) -> int:
    """Run the command ``zoo`` with ``words`` as a cluster of processes here; its exit code."""
    from zoo.train.cluster import run_local

    return run_local(words, workers, progress.say)


@contextlib.contextmanager
def _own_root(root: Path, replicas: Replicas | None) -> Iterator[Path]:
    """Where this process may write its run: workers other than the chief in a folder that goes."""
    if replicas is None or replicas.chief:
        yield root
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _train(
    session: Session,
    run: Run,
    model: Any,
    progress: Progress,
    resume: bool,
    replicas: Replicas | None,
) -> dict[str, Any]:
    from zoo.train.trackers import Tracking

    chief = replicas is None or replicas.chief
    tracking = Tracking(run, session.engine.track if chief else ())
    with run.training(), contextlib.closing(tracking):
        return _trained(session, run, model, progress, resume, replicas, tracking)


def _trained(
    session: Session,
    run: Run,
    model: Any,
    progress: Progress,
    resume: bool,
    replicas: Replicas | None,
    tracking: Tracking,
) -> dict[str, Any]:
    from zoo.run import point_latest
    from zoo.train.running import train as train_into
    from zoo.variants import ship_base

    fitted = train_into(session, run, model, progress, resume, replicas, tracking.epoch)
    if fitted.interrupted is not None:
        raise Interrupted(
            fitted.interrupted,
            f"The training of {run.name} was interrupted after step {fitted.steps:,}, "
            f"in epoch {fitted.epochs + 1}; a checkpoint holds it.",
            hint=f"Go on with: zoo train --resume {run.path}",
        )
    if replicas is not None and not replicas.chief:
        replicas.agreed(None)  # the cluster stays whole until the chief has written the run
        return {"worker": replicas.rank, "workers": replicas.workers, "epochs": fitted.epochs}
    progress.say(f"{run.name}: writing the variant base")
    if replicas is not None or session.engine.policy() != "float32":
        # What is shipped is a model of one device and of one precision.
        weights, model = model.get_weights(), session.build(filled=True)
        model.set_weights(weights)
    base = (
        ship_base(session, run, model, fitted.seconds)
        if BASE not in run.variants()
        else run.variant(BASE)
    )
    metrics = base.document()["metrics"]
    beside = baseline(session, base.predictions())
    result = {
        "run": run.name,  # stored without the folders of this machine
        "model": session.spec.name,
        "data": session.data.name,
        "variant": BASE,
        "experiment": run.document()["experiment"],
        "seed": session.seed,
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
        "steps_per_second": fitted.steps_per_second,
        "samples_per_second": fitted.samples_per_second,
        **(
            {"speed_reason": "no step after the first call, which compiles, to measure"}
            if fitted.steps_per_second is None
            else {}
        ),
        "execution": fitted.execution,
        "dropped_rows": fitted.dropped,
        "metrics": metrics,
        "baseline": beside,
        "target": _target(session, metrics),
        "best": fitted.best,
        "advice": advice(session, run, beaten=_beaten(beside["difference"])),
    }
    tracking.finish(metrics, fitted.epochs)
    run.update(status="done", result=result, progress={"epochs": fitted.epochs})
    point_latest(run.path.parent, run.name)
    if replicas is not None:
        replicas.agreed(None)
    return {**result, "run": str(run.path)}


def _beaten(difference: Mapping[str, Any]) -> bool:
    """Whether the baseline is better on the first metric that was compared, beyond its interval."""
    from zoo.metrics import METRICS

    for name, row in difference.items():
        direction = METRICS[name].direction if name in METRICS else 0
        if direction and row["ci_low"] is not None:
            return max(direction * row["ci_low"], direction * row["ci_high"]) < 0
    return False


def advice(session: Session, run: Run, beaten: bool = False) -> dict[str, Any]:
    """What the run's learning curve says: ``{verdict, why, change}``."""
    from zoo.train.advice import advise

    return advise(
        run.read_log(),
        options=session.options.document(),
        config=session.config,
        kind=session.data.kind,
        constant=session.constant_loss(),
        beaten=beaten,
    )


def baseline(session: Session, said: Predictions) -> dict[str, Any]:
    """The task's baseline on the test rows: ``{name, metrics, difference}``.

    ``difference`` is the model's ``said`` less the baseline, ``{metric: {delta, ci_low, ci_high,
    n}}`` of the same rows, for the metrics that are shares or means of them.
    """
    from dataclasses import replace

    from zoo.predict import point_metrics
    from zoo.tasks import function_of, get_task
    from zoo_explain.fairness import compare

    name, reference = function_of(get_task(session.data.task).reference)(session)
    rows = compare(
        replace(reference, groups={}),
        replace(said, groups={}),
        task=session.data.task,
        variant=BASE,
    )
    difference = {
        row["metric"]: {key: row[key] for key in ("delta", "ci_low", "ci_high", "n")}
        for row in rows
        if row["delta"] is not None
    }
    metrics = point_metrics(reference, session.data.task)
    return {"name": name, "metrics": metrics, "difference": difference}


def _target(session: Session, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    target = session.spec.target
    if target is None:
        reason = f"no target is claimed for {session.spec.name}"
        return {"metric": None, "value": None, "reached": None, "hit": False, "reason": reason}
    spec, reason = session.spec, ""
    if session.request.data != spec.data:
        own = session.request.data != session.data.name
        reason = (
            f"the target is a claim about the data set {spec.data}, not about "
            f"{'a file ' if own else ''}{session.data.name}"
        )
    elif session.data.task != spec.task:
        reason = f"the target is a claim about {spec.task}, not {session.data.task}"
    reached = metrics.get(target.metric) if not reason else None
    document = {"metric": target.metric, "value": target.value, "reached": reached}
    if reason:
        return {**document, "hit": False, "reason": reason}
    from zoo.metrics import METRICS

    direction = METRICS[target.metric].direction
    return {**document, "hit": reached is not None and direction * (reached - target.value) >= 0}
