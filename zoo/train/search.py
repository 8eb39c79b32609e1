"""Search spaces of tuning: a default from the training options, and what a model's spec adds.

A space maps settings (as ``--set`` takes them) to a kind of range: ``("log", low, high)``,
``("float", low, high)``, ``("int", low, high)`` or ``("choice", value, ...)``, values being texts or
numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from zoo.errors import ZooError
from zoo.spec import ModelSpec
from zoo.train.options import TrainOptions

Space = dict[str, tuple[Any, ...]]

#: Kind -> how a value is drawn: (trial, name, range) -> value.
KINDS: dict[str, Any] = {
    "log": lambda trial, name, ends: trial.suggest_float(name, *ends, log=True),
    "float": lambda trial, name, ends: trial.suggest_float(name, *ends),
    "int": lambda trial, name, ends: trial.suggest_int(name, *ends),
    "choice": lambda trial, name, values: trial.suggest_categorical(name, values),
}


def default_space(spec: ModelSpec) -> Space:
    """Around a model's own options: rate, decay, batch, warm-up, and dropout where it has some."""
    options = TrainOptions.parse(dict(spec.train))
    space: Space = {
        "learning_rate": ("log", options.learning_rate / 10, options.learning_rate * 10),
        "weight_decay": ("log", 1e-5, 1e-1),
        "batch_size": ("choice", options.batch_size // 2 or 1, options.batch_size,
                       options.batch_size * 2),
        "warmup": ("choice", 0.0, 0.05, 0.1),
    }  # fmt: skip
    if isinstance(spec.config.get("dropout"), float):
        space["dropout"] = ("float", 0.0, 0.6)
    return space


def search_space(spec: ModelSpec, fixed: Collection[str] = ()) -> Space:
    """The default with the spec's ``search`` laid over it, less the settings that are fixed.

    Raises :class:`ZooError` when nothing is left to search.
    """
    space = {**default_space(spec), **{name: tuple(row) for name, row in spec.search.items()}}
    for name, row in space.items():
        if row[0] not in KINDS:
            raise ZooError(f"The search space of {spec.name} is wrong at {name}.",
                           expected=f"one of: {', '.join(KINDS)}", received=str(row[0]))  # fmt: skip
    left = {name: row for name, row in space.items() if name not in fixed}
    if not left:
        raise ZooError(
            "There is nothing left to search: --set fixes every setting of the space.",
            expected=f"some of {', '.join(space)} not to be set",
            received=", ".join(fixed),
        )
    return left


def draw(trial: Any, space: Space) -> dict[str, Any]:
    """One value of each setting, asked of an Optuna trial."""
    return {name: KINDS[row[0]](trial, name, row[1:]) for name, row in space.items()}


def default_point(spec: ModelSpec, space: Space) -> Mapping[str, Any]:
    """The model's own settings where the space holds them: the first trial."""
    options = TrainOptions.parse(dict(spec.train)).document()
    own = {name: spec.config.get(name, options.get(name)) for name in space}
    own = {k: ",".join(map(str, v)) if isinstance(v, (tuple, list)) else v for k, v in own.items()}
    return {name: value for name, value in own.items() if _within(value, space[name])}


def _within(value: Any, row: tuple[Any, ...]) -> bool:
    if row[0] == "choice":
        return value in row[1:]
    return isinstance(value, (int, float)) and row[1] <= value <= row[2]
