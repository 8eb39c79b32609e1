"""What a model and a data set declare about themselves. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Target:
    """A claim about a default ``zoo train``: ``metric`` on the test split reaches ``value``."""

    metric: str
    value: float


@dataclass(frozen=True)
class ModelSpec:
    """One model of the zoo: a value, not a class to inherit from.

    ``build(**config)`` returns a Keras model with a functional core whose outputs are logits
    (classification) or values (regression). ``config`` is the published configuration; the data
    overrides those of its keys that describe data (``shape``, ``outputs``, ...), ``--set`` the
    others. ``train`` holds the training options that differ from the defaults of
    :class:`zoo.train.options.TrainOptions`. ``tiny`` is laid over ``config`` for tests: the same
    graph, test-sized. ``params`` counts all variables of the published configuration.
    ``kinds`` names the kinds of data it takes, ``tasks`` the tasks besides ``task`` it serves.
    ``encoding`` holds options of the preprocessing that differ from its defaults. ``preset`` names,
    as ``module:function``, what reads the published weights that the config key ``preset`` may name:
    ``f(preset, offline)`` gives the ``config``, ``encoding`` and ``train`` that go with them. ``skips`` maps a
    step to the reason why it does not apply. ``target`` is None for models that are not trained here at their
    real size; ``published`` then says what their source reached. ``search`` is laid over the default
    space of ``zoo tune``: setting -> range, as :mod:`zoo.train.search` says.
    """

    name: str
    version: str
    family: str
    task: str
    build: Callable[..., Any]
    config: Mapping[str, Any]
    tiny: Mapping[str, Any]
    data: str
    source: str
    license: str
    params: int
    kinds: tuple[str, ...]
    target: Target | None = None
    published: str = ""
    tasks: tuple[str, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    skips: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The facts, JSON-able: what ``zoo list --json`` prints for the model."""
        return {
            "name": self.name,
            "version": self.version,
            "family": self.family,
            "task": self.task,
            "params": self.params,
            "data": self.data,
            "target": asdict(self.target) if self.target else None,
            "target_reason": None if self.target else "not trained here at its published size",
            "published": self.published,
            "source": self.source,
            "license": self.license,
            "kinds": list(self.kinds),
            "tasks": [self.task, *self.tasks],
            "skips": dict(self.skips),
            "tags": list(self.tags),
        }


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: ``load(request)`` returns a :class:`zoo.data.table.Table`.

    ``rows``, ``bytes`` and ``sha256`` describe the shipped file, and are checked against it.
    """

    name: str
    kind: str
    task: str
    load: Callable[..., Any]
    rows: int
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    features: int
    license: str
    source: str
    file: str
    bytes: int
    sha256: str
    description: str = ""
    offline: bool = True

    def document(self) -> dict[str, Any]:
        """The facts, JSON-able: what ``zoo data list --json`` prints for the data set."""
        names = ("name", "kind", "task", "rows", "features", "license", "source", "bytes", "sha256",
                 "offline", "description")  # fmt: skip
        lists = {"classes": list(self.classes), "groups": list(self.groups)}
        return {**{name: getattr(self, name) for name in names}, **lists}


@dataclass(frozen=True)
class Step:
    """One step of a recipe: ``name[:arg]``.

    ``kind`` is ``retrain`` where the weights are trained further and ``transform`` where they are
    only converted; a transform ends a chain. ``parse`` turns the text after the colon into options
    (raises ``ValueError`` with what was expected). ``run(context, options)`` does the work.
    ``grid`` holds the settings that a sweep tries, as they stand in a recipe. ``artifact`` is the name
    of the file that is measured, by whose end :mod:`zoo.predict` knows its runtime. ``again`` tells
    whether the step may follow itself; most undo what they did before. ``check(session, options)``
    raises for a model that the step does not apply to. ``mitigates`` tells the steps of bias mitigation
    from those of compression. One that ``decides`` leaves the artefact as it is and says how its outputs
    become answers: its ``run(session, parent, name, recipe, options)`` makes the variant.
    """

    name: str
    kind: Literal["retrain", "transform"]
    argument: str
    help: str
    parse: Callable[[str | None], dict[str, Any]]
    run: Callable[..., Any]
    source: str
    grid: tuple[str, ...] = ()
    artifact: str = "model.tflite"
    again: bool = False
    check: Callable[..., None] | None = None
    mitigates: bool = False
    decides: bool = False
