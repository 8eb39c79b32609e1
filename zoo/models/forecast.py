"""Forecasters: recurrent nets and linear ones that see a window of a series and say what comes next.

Inputs are distances from the newest value, in units of the usual change over a season. Recurrent nets
correct the seasonal naive forecast with drift, which they read off the window: Hochreiter & Schmidhuber,
Neural Computation 9(8), 1997; Cho et al., EMNLP 2014. Linear ones: Zeng et al., AAAI 2023.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.spec import ModelSpec, Target

if TYPE_CHECKING:
    import keras


def naive(series: Any, horizon: int, season: int) -> Any:
    """The seasonal naive forecast with drift of windows (B, length) that end at 0: (B, horizon).

    As :func:`zoo.data.series.seasonal_naive`, by slices, which no number format rounds.
    """
    from zoo.backend import keras

    length = series.shape[1]
    before = series[:, length - 1 - season : length - season]  # minus the last season's rise
    parts = []
    for done in range(0, horizon, season):
        ahead = min(season, horizon - done)
        last = series[:, length - season : length - season + ahead]
        parts.append(last - (done // season + 1) * before)
    return parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=1)


def build_recurrent(
    cell: str, shape: tuple[int], outputs: int, season: int, width: int = 32, dropout: float = 0.0
) -> keras.Model:
    """Windows, float32 (batch, length) -> the values that follow, float32 (batch, outputs).

    Args:
        cell: a recurrent layer of Keras. season: steps after which the series repeats itself.
        width: of the layer. It reads each value of the last season beside its change since the
            season before, oldest first.
    """
    from zoo.backend import keras

    layers = keras.layers
    (length,) = shape
    series = keras.Input((length,), name="series")
    column = layers.Reshape((length, 1), name="column")(series)
    last = layers.Cropping1D((season, 0), name="last")(column)  # (B, length - season, 1)
    before = layers.Cropping1D((0, season), name="before")(column)
    change = layers.Subtract(name="change")([last, before])
    x = layers.Concatenate(name="steps")([last, change])
    x = getattr(layers, cell)(width, name="recurrent")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    correction = layers.Dense(outputs, name="correction")(x)
    forecast = layers.Add(name="forecast")([naive(series, outputs, season), correction])
    return keras.Model(series, forecast, name=f"{cell.lower()}_forecast")


def build_linear(
    decompose: bool, shape: tuple[int], outputs: int, season: int, window: int = 25
) -> keras.Model:
    """Windows, float32 (batch, length) -> the values that follow, float32 (batch, outputs).

    Args:
        decompose: one linear map for the moving average over ``window`` steps and one for the rest
            (DLinear); otherwise one for all (NLinear, whose subtraction of the newest value is how
            windows come). season: unused, as the map sees whole seasons.
    """
    from zoo.backend import keras

    layers = keras.layers
    (length,) = shape
    series = keras.Input((length,), name="series")
    if not decompose:
        return keras.Model(series, layers.Dense(outputs, name="map")(series), name="nlinear")
    column = layers.Reshape((length, 1), name="column")(series)
    first = layers.Cropping1D((0, length - 1), name="first")(column)
    left = (window - 1) // 2
    padded = layers.Concatenate(axis=1, name="oldest")([*[first] * left, column])
    # The newest value is 0, so zeros repeat it.
    padded = layers.ZeroPadding1D((0, window - 1 - left), name="newest")(padded)
    trend = layers.AveragePooling1D(window, 1, name="average")(padded)
    rest = layers.Subtract(name="rest")([column, trend])
    parts = [
        layers.Dense(outputs, name=f"map_{name}")(layers.Flatten(name=f"flat_{name}")(part))
        for name, part in (("trend", trend), ("rest", rest))
    ]
    return keras.Model(series, layers.Add(name="forecast")(parts), name="dlinear")


_CONFIG = {"shape": (104,), "outputs": 26, "season": 52}
_TINY = {"shape": (14,), "outputs": 6, "season": 4}


def _spec(name: str, build: Any, params: int, source: str, **more: Any) -> ModelSpec:
    config, tiny = more.pop("config"), more.pop("tiny")
    return ModelSpec(
        name=name,
        version="1.0",
        family="forecast",
        task="forecasting",
        kinds=("series",),
        build=build,
        config={**_CONFIG, **config},
        tiny={**_TINY, **tiny},
        data="co2",
        source=source,
        license="Apache-2.0",
        params=params,
        tags=("series",),
        **more,
    )


def _recurrent(name: str, cell: str, params: int, source: str, target: Target | None) -> ModelSpec:
    return _spec(
        name,
        partial(build_recurrent, cell),
        params,
        source,
        config={"width": 32, "dropout": 0.0},
        tiny={"width": 5},
        target=target,
        published="" if target else "no figure on this data",
        train={"epochs": 20, "batch_size": 64, "learning_rate": 2e-3},
    )


_ZENG = "Zeng et al., AAAI 2023"
_LINEAR_TRAIN = {"epochs": 30, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 1e-2}

SPECS = [
    _recurrent("lstm_forecast", "LSTM", 5338, "Hochreiter & Schmidhuber, Neural Computation 9(8), "
               "1997", Target("mase", 0.5)),
    _recurrent("gru_forecast", "GRU", 4314, "Cho et al., EMNLP 2014", None),
    _spec("nlinear", partial(build_linear, False), 2730, f"{_ZENG} (NLinear)", config={}, tiny={},
          published="no figure on this data", train=_LINEAR_TRAIN),
    _spec("dlinear", partial(build_linear, True), 5460, f"{_ZENG} (DLinear)", config={"window": 25},
          tiny={"window": 3}, published="no figure on this data", train=_LINEAR_TRAIN),
]  # fmt: skip
