"""A session's life as a run: its folder, its training, and how it is taken up again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zoo.data.core import open_data
from zoo.data.table import Request
from zoo.errors import FAILURE, ZooError
from zoo.progress import Progress
from zoo.run import Run, create_run, guard_disk, hash_of, write_atomic
from zoo.tasks import get_task
from zoo.train.distribution import Replicas
from zoo.train.execution import Choice
from zoo.train.initial import start_from
from zoo.train.loop import Fitted, fit
from zoo.train.matching import built_with
from zoo.train.options import TrainOptions
from zoo.train.session import Engine, Session


def structure(model: Any) -> str:
    """Hash of a model's layers and weight shapes: what must agree for weights to fit."""
    return hash_of(
        [
            [type(layer).__name__, [list(weight.shape) for weight in layer.weights]]
            for layer in model.layers
        ]
    )


def run_document(
    session: Session, name: str, model: Any, init: Mapping[str, Any] | None
) -> dict[str, Any]:
    """``run.json`` at the start of a training; ``init`` is what :func:`start_from` said."""
    from zoo.backend import device
    from zoo.environment import now, versions
    from zoo.schema import RunDocument

    spec = {**session.spec.document(), "structure": structure(model)}
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in session.config.items()}
    data = {**session.data.describe(), "request": session.request.document()}
    identity = [spec["name"], spec["version"], spec["structure"], config,
                session.options.document(), data["sha256"], data["request"]]  # fmt: skip
    identity += [init["sha256"]] if init else []
    precision = session.engine.policy()
    identity += [precision] if precision != "float32" else []
    return RunDocument(
        run=name,
        spec=spec,
        config=config,
        params=model.count_params(),
        loss=session.loss_units(),
        options={**session.options.document(), "deterministic": session.deterministic},
        data=data,
        experiment=hash_of(identity)[:16],
        seed=session.seed,
        engine=asdict(replace(session.engine, precision=precision)),
        init=None if init is None else dict(init),
        command=session.command(session.settings),
        versions=versions(),
        device=device(),
        git=git_revision(),
        status="training",
        created=now(),
    ).model_dump(mode="json")


def git_revision() -> str | None:
    """The commit of the working directory's checkout, if it is one."""
    import subprocess

    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def start(
    session: Session, root: Path, name: str | None, replicas: Replicas | None = None
) -> tuple[Run, Any]:
    """Build the model and make the run's folder. Nothing is written before the model stands."""
    from zoo.schema import dump

    model = session.build_to_train(replicas)
    if replicas is not None:
        replicas.adopt(model, session.options.batch_size)
    init = None if session.init is None else start_from(model, session.init)
    if name is None:
        clean = "".join(c if c.isalnum() or c in "._-" else "-" for c in session.data.name)
        stem = Path(clean).name.split(".")[0].strip("-._")[:40] or "data"
        name = f"{session.spec.name}-{stem}-{secrets.token_hex(3)}"

    def fill(folder: Path) -> None:
        write_atomic(folder / "run.json", dump(run_document(session, name, model, init)))
        write_atomic(folder / "preprocess.json", dump(session.plan))
        (folder / "checkpoints").mkdir()

    try:
        return create_run(root, name, fill), model
    except OSError as error:
        raise guard_disk(error) from error


def reopen(run: Run) -> Session:
    """The session of a run, from its files. Raises :class:`ZooError` when the data changed."""
    from zoo.registry import models

    document = run.document()
    spec = models().get(document["spec"]["name"])
    request = Request.parse(document["data"]["request"])
    # What was asked of the training's network holds for that alone: where the cache was cleared since, or
    # on another machine, the same data are fetched.
    data = open_data(replace(request, offline=False), sha256=document["data"]["sha256"])
    options = dict(document["options"])
    deterministic = options.pop("deterministic", False)
    return Session(
        spec=spec,
        request=request,
        data=data,
        plan=run.plan(),
        config=built_with(document["config"]),
        options=TrainOptions.parse(options),
        seed=document["seed"],
        deterministic=deterministic,
        engine=_engine(document),
    )


def initialise(run: Run, model: Any, begun: bool) -> None:
    """Give a rebuilt model the weights that its run started from, unless a checkpoint has others.

    Raises :class:`ZooError` when it is needed and the other run is gone or has changed.
    """
    from zoo.run import find_run

    init = run.document()["init"]
    if init is None or begun:
        return
    again = start_from(model, find_run(init["path"], run.path.parent))
    if again["sha256"] != init["sha256"]:
        raise ZooError(
            f"{init['run']}, which {run.name} started from, has other weights now.",
            expected=f"SHA-256 {init['sha256'][:12]}",
            received=again["sha256"][:12],
            hint="Train anew with --init-from.",
            kind="changed_weights",
        )


def _engine(document: Mapping[str, Any]) -> Engine:
    """How a run was begun; an execution that was measured then is kept."""
    stored = document["engine"]
    # Runs from before there was a choice are of float32.
    engine = Engine(**{"precision": "float32", **stored, "track": tuple(stored.get("track", ()))})
    chosen = document["execution"].get("mode")
    return replace(engine, execution=chosen) if chosen else engine


def train(
    session: Session,
    run: Run,
    model: Any,
    progress: Progress,
    resume: bool = False,
    replicas: Replicas | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Fitted:
    """Train into a run. Its status says how it ended; the weights are in ``model``.

    ``replicas`` are the devices that the model was built on. ``on_epoch`` is called with each row
    that the log got.
    """
    from zoo.backend import tf

    run.update(status="training", replicas=1 if replicas is None else replicas.count)
    rows = session.samples("train")
    progress.say(
        f"{run.name}: {session.spec.name} on {session.data.name}, {len(rows):,} rows, "
        f"{session.options.epochs} epochs, seed {session.seed}"
    )

    def logged(row: dict[str, Any]) -> None:
        run.log(row)
        on_epoch(row)

    def chosen(choice: Choice) -> None:
        run.update(execution=choice.document())
        progress.say(f"execution: {choice.execution} ({choice.reason})")

    try:
        fitted = fit(
            model,
            get_task(session.data.task),
            session.options,
            rows,
            session.validator(model),
            seed=session.seed,
            progress=progress,
            checkpoints=run.path / "checkpoints",
            checkpoint_every=session.engine.checkpoint_every,
            execution=session.engine.resolved(session.deterministic),
            on_choice=chosen,
            replicas=replicas,
            on_epoch=logged,
            resume=resume,
            title=run.name,
        )
    except tf.errors.OpError as error:
        if replicas is None or replicas.workers == 1:
            run.update(status="failed")
            raise
        run.update(status="interrupted")
        raise ZooError(
            "Another worker of the cluster is gone, and the training can't go on without it.",
            expected=f"{replicas.workers} workers",
            received=" ".join(error.message.split("\n")[0].split())[-200:],
            hint="Start all of them again with --resume; the last checkpoint is kept.",
            kind="worker_lost",
            exit_code=FAILURE,
        ) from error
    except OSError as error:
        with contextlib.suppress(OSError):  # the disk may be too full to say so
            run.update(status="failed")
        raise guard_disk(error) from error
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)  # between the loop's own watch for signals
        run.update(status="interrupted" if stopped else "failed")
        raise
    if fitted.interrupted is not None:
        run.update(status="interrupted", progress={"epochs": fitted.epochs, "steps": fitted.steps})
    return fitted
