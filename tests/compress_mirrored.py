"""Prune, distil and round on 1 or 2 parts of the CPU, and print masks and weights: run by test_compress_resume."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext

import numpy as np


def main(devices: int) -> None:
    from zoo.backend import keras, seed_everything
    from zoo.compress import distill, prune, quantize_aware
    from zoo.progress import QUIET
    from zoo.tasks import TASKS
    from zoo.train.checkpoint import callback_state
    from zoo.train.distribution import Strategy, open_replicas
    from zoo.train.feed import Samples
    from zoo.train.loop import fit
    from zoo.train.options import TrainOptions

    replicas = open_replicas(Strategy("mirrored", devices) if devices > 1 else Strategy())
    scope = nullcontext if replicas is None else replicas.scope
    x = np.random.default_rng(0).normal(size=(100, 40)).astype("float32")
    samples = Samples(x, (x[:, :1] > 0.3 * x[:, 1:2]).astype("float32"))
    with scope():
        seed_everything(0)
        inputs = keras.Input((40,))
        hidden = keras.layers.Dense(32, activation="tanh")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        pruning = prune(model, 0.75, steps=21, every=2)
    with pruning:
        fit(
            model, TASKS["binary"],
            TrainOptions(epochs=3, batch_size=16, learning_rate=0.05, optimizer="sgd", keep="last"),
            samples, lambda: {"val_loss": 0.0}, seed=1, progress=QUIET, replicas=replicas,
            callbacks=[pruning.callback()],
        )  # fmt: skip
        (masked,) = pruning.kernels
        kept = callback_state([pruning.callback()])["held/0/0"]
        copies = [
            [np.array(value) for value in getattr(variable, "values", (variable,))]
            for variable in (masked.mask, masked.kernel.value)
        ]
    masks, kernels = copies
    assert (kept == masks[0]).all()  # what a checkpoint holds
    differ = sum(int((other != each[0]).sum()) for each in copies for other in each)
    assert all((kernel[mask == 0] == 0).all() for mask, kernel in zip(masks, kernels, strict=True))
    with scope():
        seed_everything(0)
        student, teacher = (
            keras.Sequential([keras.Input((40,)), keras.layers.Dense(1)]) for _ in "12"
        )
        both = distill(student, teacher, classes=False)
    fit(
        both, TASKS["binary"],
        TrainOptions(epochs=1, batch_size=50, learning_rate=0.5, optimizer="sgd", keep="last"),
        samples, lambda: {"val_loss": 0.0}, seed=1, progress=QUIET, replicas=replicas,
    )  # fmt: skip
    with scope():
        seed_everything(0)
        recurrent = keras.Sequential(
            [keras.Input((5, 8)), keras.layers.LSTM(6), keras.layers.Dense(1)]
        )
        rounding = quantize_aware(recurrent, x.reshape(100, 5, 8))
    with rounding:
        fit(
            recurrent, TASKS["binary"],
            TrainOptions(epochs=1, batch_size=50, learning_rate=0.5, optimizer="sgd", keep="last"),
            Samples(x.reshape(100, 5, 8), samples.y), lambda: {"val_loss": 0.0}, seed=1,
            progress=QUIET, replicas=replicas, callbacks=[rounding.callback()],
        )  # fmt: skip
    print(json.dumps({
        "rounded": np.asarray(recurrent.get_weights()[0]).ravel().tolist(),
        "student": np.asarray(student.get_weights()[0]).ravel().tolist(),
        "copies": len(masks), "differ": differ, "mask": masks[0].ravel().tolist(),
        "sparsity": float(np.mean(kernels[-1] == 0)),
    }))  # fmt: skip


main(int(sys.argv[1]))
