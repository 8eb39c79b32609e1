"""Distillation: a small model learns from a trained one what it says about every sample.

Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015; hidden features as in
FitNets (Romero et al., ICLR 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.signature import taken_inputs


def distill(
    student: Any,
    teacher: Any,
    *,
    temperature: float = 4.0,
    weight: float = 0.5,
    classes: bool = True,
    features: Mapping[str, str] | None = None,
    feature_weight: float = 1.0,
) -> Any:
    """A model that trains ``student``'s own layers, also to say what ``teacher`` says.

    The loss is ``(1 - weight)`` times the compiled one plus ``weight`` times the distance from the
    teacher: with ``classes`` the cross-entropy of the softened probabilities (of sigmoids where there
    is one logit), times the squared temperature; else the mean squared difference of the outputs.
    Sample weights count in both.

    Args:
        student, teacher: functional Keras 3 models with the same input or inputs; outputs are logits
            (or values) of the same shape.
        temperature: what logits are divided by, 1 or more.
        weight: share of the teacher's part, 0 to 1.
        features: names of the student's layers -> names of the teacher's, whose outputs of equal shape
            should agree too; their mean squared difference is added, ``feature_weight`` times.

    Example::

        >>> import numpy as np, keras
        >>> from zoo.compress import distill
        >>> def net(width):
        ...     layers = [keras.Input((8,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(3)]
        ...     return keras.Sequential(layers)
        >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> teacher, student = net(32), net(4)
        >>> training = distill(student, teacher)
        >>> training.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> _ = training.fit(x, x[:, :3].argmax(axis=1), verbose=0)

    Returns a Keras model that shares all layers with ``student``: compile and fit it, then use
    ``student``. Raises ``ValueError`` for models or layers that do not fit each other.
    """
    from zoo.backend import keras, tf

    if not 0 <= weight <= 1:
        raise ValueError(f"expected a weight from 0 to 1, received {weight}")
    if temperature < 1:
        raise ValueError(f"expected a temperature of at least 1, received {temperature}")
    for model in (student, teacher):
        found = len(getattr(model, "outputs", None) or [])
        if found != 1:
            raise ValueError(
                f"expected models of one output, built with keras.Input, received {model.name}, of "
                f"which {found or 'no'} outputs are known"
            )
    _fit("inputs", taken_inputs(student), taken_inputs(teacher))
    _fit("outputs", student.outputs[0], teacher.outputs[0])
    pairs = dict(features or {})
    ours = [student.get_layer(name).output for name in pairs]
    theirs = [teacher.get_layer(name).output for name in pairs.values()]
    for name, mine, wanted in zip(pairs, ours, theirs, strict=True):
        if mine.shape[1:] != wanted.shape[1:]:
            raise ValueError(
                f"expected features of one shape, received {mine.shape[1:]} of the student's "
                f"{name!r} and {wanted.shape[1:]} of the teacher's {pairs[name]!r}"
            )
    guide = keras.Model(taken_inputs(teacher), [teacher.outputs[0], *theirs])
    seen = keras.Model(taken_inputs(student), [student.outputs[0], *ours]) if pairs else None

    def mean(values: Any, weights: Any = None) -> Any:
        """Of the whole batch, as Keras has it in a loss: replicas' parts are summed.

        ``weights`` are those of samples, or of their places, where a loss has one of each.
        """
        if weights is not None:
            rest = [1] * (len(values.shape) - len(weights.shape))
            weights = tf.cast(weights, values.dtype)
            values = values * tf.reshape(weights, [*tf.unstack(tf.shape(weights)), *rest])
        return tf.reduce_mean(values) / tf.distribute.get_strategy().num_replicas_in_sync

    def far(said: Any, meant: Any, weights: Any) -> Any:
        said, meant = (tf.cast(one, tf.float32) for one in (said, meant))
        if not classes:
            return mean(tf.reduce_mean(tf.square(said - meant), -1), weights)
        said, meant = said / temperature, meant / temperature
        if said.shape[-1] == 1:
            soft = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(meant), said)[..., 0]
        else:
            soft = tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(meant), said)
        return mean(soft, weights) * temperature**2

    class Student(keras.Model):
        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            meant, *wanted = keras.tree.flatten(guide(x, training=False))
            weights = None if sample_weight is None else _weights(sample_weight, y_pred)
            loss = (1 - weight) * loss + weight * far(y_pred, tf.stop_gradient(meant), weights)
            if seen is not None:
                _, *made = keras.tree.flatten(seen(x, training=training))
                for mine, goal in zip(made, wanted, strict=True):
                    mine, goal = (tf.cast(one, tf.float32) for one in (mine, goal))
                    loss += feature_weight * mean(tf.square(mine - tf.stop_gradient(goal)))
            return loss

    return Student(taken_inputs(student), student.outputs, name=student.name)


def _fit(what: str, ours: Any, theirs: Any) -> None:
    """Raise ``ValueError`` unless two structures of tensors have the same shapes, as far as known."""
    from zoo.backend import keras

    found = [{path: tuple(one.shape[1:]) for path, one in keras.tree.flatten_with_path(_alone(tensors))}
             for tensors in (ours, theirs)]  # fmt: skip
    alike = found[0].keys() == found[1].keys() and all(
        len(mine) == len(found[1][path])
        and all(m == o or None in (m, o) for m, o in zip(mine, found[1][path], strict=True))
        for path, mine in found[0].items()
    )
    if not alike:
        said = [", ".join(f"{'.'.join(map(str, path))} {shape}".strip() for path, shape in one.items())
                for one in found]  # fmt: skip
        raise ValueError(f"expected {what} of one shape, received {said[0]} and {said[1]}")


def _alone(tensors: Any) -> Any:
    """Keras takes a list of one tensor as that tensor."""
    one = isinstance(tensors, (list, tuple)) and len(tensors) == 1
    return tensors[0] if one else tensors


def _weights(given: Any, outputs: Any) -> Any:
    """Sample weights with as many axes as the outputs have before their last, or fewer."""
    from zoo.backend import keras, tf

    (weights,) = keras.tree.flatten(given)
    weights = tf.convert_to_tensor(weights)
    extra = len(weights.shape) == len(outputs.shape) and weights.shape[-1] == 1
    return tf.squeeze(weights, -1) if extra else weights
