"""What the tests share: the command line in this process, and small trained runs."""

import gc
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.cli import main


@dataclass(frozen=True)
class Outcome:
    """What one command did. ``document`` is what ``--json`` printed."""

    code: int
    stdout: str
    stderr: str
    document: Any

    def __iter__(self):
        return iter((self.code, self.stdout, self.stderr, self.document))

    @property
    def error(self) -> dict[str, Any]:
        """The ``error`` object of a command that failed."""
        return self.document["error"]


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """Spares what earlier modules left alive from the collections that Keras asks for again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def zoo(capfd):
    """``zoo("train", "mlp", "--json")`` runs the command in this process and returns an Outcome.

    With ``--json``, stdout must be one JSON document and nothing else.
    """

    def call(*words: Any) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Outcome(left.value.code, out, err, json.loads(out) if "--json" in words else None)

    return call


def loans(path: Path, rows: int = 600, seed: int = 0) -> Path:
    """A CSV of loans, decided by income and age, and more often for the one sex."""
    rng = np.random.default_rng(seed)
    age, income = rng.integers(18, 70, rows), rng.normal(50, 15, rows).round(1)
    sex, city = rng.choice(["F", "M"], rows), rng.choice(["Aix", "Bonn", "Cork"], rows)
    approved = income + 0.3 * age + 6 * (sex == "M") + rng.normal(0, 8, rows) > 66
    lines = [
        f"{a},{i},{s},{c},{'yes' if y else 'no'}"
        for a, i, s, c, y in zip(age, income, sex, city, approved, strict=True)
    ]
    path.write_text("\n".join(["age,income,sex,city,approved", *lines]) + "\n", encoding="utf-8")
    return path


def bars(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """An NPZ of 12 x 12 grey pictures: bars that lie or stand, of two makes (the group)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (rows, 12, 12), dtype=np.uint8)
    labels = rng.integers(0, 2, rows)
    for image, label, place in zip(images, labels, rng.integers(1, 10, rows), strict=True):
        (image if label else image.T)[place : place + 2] = 220
    make = rng.choice(["old", "new"], rows)
    np.savez(path, images=images, labels=np.array(["lies", "stands"])[1 - labels], group_make=make)
    return path


#: name -> (maker of the data, what is trained on it)
TRAINED = {
    "mlp": (loans, "loans.csv", "--target", "approved", "--sensitive", "sex", "--epochs", "2",
            "--set", "hidden=32,32", "--batch-size", "64"),
    "cnn": (bars, "bars.npz", "--epochs", "2", "--set", "filters=4,4", "--set", "dense=8",
            "--batch-size", "32"),
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """``trained("mlp")`` is the path of a run that every test may read and none may change."""
    root = tmp_path_factory.mktemp("trained")
    made: dict[str, Path] = {}

    def run(model: str) -> Path:
        if model not in made:
            make, file, *options = TRAINED[model]
            words = ["train", model, "--data", make(root / file), *options, "--name", model]
            with pytest.raises(SystemExit) as left:
                main([*map(str, words), "--runs", str(root / "runs")])
            assert left.value.code == 0
            made[model] = root / "runs" / model
        return made[model]

    return run


@pytest.fixture
def run_mlp(trained, tmp_path):
    """A fresh copy of a trained run: mlp on 600 loans, sensitive attribute sex."""
    return Path(shutil.copytree(trained("mlp"), tmp_path / "runs" / "mlp"))


@pytest.fixture
def run_cnn(trained, tmp_path):
    """A fresh copy of a trained run: a tiny cnn on 120 pictures, groups by make."""
    return Path(shutil.copytree(trained("cnn"), tmp_path / "runs" / "cnn"))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content, lock files aside: to compare before and after."""
    return {
        item.relative_to(folder).as_posix(): item.read_bytes()
        for item in sorted(folder.rglob("*"))
        if item.is_file() and not item.name.endswith(".lock")
    }
