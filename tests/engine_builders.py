"""A small problem and net for the tests of the training engine, and what they look at."""

from __future__ import annotations

import math
import signal

import numpy as np

from zoo.progress import QUIET
from zoo.tasks import TASKS
from zoo.train.options import TrainOptions

ROWS, BATCH = 300, 32
PER_EPOCH = math.ceil(ROWS / BATCH)


def problem(n: int = ROWS):
    from zoo.train.feed import Samples

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype("float32")
    y = (x[:, :1] + 0.5 * x[:, 1:2] > 0).astype("float32")
    return Samples(x, y)


def net(seed: int = 0, dropout: float = 0.3):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    seed_everything(seed)
    return build_mlp((6,), 1, (16, 8), dropout)


def train(model, options=None, samples=None, validate=None, **more):
    from zoo.train.loop import fit

    samples = samples or problem()
    options = options or TrainOptions(epochs=3, batch_size=BATCH, learning_rate=0.01, keep="last")

    def loss():
        logits = model(samples.x, training=False).numpy()
        return {"val_loss": float(np.mean(np.logaddexp(0, -(2 * samples.y - 1) * logits)))}

    return fit(
        model, TASKS["binary"], options, samples, validate or loss, seed=5, progress=QUIET, **more
    )


def same(one, two) -> bool:
    """Bit for bit, every variable: weights, random states, optimizer."""
    pairs = zip(one.variables + one.optimizer.variables, two.variables + two.optimizer.variables,
                strict=True)  # fmt: skip
    return all(np.array_equal(np.array(a), np.array(b)) for a, b in pairs)


def stop_at(step: int):
    """A callback that raises the signal that `kill` would, once so many steps are done."""
    from zoo.backend import keras

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch >= step:
                signal.raise_signal(signal.SIGTERM)

    return Stop()
