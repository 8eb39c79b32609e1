"""From what was asked to a session: data loaded, config and options resolved, nothing written."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.data import preprocess, text
from zoo.data.core import open_data
from zoo.data.table import Data, Request
from zoo.errors import ZooError, unknown
from zoo.run import Run
from zoo.spec import ModelSpec
from zoo.tasks import get_task
from zoo.train.distribution import Strategy
from zoo.train.matching import FROM_DATA, check_fit, check_kind_early, from_data
from zoo.train.objective import check_loss
from zoo.train.options import TrainOptions, apply_settings
from zoo.train.session import PRECISIONS, Engine, Session
from zoo.train.trackers import check_trackers

#: ``--set`` keys of the preprocessing: the kind of data they are for, and their range.
OF_PLAN = {
    "size": ("image", 1, 4096),
    "bins": ("tabular", 2, 1024),
    "vocabulary": ("text", 1, 1_000_000),
    "length": ("text", 1, 4096),
}


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
    config |= from_data(spec, plan)
    return Session(
        spec, request, data, plan, config, options, seed, deterministic, engine, init=init,
        settings=dict(settings),
    )  # fmt: skip


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
