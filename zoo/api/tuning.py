"""Tuning: two quick measurements, or a study of real trainings, judged on the validation split."""

from __future__ import annotations

import importlib.util
import json
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import FAILURE, Interrupted, ZooError, unknown
from zoo.progress import QUIET, Progress
from zoo.run import RUNS

if TYPE_CHECKING:
    from zoo.data.table import Request
    from zoo.predictions import Predictions
    from zoo.tasks import Task
    from zoo.train.session import Session

#: Groups of fewer rows say nothing about the worst one.
SMALLEST_GROUP = 10
#: Trials before the median of others ends one, and epochs that each trial has at least.
STARTUP_TRIALS, LEAST_EPOCHS = 4, 1
#: Calls, one sample each, whose median is a trial's latency.
LATENCY_CALLS = 200
#: What tells a study's kind of trial from another's; a resumed study must agree.
IDENTITY = "zoo"
#: What a request says besides which rows, labels and groups are meant.
MOVABLE = ("data", "offline")


@dataclass(frozen=True)
class Trained:
    """A trial's model and what it says about the validation rows."""

    session: Session
    model: Any
    said: Predictions
    task: Task


def _latency(trained: Trained) -> float:
    """Milliseconds of one sample by the LiteRT artefact on this machine, the median."""
    from zoo.export import to_litert
    from zoo.predict import Artifact

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(to_litert(trained.model))
        artifact = Artifact(path)
        one = trained.session.encoded(trained.session.data.parts["val"][:1])
        seconds = []
        for _ in range(LATENCY_CALLS):
            began = time.perf_counter()
            artifact(one)
            seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds))


def _worst_group(trained: Trained) -> float:
    """The task's first metric of fairness in the group of all attributes where it is worst."""
    from zoo.metrics import METRICS, evaluate

    said, name = trained.said, trained.task.fairness[0]
    found = []
    for values in said.groups.values():
        for group in np.unique(values):
            here = values == group
            if here.sum() >= SMALLEST_GROUP:
                scores = said.scores[here]
                found.append(evaluate(name, said.y_true[here], said.y_pred[here], scores))
    if not found:
        raise ZooError(
            f"worst_group needs groups of {SMALLEST_GROUP} validation rows at least.",
            hint="--sensitive names the attributes.",
        )
    return float(min(found) if METRICS[name].direction > 0 else max(found))


#: Parts of an objective besides the task's metrics.
PARTS: dict[str, Callable[[Trained], float]] = {
    "latency_ms": _latency,
    "worst_group": _worst_group,
    "params": lambda trained: float(trained.model.count_params()),
}


@dataclass(frozen=True)
class Objective:
    """What is optimised: the weighted sum of metrics and :data:`PARTS`, or one metric as it is."""

    weights: Mapping[str, float]
    direction: str  # maximize or minimize

    @classmethod
    def parse(cls, text: str | None, task: Task) -> Objective:
        """``accuracy`` (in its own direction) or ``accuracy:1,latency_ms:-0.01`` (maximised)."""
        from zoo.metrics import METRICS

        known = (*task.metrics, *PARTS)
        parts = [
            part.strip()
            for part in (task.metrics[0] if text is None else text).split(",")
            if part.strip()
        ]
        weights: dict[str, float] = {}
        for part in parts:
            name, colon, weight = part.partition(":")
            if name not in known:
                raise unknown("objective", name, known)
            try:
                weights[name] = float(weight) if colon else 1.0
            except ValueError:
                raise ZooError(
                    f"--objective {part!r} has no weight.",
                    expected="NAME or NAME:WEIGHT, such as accuracy:1,latency_ms:-0.01",
                    received=repr(weight),
                ) from None
        if len(weights) == 1 and ":" not in parts[0]:
            (name,) = weights
            up = METRICS[name].direction > 0 if name in METRICS else name == "worst_group"
            return cls(weights, "maximize" if up else "minimize")
        if not weights:
            raise ZooError("--objective names nothing.", expected=", ".join(known), received=text)
        return cls(weights, "maximize")

    def value(self, trained: Trained) -> tuple[float, dict[str, float | None]]:
        """The number to optimise, and the validation metrics and parts behind it."""
        from zoo.predict import point_metrics

        metrics = point_metrics(trained.said, trained.task.name)
        metrics |= {name: PARTS[name](trained) for name in self.weights if name in PARTS}
        numbers = {name: metrics[name] for name in self.weights}
        if any(number is None for number in numbers.values()):
            raise ZooError(f"{', '.join(numbers)} can't be computed on the validation rows.")
        return sum(w * float(numbers[name] or 0.0) for name, w in self.weights.items()), metrics


