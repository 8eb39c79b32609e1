"""Letting a layer's ``call`` see other weights, and others see another output, for a while.

A layer gets a subclass of its own class that overrides attributes; its variables, name and place in
the model stay what they are, and giving the class back undoes it. This reaches layers inside layers
(attention, recurrent cells, keras-hub's blocks), which no rebuilding of the graph does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def override(layer: Any, members: dict[str, Any]) -> None:
    """Give ``layer`` a subclass with ``members``; overrides may be stacked."""
    base = type(layer)
    meta: Any = type(base)
    object.__setattr__(layer, "__class__", meta(base.__name__, (base,), members))


def restore(layer: Any) -> None:
    """Undo the last :func:`override`."""
    object.__setattr__(layer, "__class__", type(layer).__bases__[0])


def reading(layer: Any, attribute: str, change: Callable[[Any], Any]) -> property:
    """A property that gives ``change(value)`` of what ``attribute`` gives now."""
    inherited = getattr(type(layer), attribute, None)

    def get(self: Any) -> Any:
        if isinstance(inherited, property) and inherited.fget is not None:
            return change(inherited.fget(self))
        return change(vars(self)[attribute])

    return property(get)


class Attached:
    """What is attached to a model for a while: a context manager that releases at its end."""

    #: What a checkpoint must hold besides the model's own variables.
    variables: Sequence[Any] = ()

    def release(self) -> None:
        """Take it off; the weights stay as it made them."""
        raise NotImplementedError

    def callback(self) -> Any:
        """A Keras callback that carries ``variables`` into this package's checkpoints."""
        from zoo.backend import keras

        callback = keras.callbacks.Callback()
        callback.held = list(self.variables)
        return callback

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
