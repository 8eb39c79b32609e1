"""Training options: their defaults, their limits, and the tables they choose from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from zoo.errors import ZooError, unknown

#: What each option means.
HELP: dict[str, str] = {
    "epochs": "passes over the training rows",
    "batch_size": "rows a step",
    "optimizer": "how weights follow gradients",
    "learning_rate": "the highest rate of the schedule",
    "momentum": "of `sgd`, Nesterov's",
    "weight_decay": "decoupled; `adam` has none",
    "schedule": "the learning rate over all steps; `exponential` ends at 1 % of it",
    "warmup": "linear rise before the schedule: a share of all steps below 1, else a number of steps",
    "loss": "what is minimised; `default` is the task's own",
    "focal_gamma": "exponent of the loss `focal`",
    "label_smoothing": "share of a label that is spread over all classes",
    "class_weight": "`balanced` makes every class count alike",
    "l1": "penalty of kernels: the sum of their absolute values, so many times",
    "l2": "penalty of kernels: the sum of their squares, so many times",
    "clip_norm": "bound of the norm of all gradients together; 0 is off",
    "clip_value": "bound of each number of a gradient; 0 is off",
    "spike_recovery": "a loss so many times its usual value, or none that is finite, goes back to the "
    "last checkpoint and skips the batches since; 0 is off",
    "augment": "changes of pictures, in this order, separated by commas",
    "patience": "epochs without a better validation loss that end the training; 0 is never",
    "keep": "the weights that remain: of the best validation loss, or the last",
}
#: Options that are shares or strengths: name -> (lowest, highest, what is expected).
RANGES: dict[str, tuple[float, float, str]] = {
    "epochs": (1, math.inf, "a whole number, at least 1"),
    "batch_size": (1, math.inf, "a whole number, at least 1"),
    "patience": (0, math.inf, "a whole number, at least 0"),
    "learning_rate": (1e-12, 100, "a number above 0, up to 100"),
    "weight_decay": (0, 100, "a number from 0 to 100"),
    "momentum": (0, 0.9999, "a number from 0 to below 1"),
    "warmup": (0, math.inf, "a share of all steps below 1, or a number of steps"),
    "label_smoothing": (0, 0.9999, "a number from 0 to below 1"),
    "focal_gamma": (0, 20, "a number from 0 to 20"),
    "l1": (0, 100, "a number from 0 to 100"),
    "l2": (0, 100, "a number from 0 to 100"),
    "clip_norm": (0, math.inf, "a number from 0 (no clipping) on"),
    "clip_value": (0, math.inf, "a number from 0 (no clipping) on"),
    "spike_recovery": (0, math.inf, "a number above 1, or 0 for off"),
}


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained; :data:`HELP` says what each option means."""

    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: float = 0.0
    loss: str = "default"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    class_weight: str = "none"
    l1: float = 0.0
    l2: float = 0.0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    spike_recovery: float = 0.0
    augment: tuple[str, ...] = ()
    patience: int = 0
    keep: str = "best"

    def document(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "augment": list(self.augment)}

    def changed(self) -> dict[str, Any]:
        """:meth:`document` without the options that have their default."""
        default = TrainOptions().document()
        return {name: value for name, value in self.document().items() if value != default[name]}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> TrainOptions:
        """From what :meth:`document` gave, checked."""
        options = cls(**{**document, "augment": tuple(document.get("augment", ()))})
        options.check()
        return options

    def check(self) -> None:
        """Raise :class:`ZooError` for a value out of range or unknown."""
        for name, (low, high, expected) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high or (name == "spike_recovery" and 0 < value <= 1):
                raise ZooError(
                    f"{name} is out of range.",
                    expected=expected,
                    received=f"{name}={value}",
                    hint=f"Change it: --set {name}=VALUE",
                    settings=[name],
                )
        if self.clip_norm and self.clip_value:
            raise ZooError(
                "Gradients are clipped by norm or by value.",
                expected="clip_norm or clip_value",
                received=f"clip_norm={self.clip_norm} and clip_value={self.clip_value}",
                hint="Leave one of them at 0.",
                settings=["clip_norm", "clip_value"],
            )
        for what, table in choices().items():
            value = getattr(self, what)
            for name in value if isinstance(value, tuple) else (value,):
                if name not in table:
                    problem = unknown("augmentation" if what == "augment" else what, name, table)
                    problem.settings = (what,)
                    raise problem

    def learning_rates(self, steps: int) -> Any:
        """The learning rate over a training of ``steps`` steps: a number or a Keras schedule."""
        warm = round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        warm = min(warm, steps)
        after = SCHEDULES[self.schedule](self.learning_rate, max(steps - warm, 1))
        return _warm_up(self.learning_rate, warm, after) if warm else after

    def build_optimizer(self, steps: int) -> Any:
        """The Keras optimizer for a training of ``steps`` steps."""
        clip = {
            key: value
            for key, value in (("global_clipnorm", self.clip_norm), ("clipvalue", self.clip_value))
            if value
        }
        optimizer = _sum_sparse(OPTIMIZERS[self.optimizer](self.learning_rates(steps), self, clip))
        return _clips_the_sum(optimizer) if clip else optimizer


def choices() -> dict[str, list[str]]:
    """Options that are chosen from a table: the names there are."""
    from zoo.train.augment import AUGMENTATIONS
    from zoo.train.losses import LOSSES

    return {
        "optimizer": list(OPTIMIZERS),
        "schedule": list(SCHEDULES),
        "loss": ["default", *LOSSES],
        "class_weight": ["none", "balanced"],
        "augment": list(AUGMENTATIONS),
        "keep": ["best", "last"],
    }


