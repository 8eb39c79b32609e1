"""The steps of recipes, of compression and of bias mitigation: one table; a new step is one row."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from zoo.compress.deciding import check_reweigh, check_threshold, ship_decided
from zoo.decision import CONSTRAINTS
from zoo.decision import SOURCE as THRESHOLDS
from zoo.errors import Interrupted
from zoo.export import CALIBRATION_SAMPLES, FORMATS, to_litert
from zoo.keras_modes import MODES
from zoo.progress import Progress
from zoo.run import Run
from zoo.spec import Step
from zoo.tasks import get_task
from zoo.train.loop import fit
from zoo.train.options import TrainOptions
from zoo.train.reweighing import REWEIGH
from zoo.train.running import initialise
from zoo.train.session import Session

#: Of the epochs and the learning rate of the training, what a retraining step uses.
RETRAIN_EPOCHS, RETRAIN_RATE = 0.4, 0.5
#: Share of a pruning's steps during which sparsity grows; the rest recovers accuracy.
GROWTH = 0.6


@dataclass
class Work:
    """What a step works on: the model, changed in place by a retrain, and the training around it."""

    session: Session
    model: Any
    progress: Progress
    title: str
    checkpoints: Path  # where a retraining writes its own, and goes on from those there are
    run: Run

    def calibration(self) -> np.ndarray:
        """Encoded training rows for the activations' ranges."""
        return calibration(self.session)


def calibration(session: Session) -> np.ndarray:
    """Encoded training rows for activations' ranges: a seeded draw, (up to 256, ...)."""
    rows = session.data.parts["train"]
    drawn = np.random.default_rng(0).permutation(len(rows))[:CALIBRATION_SAMPLES]
    return session.encoded(np.sort(rows[drawn]))


def _no_argument(text: str | None) -> dict[str, Any]:
    if text is not None:
        raise ValueError("no argument")
    return {}


#: What may follow the sparsity: `prune:0.8:global`.
_PRUNE_EXTRAS: dict[str, dict[str, Any]] = {"global": {"across": True}, "all": {"layers": "all"}}


def _sparsity(text: str | None) -> dict[str, Any]:
    wrong = ValueError(
        "a sparsity between 0 and 1, such as prune:0.8, or m zeros in each n weights, such as "
        "prune:2by4; then perhaps :global (one threshold for all kernels), :all (every kernel), or "
        ":4x1 (blocks)"
    )
    amount, *extras = (text or "").split(":")
    options: dict[str, Any] = {}
    by = re.fullmatch(r"(\d{1,3})by(\d{1,3})", amount)
    if by:
        options |= {"sparsity": None, "by": (int(by[1]), int(by[2]))}
        if not 0 < options["by"][0] < options["by"][1]:
            raise wrong
    else:
        try:
            options["sparsity"] = float(amount)
        except ValueError:
            raise wrong from None
        if not 0 < options["sparsity"] < 1:
            raise wrong
    for extra in extras:
        block = re.fullmatch(r"(\d{1,3})x(\d{1,3})", extra)
        if block and int(block[1]) * int(block[2]) > 1:
            options["block"] = (int(block[1]), int(block[2]))
        elif extra in _PRUNE_EXTRAS:
            options |= _PRUNE_EXTRAS[extra]
        else:
            raise wrong
    if len({"by", "block", "across"} & set(options)) > 1:
        raise wrong
    return options


def _values(text: str | None) -> dict[str, Any]:
    from zoo.compress.clustering import MOST_VALUES

    if not (text or "").isdecimal() or not 2 <= int(text or 0) <= MOST_VALUES:
        raise ValueError(f"a number of values from 2 to {MOST_VALUES}, such as cluster:16")
    return {"number": int(text or 0)}


def _student(text: str | None) -> dict[str, Any]:
    from zoo.registry import models

    if not text:
        raise ValueError("a model of the zoo, such as distill:mlp")
    return {"model": models().get(text).name}


