"""Losses of training, one row each: Keras' own, with targets that may be soft.

Which loss suits a task follows from the loss that is the task's own: it says what the model's
outputs and the targets are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

#: A loss's options by name -> Keras' loss.
Build = Callable[[Mapping[str, Any]], Any]
#: Losses of one logit, of one logit a class, and of values, by the task's own.
LOGIT, CLASSES, VALUES = "BinaryCrossentropy", "SparseCategoricalCrossentropy", "MeanSquaredError"
FORECASTS = "MeanAbsoluteError"


def _keras(name: str, **fixed: Any) -> Build:
    """Keras' loss, its arguments, and options of the training by their names."""

    def build(options: Mapping[str, Any]) -> Any:
        from zoo.backend import keras

        own = {key: options[v] if isinstance(v, str) else v for key, v in fixed.items()}
        return getattr(keras.losses, name)(**own)

    return build


def _of_classes(name: str, **fixed: Any) -> Build:
    """The same of a loss that wants distributions over the classes, taking class indices too."""
    inner = _keras(name, **fixed)

    def build(options: Mapping[str, Any]) -> Any:
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
LOSSES: dict[str, Mapping[str, Build]] = {
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
OWN = {"NegativeElbo": _negative_elbo}


#: What a loss of values measures, where it is not the task's own or that of standardised values.
UNITS = {
    "mse": "squared error",
    "mae": "absolute error",
    "huber": "Huber loss",
    "log_cosh": "log cosh of the error",
    "focal": "nats, focal",
}


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights that make every class count alike: int (n,) -> float32 (classes,).

    n / (classes * rows of the class), scikit-learn's ``balanced`` (King & Zeng, Political Analysis
    9(2), 2001); a class without rows gets 0.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    weights = len(labels) / (present * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0.0).astype(np.float32)
