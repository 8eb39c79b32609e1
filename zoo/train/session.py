"""One training as a run: resolve, check, make the folder, train, write the variant ``base``."""

from __future__ import annotations

import contextlib
import importlib
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import preprocess, text
from zoo.data.core import open_data
from zoo.data.table import Data, Request
from zoo.errors import FAILURE, ZooError, unknown
from zoo.progress import Progress
from zoo.run import RUNS, Run, Variant, create_run, guard_disk, hash_of, write_atomic
from zoo.spec import ModelSpec
from zoo.tasks import Example, get_task
from zoo.train.distribution import Replicas, Strategy, open_replicas
from zoo.train.execution import Choice, Execution
from zoo.train.feed import Samples, Stream
from zoo.train.initial import start_from
from zoo.train.loop import Fitted, fit
from zoo.train.losses import class_weights
from zoo.train.objective import build_loss, check_loss, loss_unit
from zoo.train.options import TrainOptions, apply_settings
from zoo.train.reweighing import reweighed_by, reweighing
from zoo.train.trackers import check_trackers

#: Encoded inputs of more bytes than these are made when they are needed, block by block.
HELD_BYTES = 128_000_000
#: A variable in training: its float32, its gradient, and what an optimizer keeps at the least.
VARIABLE_BYTES = 12
#: Keys of a model's config that the data decides.
FROM_DATA = {"shape", "outputs", "vocabulary", "season"}
#: ``--set`` keys of the preprocessing: the kind of data they are for, and their range.
OF_PLAN = {
    "size": ("image", 1, 4096),
    "bins": ("tabular", 2, 1024),
    "vocabulary": ("text", 1, 1_000_000),
    "length": ("text", 1, 4096),
}


#: What ``--precision`` may be: the devices' choice, or a dtype policy of Keras.
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")

#: Keys of a model's config that name published weights to start from.
PUBLISHED = ("weights", "preset")


@dataclass(frozen=True)
class Engine:
    """How a training is run, as opposed to what is trained: no part of a run's experiment, but for
    a precision other than float32.

    ``execution`` as :meth:`zoo.train.execution.Execution.parse` takes it; ``checkpoint_every``
    steps, 0 for after epochs only; ``strategy`` as
    :meth:`zoo.train.distribution.Strategy.parse` takes it; ``track`` names trackers; ``precision``
    is a dtype policy of Keras, or ``auto``: what the devices gain by.
    """

    execution: str = "auto"
    checkpoint_every: int = 0
    strategy: str = "auto"
    track: tuple[str, ...] = ()
    precision: str = "auto"

    def resolved(self, deterministic: bool) -> Execution | None:
        """The execution to use, None for one that is measured; ``deterministic`` fixes it."""
        found = Execution.parse(self.execution)
        return Execution() if found is None and deterministic else found

    def policy(self) -> str:
        """The dtype policy to train with."""
        from zoo.backend import best_precision

        if self.precision != "auto":
            return self.precision
        strategy = Strategy.parse(self.strategy)
        return best_precision(tpu=strategy is not None and strategy.kind == "tpu")


