"""Whether a model and data fit, and what the data decide of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.data.table import Data, Request
from zoo.errors import ZooError
from zoo.spec import ModelSpec

#: Keys of a model's config that the data decides.
FROM_DATA = {"shape", "outputs", "vocabulary", "season"}


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


def _for_kind(kind: str) -> str:
    """A hint: the models that take a kind of data."""
    from zoo.registry import models

    fit = [spec.name for spec in models().specs.values() if kind in spec.kinds]
    shown = ", ".join(fit[:8]) + (", ..." if len(fit) > 8 else "")
    return f"{kind.capitalize()} data goes with {shown or 'no model'}; `zoo list` shows the kinds."


def from_data(spec: ModelSpec, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is built with that the data decide: of this, a build takes what its config names."""
    asked = FROM_DATA & {"shape", *spec.config} & set(known)
    return built_with({key: known[key] for key in asked})


def built_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config as ``build`` takes it: shapes are tuples, which JSON has not."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
