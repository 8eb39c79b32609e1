"""Results against earlier ones of the same machine: what became slower or larger?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo_bench.table import environment

#: What two rows must share to be compared.
KEY = ("model", "variant", "runtime", "scenario", "batch", "threads")
#: What makes two machines one: versions are what one compares.
MACHINE = ("cpu", "cores", "system")


def read_before(path: Path) -> list[dict[str, Any]]:
    """The rows of a document that ``zoo benchmark --output`` wrote.

    Raises :class:`ZooError` for another file, and for results of another machine, whose times say
    nothing about this one.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["results"]
        keys = [tuple(row[name] for name in KEY) for row in rows]
        machines = [{name: row["environment"][name] for name in MACHINE}
                    for row in rows if not row["error"]]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(
            f"{path} holds no results to compare with.",
            expected="a file that `zoo benchmark --output FILE` wrote",
            received=f"{type(error).__name__}: {error}",
        ) from error
    here = {name: environment()[name] for name in MACHINE}
    for machine in machines:
        if machine != here:
            raise ZooError(
                f"{path} is of another machine, whose times say nothing about this one.",
                expected=", ".join(map(str, here.values())),
                received=", ".join(map(str, machine.values())),
                hint="Measure here what it should be compared with: zoo benchmark ... --output FILE",
                kind="other_machine",
            )
    if not keys:
        raise ZooError(f"{path} holds no results to compare with.", received="no rows")
    return rows


def compare(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], tolerance: float
) -> list[dict[str, Any]]:
    """One comparison for each row and quantity: ``{model, variant, ..., name, before, after, ratio,
    passed, reason}``.

    Compared are the latency at p90 of SingleStream, the time a sample takes Offline, and the bytes of
    the file, each as a ratio that is larger where it got worse; ``passed`` where it is at most 1 +
    ``tolerance``. It is None, with the ``reason``, where one side was not measured.
    """
    known = {tuple(row[name] for name in KEY): row for row in before}
    found = []
    for row in rows:
        key = tuple(row[name] for name in KEY)
        old = known.get(key)
        for name in ("p90_ms" if row["scenario"] == "SingleStream" else "ms_per_sample", "bytes"):
            sides = {
                "before": None if old is None else _quantity(old, name),
                "after": _quantity(row, name),
            }
            reason, ratio = None, None
            if old is None:
                reason = "not among the earlier results"
            elif None in sides.values():
                reason = row["error"] or old["error"] or "not measured"
            else:
                ratio = sides["after"] / sides["before"]
            passed = None if ratio is None else ratio <= 1 + tolerance
            found.append({**dict(zip(KEY, key, strict=True)), "name": name, **sides,
                          "ratio": ratio, "passed": passed, "reason": reason})  # fmt: skip
    return found


def _quantity(row: Mapping[str, Any], name: str) -> Any:
    if row["error"]:
        return None
    if name == "p90_ms":
        return (row.get("latency_ms") or {}).get("p90")
    if name == "ms_per_sample":
        return 1e3 / row["throughput"] if row.get("throughput") else None
    return row.get(name)