def tune_quick(
    model: str,
    *,
    request: Request | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    cpus: int | None = None,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """A learning-rate range test and a batch-size finder; the document of ``zoo tune --quick``.

    The range test is made at the batch size that the options hold, the one to be trained with.
    """
    from zoo.train.quick import batch_sizes, range_test

    session = _session(model, request, settings, seed, False, cpus)
    sizes = batch_sizes(session, progress)
    rates = range_test(session, progress)
    return {
        "model": model,
        "data": session.data.name,
        "study": None,
        "trials": [],
        "best": {"config": {"learning_rate": rates["recommended"]}, "metrics": {}},
        "learning_rate": {"present": session.options.learning_rate, **rates},
        "batch_size": {"present": session.options.batch_size, **sizes},
    }


def tune(
    model: str,
    trials: int,
    *,
    request: Request | None = None,
    settings: Mapping[str, Any] | None = None,
    objective: str | None = None,
    study: str | None = None,
    seed: int = 0,
    deterministic: bool = False,
    execution: str = "auto",
    cpus: int | None = None,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Search settings by ``trials`` trainings; the document of ``zoo tune``.

    Every trial is a real training, judged on the validation split; the test split is not touched.
    The study lies in ``root/studies/NAME.db``: the same call goes on with it until it has
    ``trials``. ``settings`` are fixed and not searched. ``objective`` as
    :meth:`Objective.parse` takes it. Raises :class:`Interrupted` after a signal; what was done is
    kept.
    """
    from zoo.run import check_name, locked
    from zoo.tasks import get_task
    from zoo.train.preparing import OF_PLAN
    from zoo.train.search import default_point, search_space

    if execution == "auto":
        execution = "graph"  # a trial of its own for each trial would cost more than it saves
    session = _session(model, request, settings, seed, deterministic, cpus, execution)
    goal = Objective.parse(objective, get_task(session.data.task))
    space = search_space(session.spec, set(settings or {}))
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in session.data.name)
    made_up = f"{model}-{Path(stem).name.split('.')[0] or 'data'}"
    name = check_name(made_up if study is None else study, "name of a study")
    _need_optuna()
    folder = root / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "model": model,
        "data": session.data.describe()["sha256"],
        "request": {k: v for k, v in session.request.document().items() if k not in MOVABLE},
        "config": session.config,
        "preprocessing": {k: str(v) for k, v in (settings or {}).items() if k in OF_PLAN},
        "options": session.options.document(),
        "objective": dict(goal.weights),
        "space": space,
        "seed": seed,
    }
    try:
        with locked(folder, f".{name}.lock", wait=False):
            held = _open(folder / f"{name}.db", name, goal, identity)
            if not held.trials:
                held.enqueue_trial(dict(default_point(session.spec, space)))
            _search(held, trials, session, goal, space, seed, progress)
            return _document(held, session, name, goal, settings or {})
    except BlockingIOError as error:
        raise ZooError(
            f"The study {name!r} is being tuned by another process.",
            expected="one process a study",
            received=str(folder / f"{name}.db"),
            hint="Choose another --study.",
            kind="study_busy",
        ) from error


def _need_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise ZooError(
            "zoo tune --trials needs a package that is not installed.",
            expected="optuna",
            received="no optuna",
            hint="pip install 'glasszoo[tune]'",
            kind="missing_extra",
        )


def _session(
    model: str,
    request: Request | None,
    settings: Mapping[str, Any] | None,
    seed: int,
    deterministic: bool,
    cpus: int | None,
    execution: str = "graph",
) -> Session:
    from zoo.backend import set_threads
    from zoo.data.table import Request
    from zoo.registry import models
    from zoo.train.preparing import prepare
    from zoo.train.session import Engine

    spec = models().get(model)
    set_threads(cpus)
    session = prepare(
        spec,
        request or Request(data=spec.data),
        settings=settings or {},
        seed=seed,
        deterministic=deterministic,
        engine=Engine(execution, strategy="single"),
    )
    session.check_build()
    return session


def _open(path: Path, name: str, goal: Objective, identity: Mapping[str, Any]) -> Any:
    """The study in a file, new or gone on with. Raises :class:`ZooError` where it is another's."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction: Any = goal.direction  # one of Optuna's literals
    held = optuna.create_study(
        storage=f"sqlite:///{path.resolve()}",
        study_name=name,
        direction=direction,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, LEAST_EPOCHS),
    )
    identity = json.loads(json.dumps(identity))  # tuples become lists, as the storage has them
    before = held.user_attrs.get(IDENTITY)
    if before is None:
        held.set_user_attr(IDENTITY, dict(identity))
    else:
        # a study from before something was noted is not judged by it
        pairs = [(key, before[key], value) for key, value in identity.items() if key in before]
        other = [pair for key, old, new in pairs for pair in _differing(key, old, new)]
        if other:
            raise ZooError(
                f"The study {name!r} is about something else.",
                expected="; ".join(f"{key} {old}" for key, old, _ in other),
                received="; ".join(f"{key} {new}" for key, _, new in other),
                hint="Choose another --study, or remove " + str(path),
                kind="other_study",
            )
    for trial in held.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        _again(held, trial)  # a process that was killed left it
    return held


def _differing(key: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """What differs of two values, as ``(name, old, new)``; of dicts, key by key."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [(key, old, new)] if old != new else []
    names = sorted({*old, *new})
    rows = [(name, old.get(name), new.get(name)) for name in names]
    return [row for row in rows if row[1] != row[2]]


def _again(held: Any, trial: Any) -> None:
    """Give a trial that was cut short up, and put its settings first in the queue."""
    import optuna

    held.enqueue_trial(trial.params, user_attrs={"again": trial.number})
    held.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    held.set_user_attr(f"cut {trial.number}", True)


def _counted(held: Any) -> list[Any]:
    """Trials that count: done, pruned or failed by themselves."""
    return [
        t
        for t in held.get_trials(deepcopy=False)
        if t.state.is_finished() and f"cut {t.number}" not in held.user_attrs
    ]


def _search(
    held: Any,
    trials: int,
    session: Session,
    goal: Objective,
    space: Mapping[str, tuple[Any, ...]],
    seed: int,
    progress: Progress,
) -> None:
    import optuna

    from zoo.train.search import draw

    while (done := len(_counted(held))) < trials:
        # A function of what is in the study, so that going on is as if it had not been interrupted.
        held.sampler = optuna.samplers.TPESampler(seed=seed + done)
        trial = held.ask()
        drawn = draw(trial, dict(space))
        shown = ", ".join(f"{k}={_short(v)}" for k, v in drawn.items())
        try:
            progress.say(f"trial {done + 1} of {trials}: {shown}")
            value, metrics = _trial(trial, session, drawn, goal, progress, done + 1)
        except optuna.TrialPruned as error:
            held.tell(trial, state=optuna.trial.TrialState.PRUNED)
            progress.say(f"trial {done + 1}: stopped, {error}")
            continue
        except (Interrupted, KeyboardInterrupt) as error:
            _again(held, trial)
            number = signal.SIGINT if type(error) is KeyboardInterrupt else signal.SIGTERM
            raise Interrupted(
                error.exit_code - 128 if isinstance(error, Interrupted) else number,
                f"The study was interrupted in trial {done + 1} of {trials}; {done} kept.",
                hint="The same command goes on with it.",
            ) from error
        except ZooError as error:
            trial.set_user_attr("error", error.message)
            held.tell(trial, state=optuna.trial.TrialState.FAIL)
            progress.say(f"trial {done + 1}: {error.message}")
            continue
        trial.set_user_attr("metrics", metrics)
        held.tell(trial, value)
        progress.say(f"trial {done + 1}: {value:.4f} (best {held.best_value:.4f})")


def _trial(
    trial: Any,
    session: Session,
    drawn: Mapping[str, Any],
    goal: Objective,
    progress: Progress,
    number: int,
) -> tuple[float, dict[str, float | None]]:
    """One training of drawn settings, stopped early where others were better by then."""
    import optuna

    from zoo.predict import compiled, predict_rows
    from zoo.tasks import get_task
    from zoo.train.loop import fit
    from zoo.train.options import apply_settings

    config, options = apply_settings(session.config, session.options, drawn, set())
    session = replace(session, config=config, options=options)
    model, task = session.build(), get_task(session.data.task)
    sign = -1.0 if goal.direction == "maximize" else 1.0

    def on_epoch(row: dict[str, Any]) -> None:
        trial.report(sign * row["val_loss"], row["epoch"])
        if row["epoch"] < options.epochs and trial.should_prune():
            raise optuna.TrialPruned(
                f"since the validation loss of {row['val_loss']:.4f} after epoch {row['epoch']} is "
                "worse than the median of the trials before"
            )

    fitted = fit(
        model,
        task,
        options,
        session.samples("train"),
        session.validator(model),
        seed=session.seed,
        progress=_Inner(progress),
        execution=session.engine.resolved(session.deterministic),
        on_epoch=on_epoch,
        title=f"trial {number}",
    )
    if fitted.interrupted is not None:
        raise Interrupted(fitted.interrupted, "interrupted")
    rows = session.data.parts["val"]
    said = predict_rows(session, compiled(model), "val", rows)
    return goal.value(Trained(session, model, said, task))


class _Inner(Progress):
    """A trial's bar on a terminal; elsewhere its epochs are not lines of their own."""

    def __init__(self, outer: Progress) -> None:
        super().__init__(outer.quiet)

    def say(self, text: str) -> None:
        if self.terminal:
            super().say(text)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _document(
    held: Any, session: Session, name: str, goal: Objective, settings: Mapping[str, Any]
) -> dict[str, Any]:
    import optuna

    rows = [
        {
            "number": number,
            "state": trial.state.name.lower(),
            "config": dict(trial.params),
            "value": trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None,
            "metrics": trial.user_attrs.get("metrics", {}),
            "epochs": len(trial.intermediate_values),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "error": trial.user_attrs.get("error"),
        }
        for number, trial in enumerate(_counted(held), 1)
    ]
    done = [row for row in rows if row["state"] == "complete"]
    if not done:
        raise ZooError(
            "No trial ended with a value.",
            expected="a trial that trains to its end",
            received=next((str(r["error"]) for r in rows if r["error"]), "pruned trials alone"),
            kind="no_trial",
            exit_code=FAILURE,
        )
    pick = max if goal.direction == "maximize" else min
    best = pick(done, key=lambda row: row["value"])
    return {
        "model": session.spec.name,
        "data": session.data.name,
        "study": name,
        "objective": {"weights": dict(goal.weights), "direction": goal.direction, "split": "val"},
        "trials": rows,
        "best": {
            "trial": best["number"],
            "config": best["config"],
            "value": best["value"],
            "metrics": best["metrics"],
            "command": session.command({**settings, **best["config"]}),
        },
    }