def _sum_sparse(optimizer: Any) -> Any:
    """Sum an embedding's gradients row by row before the optimizer sees them.

    TensorFlow gives the rows that a batch looked up, a token's as often as it occurs. Keras' Adam
    squares and its clipping measures each by itself; in Adam's paper (Kingma & Ba, ICLR 2015,
    algorithm 1) both are of the sum. And several devices, which gather rows by collectives, mix up
    steps of different sizes: a smaller last batch ended the training ("Shape mismatch in the
    collective instance").
    """
    from zoo.backend import tf

    apply = optimizer.apply

    def apply_summed(grads: Any, trainable_variables: Any = None) -> None:
        dense = [g if g is None else tf.convert_to_tensor(g) for g in grads]
        apply(dense, trainable_variables)

    optimizer.apply = apply_summed
    return optimizer


def _clips_the_sum(optimizer: Any) -> Any:
    """Clip what the replicas' gradients add up to, as one device would.

    Keras clips each replica's own part: the parts of clipped gradients do not sum to the clipped sum.
    """
    from zoo.backend import tf

    clip = optimizer._clip_gradients

    def clip_sum(gradients: Any) -> Any:
        context = tf.distribute.get_replica_context()
        count = context.num_replicas_in_sync
        if count == 1:
            return clip(gradients)
        whole = [None if g is None else context.all_reduce("SUM", g) for g in gradients]
        return [None if g is None else g / count for g in clip(whole)]  # Keras sums them once more

    optimizer._clip_gradients = clip_sum
    return optimizer


def _warm_up(rate: float, steps: int, after: Any) -> Any:
    """A linear rise to ``rate`` at step number ``steps``, then ``after``, a rate or a schedule."""
    from zoo.backend import keras, tf

    class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            step = tf.cast(step, tf.float32)
            later = after(tf.maximum(step - steps, 0.0)) if callable(after) else after
            return tf.where(step < steps, rate * (step + 1) / steps, later)

        def get_config(self) -> dict[str, Any]:
            return {}

    return WarmUp()


def _keras(name: str, **fixed: Any) -> Callable[[Any, TrainOptions, Mapping[str, Any]], Any]:
    """A row of :data:`OPTIMIZERS`: Keras' optimizer, its arguments, and options by their names."""

    def build(rate: Any, options: TrainOptions, clip: Mapping[str, Any]) -> Any:
        from zoo.backend import keras

        own = {key: getattr(options, v) if isinstance(v, str) else v for key, v in fixed.items()}
        return getattr(keras.optimizers, name)(rate, **own, **clip)

    return build


def _schedule(name: str, **fixed: float) -> Callable[[float, int], Any]:
    """A row of :data:`SCHEDULES`: Keras' schedule over so many steps, and its arguments."""

    def build(rate: float, steps: int) -> Any:
        from zoo.backend import keras

        return getattr(keras.optimizers.schedules, name)(rate, steps, **fixed)

    return build


OPTIMIZERS: dict[str, Callable[[Any, TrainOptions, Mapping[str, Any]], Any]] = {
    "adamw": _keras("AdamW", weight_decay="weight_decay"),
    "adam": _keras("Adam"),
    "sgd": _keras("SGD", momentum="momentum", nesterov=True, weight_decay="weight_decay"),
    "rmsprop": _keras("RMSprop", weight_decay="weight_decay"),
    "lion": _keras("Lion", weight_decay="weight_decay"),
}
SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "cosine": _schedule("CosineDecay"),
    "constant": lambda rate, steps: rate,
    "linear": _schedule("PolynomialDecay", end_learning_rate=0.0),
    "exponential": _schedule("ExponentialDecay", decay_rate=0.01),  # to 1 % at the end
}


def coerce(name: str, text: Any, like: Any) -> Any:
    """The value of a setting ``name=text`` in the type of the present value ``like``."""
    try:
        if isinstance(like, bool):
            return {"true": True, "1": True, "false": False, "0": False}[str(text).lower()]
        if isinstance(like, int):
            return int(str(text))
        if isinstance(like, float):
            return float(text)
        if isinstance(like, (tuple, list)):
            listed = isinstance(text, (list, tuple))
            inner = str(text).strip().removeprefix("(").removesuffix(")")
            items = text if listed else [t.strip() for t in inner.split(",") if t.strip()]
            kind = type(like[0]) if like else str
            return tuple(kind(item) for item in items)
        return str(text)
    except (KeyError, TypeError, ValueError) as error:
        expected, shown = type(like).__name__, str(like)
        if isinstance(like, (tuple, list)):
            expected = f"{type(like[0]).__name__ if like else 'text'} values separated by commas"
            shown = ",".join(map(str, like)) or "a,b"
        raise ZooError(
            f"The setting {name}={text} has a value of the wrong type.",
            expected=f"{expected}, such as {shown}",
            received=repr(text),
            hint=f"Change {name}; `zoo info MODEL` shows the settings.",
            settings=[name],
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
                f"The setting {name} can't be chosen: the data decides it.",
                expected=f"one of: {', '.join(sorted((set(config) | set(known)) - fixed))}",
                received=name,
                settings=[name],
            )
        if name in config:
            config[name] = coerce(name, value, config[name])
        elif name in known:
            changes[name] = coerce(name, value, known[name])
        else:
            problem = unknown("setting", name, (set(config) | set(known) | set(others)) - fixed)
            problem.settings = (name,)
            raise problem
    options = replace(options, **changes)
    options.check()
    return config, options
