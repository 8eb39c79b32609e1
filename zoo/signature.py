"""What a Keras model takes, and what its inputs and outputs are called where it is shipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np


def taken_inputs(model: Any, samples: Any = None) -> Any:
    """The input tensors of a model's graph, in their structure, or ``samples`` where it has none.

    Raises ``ValueError`` where there are neither.
    """
    graph = getattr(model, "_functional", None) or model  # a Sequential holds one
    taken = getattr(graph, "_inputs_struct", None)
    if taken is None:
        taken = samples
    if taken is None:
        raise ValueError(
            f"{model.name} has no graph that shows what it takes: build it with keras.Input, or give "
            "samples, (n, ...) arrays of its inputs"
        )
    return taken


def arranged(model: Any, samples: Any) -> Any:
    """Samples, (n, ...) arrays, as a model takes them: in its structure and with its dtypes.

    A dict is read by the names of the inputs, anything else by their order.

    Raises ``ValueError`` for samples that do not fit.
    """
    from zoo.backend import keras

    taken = taken_inputs(model, samples)
    tensors, given = keras.tree.flatten(taken), _in_order(taken, samples)
    if len(given) != len(tensors):
        raise ValueError(
            f"{model.name} takes {len(tensors)} inputs, received samples of {len(given)}"
        )
    arrays = [np.asarray(one) for one in given]
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"expected as many samples of every input, received {[*map(len, arrays)]}")
    for array, tensor in zip(arrays, tensors, strict=True):
        shapes = zip(array.shape[1:], tensor.shape[1:], strict=False)
        if array.ndim != len(tensor.shape) or any(b not in (a, None) for a, b in shapes):
            raise ValueError(
                f"expected samples of shape {('n', *tensor.shape[1:])}, received {array.shape}"
            )
    cast = [array.astype(_single(array.dtype) if taken is samples else tensor.dtype)
            for array, tensor in zip(arrays, tensors, strict=True)]  # fmt: skip
    return keras.tree.pack_sequence_as(taken, cast)


def _in_order(taken: Any, samples: Any) -> list[Any]:
    """The samples of each input, in the order in which the structure is flattened."""
    from zoo.backend import keras

    tensors = keras.tree.flatten(taken)
    if not isinstance(samples, dict) or taken is samples:
        return keras.tree.flatten(samples)
    keys = [path[-1] for path, _ in keras.tree.flatten_with_path(taken) if path]
    if set(keys) != set(samples):
        keys = [tensor.name for tensor in tensors]
    if set(keys) != set(samples):
        raise ValueError(
            f"expected samples of {', '.join(map(str, keys))}, received {', '.join(map(str, samples))}"
        )
    return [samples[key] for key in keys]


def _single(dtype: Any) -> Any:
    """float32 for a wider float, which no Keras layer computes in unless it is told to."""
    return np.dtype("float32") if dtype == np.float64 else dtype


def rows_of(samples: Any, first: int, last: int) -> Any:
    """Some rows of inputs in any structure."""
    from zoo.backend import keras

    return keras.tree.map_structure(lambda one: one[first:last], samples)


def count_of(samples: Any) -> int:
    """How many rows there are."""
    from zoo.backend import keras

    return next((len(one) for one in keras.tree.flatten(samples)), 0)


def names_of(structure: Any, stem: str) -> list[str]:
    """A name for each tensor of inputs or outputs, flattened: letters, digits and ``_``, each once.

    That of its ``keras.Input``, or its keys in a dict; otherwise ``stem`` and its places, the stem
    alone where there is no structure.
    """
    from zoo.backend import keras

    names: list[str] = []
    for path, tensor in keras.tree.flatten_with_path(structure):
        name = _name(path, tensor, stem)
        again = (f"{name}_{k}" for k in range(1, len(names) + 1))
        names.append(name if name not in names else next(n for n in again if n not in names))
    return names


def _name(path: Sequence[Any], tensor: Any, stem: str) -> str:
    from zoo.backend import keras

    if isinstance(tensor, keras.KerasTensor):
        name = tensor.name.split(":")[0]
    elif path and isinstance(path[0], str):
        name = "_".join(map(str, path))
    else:
        name = "_".join([stem, *map(str, path)])
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return name if name[:1].isalpha() else f"{stem}_{name}"
