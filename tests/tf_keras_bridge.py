"""A functional Keras 3 model of standard layers, built again in tf_keras with its weights.

TF-MOT's own wrappers accept nothing else; with this they are the reference for ours.
"""

from __future__ import annotations

from typing import Any

#: What of a layer's config tf_keras would read otherwise, and training does not need.
_DROPPED = ("initializer", "regularizer", "constraint")
_KERAS_3_ALONE = (
    "dtype",
    "quantization_config",
    "lora_rank",
    "lora_alpha",
    "synchronized",
    "renorm",
)


def to_tf_keras(model: Any) -> Any:
    """The same graph with the same weights in tf_keras. Raises ``TypeError`` for an operation that
    is no layer."""
    import tf_keras

    made: dict[int, Any] = {}
    layers: dict[str, Any] = {}
    inputs = []
    for tensor in model.inputs:
        made[id(tensor)] = tf_keras.Input(tuple(tensor.shape[1:]), name=tensor.name)
        inputs.append(made[id(tensor)])
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            name = type(node.operation).__name__
            if not hasattr(tf_keras.layers, name):
                raise TypeError(f"{node.operation.name} is a {name}, which tf_keras does not have")
            layer = layers.setdefault(node.operation.name, _layer(tf_keras, node.operation))
            given = [made[id(tensor)] for tensor in node.input_tensors]
            made[id(node.outputs[0])] = layer(given[0] if len(given) == 1 else given)
    built = tf_keras.Model(inputs, [made[id(tensor)] for tensor in model.outputs])
    for layer in model.layers:
        if layer.weights:
            built.get_layer(layer.name).set_weights(layer.get_weights())
    return built


def _layer(tf_keras: Any, layer: Any) -> Any:
    config = {
        key: value
        for key, value in layer.get_config().items()
        if not key.endswith(_DROPPED) and key not in _KERAS_3_ALONE
    }
    return getattr(tf_keras.layers, type(layer).__name__)(**config)
