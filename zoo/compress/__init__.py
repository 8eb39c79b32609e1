"""Compression of any Keras 3 model with TF-MOT's engines, with or without a run.

Each function attaches itself to a model's layers in place and gives a handle that is a context
manager; compile and fit inside the block, as usual::

    from zoo.compress import prune, quantize_aware

    with prune(model, 0.8, steps=1000) as pruning:
        model.compile("adam", loss)
        model.fit(x, y, callbacks=[pruning.callback()])
    with keep_zeros(model), quantize_aware(model, samples=x[:256]):
        model.compile("adam", loss)
        model.fit(x, y)
    content = to_litert(model, "int8", x[:256])

After the block the model is an ordinary one again, with the same layers, and weights that are sparse,
clustered or on an int8 grid.
"""

from __future__ import annotations

import importlib
from typing import Any

#: name -> the module that holds it; imported when it is asked for, since TensorFlow comes with it.
_HOMES = {
    "prune": "zoo.compress.pruning",
    "keep_zeros": "zoo.compress.pruning",
    "Pruner": "zoo.compress.pruning",
    "kernels": "zoo.kernels",
    "cluster": "zoo.compress.clustering",
    "keep_clusters": "zoo.compress.clustering",
    "quantize_aware": "zoo.compress.quantizing",
    "snap": "zoo.compress.quantizing",
    "distill": "zoo.compress.distilling",
    "to_litert": "zoo.export",
}

__all__ = [*sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
