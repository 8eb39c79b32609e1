"""Every model in the registry, built from ``tiny``: what the zoo promises about it holds."""

from __future__ import annotations

import pytest

from zoo.registry import models
from zoo.testing import all_checks, checks_for


@pytest.mark.parametrize(
    "check",
    [pytest.param(c, id=str(c), marks=[pytest.mark.slow] * c.slow) for c in all_checks()],
)
def test_model(check):
    check()


PLUGIN = """
from zoo.spec import ModelSpec


def build(shape, outputs, width=8):
    from zoo.backend import keras

    inputs = keras.Input(tuple(shape), name="features")
    x = keras.layers.Dense(width, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(outputs)(x))


SPECS = [
    ModelSpec(
        name="elsewhere", version="1", family="mlp", task="binary", build=build,
        config={"shape": (9,), "outputs": 1, "width": 8}, tiny={"width": 4}, data="adult",
        published="nothing yet", source="a test", license="MIT", params=89, kinds=("tabular",),
    )
]
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A model of another distribution, found by its entry point."""
    (tmp_path / "elsewhere_models.py").write_text(PLUGIN)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.models]\nelsewhere = elsewhere_models\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    models.cache_clear()
    yield models().get("elsewhere")
    models.cache_clear()


def test_a_model_of_another_package_passes_the_suite(elsewhere):
    checks = checks_for(elsewhere)
    assert {"card", "parameters", "gradients", "litert-int8", "prune"} <= {c.name for c in checks}
    for check in checks:
        check()


def broken(spec, **changes):
    import dataclasses

    return dataclasses.replace(spec, **changes)


@pytest.mark.parametrize(
    ("check", "changes", "message"),
    [
        ("card", {"published": ""}, "target"),
        ("card", {"kinds": ("image",)}, "tabular data"),
        ("card", {"skips": {"int8": " "}}, "without its reason"),
        ("parameters", {"params": 88}, "received 89"),
    ],
)
def test_the_suite_finds_a_wrong_card(elsewhere, check, changes, message):
    (found,) = [c for c in checks_for(broken(elsewhere, **changes)) if c.name == check]
    with pytest.raises(AssertionError, match=message):
        found()


def test_the_suite_finds_a_weight_without_a_gradient(elsewhere):
    def build(shape, outputs, width=8):
        from zoo.backend import keras

        inputs = keras.Input(tuple(shape))
        dead = keras.layers.Dense(width, kernel_initializer="zeros", bias_initializer="zeros")
        x = keras.layers.Dense(outputs)(keras.layers.ReLU()(dead(inputs)))
        return keras.Model(inputs, x)

    (found,) = [c for c in checks_for(broken(elsewhere, build=build)) if c.name == "gradients"]
    with pytest.raises(AssertionError, match="no gradient reaches"):
        found()


def test_a_skip_leaves_its_check_out(elsewhere):
    names = {c.name for c in checks_for(broken(elsewhere, skips={"int8": "why", "prune": "why"}))}
    assert "litert-float16" in names
    assert not names & {"litert-int8", "prune"}


def test_published_weights_without_a_network_say_what_to_do(monkeypatch):
    """The address is one that nothing answers at; the download is really tried."""
    import dataclasses

    from zoo.errors import ZooError
    from zoo.models import applications

    row = applications.APPLICATIONS["mobilenet_v2"]
    nowhere = dataclasses.replace(row, weights="http://127.0.0.1:9/mobilenet_notop.h5")
    monkeypatch.setitem(applications.APPLICATIONS, "mobilenet_v2", nowhere)
    with pytest.raises(ZooError) as raised:
        applications.build("mobilenet_v2", (32, 32, 3), 3, weights="imagenet")
    assert raised.value.kind == "no_network"
    assert "--weights FILE" in raised.value.hint
    assert "mobilenet_notop.h5" in raised.value.expected


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"weights": "absent.h5"}, "missing_weights"),
        ({"weights": "imagenet", "width": 0.5}, "bad_input"),
        ({"weights": "imagenet", "shape": (32, 32, 2)}, "bad_input"),
    ],
)
def test_weights_that_do_not_fit_are_refused(settings, kind):
    from zoo.errors import ZooError
    from zoo.models.applications import build

    with pytest.raises(ZooError) as raised:
        build("mobilenet_v2", **{"shape": (32, 32, 3), "outputs": 2, **settings})
    assert raised.value.kind == kind