@dataclass
class Session:
    """A model, its data and its options, ready to train or to be taken up again."""

    spec: ModelSpec
    request: Request
    data: Data
    plan: dict[str, Any]
    config: dict[str, Any]
    options: TrainOptions
    seed: int
    deterministic: bool
    engine: Engine = Engine()
    distilled: bool = False  # its model is not the run's own
    init: Run | None = None  # whose weights it starts from
    row_weights: np.ndarray | None = None  # float32 (rows,), how much each counts in a training
    settings: Mapping[str, Any] = field(default_factory=dict)  # what was asked for, of all

    def command(self, settings: Mapping[str, Any]) -> str:
        """The ``zoo train`` command that trains so, with some settings."""
        words = ["zoo", "train", self.spec.name]
        words += ["--data", self.request.data] if self.request.data != self.spec.data else []
        words += _flags(self.request.document())
        words += ["--seed", str(self.seed)] if self.seed else []
        words += ["--deterministic"] if self.deterministic else []
        if self.init is not None:
            here = self.init.path.parent.resolve() == RUNS.resolve()
            words += ["--init-from", self.init.name if here else str(self.init.path)]
        for name, plain in (("precision", "auto"), ("strategy", "auto"), ("execution", "auto")):
            asked = getattr(self.engine, name)
            words += [f"--{name}", asked] if asked != plain else []
        for key, value in settings.items():
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            words += ["--set", f"{key}={text}"]
        return shlex.join(words)

    def as_model(self, name: str, config: Mapping[str, Any] | None = None) -> Session:
        """The same data with another model of the zoo, as distillation trains it.

        The model's own options hold, but for the number of epochs and the batch size where the run has
        others than its own model's. ``config`` are arguments
        of ``build``; the model's defaults otherwise. Raises :class:`ZooError` where model and data do
        not fit.
        """
        from zoo.registry import models

        spec = models().get(name)
        check_fit(spec, self.data)
        if config is None:
            config = {**spec.config, **_from_data(spec, {**self.plan, **self.config})}
        usual = TrainOptions.parse(dict(self.spec.train))
        asked = {name: value for name in ("epochs", "batch_size")
                 if (value := getattr(self.options, name)) != getattr(usual, name)}  # fmt: skip
        options = replace(TrainOptions.parse(dict(spec.train)), **asked)
        if self.data.kind != "image":
            options = replace(options, augment=())
        return replace(self, spec=spec, config=dict(config), options=options, distilled=True)

    def of(self, variant: Variant) -> Session:
        """The session of a variant: the run's own, or the one of the model it was distilled to."""
        document = variant.document()
        model, attribute = document["model"], reweighed_by(document["recipe"])
        session = self
        if model is not None:
            session = self.as_model(model["name"], _built_with(model["config"]))
        return session if attribute is None else session.reweighed(attribute)

    def reweighed(self, attribute: str) -> Session:
        """The same, trained with rows weighted by group and label: :mod:`zoo.train.reweighing`."""
        rows = self.data.parts["train"]
        weights = np.ones(len(self.data.y), np.float32)
        weights[rows] = reweighing(self.data.y[rows], np.asarray(self.data.groups[attribute][rows]))
        return replace(self, row_weights=weights)

    def samples(self, part: str) -> Samples | Stream:
        """Encoded inputs and training targets of a split, held where they are at most
        :data:`HELD_BYTES`."""
        rows, task = self.data.parts[part], get_task(self.data.task)
        more: dict[str, Any] = {"draw": None if task.draw is None else task.draw(self.plan)}
        if self.options.class_weight == "balanced":
            more["class_weights"] = class_weights(self.data.y[rows], len(self.data.classes))

        if self.row_weights is not None:
            more["as_given"] = True

        def load(some: np.ndarray) -> Samples:
            raw = self.framed(some)
            weights = raw.weights if self.row_weights is None else self.row_weights[some]
            return Samples(raw.x, raw.y, weights=weights, **more)

        one = sum(array.nbytes for array in load(rows[:1]).arrays())
        if len(rows) * one > HELD_BYTES:
            return Stream(lambda index: load(rows[index]), len(rows), **more)
        return load(rows)

    def example(self, rows: np.ndarray) -> Example:
        """Rows as the model is judged by them: what is drawn in training is fixed here."""
        raw, settle = self.framed(rows), get_task(self.data.task).settle
        return raw if settle is None else settle(self.plan, raw, rows)

    def encoded(self, rows: np.ndarray) -> np.ndarray:
        """Encoded inputs of rows: float32 (n, *shape), or int32 where they are ids."""
        return self.example(rows).x

    def framed(self, rows: np.ndarray) -> Example:
        """Rows before anything is drawn: see :class:`zoo.tasks.Task`."""
        x = preprocess.apply(self.plan, self.data.take(rows))
        return get_task(self.data.task).frame(self.plan, x, self.data.y[rows])

    def loss(self, y_true: np.ndarray, y_pred: np.ndarray, scores: np.ndarray | None) -> float:
        """The mean loss of answers, in the training's own unit where that is of standardised values.

        Args:
            y_true, y_pred, scores: as in :class:`zoo.predictions.Predictions`, in the data's unit.
        """
        task = get_task(self.data.task)
        if not self._standardised():
            return float(task.sample_score(y_true, y_pred, scores).mean())
        mean, scale = (self.plan["target"][key] for key in ("mean", "scale"))
        true, said = (
            ((np.asarray(values, np.float64) - mean) / scale).astype(np.float32)[:, None]
            for values in (y_true, y_pred)
        )
        return float(build_loss(task, self.options)(true, said))

    def loss_units(self) -> dict[str, str]:
        """What the losses of the log are: ``{training, validation}``, alike where they compare."""
        task = get_task(self.data.task)
        own = loss_unit(task, self.options)
        if self._standardised():
            return dict.fromkeys(("training", "validation"), f"{own} of the standardised target")
        return {"training": own, "validation": task.score_unit}

    def _standardised(self) -> bool:
        """Whether the model learns standardised values, while answers are in the target's unit."""
        task = get_task(self.data.task)
        return "target" in self.plan and task.judge is None and not task.classes

    def constant_loss(self) -> float | None:
        """The validation loss of one answer for all rows: the training rows' shares of classes, or
        their mean. None where the data bring no answers."""
        task, parts = get_task(self.data.task), self.data.parts
        if not task.supervised:
            return None
        known, wanted = self.data.y[parts["train"]], self.data.y[parts["val"]]
        if task.classes:
            shares = np.bincount(known, minlength=len(self.data.classes)) / len(known)
            scores = np.tile(shares, (len(wanted), 1))
            return self.loss(wanted, scores.argmax(axis=1), scores)
        return self.loss(wanted, np.full(len(wanted), known.mean()), None)

    def replicas(self) -> Replicas | None:
        """The devices to train on, None for one; asked for before anything is computed."""
        return open_replicas(Strategy.parse(self.engine.strategy))

    def build(self, replicas: Replicas | None = None, filled: bool = False) -> Any:
        """A fresh model, seeded, ready to be trained, on one device or on several.

        One that is ``filled`` next, from a checkpoint, needs no published weights before.

        Raises :class:`ZooError` where the settings make none, before memory is taken.
        """
        self.check_build()
        with contextlib.nullcontext() if replicas is None else replicas.scope():
            return self._build(self.own_config if filled else self.config)

    def build_to_train(self, replicas: Replicas | None = None, filled: bool = False) -> Any:
        """:meth:`build` in the precision that the training is to have. Variables stay float32."""
        from zoo.backend import dtype_policy

        with dtype_policy(self.engine.policy()):
            return self.build(replicas, filled)

    def _build(self, config: Mapping[str, Any]) -> Any:
        from zoo.backend import seed_everything

        seed_everything(self.seed, self.deterministic)
        with self._blaming(self._chosen()):
            return self.spec.build(**config)

    def _chosen(self) -> dict[str, Any]:
        """The model's settings that are not the published ones, but for those of the data."""
        return {
            name: value
            for name, value in self.config.items()
            if name not in FROM_DATA and value != self.spec.config.get(name)
        }

    @contextlib.contextmanager
    def _blaming(self, chosen: Mapping[str, Any]) -> Iterator[None]:
        """What Keras says of a model that can't be built, as an error about the settings."""
        from zoo.backend import tf

        try:
            yield
        except (ValueError, TypeError, ArithmeticError, LookupError, tf.errors.OpError) as error:
            shown = ", ".join(f"{name}={value}" for name, value in chosen.items())
            own = ", ".join(f"{name}={self.spec.config.get(name)}" for name in chosen)
            shape = tuple(self.config.get("shape", ()))
            raise ZooError(
                f"{self.spec.name} can't be built with {shown or f'inputs of shape {shape}'}.",
                expected=f"settings that fit inputs of shape {shape}"
                + (f", such as the model's own {own}" if own else ""),
                received=" ".join(str(error).split())[:300],
                hint=f"Change them with --set key=value; `zoo info {self.spec.name}` shows them.",
                kind="bad_config",
                settings=chosen,
            ) from error

    def check_build(self) -> None:
        """Raise :class:`ZooError` where the model can't be built, or held by this machine.

        It is built without values, so that a bad setting costs neither memory nor time.
        """
        from zoo.backend import outline
        from zoo.environment import memory_bytes

        chosen = self._chosen()
        if not chosen and all(self.config[k] == self.spec.config[k] for k in self.spec.config):
            return  # the published model, which the tests build
        with self._blaming(chosen):
            count = outline(lambda: self.spec.build(**self.own_config))
        needed, there = count * VARIABLE_BYTES, memory_bytes()
        if there is not None and needed > there:
            what = ", ".join(f"{name}={value}" for name, value in chosen.items())
            raise ZooError(
                f"{self.spec.name} is too large for this machine"
                + (f" with {what}." if what else "."),
                expected=f"at most {there // VARIABLE_BYTES:,} numbers in its variables, for "
                f"{there // 10**9:,} GB of memory",
                received=f"{count:,} numbers, which need {needed // 10**9:,} GB to be trained",
                hint=f"Choose smaller settings; `zoo info {self.spec.name}` shows the model's own.",
                kind="too_large",
                settings=chosen,
            )

    @property
    def own_config(self) -> dict[str, Any]:
        """The config for weights from a file: published ones that the training started from are not
        needed again, nor a network."""
        return {**self.config, **{key: "" for key in PUBLISHED if key in self.config}}

    def load(self, weights: Path) -> Any:
        """The model with weights from a file: never more than weights is read."""
        model = self._build(self.own_config)
        try:
            model.load_weights(weights)
        except (OSError, ValueError) as error:
            raise ZooError(
                f"{weights} does not hold this model's weights.",
                received=" ".join(str(error).split())[:200],
                kind="bad_weights",
                exit_code=FAILURE,
            ) from error
        return model

    def validator(self, model: Any) -> Any:
        """A function that gives validation loss and the task's first metric."""
        from zoo.metrics import evaluate
        from zoo.predict import compiled, predict_rows

        forward, rows = compiled(model), self.data.parts["val"]
        name = get_task(self.data.task).metrics[0]

        def validate() -> dict[str, float]:
            said = predict_rows(self, forward, "val", rows)
            loss = self.loss(said.y_true, said.y_pred, said.scores)
            value = evaluate(name, said.y_true, said.y_pred, said.scores)
            return {"val_loss": loss, f"val_{name}": value}

        return validate


