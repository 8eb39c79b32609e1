"""Weights to start from: those of another run, layer by layer, where names and shapes agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.errors import ZooError
from zoo.run import BASE, Run, sha256_file

WEIGHTS = "model.weights.h5"


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model that hold weights, those of models inside it too."""
    from zoo.backend import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        elif layer.weights:
            yield layer


def rebuild(run: Run) -> Any:
    """The trained model of a run, without its data. Raises :class:`ZooError` where it has none."""
    from zoo.registry import models

    path = run.path / BASE / WEIGHTS
    if not path.is_file():
        raise ZooError(
            f"{run.name} has no trained weights to start from.",
            expected=f"{BASE}/{WEIGHTS}",
            received=f"a run that is {run.document()['status']}",
            hint=f"Finish it: zoo train --resume {run.path}",
            kind="no_weights",
        )
    document = run.document()
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in document["config"].items()}
    config |= {key: "" for key in ("weights", "preset") if key in config}
    model = models().get(document["spec"]["name"]).build(**config)
    model.load_weights(path)
    return model


def start_from(model: Any, run: Run) -> dict[str, Any]:
    """Give a fresh model the weights of a run's, layer by layer.

    A layer is taken where the other model has one of its name whose weights have the same shapes.
    Returns ``{run, path, sha256, taken: [layer], left: [layer]}`` for ``run.json``. Raises
    :class:`ZooError` when no layer matches.
    """
    theirs = {layer.name: layer for layer in leaves(rebuild(run))}
    taken, left = [], []
    for layer in leaves(model):
        other = theirs.get(layer.name)
        if other is not None and _shapes(other) == _shapes(layer):
            layer.set_weights(other.get_weights())
            taken.append(layer.name)
        else:
            left.append(layer.name)
    if not taken:
        raise ZooError(
            f"No layer of {run.name} fits this model.",
            expected="layers of the same name whose weights have the same shapes: "
            + ", ".join(f"{layer.name} {_shapes(layer)[0]}" for layer in leaves(model)),
            received=", ".join(f"{name} {_shapes(layer)[0]}" for name, layer in theirs.items()),
            hint="Settings such as widths must agree: `zoo info` and the run's run.json show them.",
            kind="no_layer_fits",
        )
    return {
        "run": run.name,
        "path": str(run.path.resolve()),
        "sha256": sha256_file(run.path / BASE / WEIGHTS),
        "taken": taken,
        "left": left,
    }


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
