"""Benchmark results as a Markdown table, and the description of the machine they belong to."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "tensorflow", "keras", "ai-edge-litert", "mlcommons-loadgen")


def environment() -> dict[str, Any]:
    """The machine and the versions: what a figure needs to be read. No host or user name.

    ``{cpu, cores, memory_gb, system, python, packages: {name: version}, date}``; a package that is
    not installed has the version None, an unknown amount of memory is None; the date is UTC.
    """
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """The cores this process may use, which a container makes fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe(machine: Mapping[str, Any]) -> str:
    """One line of an :func:`environment`."""
    packages = ", ".join(
        f"{name} {number}" for name, number in machine.get("packages", {}).items() if number
    )
    memory = machine.get("memory_gb")
    parts = [
        f"{machine.get('cpu', 'unknown CPU')}, {machine.get('cores', '?')} cores",
        f"{memory:g} GB" if memory else "",
        machine.get("system", ""),
        f"Python {machine['python']}" if machine.get("python") else "",
        packages,
        machine.get("date", ""),
    ]
    return "; ".join(_cell(part) for part in parts if part)


def result_name(machine: Mapping[str, Any]) -> str:
    """The file of ``benchmarks/results/`` for a machine, as ``amd-epyc-2-cores-litert-2.3.0.json``."""
    litert = machine["packages"]["ai-edge-litert"]
    text = f"{machine['cpu']} {machine['cores']} cores litert {litert}".lower()
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-.") + ".json"


def digits(value: float | None, figures: int = 3) -> str:
    """``value`` to ``figures`` significant digits, without exponent; a dash for None.

    >>> digits(0.0069432), digits(141223.0), digits(None)
    ('0.00694', '141,000', '-')
    """
    if value is None:
        return "-"
    rounded = float(f"{value:.{figures}g}")
    if rounded == 0:
        return "0"
    exponent = int(f"{rounded:e}".rpartition("e")[2])
    return f"{rounded:,.{max(0, figures - 1 - exponent)}f}"


def _size(value: float | None) -> str:
    return "-" if value is None else f"{digits(value / 1e3)} kB"


def main_metric(metrics: Mapping[str, float | None]) -> tuple[str, float] | None:
    """The name and value of the metric a reader looks for first: documents hold the task's own first,
    as its row in :mod:`zoo.tasks` does."""
    return next(((name, value) for name, value in metrics.items() if value is not None), None)


def _metric(row: Mapping[str, Any]) -> str:
    found = main_metric(row.get("metrics") or {})
    return f"{found[0]} {digits(found[1])}" if found else "-"


def _valid(row: Mapping[str, Any]) -> str:
    if row.get("error"):
        return f"error: {row['error']}"
    if row.get("valid"):
        return "short" if "short run" in (row.get("reason") or "") else "yes"
    return f"INVALID: {row.get('reason') or 'no reason given'}"


def _latency(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: digits((row.get("latency_ms") or {}).get(name))


def _number(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: digits(row.get(name))


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "model": lambda row: str(row.get("model") or "-"),
    "variant": lambda row: str(row.get("variant") or "-"),
    "runtime": lambda row: str(row.get("runtime") or "-"),
    "scenario": lambda row: str(row.get("scenario") or "-"),
    "batch": lambda row: str(row.get("batch") or "-"),
    "p50 ms": _latency("p50"),
    "p90 ms": _latency("p90"),
    "samples/s": _number("throughput"),
    "size": lambda row: _size(row.get("bytes")),
    "gzip": lambda row: _size(row.get("bytes_gzip")),
    "load ms": _number("load_ms"),
    "peak MB": _number("peak_memory_mb"),
    "metric": _metric,
    "valid": _valid,
}
_TEXT = {"model", "variant", "runtime", "scenario", "metric", "valid"}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of benchmark results, under a line for each machine they come from.

    Args:
        rows: elements as :class:`zoo.schema.BenchmarkResult`; those without an ``environment``
            count as measured here and now.
    """
    machines = {describe(row.get("environment") or environment()): None for row in rows}
    rule = [("---" if name in _TEXT else "---:") for name in _COLUMNS]
    table = [list(_COLUMNS), rule]
    table += [[_cell(show(row)) for show in _COLUMNS.values()] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    note = []
    if any(_valid(row) == "short" for row in rows):
        note = ["", "short: valid for its settings, but shorter than the 600 s of an official run."]
    return "\n".join([*machines, "", *lines, *note]) + "\n"


def _cell(text: str) -> str:
    """One line that Markdown and HTML take as text: names come from users' files."""
    text = " ".join(text.split())
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")
