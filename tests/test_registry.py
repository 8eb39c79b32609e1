"""Discovery: a model is one file, a plugin is an entry point, a broken one is a row."""

import importlib
import sys
from pathlib import Path

import pytest

import zoo.models as own
from zoo import registry
from zoo.errors import FAILURE, ZooError
from zoo.registry import collect
from zoo.spec import ModelSpec, Target

MODEL = '''
"""A linear model."""
from zoo.spec import ModelSpec, Target


def build(shape, outputs, scale=1.0):
    from zoo.backend import keras
    inputs = keras.Input(tuple(shape))
    return keras.Model(inputs, keras.layers.Dense(outputs)(inputs))


SPECS = [
    ModelSpec(name="{name}", version="1.0", family="linear", task="binary", build=build,
              config={{"shape": (3,), "outputs": 1, "scale": 1.0}}, tiny={{}}, data="adult",
              target=Target("accuracy", 0.8), source="Legendre 1805", license="MIT", params=4,
              kinds=("tabular",), train={{"epochs": 1}})
]
'''


@pytest.fixture(autouse=True)
def fresh():
    """The registry is read anew for each test, and again after it."""
    before = set(sys.modules)
    clear()
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("zoo.models.", "plugin_")):
            del sys.modules[name]
    clear()


def clear() -> None:
    importlib.invalidate_caches()
    registry.models.cache_clear()
    registry.datasets.cache_clear()


def plugin(folder: Path, monkeypatch, module: str, text: str, group: str = "zoo.models") -> None:
    """Install a distribution that names ``module`` under an entry point group."""
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n")
    monkeypatch.syspath_prepend(str(folder))
    clear()


def test_a_new_file_is_a_new_model(tmp_path, monkeypatch, zoo):
    monkeypatch.setattr("zoo.models.__path__", [*own.__path__, str(tmp_path)])
    assert "straight" not in registry.models().specs
    (tmp_path / "straight.py").write_text(MODEL.format(name="straight"))
    clear()
    rows = {row["name"]: row for row in zoo("list", "--json").document}
    assert rows["straight"]["family"] == "linear"
    assert {"mlp", "cnn"} < set(rows)
    assert zoo("info", "straight", "--json").document["config"]["scale"] == 1.0
    assert zoo("info", "straigh").stderr.count("Did you mean straight?") == 1


def test_a_plugins_model_is_trained_like_our_own(tmp_path, monkeypatch, zoo, trained):
    plugin(tmp_path, monkeypatch, "plugin_linear", MODEL.format(name="plugged"))
    data = trained("mlp").parent.parent / "loans.csv"
    done = zoo("train", "plugged", "--data", data, "--target", "approved", "--set", "scale=2",
               "--epochs", "1", "--runs", tmp_path / "runs", "--json")  # fmt: skip
    assert done.code == 0
    assert done.document["model"] == "plugged"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("SPECS = 7", "TypeError"),
        ("SPECS = ['mlp']", "holds a str, not a ModelSpec"),
        ("print('hello'); raise ValueError('bad luck')", "bad luck"),
    ],
)
def test_a_broken_plugin_is_a_row(tmp_path, monkeypatch, zoo, text, reason):
    plugin(tmp_path, monkeypatch, "plugin_broken", text)
    done = zoo("list", "--json")
    (row,) = [row for row in done.document if "error" in row]
    assert "plugin_broken" in row["name"]
    assert reason in row["error"]
    assert {"mlp", "cnn"} < {row["name"] for row in done.document}
    assert "plugin_broken" in zoo("list").stdout
    lost = zoo("info", "what-the-plugin-would-have-had", "--json")
    assert lost.code == 2
    assert "plugin_broken" in lost.error["hint"]


def test_a_broken_plugin_of_data_is_a_row(tmp_path, monkeypatch, zoo):
    plugin(tmp_path, monkeypatch, "plugin_data", "1 / 0", group="zoo.datasets")
    rows = zoo("data", "list", "--json").document
    assert [row["error"] for row in rows if "error" in row] == [
        "ZeroDivisionError: division by zero"
    ]
    assert "division by zero" in zoo("data", "list").stdout


def test_a_taken_name_raises_with_both_origins(tmp_path, monkeypatch, zoo):
    plugin(tmp_path, monkeypatch, "plugin_twin", MODEL.format(name="mlp"))
    done = zoo("list", "--json")
    assert done.code == FAILURE
    assert done.error["kind"] == "duplicate_name"
    assert "zoo.models.mlp" in done.error["received"]
    assert "plugin_twin" in done.error["received"]


def spec(name: str) -> ModelSpec:
    return ModelSpec(name=name, version="1", family="f", task="binary", build=dict, config={},
                     tiny={}, data="d", target=Target("accuracy", 1.0), source="s", license="l",
                     params=0, kinds=())  # fmt: skip


def test_a_broken_file_of_our_own_is_no_row_but_raises():
    def load():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        collect("model", ModelSpec, [("zoo.models.x", load)], [])
    specs, broken = collect("model", ModelSpec, [("a", lambda: [spec("a")])], [("b", load)])
    assert list(specs) == ["a"]
    assert [item.name for item in broken] == ["b"]


def test_the_order_of_sources_never_decides_who_wins():
    sources = [("one", lambda: [spec("same")]), ("two", lambda: [spec("same")])]
    for order in (sources, sources[::-1]):
        with pytest.raises(ZooError, match="Two models are called 'same'"):
            collect("model", ModelSpec, [], order)


def test_glob_and_suggestions():
    models = registry.models()
    assert [s.name for s in models.glob("ml*")] == ["mlp"]
    assert [s.name for s in models.glob(None)] == sorted(models.specs)
    for wrong in ("mpl", "MLP", "mlpp"):
        with pytest.raises(ZooError) as error:
            models.get(wrong)
        assert error.value.hint == "Did you mean mlp?"
        assert error.value.kind == "unknown_model"
    with pytest.raises(ZooError, match="Unknown model 'q"):
        models.glob("q*")
