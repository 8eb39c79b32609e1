"""Deep CNNs as ``keras.applications`` defines them, with a head of our own and pictures from 0 to 1.

Each starts from random weights, or from published ones with ``--weights imagenet|FILE``. What
the published weights expect of a picture (range, channel order, channel means) is part of the graph,
so that every artefact takes the same pictures as every other model.
"""

from __future__ import annotations

import math
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, ZooError
from zoo.spec import ModelSpec

if TYPE_CHECKING:
    import keras

IMAGENET = "imagenet"
#: Seconds to wait for the server of the published weights before saying that there is none.
PATIENCE = 5
_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"
#: ImageNet's channel means and deviations, RGB, of pictures from 0 to 1.
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Application:
    """One network: its Keras function, least side, how it wants its pictures, its weights' URL.

    Where Keras makes another graph for "imagenet" than for a file of the same weights, ``md5`` is
    that of the file, which is fetched and handed over here.
    """

    function: str
    least: int
    prepare: Callable[[Any], Any]
    weights: str
    md5: str | None = None


def _caffe(x: Any) -> Any:
    """0 to 1, RGB -> 0 to 255, BGR, without ImageNet's means."""
    from zoo.backend import keras

    # In this order: the converter's own calibration, as of int16x8, errs where a reversed tensor is scaled.
    x = keras.layers.Rescaling(255.0, [-123.68, -116.779, -103.939], name="caffe")(x)
    return keras.ops.flip(x, axis=-1)


def _torch(x: Any) -> Any:
    """0 to 1 -> standardised by ImageNet's means and deviations."""
    from zoo.backend import keras

    offset = [-mean / spread for mean, spread in zip(_MEAN, _SPREAD, strict=True)]
    return keras.layers.Rescaling([1 / spread for spread in _SPREAD], offset, name="standard")(x)


def _stretched(x: Any) -> Any:
    """Pictures from 0 to 1 such that what is standardised afterwards is divided by the root of
    ImageNet's deviations, too.

    EfficientNet's published weights were trained so. Keras does it by a layer without weights behind
    the standardising one, which it adds for "imagenet" alone: a run that is loaded again would lack it.
    """
    from zoo.backend import keras

    factors = [spread**-0.5 for spread in _SPREAD]
    offset = [(1 - factor) * mean for factor, mean in zip(factors, _MEAN, strict=True)]
    return keras.layers.Rescaling(factors, offset, name="stretched")(x)


def _scale(factor: float, offset: float) -> Callable[[Any], Any]:
    def prepare(x: Any) -> Any:
        from zoo.backend import keras

        return keras.layers.Rescaling(factor, offset, name="range")(x)

    return prepare


APPLICATIONS: dict[str, Application] = {
    "resnet50": Application(
        "ResNet50", 32, _caffe,
        f"{_STORE}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    "mobilenet_v2": Application(
        "MobileNetV2", 32, _scale(2.0, -1.0),
        f"{_STORE}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
    "efficientnet_b0": Application(
        "EfficientNetB0", 32, _scale(255.0, 0.0),
        "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
        "50bc09e76180e00e4465e1a485ddc09d"),
    "inception_v3": Application(
        "InceptionV3", 75, _scale(2.0, -1.0),
        f"{_STORE}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    "densenet121": Application(
        "DenseNet121", 32, _torch,
        f"{_STORE}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"),
}  # fmt: skip


def build(
    name: str,
    shape: tuple[int, int, int],
    outputs: int,
    dropout: float = 0.2,
    width: float = 1.0,
    weights: str = "",
    stretched: bool = False,
) -> keras.Model:
    """Pictures from 0 to 1, float32 (batch, height, width, channels) -> logits (batch, outputs).

    A grey picture is shown to all three channels; one that is too small for the network is
    enlarged by whole steps.

    Args:
        name: of :data:`APPLICATIONS`.
        width: the channels of every convolution times this; 1 is the published network.
        weights: "" for random ones, "imagenet" for the published ones of all layers but the last,
            or a file of those. Used to start a training from, never to load a run.
        stretched: the pictures as EfficientNet's published weights want them: :func:`_stretched`.

    Raises:
        ZooError: weights that can't be had, or that don't fit the settings.
    """
    from zoo.backend import keras

    row, layers = APPLICATIONS[name], keras.layers
    inputs = x = keras.Input(tuple(shape), name="image")
    if shape[2] == 1:
        x = layers.Concatenate(name="rgb")([x, x, x])
    enlarge = math.ceil(row.least / min(shape[:2]))
    if enlarge > 1:
        x = layers.UpSampling2D(enlarge, name="enlarge")(x)
    if x.shape[-1] == 3:
        x = row.prepare(_stretched(x) if stretched else x)
    source = _weights(name, width, int(x.shape[-1]), weights)
    body = getattr(keras.applications, row.function)
    try:
        network = body(include_top=False, weights=source, input_tensor=x)
    except (OSError, ValueError) as error:
        if source is None:
            raise
        raise ZooError(
            f"The weights for {name} could not be read.",
            expected=f"the file {row.weights.rsplit('/', 1)[1]}, unchanged",
            received=" ".join(str(error).split())[:300],
            kind="bad_weights",
            exit_code=FAILURE,
        ) from error
    if width != 1:
        network = _thinned(network, width)
        inputs = network.inputs[0]
    x = layers.GlobalAveragePooling2D(name="pool")(network.outputs[0])
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(outputs, name="logits")(x), name=name)


