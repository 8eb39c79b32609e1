"""A model with its data and options, and the engine of its training."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import preprocess
from zoo.data.table import Data, Request
from zoo.errors import FAILURE, ZooError
from zoo.run import RUNS, Run, Variant
from zoo.spec import ModelSpec
from zoo.tasks import Example, get_task
from zoo.train.distribution import Replicas, Strategy, open_replicas
from zoo.train.execution import Execution
from zoo.train.feed import Samples, Stream
from zoo.train.losses import class_weights
from zoo.train.matching import FROM_DATA, built_with, check_fit, from_data
from zoo.train.objective import build_loss, loss_unit
from zoo.train.options import TrainOptions
from zoo.train.reweighing import reweighed_by, reweighing

#: Encoded inputs of more bytes than these are made when they are needed, block by block.
HELD_BYTES = 128_000_000
#: A variable in training: its float32, its gradient, and what an optimizer keeps at the least.
VARIABLE_BYTES = 12
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
            config = {**spec.config, **from_data(spec, {**self.plan, **self.config})}
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
            session = self.as_model(model["name"], built_with(model["config"]))
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
