"""What a training minimises: the loss that its options ask for, and whether it suits the task."""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo.errors import ZooError
from zoo.tasks import Task
from zoo.train.losses import LOSSES, OWN, UNITS, VALUES
from zoo.train.options import TrainOptions


def suitable(task: Task) -> list[str]:
    """Names of the losses that suit a task."""
    return ["default", *(name for name, row in LOSSES.items() if task.loss in row)]


def check_loss(task: Task, options: TrainOptions) -> None:
    """Raise :class:`ZooError` where loss, smoothing or class weights do not suit the task."""
    if options.loss not in suitable(task):
        raise ZooError(
            f"The loss {options.loss} does not suit the task {task.name}.",
            expected=f"one of: {', '.join(suitable(task))}",
            received=options.loss,
            kind="unsuitable_loss",
        )
    given = [name for name in ("label_smoothing",) if getattr(options, name)]
    weighed = ["class_weight"] if options.class_weight != "none" else []
    given += weighed
    if given and (task.loss not in LOSSES["cross_entropy"] or (weighed and not task.classes)):
        given = weighed if weighed and not task.classes else given
        raise ZooError(
            f"{given[0]} is for classes.",
            expected="a task with classes",
            received=f"{given[0]}={getattr(options, given[0])} and the task {task.name}",
            kind="unsuitable_loss",
        )


def build_loss(task: Task, options: TrainOptions) -> Any:
    """The Keras loss of a training."""
    from zoo.backend import keras

    check_loss(task, options)
    soft = options.label_smoothing or mixes(options)
    if options.loss == "default" and not (soft and task.loss in LOSSES["cross_entropy"]):
        own = OWN.get(task.loss) or partial(getattr(keras.losses, task.loss), **task.loss_args)
        return own()
    name = "cross_entropy" if options.loss == "default" else options.loss
    return LOSSES[name][task.loss](vars(options))


def loss_unit(task: Task, options: TrainOptions) -> str:
    """The unit of a training's loss: the task's own unless another loss was asked for."""
    if options.loss in UNITS:
        return UNITS[options.loss]
    return UNITS["mse"] if task.loss == VALUES else task.score_unit


def mixes(options: TrainOptions) -> bool:
    """Whether some augmentation mixes pictures, so that targets become soft."""
    from zoo.train.augment import AUGMENTATIONS

    return any(AUGMENTATIONS[name].mixes for name in options.augment)