def _weights(name: str, width: float, channels: int, weights: str) -> str | None:
    """What ``keras.applications`` is to load; checked before anything is built or downloaded."""
    if not weights:
        return None
    row = APPLICATIONS[name]
    if width != 1 or channels != 3:
        raise ZooError(
            f"Published weights don't fit these settings of {name}.",
            expected="width=1 and pictures with 1 or 3 channels",
            received=f"width={width:g} and {channels} channels",
        )
    if weights != IMAGENET:
        if not Path(weights).is_file():
            raise ZooError(
                f"There is no file of weights {weights!r}.",
                expected=f"weights={IMAGENET}, or a file such as {row.weights.rsplit('/', 1)[1]}",
                received=weights,
                kind="missing_weights",
            )
        return weights
    file = row.weights.rsplit("/", 1)[1]
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if not (home / "models" / file).exists():
        try:
            request = urllib.request.Request(row.weights, method="HEAD")
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except OSError as error:
            raise ZooError(
                f"The published weights of {name} can't be downloaded.",
                expected=f"a network that reaches {row.weights}",
                received=str(error)[:200],
                hint="Offline: download that file elsewhere and pass --weights FILE, or leave "
                "weights out to start from random ones.",
                kind="no_network",
                exit_code=FAILURE,
            ) from error
    if row.md5 is None:
        return IMAGENET
    from zoo.backend import keras

    return str(keras.utils.get_file(file, row.weights, cache_subdir="models", file_hash=row.md5))


def _thinned(network: Any, width: float) -> Any:
    """The same graph with the channels of every convolution times ``width``, freshly initialised."""
    from zoo.backend import keras

    def thin(layer: Any) -> Any:
        config = layer.get_config()
        if "filters" in config:
            config["filters"] = max(1, round(config["filters"] * width))
        if isinstance(layer, keras.layers.Reshape):  # squeeze and excitation: (1, 1, channels)
            config["target_shape"] = (*config["target_shape"][:-1], -1)
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=thin)


def _spec(
    name: str,
    params: int,
    accuracy: str,
    source: str,
    side: int = 0,
    width: float = 0.125,
    **more: Any,
) -> ModelSpec:
    """``side`` and ``width`` are those of the test-sized net; ``side`` 0 is the least one."""
    side = side or APPLICATIONS[name].least
    return ModelSpec(
        name=name,
        version="1.0",
        family=name.split("_")[0].rstrip("0123456789"),
        task="multiclass",
        tasks=("binary", "regression"),
        kinds=("image",),
        build=partial(build, name),
        config={"shape": (224, 224, 3), "outputs": 1000, "dropout": 0.2, "width": 1.0,
                "weights": "", **more},
        tiny={"shape": (side, side, 1), "outputs": 3, "width": width},
        data="mnist_5k",
        published=f"{accuracy} % top-1 accuracy on ImageNet (keras.applications)",
        train={"epochs": 5, "batch_size": 32, "learning_rate": 1e-3, "augment": ("affine",)},
        source=source,
        license="Apache-2.0",
        params=params,
        tags=("image", "deep"),
    )  # fmt: skip


SPECS = [
    _spec("resnet50", 25_636_712, "74.9", "He, Zhang, Ren & Sun, CVPR 2016"),
    _spec("mobilenet_v2", 3_538_984, "71.3", "Sandler et al., CVPR 2018", side=64),
    _spec(
        "efficientnet_b0",
        5_330_571,
        "77.1",
        "Tan & Le, ICML 2019",
        side=64,
        width=0.07,
        stretched=True,
    ),
    _spec("inception_v3", 23_851_784, "77.9", "Szegedy et al., CVPR 2016"),
    _spec("densenet121", 8_062_504, "75.0", "Huang, Liu, van der Maaten & Weinberger, CVPR 2017"),
]
