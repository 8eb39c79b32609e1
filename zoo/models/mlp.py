"""Multi-layer perceptrons (Rumelhart, Hinton & Williams, Nature 323, 1986).

For tables: dropout (Srivastava et al., JMLR 15, 2014) over piecewise-linear codes of the numbers
(Gorishniy et al., NeurIPS 2022), which the preprocessing makes. For pictures: flattened, and
``--set hidden=128`` is the classic 784-128-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras


def build_mlp(
    shape: tuple[int, ...], outputs: int, hidden: tuple[int, ...] = (128, 64), dropout: float = 0.4
) -> keras.Model:
    """Features, float32 (batch, *shape) -> logits or values, float32 (batch, outputs)."""
    from zoo.backend import keras

    inputs = keras.Input(tuple(shape), name="features")
    x = keras.layers.Flatten(name="flatten")(inputs) if len(shape) > 1 else inputs
    for number, width in enumerate(hidden, start=1):
        x = keras.layers.Dense(width, activation="relu", name=f"dense_{number}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout_{number}")(x)
    return keras.Model(inputs, keras.layers.Dense(outputs, name="logits")(x), name="mlp")


SPECS = [
    ModelSpec(
        name="mlp",
        version="1.0",
        family="mlp",
        task="binary",
        tasks=("multiclass", "regression"),
        kinds=("tabular", "image"),
        build=build_mlp,
        config={"shape": (205,), "outputs": 1, "hidden": (128, 64), "dropout": 0.4},
        tiny={"shape": (6,), "hidden": (8, 4)},
        data="adult",
        target=Target("roc_auc", 0.905),
        train={"epochs": 15, "batch_size": 256, "learning_rate": 2e-3, "weight_decay": 1e-2},
        search={"hidden": ("choice", "64,32", "128,64", "256,128", "256,128,64")},
        source="Rumelhart, Hinton & Williams, Nature 323, 1986; Gorishniy et al., NeurIPS 2022",
        license="Apache-2.0",
        params=34689,
        tags=("tabular", "fast"),
    )
]
