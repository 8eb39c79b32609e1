"""Finds models and data sets: files of this package, and plugins by entry point.

A model is one ``ModelSpec`` in the ``SPECS`` list of a module in ``zoo/models`` or of a module that
a distribution names under the entry point group ``zoo.models``; a data set likewise, in
``zoo/data`` and ``zoo.datasets``. Nothing else lists them.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from zoo.errors import FAILURE, ZooError, clip, unknown
from zoo.spec import DatasetSpec, ModelSpec

Spec = TypeVar("Spec", ModelSpec, DatasetSpec)


@dataclass(frozen=True)
class Broken:
    """A plugin that failed to import: shown as a row with its error."""

    name: str
    error: str


@dataclass(frozen=True)
class Registry(Generic[Spec]):
    """Specs by name, and the plugins that could not be read."""

    what: str
    specs: dict[str, Spec]
    broken: tuple[Broken, ...]

    def get(self, name: str) -> Spec:
        """The spec of that name. Raises :class:`ZooError` with suggestions for an unknown one."""
        if name not in self.specs:
            lost = "; ".join(
                f"{item.name} could not be loaded: {item.error}" for item in self.broken
            )
            raise unknown(self.what, name, self.specs, hint=lost or None)
        return self.specs[name]

    def glob(self, pattern: str | None) -> list[Spec]:
        """The specs whose names match, sorted by name. Raises :class:`ZooError` when none does."""
        names = sorted(self.specs)
        if pattern is not None:
            names = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
            if not names:
                raise unknown(self.what, pattern, self.specs)
        return [self.specs[name] for name in names]


#: (where, loader of its specs)
Source = tuple[str, Callable[[], Iterable[Any]]]


def collect(
    what: str, kind: type, sources: list[Source], plugins: list[Source]
) -> tuple[dict[str, Any], tuple[Broken, ...]]:
    """Read specs of class ``kind`` from our own ``sources`` and from ``plugins``.

    A broken file of our own raises; a broken plugin becomes a :class:`Broken` row. A name that is
    taken raises in both cases: which one would win must never depend on import order.
    """
    specs: dict[str, Any] = {}
    origin: dict[str, str] = {}
    broken: list[Broken] = []
    for ours, (where, load) in [*((True, s) for s in sources), *((False, p) for p in plugins)]:
        try:
            found = list(load())
            strange = [spec for spec in found if not isinstance(spec, kind)]
            if strange:
                raise TypeError(f"SPECS holds a {type(strange[0]).__name__}, not a {kind.__name__}")
        except (Exception, SystemExit) as error:
            if ours:
                raise
            broken.append(Broken(where, clip(f"{type(error).__name__}: {error}")))
            continue
        for spec in found:
            if spec.name in specs:
                raise ZooError(
                    f"Two {what}s are called {spec.name!r}.",
                    expected="one definition for each name",
                    received=f"one in {origin[spec.name]} and one in {where}",
                    hint="Rename or uninstall one of them.",
                    kind="duplicate_name",
                    exit_code=FAILURE,
                )
            specs[spec.name], origin[spec.name] = spec, where
    return specs, tuple(broken)


def _files(package: str) -> list[Source]:
    paths = importlib.import_module(package).__path__
    names = [f"{package}.{item.name}" for item in pkgutil.iter_modules(paths)]

    def loader(name: str) -> Any:
        return lambda: getattr(importlib.import_module(name), "SPECS", ())

    return [(name, loader(name)) for name in sorted(names)]


def _plugins(group: str) -> list[Source]:
    def loader(point: importlib.metadata.EntryPoint) -> Any:
        def load() -> Any:
            value = point.load()
            return getattr(value, "SPECS", value)

        return load

    points = importlib.metadata.entry_points(group=group)
    return [(f"plugin {point.name} ({point.value})", loader(point)) for point in points]


@cache
def models() -> Registry[ModelSpec]:
    """All models there are."""
    specs, broken = collect("model", ModelSpec, _files("zoo.models"), _plugins("zoo.models"))
    return Registry("model", specs, broken)


@cache
def datasets() -> Registry[DatasetSpec]:
    """All data sets that have a name."""
    specs, broken = collect("data set", DatasetSpec, _files("zoo.data"), _plugins("zoo.datasets"))
    return Registry("data set", specs, broken)
