"""Train one net on 1 or 2 parts of the CPU and print its weights: run by test_distribution."""

from __future__ import annotations

import json
import sys

import numpy as np


def main(devices: int, cases: list[list]) -> None:
    from zoo.backend import keras, seed_everything
    from zoo.progress import QUIET
    from zoo.tasks import TASKS
    from zoo.train.distribution import Strategy, open_replicas
    from zoo.train.feed import Samples
    from zoo.train.loop import fit
    from zoo.train.options import TrainOptions

    replicas = open_replicas(Strategy("mirrored", devices) if devices > 1 else Strategy())
    results = []
    for rows, kind, *more in cases:
        settings = {"optimizer": "sgd", **(more[0] if more else {})}
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, 6)).astype("float32")
        y = (x[:, :1] > 0.3 * x[:, 1:2]).astype("float32")
        if kind == "embedded":  # words, each net's gradient of which is a few rows
            x = np.clip(5 * x + 10, 0, 19).astype("int32")
        samples = Samples(x, y)
        seed_everything(0)

        def build(kind=kind):
            inputs = hidden = keras.Input((6,), dtype="int32" if kind == "embedded" else "float32")
            if kind == "embedded":
                hidden = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(hidden))
            hidden = keras.layers.Dense(8, activation="tanh")(hidden)
            if kind == "normalised":
                hidden = keras.layers.BatchNormalization()(hidden)
            return keras.Model(inputs, keras.layers.Dense(1)(hidden))

        if replicas is None:
            model = build()
        else:
            with replicas.scope():
                model = build()
        fitted = fit(
            model, TASKS["binary"],
            TrainOptions(epochs=3, batch_size=16, learning_rate=0.05, keep="last", **settings),
            samples,
            lambda model=model, x=x: {"val_loss": float(np.mean(model(x, training=False)) ** 2)},
            seed=1, progress=QUIET, replicas=replicas,
        )  # fmt: skip
        weights = np.concatenate([np.array(w).ravel() for w in model.weights]).tolist()
        results.append({"weights": weights, "dropped": fitted.dropped, "steps": fitted.steps})
    if replicas is not None:
        results.append({"masks": masks(replicas)})
    print(json.dumps(results))


def masks(replicas) -> list:
    """The mean over replicas of what dropout makes of ones, two steps."""
    from zoo.backend import keras, tf

    with replicas.scope():
        dropout = keras.layers.Dropout(0.5)

    class Shown:
        def train_step(self, batch):
            return {"mask": dropout(batch, training=True)}

    step = tf.function(replicas.step(Shown()))
    return [step(tf.ones((64, 8)))["mask"].numpy().tolist() for _ in range(2)]


main(int(sys.argv[1]), json.loads(sys.argv[2]))
