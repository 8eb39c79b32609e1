"""Training options: their defaults, their limits, and the tables they choose from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from zoo.errors import ZooError, unknown


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained.

    ``patience`` epochs without a better validation loss stop the training early (0: never).
    ``keep`` says which weights remain: those of the best validation loss, or the last.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    augment: tuple[str, ...] = ()
    patience: int = 0
    keep: str = "best"

    def document(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "augment": list(self.augment)}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> TrainOptions:
        """From what :meth:`document` gave, checked."""
        options = cls(**{**document, "augment": tuple(document.get("augment", ()))})
        options.check()
        return options

    def check(self) -> None:
        """Raise :class:`ZooError` for a value out of range or unknown."""
        for name, low, kind in (
            ("epochs", 1, "a whole number, at least 1"),
            ("batch_size", 1, "a whole number, at least 1"),
            ("patience", 0, "a whole number, at least 0"),
        ):
            if getattr(self, name) < low:
                raise ZooError(
                    f"{name} is out of range.", expected=kind, received=str(getattr(self, name))
                )
        if not 0 < self.learning_rate < 100:
            raise ZooError(
                "learning_rate is out of range.",
                expected="a number above 0",
                received=str(self.learning_rate),
            )
        if not 0 <= self.weight_decay < 100:
            raise ZooError(
                "weight_decay is out of range.",
                expected="a number from 0 to 100",
                received=str(self.weight_decay),
            )
        from zoo.train.augment import AUGMENTATIONS

        choices: list[tuple[str, str, Collection[str]]] = [
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("keep", self.keep, ("best", "last")),
            *(("augmentation", name, AUGMENTATIONS) for name in self.augment),
        ]
        for what, name, table in choices:
            if name not in table:
                raise unknown(what, name, table)

    def build_optimizer(self, steps: int) -> Any:
        """The Keras optimizer for a training of ``steps`` steps."""
        rate = SCHEDULES[self.schedule](self.learning_rate, steps)
        return OPTIMIZERS[self.optimizer](rate, self.weight_decay)


def _adamw(rate: Any, decay: float) -> Any:
    from zoo.backend import keras

    return keras.optimizers.AdamW(rate, weight_decay=decay)


def _adam(rate: Any, decay: float) -> Any:
    from zoo.backend import keras

    return keras.optimizers.Adam(rate)


def _sgd(rate: Any, decay: float) -> Any:
    from zoo.backend import keras

    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)


def _cosine(rate: float, steps: int) -> Any:
    from zoo.backend import keras

    return keras.optimizers.schedules.CosineDecay(rate, max(steps, 1))


OPTIMIZERS: dict[str, Callable[[Any, float], Any]] = {"adamw": _adamw, "adam": _adam, "sgd": _sgd}
SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "cosine": _cosine,
    "constant": lambda rate, steps: rate,
}


def coerce(name: str, text: Any, like: Any) -> Any:
    """The value of ``--set name=text`` in the type of the present value ``like``."""
    try:
        if isinstance(like, bool):
            return {"true": True, "1": True, "false": False, "0": False}[str(text).lower()]
        if isinstance(like, int):
            return int(str(text))
        if isinstance(like, float):
            return float(text)
        if isinstance(like, (tuple, list)):
            listed = isinstance(text, (list, tuple))
            items = text if listed else [t for t in str(text).split(",") if t]
            kind = type(like[0]) if like else str
            return tuple(kind(item) for item in items)
        return str(text)
    except (KeyError, TypeError, ValueError) as error:
        expected = type(like).__name__
        if isinstance(like, (tuple, list)):
            expected = f"{type(like[0]).__name__ if like else 'text'} values separated by commas"
        raise ZooError(
            f"--set {name}={text} has a value of the wrong type.",
            expected=f"{expected}, such as {like}",
            received=repr(text),
        ) from error


def apply_settings(
    config: Mapping[str, Any],
    options: TrainOptions,
    settings: Mapping[str, Any],
    fixed: set[str],
    others: Collection[str] = (),
) -> tuple[dict[str, Any], TrainOptions]:
    """Lay ``--set`` over a model's config and its training options.

    ``fixed`` names config keys that the data decides, ``others`` keys that are known elsewhere.
    Raises :class:`ZooError` for an unknown key.
    """
    config = dict(config)
    known = {field.name: getattr(options, field.name) for field in fields(options)}
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name in fixed:
            raise ZooError(
                f"--set {name} can't be chosen: the data decides it.",
                expected=f"one of: {', '.join(sorted((set(config) | set(known)) - fixed))}",
                received=name,
            )
        if name in config:
            config[name] = coerce(name, value, config[name])
        elif name in known:
            changes[name] = coerce(name, value, known[name])
        else:
            raise unknown("setting", name, (set(config) | set(known) | set(others)) - fixed)
    options = replace(options, **changes)
    options.check()
    return config, options
