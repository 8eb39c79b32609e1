"""What a report is made of: the documents of one run, read and checked against the files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo import schema

RESULT_FILES = {
    "benchmark": schema.BenchmarkResult,
    "explain": schema.ExplainResult,
    "fairness": schema.FairnessResult,
}
ARRAYS = ("method", "row", "values", "base", "output", "names", "outputs", "targets", "display", "images",
          "dense", "truth", "predicted", "words")  # fmt: skip
#: What a variant's answers look like, by the kind of picture that is made of them.
SHOWN = ("kind", "origin", "past", "truth", "forecast", "baseline", "baseline_name", "mase", "unit",
         "target", "pictures", "reconstructions", "samples", "walk", "dimensions", "nats")  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """All that :func:`zoo_report.render` sees.

    ``run`` is run.json. ``variants`` maps a name (base first) to ``{variant, metrics, benchmark,
    explain, fairness, arrays, log}``: the documents' contents, lists of results for the middle
    three, ``arrays`` as in explain.npz or None, ``other_arrays`` as in each explain-METHOD.npz,
    by other methods, ``shown`` as in shown.npz or None. ``audit`` and ``sweep`` are those documents.
    ``log`` holds the rows of log.jsonl. ``stale`` maps
    a document's path to the reason why it no longer describes the files beside it. ``private``
    keeps row values, texts and pictures out of the report.
    """

    run: dict[str, Any]
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    audit: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    stale: dict[str, str] = field(default_factory=dict)
    private: bool = False


@dataclass(frozen=True)
class Rendered:
    """One self-contained HTML page and a Markdown model card."""

    html: str
    markdown: str


def read_bundle(folder: Path, *, private: bool = False) -> Bundle:
    """Read a run's folder.

    Raises ``FileNotFoundError`` without a run.json, and ``ValueError`` naming the file where a
    document does not fit its schema.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise FileNotFoundError(f"{folder} holds no run.json: it is not a run's folder")
    checker = _Checker(folder)
    run = checker.read(folder / "run.json", schema.RunDocument)
    found = (path.parent.name for path in folder.glob("*/variant.json"))
    names = sorted(name for name in found if not name.startswith("."))
    made = {name: _variant(folder / name, checker) for name in names}
    order = sorted(made, key=lambda n: (n != "base", made[n]["variant"]["created"], n))
    variants = {name: made[name] for name in order}
    audit_file = folder / "audit.json"
    audit = checker.read(audit_file, schema.AuditDocument) if audit_file.is_file() else None
    sweep_file = folder / "sweep.json"
    sweep = checker.read(sweep_file, schema.SweepDocument) if sweep_file.is_file() else None
    log = _rows(folder / "log.jsonl")
    return Bundle(run, variants, audit, sweep, log, checker.stale, private)


def _variant(folder: Path, checker: _Checker) -> dict[str, Any]:
    found: dict[str, Any] = {
        "variant": checker.read(folder / "variant.json", schema.VariantDocument),
        "metrics": None,
        "arrays": _arrays(folder / "explain.npz"),
        "other_arrays": [_arrays(path) for path in _other_methods(folder)],
        "shown": _arrays(folder / "shown.npz", SHOWN),
        "log": _rows(folder / "log.jsonl"),
    }
    if (folder / "metrics.json").is_file():
        found["metrics"] = checker.read(folder / "metrics.json", schema.ResultList)
    for name, model in RESULT_FILES.items():
        path = folder / f"{name}.json"
        results = checker.read(path, schema.ResultList)["results"] if path.is_file() else []
        found[name] = [_validated(path, model, result) for result in results]
    return found


def _validated(path: Path, model: Any, result: dict[str, Any]) -> dict[str, Any]:
    try:
        return model.model_validate(result).model_dump()
    except ValueError as error:
        raise ValueError(f"{path} holds a result that does not fit its schema: {error}") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a log: of two for one epoch (after a resume) the later, without a torn line."""
    rows: dict[Any, dict[str, Any]] = {}
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            with contextlib.suppress(json.JSONDecodeError):  # a line cut short by a kill
                row = json.loads(line)
                rows[row.get("epoch", -number)] = row
    return list(rows.values())


def _other_methods(folder: Path) -> list[Path]:
    """The ``explain-METHOD.npz`` of a variant; those of another split than the test rows aside."""
    found = sorted(folder.glob("explain-*.npz"))
    return [path for path in found if not path.stem.endswith(("-train", "-val"))]


def _arrays(path: Path, names: tuple[str, ...] = ARRAYS) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names if name in stored.files}
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} is not a file of plain arrays: {error}") from error


class _Checker:
    """Reads documents and compares the inputs they list with the files as they are now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.stale: dict[str, str] = {}
        self._hashes: dict[Path, str | None] = {}

    def read(self, path: Path, model: Any) -> dict[str, Any]:
        document = schema.load(path, model).model_dump()
        results = document.get("results") or []
        listed = [*(document.get("inputs") or []), *_inputs(results)]
        reasons = dict.fromkeys(filter(None, map(self._problem, listed)))
        if reasons:
            self.stale[path.resolve().relative_to(self.folder).as_posix()] = "; ".join(reasons)
        return document

    def _problem(self, listed: dict[str, Any]) -> str | None:
        name = str(listed.get("path", ""))
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            return None  # the report reads the run's folder and nothing else, and says so
        if path not in self._hashes:
            self._hashes[path] = _sha256(path) if path.exists() else None
        if self._hashes[path] is None:
            return f"{name} is gone"
        return None if self._hashes[path] == listed.get("sha256") else f"{name} has changed since"


def _inputs(results: Iterable[Any]) -> list[dict[str, Any]]:
    return [
        row for result in results if isinstance(result, dict) for row in result.get("inputs", [])
    ]


def _sha256(path: Path) -> str:
    """As the run's writer hashes: a file's bytes, or the sorted names and hashes in a folder."""
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.is_file())
        text = "\n".join(f"{item.relative_to(path)} {_sha256(item)}" for item in files)
        return hashlib.sha256(text.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
