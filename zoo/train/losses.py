"""Losses of training, one row each: Keras' own, with targets that may be soft.

Which loss suits a task follows from the loss that is the task's own: it says what the model's
outputs and the targets are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import ZooError
from zoo.tasks import Task

if TYPE_CHECKING:
    from zoo.train.options import TrainOptions

#: Losses of one logit, of one logit a class, and of values, by the task's own.
LOGIT, CLASSES, VALUES = "BinaryCrossentropy", "SparseCategoricalCrossentropy", "MeanSquaredError"
FORECASTS = "MeanAbsoluteError"


def _keras(name: str, **fixed: Any) -> Callable[[TrainOptions], Any]:
    """Keras' loss, its arguments, and options of the training by their names."""

    def build(options: TrainOptions) -> Any:
        from zoo.backend import keras

        own = {key: getattr(options, v) if isinstance(v, str) else v for key, v in fixed.items()}
        return getattr(keras.losses, name)(**own)

    return build


def _of_classes(name: str, **fixed: Any) -> Callable[[TrainOptions], Any]:
    """The same of a loss that wants distributions over the classes, taking class indices too."""
    inner = _keras(name, **fixed)

    def build(options: TrainOptions) -> Any:
        from zoo.backend import keras, tf

        loss = inner(options)

        class OfClasses(keras.losses.Loss):
            """Indices (n, ...) or distributions (n, ..., classes) against logits."""

            def call(self, y_true: Any, y_pred: Any) -> Any:
                if len(y_true.shape) < len(y_pred.shape):
                    y_true = tf.one_hot(tf.cast(y_true, tf.int32), y_pred.shape[-1])
                return loss.call(y_true, y_pred)

        return OfClasses(name=loss.name)

    return build


#: Name -> {the task's own loss: the Keras loss for it}.
LOSSES: dict[str, Mapping[str, Callable[[TrainOptions], Any]]] = {
    "cross_entropy": {
        LOGIT: _keras("BinaryCrossentropy", from_logits=True, label_smoothing="label_smoothing"),
        CLASSES: _of_classes(
            "CategoricalCrossentropy", from_logits=True, label_smoothing="label_smoothing"
        ),
    },
    # Lin et al., "Focal loss for dense object detection", ICCV 2017; class_weight is its alpha.
    "focal": {
        LOGIT: _keras("BinaryFocalCrossentropy", gamma="focal_gamma", from_logits=True,
                      label_smoothing="label_smoothing"),
        CLASSES: _of_classes("CategoricalFocalCrossentropy", alpha=1.0, gamma="focal_gamma",
                             from_logits=True, label_smoothing="label_smoothing"),
    },
    **{
        name: dict.fromkeys((VALUES, FORECASTS), _keras(keras_name))
        for name, keras_name in (
            ("mse", "MeanSquaredError"),
            ("mae", "MeanAbsoluteError"),
            ("huber", "Huber"),  # Huber 1964: linear beyond one standard deviation
            ("log_cosh", "LogCosh"),
        )
    },
}  # fmt: skip


def _negative_elbo() -> Any:
    from zoo.backend import keras
    from zoo.tasks import latent_parts

    class NegativeElbo(keras.losses.Loss):
        """Minus the evidence lower bound of each picture, nats (Kingma & Welling, ICLR 2014).

        ``y_true`` (n, pixels) are 0 or 1, ``y_pred`` (n, pixels + 2 latents) a VAE's output. The
        reconstruction is one draw of the latent variables, the divergence is exact.
        """

        def call(self, y_true: Any, y_pred: Any) -> Any:
            ops = keras.ops
            logits, mean, log_variance = latent_parts(y_pred, y_true.shape[-1])
            lost = ops.sum(ops.softplus(logits) - y_true * logits, axis=-1)
            code = ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance
            return lost + 0.5 * ops.sum(code, axis=-1)

    return NegativeElbo()


#: Losses of tasks that Keras has none for.
_OWN = {"NegativeElbo": _negative_elbo}


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
        own = _OWN.get(task.loss) or partial(getattr(keras.losses, task.loss), **task.loss_args)
        return own()
    name = "cross_entropy" if options.loss == "default" else options.loss
    return LOSSES[name][task.loss](options)


#: What a loss of values measures, where it is not the task's own or that of standardised values.
_UNITS = {
    "mse": "squared error",
    "mae": "absolute error",
    "huber": "Huber loss",
    "log_cosh": "log cosh of the error",
    "focal": "nats, focal",
}


def loss_unit(task: Task, options: TrainOptions) -> str:
    """The unit of a training's loss: the task's own unless another loss was asked for."""
    if options.loss in _UNITS:
        return _UNITS[options.loss]
    return _UNITS["mse"] if task.loss == VALUES else task.score_unit


def mixes(options: TrainOptions) -> bool:
    """Whether some augmentation mixes pictures, so that targets become soft."""
    from zoo.train.augment import AUGMENTATIONS

    return any(AUGMENTATIONS[name].mixes for name in options.augment)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights that make every class count alike: int (n,) -> float32 (classes,).

    n / (classes * rows of the class), scikit-learn's ``balanced`` (King & Zeng, Political Analysis
    9(2), 2001); a class without rows gets 0.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    weights = len(labels) / (present * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0.0).astype(np.float32)
