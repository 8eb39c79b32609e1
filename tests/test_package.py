"""The wheel holds everything: data, suites, templates; installed, it works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what git would give, so that stray files don't get in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("glasszoo-*.whl"))


def test_wheel_holds_data_suites_and_templates(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packages = {
        name.split("/")[0] for name in names if not name.split("/")[0].endswith("dist-info")
    }
    assert packages == {"zoo", "zoo_bench", "zoo_explain", "zoo_report"}
    for expected in (
        "zoo/data/files/adult.csv.gz",
        "zoo/data/files/mnist_5k.npz",
        "zoo_bench/suites/quick.toml",
        "zoo/py.typed",
    ):
        assert expected in names
    sources = {
        str(path.relative_to(ROOT / folder))
        for folder in (".", "benchmarks", "explain", "reports")
        for package in ("zoo", "zoo_bench", "zoo_explain", "zoo_report")
        for path in (ROOT / folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= set(names) | {"zoo_bench/suites"}, sources - set(names)


def test_installed_wheel_works_away_from_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    program = (
        "import json, zoo, zoo_report, zoo_explain, zoo_bench.suite as s;"
        "from zoo import api; from zoo.data.core import Request, open_data;"
        "d = open_data(Request('adult'));"
        "print(json.dumps([zoo.__file__, zoo_report.__file__, zoo_explain.__file__, s.__file__,"
        "[m['name'] for m in api.list_models()], s.suite_names(), len(d.y)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    *files, names, suites, rows = json.loads(done.stdout)
    assert all(file.startswith(str(target)) for file in files)
    assert "mlp" in names
    assert "quick" in suites
    assert rows == 48842
