"""Letting a layer's ``call`` see other weights, and others see another output, for a while.

A layer gets a subclass of its own class that overrides attributes; its variables, name and place in
the model stay what they are, and giving the class back undoes it. This reaches layers inside layers
(attention, recurrent cells, keras-hub's blocks), which no rebuilding of the graph does. Meanwhile the
layer's ``__class__`` is still the class it had, as a mock's is: so files and copies of the model are of
that class, and can be read where nothing is overridden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: The real ``__class__``, beneath the one that an override shows.
_CLASS: Any = vars(object)["__class__"]


def override(layer: Any, members: dict[str, Any]) -> None:
    """Give ``layer`` a subclass with ``members``; overrides may be stacked."""
    base, shown = type(layer), layer.__class__
    meta: Any = type(base)
    shape = {"__module__": base.__module__, "__qualname__": base.__qualname__,
             "__class__": property(lambda self: shown)}  # fmt: skip
    _CLASS.__set__(layer, meta(base.__name__, (base,), {**shape, **members}))


def restore(layer: Any) -> None:
    """Undo the last :func:`override`."""
    _CLASS.__set__(layer, type(layer).__bases__[0])


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

    def __init__(self, model: Any) -> None:
        self.model, self._attached = model, True
        self._retrace()

    def _retrace(self) -> None:
        """Let Keras trace the model's steps anew: those it has were traced with other layers."""
        for name in ("train_function", "test_function", "predict_function"):
            if hasattr(self.model, name):
                setattr(self.model, name, None)

    def release(self) -> None:
        """Take it off; the weights stay as it made them. Does nothing where it is off already."""
        if self._attached:
            self._attached = False
            self._release()
            self._retrace()

    def _release(self) -> None:
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
