"""The import direction of the design, and what the light commands may not load."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOMES = {
    "zoo": ROOT,
    "zoo_bench": ROOT / "benchmarks",
    "zoo_explain": ROOT / "explain",
    "zoo_report": ROOT / "reports",
}

#: What each layer may import of this project, from the bottom up. A layer is a module or a package
#: of ``zoo``, or one of the other packages; within one, anything goes.
_LEAVES = {"errors", "jsontext", "quiet", "environment", "metrics", "spec", "slim", "ranges"}
_FACTS = _LEAVES | {"tasks", "predictions", "progress", "schema", "backend"}
_STORE = _FACTS | {"run", "registry"}
_WORK = _STORE | {"data", "predict", "export", "kernels", "keras_modes", "overrides", "signature"}
LAYERS: dict[str, set[str]] = {
    **{leaf: set() for leaf in _LEAVES},
    "tasks": {"errors", "metrics"},
    "predictions": set(),
    "decision": {"errors"},
    "progress": set(),
    "schema": {"errors", "jsontext"},
    "backend": {"environment", "errors", "quiet"},
    "registry": {"errors", "spec"},
    "run": _FACTS - {"backend"},
    "models": {"errors", "spec", "backend", "tasks"},
    "gates": {"errors", "run"},
    "data": _STORE,
    "export": _FACTS | {"run", "quantizable", "ranges", "signature", "slim"},
    "kernels": {"backend"},
    "overrides": {"backend"},
    "signature": {"backend"},
    "quantizable": {"backend", "kernels", "overrides", "signature"},
    "keras_modes": {"errors", "backend", "kernels"},
    "predict": _STORE | {"data", "keras_modes"},
    "train": _WORK,
    "variants": _WORK | {"decision", "train"},
    "generate": _WORK | {"train", "variants"},
    "compress": _WORK | {"decision", "train", "variants"},
    "zoo_bench": _WORK | {"train", "variants", "compress"},
    "zoo_explain": _WORK | {"train", "variants", "compress"},
    "zoo_report": {"schema"},
    "testing": _WORK | {"train", "variants", "compress"},
    "api": _WORK | {"decision", "generate", "train", "variants", "compress", "gates", "zoo_bench", "zoo_explain", "zoo_report"},
    "cli": _WORK | {"decision", "compress", "gates", "api", "zoo_bench"},
}  # fmt: skip


def layer_of(module: str) -> str | None:
    """The layer of a module by its dotted name; None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "zoo":
        return parts[0] if parts[0] in HOMES else None
    return parts[1] if len(parts) > 1 else "zoo"


def imported(source: str) -> set[str]:
    """Dotted names of all imports of a file, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            bare = node.module == "zoo"
            names |= {f"zoo.{a.name}" for a in node.names} if bare else {node.module}
    return names


def against(module: str, source: str) -> set[str]:
    """The layers that a module imports and may not."""
    own = layer_of(module)
    found = {layer_of(name) for name in imported(source)} - {None, own}
    return {str(layer) for layer in found} - LAYERS[str(own)]


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): path
        for package, home in HOMES.items()
        for path in sorted((home / package).rglob("*.py"))
        if path != home / "zoo" / "__init__.py"
    }


def test_every_module_imports_downwards():
    found = modules()
    assert len(found) > 50
    assert {str(layer_of(name)) for name in found} <= set(LAYERS), "give a new module its layer"
    wrong = {
        name: bad for name, path in found.items() if (bad := against(name, path.read_text("utf-8")))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("zoo_report.view", "import zoo.metrics"),
        ("zoo_bench.measure", "def f():\n    from zoo_explain.drift import drift"),
        ("zoo_explain.drift", "import zoo_bench.loadgen"),
        ("zoo.data.core", "from zoo.train.loop import fit"),
        ("zoo.registry", "from zoo import data"),
        ("zoo.spec", "import zoo.tasks"),
        ("zoo.train.loop", "import zoo.api"),
        ("zoo.api.reading", "import zoo.cli"),
    ],
)
def test_the_check_sees_a_wrong_import(module, source):
    assert against(module, source)


def test_the_table_has_no_cycle():
    done: set[str] = set()
    rest = dict(LAYERS)
    while rest:
        ready = {layer for layer, allowed in rest.items() if allowed <= done}
        assert ready, f"a cycle among {sorted(rest)}"
        done |= ready
        rest = {layer: allowed for layer, allowed in rest.items() if layer not in ready}


def test_spec_needs_the_standard_library_alone():
    names = {name.split(".")[0] for name in imported((ROOT / "zoo/spec.py").read_text("utf-8"))}
    assert names <= sys.stdlib_module_names


def test_nothing_unpickles():
    for name, path in modules().items():
        assert not {"pickle", "dill", "joblib", "marshal"} & imported(path.read_text("utf-8")), name


HEAVY = ("tensorflow", "keras", "pydantic", "rich", "pandas", "sklearn", "shap", "fairlearn",
         "matplotlib")  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["list"], ["info", "mlp"], ["train", "--help"],
                                   ["info", "nope"], ["compress", "--help"]])  # fmt: skip
def test_light_commands_load_nothing_heavy(words):
    script = (
        "import json, sys\n"
        "from zoo.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr.splitlines()[-1]) == []