def test_weights_of_a_file_are_those_of_the_network(tmp_path):
    """What keras.applications saves without its top starts ours, up to the pooled features."""
    import numpy as np

    from zoo.backend import keras
    from zoo.models.applications import build

    theirs = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    path = tmp_path / "notop.weights.h5"
    theirs.save_weights(path)
    ours = build("mobilenet_v2", (32, 32, 1), 2, weights=str(path))
    grey = np.random.default_rng(0).random((2, 32, 32, 1)).astype("float32")
    features = keras.Model(ours.input, ours.get_layer("pool").output)
    wanted = keras.applications.mobilenet_v2.preprocess_input(np.repeat(grey, 3, axis=3) * 255)
    got, expected = features(grey).numpy(), theirs(wanted, training=False).numpy()
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "inception_v3"])
def test_pictures_are_prepared_as_the_published_weights_want_them(name):
    import numpy as np

    from zoo.backend import keras
    from zoo.models.applications import APPLICATIONS

    module = {"resnet50": "resnet", "densenet121": "densenet"}.get(name, name)
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    expected = getattr(keras.applications, module).preprocess_input(x * 255)
    assert np.allclose(np.asarray(APPLICATIONS[name].prepare(x)), expected, atol=1e-3)


def test_a_run_started_from_published_weights_needs_them_once(tmp_path):
    import numpy as np
    from conftest import bars

    from zoo.backend import keras
    from zoo.data.table import Request
    from zoo.errors import ZooError
    from zoo.train.preparing import prepare

    theirs = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    path = tmp_path / "notop.weights.h5"
    theirs.save_weights(path)
    session = prepare(
        models().get("mobilenet_v2"),
        Request(data=str(bars(tmp_path / "bars.npz"))),
        settings={"weights": str(path)},
        seed=0,
        deterministic=False,
    )
    started = session.build()
    name = "block_1_expand"
    assert np.array_equal(started.get_layer(name).kernel, theirs.get_layer(name).kernel)
    started.save_weights(tmp_path / "own.weights.h5")
    path.unlink()
    again = session.load(tmp_path / "own.weights.h5")
    pairs = zip(started.get_weights(), again.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    resumed = session.build(filled=True)  # a checkpoint follows
    assert [w.shape for w in resumed.weights] == [w.shape for w in started.weights]
    with pytest.raises(ZooError, match="There is no file of weights"):
        session.build()


def test_offline_refuses_published_weights_before_reading_data():
    from zoo.data.table import Request
    from zoo.errors import ZooError
    from zoo.train.preparing import prepare

    with pytest.raises(ZooError) as raised:
        prepare(
            models().get("resnet50"), Request(data="mnist_5k", offline=True),
            settings={"weights": "imagenet"}, seed=0, deterministic=False,
        )  # fmt: skip
    assert raised.value.kind == "offline"


def test_a_model_without_a_target_says_so():
    from types import SimpleNamespace

    from zoo.api.training import _target

    found = _target(SimpleNamespace(spec=models().get("alexnet")), {"accuracy": 1.0})
    assert found["metric"] is None
    assert found["hit"] is False
    assert found["reason"] == "no target is claimed for alexnet"


def test_efficientnets_pictures_are_what_its_published_weights_want():
    """Keras divides by the root of the deviations behind its standardising layer, with them alone."""
    import numpy as np

    from zoo.backend import keras
    from zoo.models.applications import _MEAN, _SPREAD, _stretched
    from zoo.registry import models

    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype("float32")
    mean, spread = np.array(_MEAN), np.array(_SPREAD)
    inputs = keras.Input((4, 4, 3))
    ranged = keras.Model(inputs, _stretched(inputs))(x).numpy()
    expected = (x - mean) / spread / np.sqrt(spread)
    np.testing.assert_allclose((ranged - mean) / spread, expected, rtol=1e-4, atol=1e-4)
    spec = models().get("efficientnet_b0")
    for stretched in (True, False):  # a run from before has no such setting and no such layer
        made = spec.build(**{**spec.config, **spec.tiny, "stretched": stretched})
        assert ("stretched" in [layer.name for layer in made.layers]) is stretched
