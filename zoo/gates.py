"""Gates: limits a variant must keep, ``NAME<=VALUE`` or ``NAME>=VALUE``, one table row each."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.errors import ZooError, unknown
from zoo.run import BASE

Rows = Sequence[Mapping[str, Any]]
_GATE = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=)\s*([-+0-9.eE]+)\s*")
_COMPARE = {"<=": operator.le, ">=": operator.ge}


def _drop(deltas: Rows, variant: str, whole: bool) -> float | None:
    drops = [
        0.0 - row["delta"]  # no negative zero
        for row in deltas
        if row["variant"] == variant
        and row["metric"] == "accuracy"
        and (row["attribute"] == "(all)") == whole
        and row["group"] != "(gap)"
        and row["delta"] is not None
    ]
    return max(drops, default=None)


def _of_drift(name: str) -> Callable[..., float | None]:
    def value(row: Mapping[str, Any], deltas: Rows, drift: Rows) -> float | None:
        return next((d[name] for d in drift if d["variant"] == row["variant"]), None)

    return value


GATES: dict[str, Callable[[Mapping[str, Any], Rows, Rows], float | None]] = {
    "accuracy_drop": lambda row, deltas, drift: _drop(deltas, row["variant"], whole=True),
    "worst_group_drop": lambda row, deltas, drift: _drop(deltas, row["variant"], whole=False),
    "accuracy": lambda row, deltas, drift: row["metrics"].get("accuracy"),
    "bytes": lambda row, deltas, drift: row["bytes"],
    "p90_ms": lambda row, deltas, drift: row.get("latency_ms", {}).get("p90"),
    "topk_jaccard": _of_drift("topk_jaccard"),
    "spearman": _of_drift("spearman"),
}


NOT_MEASURED = "there is no such number for this model and data"
NOTHING: Mapping[str, Any] = {"variant": "(none)", "error": "no variant was compared with base"}


def parse_gates(texts: Sequence[str]) -> list[tuple[str, str, float]]:
    """``NAME<=VALUE`` texts as (name, comparison, limit). Raises :class:`ZooError`."""
    gates = []
    for text in texts:
        match = _GATE.fullmatch(text)
        if match is None:
            raise ZooError(
                f"{text!r} is no gate.",
                expected="NAME<=VALUE or NAME>=VALUE, such as 'worst_group_drop<=0.02'",
                received=repr(text),
                hint=f"Names: {', '.join(GATES)}.",
                kind="bad_gate",
            )
        name, sign, limit = match.groups()
        if name not in GATES:
            raise unknown("gate", name, GATES)
        try:
            value = float(limit)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ZooError(
                f"The gate {text!r} has no number.",
                expected="NAME<=VALUE or NAME>=VALUE with a finite number",
                received=limit,
                kind="bad_gate",
            )
        gates.append((name, sign, value))
    return gates


def judge(
    gates: Sequence[tuple[str, str, float]], variants: Rows, deltas: Rows, drift: Rows
) -> list[dict[str, Any]]:
    """One row a gate and variant (base aside); one of "(none)" where there is no variant.

    What can't be computed does not pass.
    """
    rows = []
    judged = [row for row in variants if row["variant"] != BASE] or [NOTHING]
    for name, sign, limit in gates:
        for row in judged:
            value = None if row.get("error") else GATES[name](row, deltas, drift)
            reason = None if value is not None else row.get("error") or NOT_MEASURED
            rows.append(
                {
                    "name": name,
                    "variant": row["variant"],
                    "passed": value is not None and _COMPARE[sign](value, limit),
                    "expected": f"{sign} {limit:g}",
                    "received": value,
                    "reason": reason,
                }
            )
    return rows