def _mode(text: str | None) -> dict[str, Any]:
    if text not in MODES:
        raise ValueError(f"{', '.join(f'keras:{name}' for name in MODES)}")
    return {"mode": text}


def _attribute(text: str | None) -> dict[str, Any]:
    if not text:
        raise ValueError("a sensitive attribute, such as reweigh:sex")
    return {"attribute": unquote(text)}


def _rule(text: str | None) -> dict[str, Any]:
    attribute, _, constraint = (text or "").partition(":")
    constraint = constraint or next(iter(CONSTRAINTS))
    if not attribute or constraint not in CONSTRAINTS:
        raise ValueError(
            "a sensitive attribute, such as threshold:sex, and perhaps a constraint: "
            + ", ".join(CONSTRAINTS)
        )
    return {"attribute": unquote(attribute), "constraint": constraint}


def _retraining(work: Work) -> tuple[TrainOptions, int]:
    """The options of a retraining, and its steps."""
    options = work.session.options
    training = replace(
        options,
        epochs=max(2, math.ceil(options.epochs * RETRAIN_EPOCHS)),
        learning_rate=options.learning_rate * RETRAIN_RATE,
        keep="last",  # an earlier epoch would not have the final sparsity yet
        patience=0,
    )
    rows = len(work.session.data.parts["train"])
    return training, training.epochs * math.ceil(rows / training.batch_size)


def _fit(work: Work, model: Any, training: TrainOptions, callbacks: Sequence[Any] = ()) -> None:
    session = work.session
    fitted = fit(
        model,
        get_task(session.data.task),
        training,
        session.samples("train"),
        session.validator(work.model),
        seed=session.seed + 1_000_003,  # another order of samples than the training's
        progress=work.progress,
        callbacks=callbacks,
        checkpoints=work.checkpoints,
        checkpoint_every=session.engine.checkpoint_every,
        resume=any(work.checkpoints.glob("step-*")),
        title=work.title,
    )
    if fitted.interrupted is not None:
        raise Interrupted(
            fitted.interrupted,
            f"{work.title} was interrupted.",
            hint="The same command goes on from its last checkpoint.",
        )


def _prune(work: Work, options: dict[str, Any]) -> None:
    from zoo.compress.pruning import prune

    training, steps = _retraining(work)
    with prune(work.model, steps=steps, growth=GROWTH, **options) as pruning:
        _fit(work, work.model, training, [pruning.callback()])


def _cluster(work: Work, options: dict[str, Any]) -> None:
    from zoo.compress.clustering import cluster
    from zoo.compress.pruning import keep_zeros

    training, _ = _retraining(work)
    with keep_zeros(work.model), cluster(work.model, **options) as clusters:
        _fit(work, work.model, training, [clusters.callback()])


def _qat(work: Work, options: dict[str, Any]) -> None:
    from zoo.compress.clustering import keep_clusters
    from zoo.compress.pruning import keep_zeros
    from zoo.compress.quantizing import quantize_aware, snap

    training, _ = _retraining(work)
    with (
        keep_zeros(work.model),
        keep_clusters(work.model),
        quantize_aware(work.model, work.calibration()) as rounding,
    ):
        _fit(work, work.model, training, [rounding.callback()])
    snap(work.model)  # again, since the clusters' values came back


def _distill(work: Work, options: dict[str, Any]) -> None:
    from zoo.compress.distilling import distill

    teacher = work.model
    work.session = work.session.as_model(options["model"])
    work.model = work.session.build()
    task = get_task(work.session.data.task)
    classes = task.classes or task.loss == "SparseCategoricalCrossentropy"  # a token is one too
    both = distill(work.model, teacher, classes=classes)
    _fit(work, both, work.session.options)


