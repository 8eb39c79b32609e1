"""What a report shows of forecasters and generative models: arrays beside a variant, ``shown.npz``.

``kind`` says which picture they make: see :mod:`zoo_report`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.tasks import get_task, latent_parts

if TYPE_CHECKING:
    from zoo.train.session import Session

Function = Callable[[np.ndarray], np.ndarray]

#: Origins whose forecasts are shown, evenly spaced over the test block.
ORIGINS = 4
#: Pictures that are shown beside their reconstructions, drawn samples, and steps of a walk.
RECONSTRUCTED, SAMPLED, STEPS = 10, 40, 10
#: Of the latent dimensions, the walk goes along so many, from -2 to 2 standard deviations.
WALKED, WALK_END = 5, 2.0
#: Test rows that tell which dimensions are the most active.
MEASURED = 500


def forecasts(session: Session, model: Any, function: Function) -> dict[str, np.ndarray]:
    """Forecasts of some test windows: what was known, what came, what model and baseline said.

    Args:
        function: the artefact, encoded inputs (n, length) -> outputs (n, horizon).
    """
    from zoo.data.series import seasonal_naive

    windows, plan, task = session.data.x, session.plan, get_task(session.data.task)
    test = session.data.parts["test"]
    rows = test[np.unique(np.linspace(0, len(test) - 1, ORIGINS).round().astype(int))]
    example = session.example(rows)
    assert task.judge is not None
    truth, said, mase = task.judge(function(example.x), example, plan)
    past = windows[rows]
    return {
        "kind": np.array("forecasts"),
        "origin": windows.dates[windows.origins[rows]].astype("datetime64[D]").astype(str),
        "past": past[:, -plan["season"] :],
        "truth": truth,
        "forecast": said,
        "baseline": seasonal_naive(past, plan["outputs"], plan["season"]),
        "baseline_name": np.array(f"{task.baseline} (m = {plan['season']})"),
        "mase": mase,
        "unit": np.array(plan["unit"]),
        "target": np.array(session.data.target),
    }


def generated(session: Session, model: Any, function: Function) -> dict[str, np.ndarray]:
    """Reconstructions by the artefact; samples and a walk through the code by the Keras model.

    Pictures are uint8 (n, h, w, c). ``walk`` is (dimensions, steps, h, w, c): the decoder's answer as
    one dimension of a picture's code moves, for the dimensions that tell most about the test pictures
    (largest mean divergence).
    """
    from zoo.backend import keras

    shape, test = tuple(session.plan["shape"]), session.data.parts["test"]
    shown = session.example(test[:RECONSTRUCTED])
    pixels = int(np.prod(shape))

    def painted(logits: Any) -> np.ndarray:
        share = 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))
        return np.rint(255 * share).astype(np.uint8).reshape(-1, *shape)

    measured = function(session.example(test[:MEASURED]).x)
    _, mean, log_variance = latent_parts(measured, pixels)
    nats = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).mean(axis=0)
    active = np.argsort(-nats, kind="stable")[:WALKED]
    decoder = keras.Model(model.get_layer("code").output, model.get_layer("logits").output)
    code = np.random.default_rng(0).standard_normal((SAMPLED, mean.shape[1]))
    steps = np.linspace(-WALK_END, WALK_END, STEPS)
    walk = np.tile(mean[0], (len(active), STEPS, 1))
    for k, dimension in enumerate(active):
        walk[k, :, dimension] = steps
    walked = painted(decoder(walk.reshape(-1, mean.shape[1]).astype(np.float32)))
    said, _, _ = latent_parts(function(shown.x), pixels)
    return {
        "kind": np.array("generated"),
        "pictures": np.rint(255 * shown.x).astype(np.uint8),
        "reconstructions": painted(said),
        "samples": painted(decoder(code.astype(np.float32))),
        "walk": walked.reshape(len(active), STEPS, *shape),
        "dimensions": active,
        "nats": nats,
    }


def picture_answers(
    plan: dict[str, Any], inputs: Any, rows: np.ndarray, function: Function
) -> dict[str, Any]:
    """What ``zoo predict`` writes for a user's pictures: the bound of each, nats, and its parts."""
    from zoo.data import preprocess
    from zoo.data.table import take_rows
    from zoo.tasks import bernoulli_nats, gaussian_nats

    task = get_task("generative")
    x = preprocess.apply(plan, take_rows(inputs, rows))
    raw = task.frame(plan, x, np.zeros(len(rows)))
    assert task.settle is not None
    example = task.settle(plan, raw, rows)
    logits, mean, log_variance = latent_parts(function(example.x), example.y.shape[1])
    lost, code = bernoulli_nats(logits, example.y), gaussian_nats(mean, log_variance)
    return {"elbo": -lost - code, "reconstruction": -lost, "code": code}


def mean_change(inputs: Any, outputs: Any, plan: Any) -> Any:
    """The mean over the horizon, of which a forecast's attributions are: (n, horizon) -> (n, 1)."""
    from zoo.backend import keras

    return keras.ops.mean(outputs, axis=1, keepdims=True)


def code_nats(inputs: Any, outputs: Any, plan: Any) -> Any:
    """The divergence of a picture's code, nats: a VAE's output (n, ...) -> (n, 1)."""
    from zoo.backend import keras

    pixels = int(np.prod(inputs.shape[1:]))
    _, mean, log_variance = latent_parts(outputs, pixels)
    each = keras.ops.square(mean) + keras.ops.exp(log_variance) - 1.0 - log_variance
    return 0.5 * keras.ops.sum(each, axis=1, keepdims=True)