def _for_kind(kind: str) -> str:
    """A hint: the models that take a kind of data."""
    from zoo.registry import models

    fit = [spec.name for spec in models().specs.values() if kind in spec.kinds]
    shown = ", ".join(fit[:8]) + (", ..." if len(fit) > 8 else "")
    return f"{kind.capitalize()} data goes with {shown or 'no model'}; `zoo list` shows the kinds."


def check_fit(spec: ModelSpec, data: Data) -> None:
    """Raise :class:`ZooError` when the model is for another kind of data or task."""
    if data.kind not in spec.kinds:
        raise ZooError(
            f"Model {spec.name!r} and data {data.name!r} are of different kinds.",
            expected=f"{' or '.join(spec.kinds)} data",
            received=f"{data.kind} data",
            hint=_for_kind(data.kind),
            kind="kind_mismatch",
        )
    if data.task not in (spec.task, *spec.tasks):
        raise ZooError(
            f"Model {spec.name!r} does not do the task {data.task}.",
            expected=" or ".join((spec.task, *spec.tasks)),
            received=data.task,
            hint="--task overrides what was inferred.",
            kind="task_mismatch",
        )


def prepare(
    spec: ModelSpec,
    request: Request,
    *,
    settings: Mapping[str, Any],
    seed: int,
    deterministic: bool,
    engine: Engine = Engine(),
    init: Run | None = None,
) -> Session:
    """Load the data and resolve config and options. Raises :class:`ZooError` for what is wrong."""
    engine.resolved(deterministic)
    Strategy.parse(engine.strategy)
    check_trackers(engine.track)
    if engine.precision not in PRECISIONS:
        raise unknown("precision", engine.precision, PRECISIONS)
    options = TrainOptions.parse(dict(spec.train))
    known = {name: value for name, value in settings.items() if name not in OF_PLAN}
    config, options = apply_settings(spec.config, options, known, FROM_DATA, set(OF_PLAN))
    check_kind_early(spec, request)
    asked = get_task(spec.task)
    if request.task is None and (asked.arrange or not asked.supervised):
        request = replace(request, task=spec.task)  # it is the model that asks, not the data
    if request.offline and config.get("weights") == "imagenet":
        raise ZooError(
            "Published weights are downloaded, which --offline forbids.",
            expected="--weights FILE, or no weights",
            received="weights=imagenet and --offline",
            hint=f"`zoo train {spec.name} --weights imagenet` says which file, without --offline.",
            kind="offline",
        )
    brought = _of_preset(spec, config.get("preset", ""), request.offline)
    config |= brought["config"]
    options = replace(options, **{k: v for k, v in brought["train"].items() if k not in settings})
    if "size" in settings:  # what is no size is refused below, when the kind of data is known
        request = replace(request, size=_whole("size", settings["size"]))
    data = open_data(request)
    check_fit(spec, data)
    if options.augment and data.kind != "image":
        raise ZooError(
            "Augmentations are for pictures.",
            expected="image data, or no --set augment",
            received=f"{', '.join(options.augment)} and {data.kind} data",
            kind="kind_mismatch",
        )
    check_loss(get_task(data.task), options)
    chosen = {name: _of_plan(name, settings[name], data) for name in OF_PLAN if name in settings}
    encoding = {**spec.encoding, **brought["encoding"], **_vocabulary_of(init, data)}
    fixed = {"wordpieces", "known"} & set(encoding)
    if fixed and "vocabulary" in chosen:
        raise ZooError(
            "The vocabulary is that of the weights that the training starts from.",
            expected="no --set vocabulary",
            received=f"--set vocabulary={chosen['vocabulary']}",
        )
    plan = preprocess.fit(data, {**encoding, **chosen})
    if "outputs" in config:
        config["outputs"] = get_task(data.task).outputs(len(data.classes))
    config |= _from_data(spec, plan)
    return Session(
        spec, request, data, plan, config, options, seed, deterministic, engine, init=init,
        settings=dict(settings),
    )  # fmt: skip


