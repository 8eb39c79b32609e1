"""Attributions that look inside a Keras model: a closed form, DeepSHAP, expected gradients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
    first = [op for op in operations(model) if type(op).__name__ not in _TRAINING_ONLY][:2]
    kinds = [type(op).__name__ for op in operations(model)]
    if kinds.count("Embedding") != 1 or type(first[-1]).__name__ != "Embedding":
        return "the input does not go through one Embedding"
    if first[-1].mask_zero:
        return "a mask makes the output jump where filling becomes a word"
    return None


def tokens(game: Game) -> Attribution:
    """Expected gradients in the space of word vectors, summed over each word's vector.

    Integrated gradients from the embedding's output (Sundararajan, Taly & Yan, ICML 2017, section
    6.3), averaged over background rows as in :func:`gradient`. ``dense`` is (n, *shape) of the ids.
    """
    from zoo.backend import keras

    (embedding,) = (op for op in operations(game.model) if type(op).__name__ == "Embedding")
    vectors = embedding.embeddings.numpy()
    above = keras.Model(embedding.output, game.model.outputs[0])
    inner = replace(game, model=above, x=vectors[game.x], background=vectors[game.background])
    found = gradient(inner)
    assert found.dense is not None
    return Attribution(found.background, dense=found.dense.sum(axis=-1))


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

    size = batch_size(shape)
    base = game.background_output.mean(axis=0)[game.targets]
    extent = game.extent()
    dense = np.zeros(game.x.shape)
    left = np.arange(len(game.x))
    for nodes in NODES:
        place, weight = np.polynomial.legendre.leggauss(nodes)
        alpha = np.tile((place + 1) / 2, len(game.background)).astype(np.float32)
        alpha = alpha.reshape(-1, *(1,) * len(shape))
        weight = np.tile(weight / 2, len(game.background)) / len(game.background)
        start = np.repeat(game.background, nodes, axis=0)
        for row in left:
            away = game.x[row] - start
            points = start + alpha * away
            target = np.full(len(points), game.targets[row], dtype=np.int32)
            total = np.zeros(shape)
            for i in range(0, len(points), size):
                part = slice(i, i + size)
                slope = gradients(points[part], target[part]).numpy()
                total += np.tensordot(weight[part], slope * away[part], axes=1)
            dense[row] = total
        error = np.abs(base + dense.reshape(len(dense), -1).sum(axis=1) - game.output)
        left = np.flatnonzero(error > ADDITIVE * extent)
        if not len(left):
            break
    return Attribution(_all(game), dense=dense)


def _all(game: Game) -> np.ndarray:
    return np.arange(len(game.background))
