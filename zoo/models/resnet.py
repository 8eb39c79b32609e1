"""Residual networks (He, Zhang, Ren & Sun, CVPR 2016), short definitions of our own.

``resnet20/32/56``: section 4.2, for small pictures: three stages of 3 x 3 pairs, 16, 32 and 64 wide.
``resnet18``: table 1, for large ones. Shortcuts that change their shape are 1 x 1 projections (the
paper's option B). ``resnet50`` is in ``applications.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras

#: Pictures with a shorter side than this keep their resolution at the start of ``resnet18``.
SMALL = 64


def _convolved(x: Any, width: int, size: int, stride: int, name: str, relu: bool = True) -> Any:
    """Convolution without bias, batch normalisation, perhaps ReLU."""
    from zoo.backend import keras

    layers = keras.layers
    x = layers.Conv2D(
        width, size, stride, padding="same", use_bias=False,
        kernel_initializer="he_normal", name=f"{name}_conv",
    )(x)  # fmt: skip
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _block(x: Any, width: int, stride: int, name: str, drop: float = 0.0) -> Any:
    """Two 3 x 3 convolutions beside a shortcut: (B, H, W, C) -> (B, H / stride, W / stride, width).

    With the probability ``drop``, a sample of a training batch takes the shortcut alone.
    """
    from zoo.backend import keras

    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = _convolved(x, width, 1, stride, f"{name}_shortcut", relu=False)
    y = _convolved(x, width, 3, stride, f"{name}_1")
    y = _convolved(y, width, 3, 1, f"{name}_2", relu=False)
    if drop:
        y = keras.layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop_path")(y)
    return keras.layers.ReLU(name=f"{name}_relu")(
        keras.layers.Add(name=f"{name}_add")([shortcut, y])
    )


def build_resnet(
    shape: tuple[int, int, int],
    outputs: int,
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    stem: str = "small",
    drop_path: float = 0.0,
) -> keras.Model:
    """Pictures from 0 to 1, float32 (batch, height, width, channels) -> logits (batch, outputs).

    Args:
        blocks, widths: residual blocks and channels of each stage; all but the first halve the
            resolution.
        stem: "small" is one 3 x 3 convolution; "large" 7 x 7 with stride 2 and a pooling, which
            gives way to the small one where pictures are under 64 pixels.
        drop_path: probability that the last block is left out for a sample of a training batch; it
            grows linearly with depth (stochastic depth, Huang et al., ECCV 2016).
    """
    from zoo.backend import keras

    inputs = keras.Input(tuple(shape), name="image")
    if stem == "large" and min(shape[:2]) >= SMALL:
        x = _convolved(inputs, widths[0], 7, 2, "stem")
        x = keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    else:
        x = _convolved(inputs, widths[0], 3, 1, "stem")
    number_of_blocks, built = sum(blocks), 0
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            built += 1
            drop = drop_path * built / number_of_blocks
            x = _block(x, width, stride, f"stage{stage}_block{number}", drop)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(outputs, name="logits")(x), name="resnet")


_SOURCE = "He, Zhang, Ren & Sun, Deep residual learning, CVPR 2016"
_TRAIN = {"epochs": 10, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 5e-3,
          "augment": ("affine",), "keep": "last"}  # fmt: skip


def _small(
    depth: int, params: int, published: str, target: Target | None = None, **train: Any
) -> ModelSpec:
    """A row of section 4.2: 6n + 2 layers."""
    n = (depth - 2) // 6
    return ModelSpec(
        name=f"resnet{depth}",
        version="1.0",
        family="resnet",
        task="multiclass",
        tasks=("binary", "regression"),
        kinds=("image",),
        build=build_resnet,
        config={"shape": (32, 32, 3), "outputs": 10, "blocks": (n, n, n), "widths": (16, 32, 64),
                "stem": "small", "drop_path": 0.0},
        tiny={"shape": (16, 16, 1), "outputs": 3, "blocks": (1, 1, 1), "widths": (4, 6, 8)},
        data="mnist_5k",
        target=target,
        published=published,
        train={**_TRAIN, **train},
        source=f"{_SOURCE}, section 4.2",
        license="Apache-2.0",
        params=params,
        tags=("image",),
    )  # fmt: skip


SPECS = [
    _small(20, 274_042, "8.75 % error on CIFAR-10", Target("accuracy", 0.985),
           epochs=24, label_smoothing=0.1),
    _small(32, 469_370, "7.51 % error on CIFAR-10"),
    _small(56, 860_026, "6.97 % error on CIFAR-10"),
    ModelSpec(
        name="resnet18",
        version="1.0",
        family="resnet",
        task="multiclass",
        tasks=("binary", "regression"),
        kinds=("image",),
        build=build_resnet,
        config={"shape": (224, 224, 3), "outputs": 1000, "blocks": (2, 2, 2, 2),
                "widths": (64, 128, 256, 512), "stem": "large", "drop_path": 0.0},
        tiny={"shape": (64, 64, 1), "outputs": 3, "blocks": (1, 1, 1, 1), "widths": (4, 4, 6, 8)},
        data="mnist_5k",
        published="27.88 % top-1 error on ImageNet, ten crops",
        train=_TRAIN,
        source=f"{_SOURCE}, table 1",
        license="Apache-2.0",
        params=11_699_112,  # 11,689,512 that are trained, and 9,600 statistics
        tags=("image",),
    ),
]  # fmt: skip
