"""A sweep over recipes: which to try, which are on a Pareto front, and which one to take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.compress.steps import STEPS

Row = Mapping[str, Any]
#: What retrained weights are converted with: the first of these that applies to the model.
ENDINGS = ("int8", "dynamic")


@dataclass(frozen=True)
class Limit:
    """A constraint: the field of a row that must not exceed it, and the field in words."""

    name: str
    field: str
    words: str


LIMITS: dict[str, Limit] = {
    row.name: row
    for row in (
        Limit("max_drop", "drop", "loss"),
        Limit("max_worst_group_drop", "worst_group_drop", "largest loss of a group"),
        Limit("max_bytes", "bytes", "bytes"),
        Limit("max_p90_ms", "p90_ms", "p90 in ms"),
    )
}
#: What is smallest in the one taken; the later fields decide between equals.
PREFER: dict[str, tuple[str, ...]] = {
    "size": ("bytes", "bytes_gzip", "p90_ms"),
    "gzip": ("bytes_gzip", "bytes", "p90_ms"),
    "latency": ("p90_ms", "bytes", "bytes_gzip"),
}
#: The plane of each front: what is given up against what is gained, both better when lower.
FRONTS: dict[str, tuple[str, str]] = {
    "size": ("drop", "bytes"),
    "latency": ("drop", "p90_ms"),
    "worst_group_size": ("worst_group_loss", "bytes"),
    "worst_group_latency": ("worst_group_loss", "p90_ms"),
}


def grid(skips: Collection[str] = ()) -> list[str]:
    """The recipes that are tried unasked: each conversion, each retraining, and both together.

    ``skips`` are names of steps that do not apply to the model.
    """
    usable = {name: step for name, step in STEPS.items() if name not in skips}
    ending = next((name for name in ENDINGS if name in usable), None)
    recipes = [
        text for step in usable.values() if step.kind == "transform" for text in step.grid
    ]  # fmt: skip
    for step in usable.values():
        for text in step.grid if step.kind == "retrain" else ():
            recipes += [text, f"{text}+{ending}"] if ending else [text]
    return recipes


def missed(row: Row, limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """The constraints that a row does not meet; what was not measured meets none.

    ``limits`` maps names of :data:`LIMITS` to values. One ``{constraint, expected, received,
    reason}`` each; a variant that could not be made misses them all.
    """
    found = []
    for name, most in limits.items():
        value = row.get(LIMITS[name].field)
        if value is None or value > most:
            reason = None if value is not None else row.get("error") or "it was not measured"
            found.append(
                {"constraint": name, "expected": most, "received": value, "reason": reason}
            )
    return found


def choose(rows: Sequence[Row], limits: Mapping[str, float], prefer: str) -> str | None:
    """The variant that meets all constraints with the least of what is preferred.

    Args:
        rows: ``{variant, error, and the fields of LIMITS and PREFER}``, without the original.
        prefer: a name of :data:`PREFER`.
    Returns its name, None where none meets them.
    """
    fit = [row for row in rows if not row.get("error") and not missed(row, limits)]

    def order(row: Row) -> tuple[float, ...]:
        values = (row.get(field) for field in PREFER[prefer])
        return tuple(float("inf") if value is None else value for value in values)

    return min(fit, key=order)["variant"] if fit else None


def front(rows: Sequence[Row], given: str, gained: str) -> list[str]:
    """Names of the rows than which no other is better in one field and as good in the other."""
    known = [row for row in rows if row.get(given) is not None and row.get(gained) is not None]

    def beaten(row: Row) -> bool:
        place = (row[given], row[gained])
        return any(
            other[given] <= place[0] and other[gained] <= place[1]
            and (other[given], other[gained]) != place
            for other in known
        )  # fmt: skip

    return [row["variant"] for row in known if not beaten(row)]


def harm(base: float, value: float, direction: int) -> float:
    """How much worse ``value`` is than ``base``: the difference of a metric where higher is better,
    the share by which an error grew where lower is."""
    if direction > 0:
        return base - value
    return (value - base) / base if base else float(value > base)


def judged(
    deltas: Sequence[Row], metrics: Sequence[str], direction: Callable[[str], int]
) -> dict[str, Any]:
    """What a paired comparison with the original says about losses, overall and by group.

    Args:
        deltas: rows ``{attribute, group, n, metric, base, value, delta, ci_low, ci_high}``.
        metrics: candidates in order; the first that was compared counts.
        direction: metric -> +1 where higher is better, -1 where lower is.
    Returns ``{metric, n, value, drop, drop_ci, worst_group, worst_group_loss, worst_group_drop,
    hurt_most}``; a group is ``{attribute, group, n, value, base}``. ``worst_group`` is the one that
    fares worst now, ``hurt_most`` the one that lost most; None without groups.
    """
    seen = {row["metric"] for row in deltas if row["attribute"] == "(all)"}
    metric = next(name for name in metrics if name in seen)
    sign = direction(metric)
    own = [row for row in deltas if row["metric"] == metric and row["value"] is not None]
    whole = next(row for row in own if row["attribute"] == "(all)")
    groups = [
        row for row in own
        if row["attribute"] != "(all)" and row["group"] != "(gap)" and row["base"] is not None
    ]  # fmt: skip
    worst = min(groups, key=lambda row: sign * row["value"], default=None)
    hurt = max(groups, key=lambda row: harm(row["base"], row["value"], sign), default=None)

    def group(row: Row | None) -> dict[str, Any] | None:
        names = ("attribute", "group", "n", "value", "base")
        return None if row is None else {name: row[name] for name in names}

    ends = (whole["ci_low"], whole["ci_high"])
    interval = None
    if None not in ends:
        interval = sorted(harm(whole["base"], whole["base"] + end, sign) for end in ends)
    return {
        "metric": metric,
        "n": whole["n"],
        "value": whole["value"],
        "drop": harm(whole["base"], whole["value"], sign),
        "drop_ci": interval,
        "worst_group": group(worst),
        "worst_group_loss": None if worst is None else -sign * worst["value"],
        "worst_group_drop": None if hurt is None else harm(hurt["base"], hurt["value"], sign),
        "hurt_most": group(hurt),
    }
