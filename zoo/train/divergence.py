"""Where a training left the finite numbers: the step, and the layer that did it first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo.train.checkpoint import restore
from zoo.train.execution import Step
from zoo.train.feed import Feed
from zoo.train.options import TrainOptions


@dataclass
class Where:
    """The first step (counted from 1) with something that is not finite, and what it was."""

    step: int
    what: str


def locate(
    model: Any, step: Step, feed: Feed, since: int, state: dict[str, np.ndarray], until: int
) -> Where:
    """Replay a training from ``state``, as it was after step ``since``, one step at a time.

    Order, augmentation and dropout are the same again, so it meets the same numbers. A gradient
    spoils the weights one step before it shows in the loss: that step is found, too. Afterwards the
    model holds the weights from before the step.
    """
    restore(model, state)
    epoch, done = divmod(since, feed.steps)
    number = since
    while number < until:
        batches = feed.epoch(epoch, done)
        iterator = iter(batches)
        for batch in batches:
            if number >= until:
                break
            before = [np.array(variable) for variable in model.variables]
            _, loss = step(iterator, 1)
            number += 1
            weights = (np.array(weight) for weight in model.weights)
            if not (math.isfinite(loss) and all(np.isfinite(w).all() for w in weights)):
                for variable, value in zip(model.variables, before, strict=True):
                    variable.assign(value)
                return Where(number, culprit(model, batch))
        epoch, done = epoch + 1, 0
        model.reset_metrics()
    return Where(until, "what it was did not show again in a replay")


def culprit(model: Any, batch: tuple[Any, ...]) -> str:
    """What of one training step is not finite first: a layer's output, the loss, a gradient."""
    from zoo.backend import keras, tf

    x, y = batch[0], batch[1]
    if x.dtype.is_floating and not np.isfinite(x.numpy()).all():
        return "the inputs of the batch"
    states = [np.array(variable) for variable in model.variables]
    layers = [layer for layer in model.layers if len(getattr(layer, "_inbound_nodes", ())) == 1]
    try:
        probe = keras.Model(model.inputs, [layer.output for layer in layers])
    except (AttributeError, ValueError):  # a subclassed model shows no layers' outputs
        layers, probe = [], None
    if probe is not None:
        for layer, output in zip(layers, probe(x, training=True), strict=True):
            if not np.isfinite(np.array(output)).all():
                return f"the output of layer {layer.name!r}"
        for variable, value in zip(model.variables, states, strict=True):
            variable.assign(value)  # the same dropout once more
    with tf.GradientTape() as tape:
        loss = model._compute_loss(x=x, y=y, y_pred=model(x, training=True), training=True)
    if not np.isfinite(float(loss)):
        return "the loss"
    gradients = tape.gradient(loss, model.trainable_variables)
    # The gradient flows from the end: the last variable that is not finite was met first.
    for variable, gradient in reversed(
        list(zip(model.trainable_variables, gradients, strict=True))
    ):
        if gradient is not None and not np.isfinite(tf.convert_to_tensor(gradient).numpy()).all():
            return f"the gradient of {variable.path}"
    return "the optimizer's update"


def diverged(where: Where, per_epoch: int, loss: float, options: TrainOptions) -> ZooError:
    """The error for a loss that is no longer finite."""
    epoch = (where.step - 1) // per_epoch + 1
    return ZooError(
        f"The training diverged: the first numbers that are not finite came at step {where.step} "
        f"(epoch {epoch}): {where.what}.",
        expected="a finite loss",
        received=str(loss),
        hint=f"Lower the learning rate: --set learning_rate={options.learning_rate / 10:g}. "
        "The last checkpoint is kept.",
        kind="diverged",
        exit_code=FAILURE,
    )
