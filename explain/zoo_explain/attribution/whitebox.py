"""Attributions that look inside a Keras model: a closed form, DeepSHAP, expected gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from zoo_explain.attribution.game import ADDITIVE, Attribution, Game, batch_size

NODES = (4, 8, 16, 32)  # nodes of the path integral, tried until a row adds up

_SHAPES = {"InputLayer", "Flatten", "Reshape", "Permute", "ZeroPadding1D", "ZeroPadding2D",
           "Cropping1D", "Cropping2D"}  # fmt: skip
_TRAINING_ONLY = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise",
                  "GaussianDropout", "ActivityRegularization"}  # fmt: skip
AFFINE = _SHAPES | _TRAINING_ONLY | {
    "Dense", "Conv1D", "Conv2D", "BatchNormalization", "Activation", "Add", "Concatenate",
    "Rescaling", "AveragePooling1D", "AveragePooling2D", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
}  # fmt: skip
DEEP = AFFINE | {"ReLU", "MaxPooling1D", "MaxPooling2D"}
DEEP_ACTIVATIONS = {"linear", "relu", "sigmoid", "tanh", "elu", "selu", "softplus", "exponential"}


def operations(model: Any) -> Iterator[Any]:
    """Every operation of a functional or sequential Keras model, nested models included."""
    sequential = type(model).__name__ == "Sequential"
    for operation in model.layers if sequential else model.operations:
        if _is_graph(operation):
            yield from operations(operation)
        else:
            yield operation


def _is_graph(model: Any) -> bool:
    return type(model).__name__ == "Sequential" or hasattr(model, "operations")


def _activation(operation: Any) -> str:
    if type(operation).__name__ == "ReLU":
        return "relu"
    return getattr(getattr(operation, "activation", None), "__name__", "linear")


def _odd(operation: Any, layers: set[str], activations: set[str]) -> str | None:
    """What keeps an operation out of the given kinds, or None."""
    kind = type(operation).__name__
    if kind not in layers:
        return kind
    if _activation(operation) not in activations:
        return f"the activation {_activation(operation)}"
    if kind == "ReLU" and (
        operation.max_value is not None or operation.negative_slope or operation.threshold
    ):
        return "a clipped, leaky or shifted ReLU"
    if np.any(np.asarray(getattr(operation, "dilation_rate", 1)) != 1):
        return f"a dilated {kind}"
    return None


def _unsupported(model: Any, layers: set[str], activations: set[str]) -> str | None:
    """What in the model is outside the given layers and activations, or None."""
    if not _is_graph(model):
        return "a model that is not functional"
    odd = [_odd(operation, layers, activations) for operation in operations(model)]
    return ", ".join(sorted({reason for reason in odd if reason})) or None


def layer_names(model: Any) -> str:
    """The kinds of layers that compute something, in order of appearance: "Dense, ReLU"."""
    names: dict[str, None] = {}
    for operation in operations(model):
        if type(operation).__name__ not in {"InputLayer", "Activation"}:
            names[type(operation).__name__] = None
        if _activation(operation) != "linear":
            names[{"relu": "ReLU"}.get(_activation(operation), _activation(operation))] = None
    return ", ".join(names)


def not_linear(model: Any) -> str | None:
    """Why the closed form does not apply, or None."""
    odd = _unsupported(model, AFFINE, {"linear"})
    return None if odd is None else f"the model is not affine: {odd}"


def not_deep(model: Any) -> str | None:
    """Why DeepSHAP does not apply, or None. Decided by the layers, before shap is called.

    A DeepExplainer call that fails leaves TensorFlow's gradient recording patched.
    """
    odd = _unsupported(model, DEEP, DEEP_ACTIVATIONS)
    return None if odd is None else f"DeepSHAP is not exact for {odd}"


def not_differentiable(model: Any) -> str | None:
    """Why gradients with respect to the input do not exist, or None."""
    if any("float" not in str(tensor.dtype) for tensor in model.inputs or []):
        return "the model's input is not continuous (token ids have no gradients)"
    if _is_graph(model) and any(type(op).__name__ == "Embedding" for op in operations(model)):
        return "an Embedding looks its input up (ids have no gradients)"
    return None


def not_tokens(model: Any) -> str | None:
    """Why a model is no function of one layer's embedded ids, or None."""
    if not _is_graph(model) or len(model.inputs) != 1:
        return "the model has no single input"
    if "int" not in str(model.inputs[0].dtype):
        return "the model's input is continuous"
    return None if _embedding(model) else "the input does not go through one Embedding"