def _reweigh(work: Work, options: dict[str, Any]) -> None:
    work.session = work.session.reweighed(options["attribute"])
    begun = any(work.checkpoints.glob("step-*"))
    work.model = work.session.build_to_train(filled=begun)
    initialise(work.run, work.model, begun)
    _fit(work, work.model, work.session.options)


def _convert(format: str) -> Callable[[Work, dict[str, Any]], bytes]:
    def run(work: Work, options: dict[str, Any]) -> bytes:
        samples = work.calibration() if FORMATS[format].calibrated else None
        return to_litert(work.model, format, samples)

    return run


def _check_keras(session: Session, options: dict[str, Any]) -> None:
    from zoo import keras_modes

    keras_modes.covered(session.build(filled=True), options["mode"])


def _keras(work: Work, options: dict[str, Any]) -> bytes:
    from zoo import keras_modes
    from zoo.predict import pack

    session, mode = work.session, options["mode"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        work.model.save_weights(path)
        packed = session.load(path)  # the model itself is what parity is measured against
    ids = work.calibration() if MODES[mode].calibrated else None
    total = packed.count_params()
    share = sum(layer.count_params() for layer in keras_modes.covered(packed, mode)) / total
    work.progress.say(f"{work.title}: Keras covers {share:.0%} of {total:,} weights")
    keras_modes.quantize(packed, mode, ids)
    return pack(packed, {"model": session.spec.name, "config": session.own_config, "mode": mode})


#: The rows' order is the order of a chain: each keeps what those before it made, not the other way.
STEPS: dict[str, Step] = {
    row.name: row
    for row in (
        Step(REWEIGH, "retrain", "ATTRIBUTE", "train anew, each row weighted so that group and label are "
             "independent", _attribute, _reweigh, "Kamiran & Calders, KAIS 33, 2012",
             check=check_reweigh, mitigates=True),
        Step("distill", "retrain", "MODEL", "teach another model of the zoo what this one says",
             _student, _distill, "Hinton, Vinyals & Dean 2015", again=True),
        Step("prune", "retrain", "SPARSITY|MbyN", "set the smallest weights of each kernel to zero "
             "while training on", _sparsity, _prune, "Zhu & Gupta 2017, with TF-MOT's engine",
             ("prune:0.5", "prune:0.8")),
        Step("cluster", "retrain", "VALUES", "let each kernel share a few values while training on",
             _values, _cluster, "Han, Mao & Dally, ICLR 2016, with TF-MOT's centroids",
             ("cluster:16",)),
        Step("qat", "retrain", "", "train on with weights and activations rounded to 8 bits; then "
             "int8", _no_argument, _qat, "Jacob et al., CVPR 2018, with TF-MOT's operations",
             ("qat",)),
        Step("float16", "transform", "", "half-precision weights", _no_argument,
             _convert("float16"), FORMATS["float16"].source, ("float16",)),
        Step("dynamic", "transform", "", "int8 weights, float activations", _no_argument,
             _convert("dynamic"), FORMATS["dynamic"].source, ("dynamic",)),
        Step("int8", "transform", "", "int8 weights and activations, calibrated on training rows",
             _no_argument, _convert("int8"), FORMATS["int8"].source, ("int8",)),
        Step("int16x8", "transform", "", "int8 weights, int16 activations, calibrated on training "
             "rows", _no_argument, _convert("int16x8"), FORMATS["int16x8"].source, ("int16x8",)),
        Step("keras", "transform", "|".join(MODES), "Keras' own packed weights, which run in Keras "
             "alone", _mode, _keras, "; ".join(row.source for row in MODES.values()),
             artifact="packed.npz", check=_check_keras),  # no grid: its latencies are another runtime's
        Step("threshold", "transform", "ATTRIBUTE[:CONSTRAINT]", "decide by thresholds of each group, "
             "found on the validation rows", _rule, ship_decided, THRESHOLDS, check=check_threshold,
             mitigates=True, decides=True),
    )
}  # fmt: skip
