"""The weights that compression is about: which variables of which layers, and their channels."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: A smaller kernel is left alone by pruning: it saves no space worth having, and the first and the
#: last layer, which are often that small, cost the most accuracy a weight.
SMALLEST_KERNEL = 1024


@dataclass(frozen=True)
class Kind:
    """What of a layer class is compressed.

    ``layers`` names classes of ``keras.layers``. ``attributes`` maps what the layer's ``call`` reads
    to the axes of output channels (of a layer, its kernel's rank -> axes), which are quantised each
    with a range of its own, as LiteRT does. ``default`` tells if pruning takes it unasked.
    """

    layers: tuple[str, ...]
    attributes: dict[str, Callable[[Any, int], tuple[int, ...]]]
    default: bool = True


@dataclass(frozen=True)
class Kernel:
    """One kernel: its layer, the attribute that holds it, the Keras variable, its output axes."""

    name: str
    layer: Any
    attribute: str
    variable: Any
    outputs: tuple[int, ...]
    default: bool

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.variable.shape)

    def matrix(self, values: Any) -> Any:
        """A tensor of the kernel's shape as (inputs, output channels)."""
        from zoo.backend import tf

        shape = self.variable.shape
        width = math.prod(shape[k] for k in self.outputs)
        return tf.reshape(tf.transpose(values, self._order), (-1, width))

    def unmatrix(self, matrix: Any) -> Any:
        """The inverse of :meth:`matrix`."""
        from zoo.backend import tf

        order = self._order
        moved = tf.reshape(matrix, [self.variable.shape[k] for k in order])
        return tf.transpose(moved, [order.index(k) for k in range(len(order))])

    @property
    def _order(self) -> list[int]:
        rank = len(self.variable.shape)
        return [*(k for k in range(rank) if k not in self.outputs), *self.outputs]


def _last(layer: Any, rank: int) -> tuple[int, ...]:
    return (rank - 1,)


def _last_two(layer: Any, rank: int) -> tuple[int, ...]:
    return (rank - 2, rank - 1)


def _before_last(layer: Any, rank: int) -> tuple[int, ...]:
    return (rank - 2,)


def _whole(layer: Any, rank: int) -> tuple[int, ...]:
    return ()


def _einsum(layer: Any, rank: int) -> tuple[int, ...]:
    operands, result = layer.equation.replace(" ", "").split("->")
    letters = operands.split(",")[1]
    return tuple(k for k, letter in enumerate(letters) if letter in result)


KINDS = (
    Kind(("Dense",), {"kernel": _last}),
    Kind(("EinsumDense",), {"kernel": _einsum}),
    Kind(("Conv1D", "Conv2D", "Conv3D"), {"kernel": _last}),
    Kind(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), {"kernel": _before_last}),
    Kind(("DepthwiseConv1D", "DepthwiseConv2D"), {"kernel": _last_two}),
    Kind(
        ("SeparableConv1D", "SeparableConv2D"),
        {"depthwise_kernel": _last_two, "pointwise_kernel": _last},
    ),
    Kind(
        ("LSTMCell", "GRUCell", "SimpleRNNCell"),
        {"kernel": _last, "recurrent_kernel": _last},
    ),
    Kind(("ConvLSTMCell",), {"kernel": _last, "recurrent_kernel": _last}),
    # A word's logit is an output channel of its own, where the weights are not the embedding's.
    Kind(
        ("ReversibleEmbedding",), {"embeddings": _whole, "reverse_embeddings": _last}, default=False
    ),
    # One range for the whole table: LiteRT gathers its rows. A pruned row is a word forgotten.
    Kind(("Embedding",), {"embeddings": _whole}, default=False),
)


def flat_layers(model: Any) -> list[Any]:
    """Every layer of a model, those inside layers and inside models too, each once."""
    found: dict[int, Any] = {}
    for layer in model._flatten_layers(include_self=False):
        found.setdefault(id(layer), layer)
    return list(found.values())


def all_kernels(model: Any) -> list[Kernel]:
    """Every kernel of a built model that :data:`KINDS` knows of, in the order of its layers.

    Raises ``ValueError`` where LoRA is enabled: a layer then computes with more than its kernel.
    """
    table = [(tuple(map(_class, kind.layers)), kind) for kind in KINDS]
    found: list[Kernel] = []
    for layer in flat_layers(model):
        kind = next((kind for classes, kind in table if isinstance(layer, classes)), None)
        for attribute, outputs in () if kind is None else kind.attributes.items():
            variable = _variable(layer, attribute)
            if getattr(layer, "lora_enabled", False):
                raise ValueError(
                    f"{layer.name} has LoRA enabled, which is no part of its kernel: save the model's "
                    "weights, which adds it to the kernels, and load them into a model without LoRA"
                )
            if variable is None or any(variable is kernel.variable for kernel in found):
                continue  # not built, or shared with a layer before
            name = variable.path.removesuffix("/kernel").removesuffix("/embeddings")
            assert kind is not None
            axes = outputs(layer, len(variable.shape))
            found.append(Kernel(name, layer, attribute, variable, axes, kind.default))
    return found


def kernels(model: Any, layers: Sequence[str] | str | None = None) -> list[Kernel]:
    """The kernels that compression takes.

    Args:
        model: a built Keras 3 model; layers inside layers (attention, cells, nested models) count.
        layers: names or patterns (``conv_*``), matched with a kernel's name, its layer's name or its
            layer's class; ``"all"`` for every kernel. By default those with at least
            :data:`SMALLEST_KERNEL` weights, embeddings left out (every kernel of a model that has
            none so large). Normalisations and biases have no kernel.
    Raises ``ValueError`` where a pattern matches nothing, or there is nothing to take.
    """
    found = all_kernels(model)
    if layers == "all":
        chosen = found
    elif layers is None:
        usual = [kernel for kernel in found if kernel.default]
        chosen = [kernel for kernel in usual if kernel.size >= SMALLEST_KERNEL] or usual
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        for pattern in patterns:
            if not any(_matches(kernel, pattern) for kernel in found):
                known = ", ".join(kernel.name for kernel in found[:20])
                raise ValueError(f"no kernel matches {pattern!r}; there are: {known}")
        chosen = [kernel for kernel in found if any(_matches(kernel, p) for p in patterns)]
    if not chosen:
        if not model.built:
            raise ValueError("expected a model that is built: call it on some inputs first")
        raise ValueError("the model has no kernel that can be compressed")
    return chosen


def _matches(kernel: Kernel, pattern: str) -> bool:
    names = (kernel.name, kernel.layer.name, type(kernel.layer).__name__)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _class(name: str) -> type:
    """A layer class of Keras; the cells of its convolutional LSTMs are no part of ``keras.layers``."""
    from keras.src.layers.rnn import conv_lstm

    from zoo.backend import keras

    return getattr(keras.layers, name, None) or getattr(conv_lstm, name)


def _variable(layer: Any, attribute: str) -> Any:
    """The Keras variable behind an attribute, whatever reads it at present."""
    values = vars(layer)
    return values.get(f"_{attribute}", values.get(attribute))