def _from_data(spec: ModelSpec, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is built with that the data decide: of this, a build takes what its config names."""
    asked = FROM_DATA & {"shape", *spec.config} & set(known)
    return _built_with({key: known[key] for key in asked})


def _built_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config as ``build`` takes it: shapes are tuples, which JSON has not."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}


def _of_preset(spec: ModelSpec, preset: str, offline: bool) -> dict[str, dict[str, Any]]:
    """The config, preprocessing and training options that published weights bring with them."""
    if not preset or not spec.preset:
        return {"config": {}, "encoding": {}, "train": {}}
    module, function = spec.preset.split(":")
    return getattr(importlib.import_module(module), function)(preset, offline)


def _vocabulary_of(init: Run | None, data: Data) -> dict[str, Any]:
    """Options of the preprocessing that give texts the ids that a run's weights are for."""
    if init is None or data.kind != "text" or init.plan()["kind"] != "text":
        return {}
    return text.vocabulary_of(init.plan())


def _of_plan(name: str, value: Any, data: Data) -> int:
    """The value of a setting of the preprocessing, checked against :data:`OF_PLAN`."""
    kind, low, high = OF_PLAN[name]
    number = _whole(name, value)
    if data.kind != kind or number is None:
        raise ZooError(
            f"The setting {name}={value} does not fit {data.kind} data.",
            expected=f"a whole number from {low} to {high}, and {kind} data",
            received=f"{value!r} and {data.kind} data",
            settings=[name],
        )
    return number


def _whole(name: str, value: Any) -> int | None:
    """A setting of :data:`OF_PLAN` as a number, None where it is none within its range."""
    _, low, high = OF_PLAN[name]
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if low <= number <= high else None


def check_kind_early(spec: ModelSpec, request: Request) -> None:
    """The same check from the data set's spec alone, before anything is read."""
    from zoo.registry import datasets

    known = datasets().specs.get(request.data)
    if known is not None and known.kind not in spec.kinds:
        raise ZooError(
            f"Model {spec.name!r} and data {known.name!r} are of different kinds.",
            expected=f"{' or '.join(spec.kinds)} data",
            received=f"{known.kind} data",
            hint=_for_kind(known.kind),
            kind="kind_mismatch",
        )


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


def _flags(request: Mapping[str, Any]) -> Iterator[str]:
    """Options of the command line for a request's fields that are not their default."""
    plain = Request(data=request["data"]).document()
    for name, value in request.items():
        if name in ("data", "size") or value == plain[name]:  # the size is a setting
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield flag
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from (flag, f'"{item}"' if "," in item else item)
        else:
            yield from (flag, str(value))


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
    data = open_data(request, sha256=document["data"]["sha256"])
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in document["config"].items()}
    options = dict(document["options"])
    deterministic = options.pop("deterministic", False)
    return Session(
        spec=spec,
        request=request,
        data=data,
        plan=run.plan(),
        config=config,
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
