"""Benchmark suites: which models, in which variants, for how long. One TOML file each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, unknown

_KEYS: dict[str, dict[str, Any]] = {  # the types; all are required but "set"
    "suite": {"name": str, "description": str, "entry": list},
    "entry": {"model": str, "variants": list, "seconds": (int, float), "set": dict},
}


@dataclass(frozen=True)
class Entry:
    """One model of a suite.

    ``variants`` are recipes, ``base`` being the model as trained; ``seconds`` is the least duration
    of each LoadGen scenario; ``set`` overrides training options, such as ``epochs``.
    """

    model: str
    variants: tuple[str, ...]
    seconds: float
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A file of ``benchmarks/suites/``."""

    name: str
    description: str
    entries: tuple[Entry, ...]


def suite_names() -> list[str]:
    """The suites there are, sorted."""
    return sorted(_files())


def load_suite(name: str) -> Suite:
    """Read a suite.

    Raises:
        ZooError: there is none of that name, or its file is not a suite.
    """
    found = _files()
    if name not in found:
        raise unknown("suite", name, found)
    return parse_suite(found[name].read_text(encoding="utf-8"), name)


def parse_suite(text: str, name: str) -> Suite:
    """A suite from TOML; ``name`` is the file's name without ``.toml``.

    Raises:
        ZooError: not TOML, an unknown, missing or mistyped key, another name, an empty or repeated
            entry.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(name, "TOML", str(error)) from error
    _check(name, "suite", document)
    if document["name"] != name:
        raise _wrong(name, f"name = {name!r}, as the file", repr(document["name"]))
    for entry in document["entry"]:
        _check(name, "entry", entry)
        variants = entry["variants"]
        if not variants or not all(isinstance(variant, str) for variant in variants):
            raise _wrong(name, "variants: a list of recipes", repr(variants))
        if len(set(variants)) != len(variants):
            raise _wrong(name, "each variant once", repr(variants))
        if not entry["seconds"] > 0:
            raise _wrong(name, "seconds > 0", repr(entry["seconds"]))
    models = [entry["model"] for entry in document["entry"]]
    if not models or len(set(models)) != len(models):
        raise _wrong(name, "one entry a model, at least one", repr(models))
    entries = tuple(
        Entry(
            model=entry["model"],
            variants=tuple(entry["variants"]),
            seconds=float(entry["seconds"]),
            set=dict(entry.get("set", {})),
        )
        for entry in document["entry"]
    )
    return Suite(name=name, description=document["description"], entries=entries)


def _files() -> dict[str, Traversable]:
    try:
        folder = files("zoo_bench.suites")
    except ModuleNotFoundError:  # run from a checkout, where the folder lies beside the package
        folder = Path(__file__).resolve().parent.parent / "suites"
    return {
        item.name.removesuffix(".toml"): item
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }


def _check(name: str, what: str, document: Any) -> None:
    kinds = _KEYS[what]
    if not isinstance(document, dict):
        raise _wrong(name, f"[[{what}]] tables", repr(document))
    for key, value in document.items():
        if key not in kinds:
            raise _wrong(name, f"the keys {', '.join(kinds)} in a {what}", repr(key))
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise _wrong(name, f"{key} of the right type", repr(value))
    missing = [key for key in kinds if key != "set" and key not in document]
    if missing:
        raise _wrong(name, f"{', '.join(missing)} in each {what}", ", ".join(document) or "nothing")


def _wrong(name: str, expected: str, received: str) -> ZooError:
    return ZooError(
        f"The suite {name!r} cannot be read.",
        expected=expected,
        received=received,
        hint="benchmarks/README.md describes the format.",
        kind="bad_suite",
    )