def _embedding(model: Any) -> Any:
    """The layer that looks the model's input up, or None where there is not exactly one.

    Found by calling the model, as layers within layers are in no graph.
    """
    from zoo.backend import keras
    from zoo.kernels import flat_layers
    from zoo.overrides import override, restore

    layers = [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.Embedding)]
    length = model.inputs[0].shape[1] or 4
    ids = (np.arange(length, dtype=np.int32) % min((x.input_dim for x in layers), default=1))[None]
    seen: list[Any] = []

    def looking(call: Any) -> Any:
        def looked(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if np.array_equal(np.asarray(inputs), ids):
                seen.append(self)
            return call(self, inputs, *args, **kwargs)

        return looked

    for layer in layers:
        override(layer, {"call": looking(type(layer).call)})
    try:
        model(ids, training=False)
    finally:
        for layer in layers:
            restore(layer)
    return seen[0] if len(seen) == 1 else None


#: Numbers in the word vectors of all background rows together; the background is thinned beyond, to
#: no fewer rows than the second.
TOKEN_VALUES, TOKEN_ROWS = 2**17, 6
#: Slopes in each part of a path, and how often a part may be halved.
PART_NODES, HALVINGS = 8, 5


def tokens(game: Game) -> Attribution:
    """Expected gradients in the space of word vectors, summed over each word's vector.

    Integrated gradients from the embedding's output (Sundararajan, Taly & Yan, ICML 2017, section
    6.3), averaged over background rows as in :func:`gradient`. ``dense`` is (n, *shape) of the ids.
    What else a model makes of the ids, such as a mask of the filling, stays that of the explained
    row all along the path, and so in the base.
    """
    import tensorflow as tf

    from zoo.overrides import override, restore

    embedding = _embedding(game.model)
    table = embedding.embeddings.numpy()
    vectors = table[game.x]
    shape, call = vectors.shape[1:], type(embedding).call
    count = max(TOKEN_ROWS, TOKEN_VALUES // int(np.prod(shape)))
    used = np.unique(np.linspace(0, len(game.background) - 1, count).round().astype(np.int64))
    behind = table[game.background[used]]
    given: list[Any] = []

    def instead(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Its other use, the transposed table as the output layer, stays what it is.
        turned = bool(kwargs.get("reverse") or any(args))
        return call(self, inputs, *args, **kwargs) if turned else given[0]

    signature = [
        tf.TensorSpec((None, *shape)),
        tf.TensorSpec(game.x.shape[1:], tf.int32),
        tf.TensorSpec((), tf.int32),
    ]

    def chosen(points: Any, ids: Any, target: Any) -> Any:
        given[:] = [points]
        many = tf.repeat(ids[None], tf.shape(points)[0], axis=0)
        return tf.gather(game.model(many, training=False), target, axis=1)

    @tf.function(input_signature=signature, autograph=False)
    def gradients(points: Any, ids: Any, target: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(points)
            output = chosen(points, ids, target)
        return tape.gradient(output, points)

    outputs = tf.function(chosen, input_signature=signature, autograph=False)

    def parts(function: Any, row: int, points: np.ndarray) -> np.ndarray:
        size = batch_size(shape)
        return np.concatenate([
            function(points[k : k + size], game.x[row], game.targets[row]).numpy()
            for k in range(0, len(points), size)
        ])  # fmt: skip

    base, dense = np.zeros(len(game.x)), np.zeros(vectors.shape)
    allowed = ADDITIVE / 2 * game.extent()
    override(embedding, {"call": instead})
    try:
        for row, end in enumerate(vectors):
            base[row], dense[row] = _halving(
                partial(parts, outputs, row), partial(parts, gradients, row),
                behind, end, game.output[row], allowed[row],
            )  # fmt: skip
    finally:
        restore(embedding)
    return Attribution(used, dense=dense.sum(axis=-1), base=base)


def _halving(
    value: Callable[[np.ndarray], np.ndarray],
    slope: Callable[[np.ndarray], np.ndarray],
    starts: np.ndarray,
    end: np.ndarray,
    output: float,
    allowed: float,
) -> tuple[float, np.ndarray]:
    """The mean output at ``starts``, and slopes integrated along the straight paths to ``end``.

    ``value`` and ``slope`` give outputs (m,) and gradients (m, *shape) at points (m, *shape).
    Integrals over parts of a path must give the difference of the outputs at their ends: parts that
    do not are halved, while the mean over all paths is off by more than ``allowed``. A Transformer's
    output turns sharply at few places of a path, and there alone many slopes are worth their time.
    """
    place, weight = np.polynomial.legendre.leggauss(PART_NODES)
    place, weight = (place + 1) / 2, weight / 2
    away, wide = end - starts, (1,) * end.ndim

    def points(path: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        return (starts[path] + alpha.reshape(-1, *wide) * away[path]).astype(np.float32)

    first = value(starts).astype(np.float64)
    path = np.arange(len(starts))
    low, high = np.zeros(len(path)), np.ones(len(path))
    at_low, at_high = first, np.full(len(path), output)
    total, error = np.zeros(starts.shape), 0.0
    for halving in range(HALVINGS + 1):
        alpha = low[:, None] + (high - low)[:, None] * place
        found = slope(points(np.repeat(path, PART_NODES), alpha.ravel()))
        found = found.reshape(len(path), PART_NODES, *end.shape)
        found = np.tensordot(weight, found, axes=([0], [1]))
        found = found * away[path] * (high - low).reshape(-1, *wide)
        off = found.reshape(len(path), -1).sum(axis=1) - (at_high - at_low)
        enough = abs(error + off.sum()) <= allowed * len(starts)
        kept = (np.abs(off) <= allowed / 2) | enough | (halving == HALVINGS)
        np.add.at(total, path[kept], found[kept])
        error += off[kept].sum()
        if kept.all():
            break
        path, low, high = path[~kept], low[~kept], high[~kept]
        middle = (low + high) / 2
        at_middle = value(points(path, middle)).astype(np.float64)
        at_low, at_high = (
            np.concatenate([at_low[~kept], at_middle]),
            np.concatenate([at_middle, at_high[~kept]]),
        )
        path = np.tile(path, 2)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    return float(first.mean()), total.mean(axis=0)


def linear(game: Game) -> Attribution:
    """The closed form of an affine model: w * (x - mean of the background).

    ``w`` is the Jacobian, the same everywhere. Lundberg & Lee, NeurIPS 2017, corollary 1.
    """
    import tensorflow as tf

    origin = tf.constant(game.background[:1])
    with tf.GradientTape() as tape:
        tape.watch(origin)
        output = game.model(origin, training=False)
    jacobian = tape.jacobian(output, origin).numpy()[0, :, 0].astype(np.float64)  # (K, *shape)
    centre = game.background.mean(axis=0, dtype=np.float64)
    return Attribution(_all(game), dense=jacobian[game.targets] * (game.x - centre))


def deep(game: Game) -> Attribution:
    """DeepSHAP (Lundberg & Lee, NeurIPS 2017; DeepLIFT's rescale rule) by ``shap``.

    Only each row's own target is explained: shap runs the model backwards once an output.
    """
    dense = np.empty(game.x.shape)
    with _shap_on_tensorflow() as shap:
        for target in np.unique(game.targets):
            rows = game.targets == target
            # A pair of tensors, for shap takes the last *layer* of a model to be its output.
            one = game.model.outputs[0][:, int(target) : int(target) + 1]
            explainer = shap.DeepExplainer((game.model.inputs, one), game.background)
            dense[rows] = explainer.shap_values(game.x[rows], check_additivity=False)[..., 0]
    return Attribution(_all(game), dense=dense)


def import_shap() -> Any:
    """``shap``, whose import uses calls that matplotlib is about to deprecate."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
        import shap
    return shap


@contextmanager
def _shap_on_tensorflow() -> Iterator[Any]:
    """``shap``, without its warning about TensorFlow 2.4, undoing its patch if it fails."""
    from tensorflow.python.eager import execute

    shap, recorder = import_shap(), execute.record_gradient
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your TensorFlow version is newer than 2.4.0")
            warnings.filterwarnings("ignore", "The structure of `inputs` doesn't match")
            yield shap
    finally:
        execute.record_gradient = recorder


def gradient(game: Game) -> Attribution:
    """Expected gradients: integrated gradients, averaged over the background.

    Erion et al., Nature Machine Intelligence 3, 2021. The integral along the path from each
    background row is Gauss-Legendre quadrature instead of random points: at equal calls its error
    is several times smaller than that of ``shap.GradientExplainer``. Rows that do not add up to
    within 1e-3 of the outputs' range are integrated again with twice the nodes, up to 32.
    """
    import tensorflow as tf

    shape = game.x.shape[1:]
    signature = [tf.TensorSpec((None, *shape)), tf.TensorSpec((None,), tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def gradients(points: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(points)
            chosen = tf.gather(game.model(points, training=False), targets, batch_dims=1)
        return tape.gradient(chosen, points)

    base = game.background_output.mean(axis=0)[game.targets]

    def slope(row: int, points: Any) -> Any:
        target = np.full(len(points), game.targets[row], dtype=np.int32)
        return gradients(points, target).numpy()

    return Attribution(_all(game), dense=_integrated(slope, game.x, game.background, base, game))


def _integrated(
    slope: Callable[[int, np.ndarray], np.ndarray],
    x: np.ndarray,
    background: np.ndarray,
    base: np.ndarray,
    game: Game,
) -> np.ndarray:
    """Slopes integrated along the paths from each background row to each row of ``x``, averaged.

    ``slope(row, points)`` gives the gradients (m, *shape) of a row's output at points (m, *shape).
    """
    shape = x.shape[1:]
    size, extent = batch_size(shape), game.extent()
    dense = np.zeros(x.shape)
    left = np.arange(len(x))
    for nodes in NODES:
        place, weight = np.polynomial.legendre.leggauss(nodes)
        alpha = np.tile((place + 1) / 2, len(background)).astype(np.float32)
        alpha = alpha.reshape(-1, *(1,) * len(shape))
        weight = np.tile(weight / 2, len(background)) / len(background)
        for row in left.tolist():
            total = np.zeros(shape)
            for i in range(
                0, len(weight), size
            ):  # never all points: of pictures they are gigabytes
                part = np.arange(i, min(i + size, len(weight)))
                start = background[part // nodes]
                away = x[row] - start
                slopes = slope(row, start + alpha[part] * away)
                total += np.tensordot(weight[part], slopes * away, axes=1)
            dense[row] = total
        error = np.abs(base + dense.reshape(len(dense), -1).sum(axis=1) - game.output)
        left = np.flatnonzero(error > ADDITIVE * extent)
        if not len(left):
            break
    return dense


def _all(game: Game) -> np.ndarray:
    return np.arange(len(game.background))
