"""The section of the report on a sweep."""

from __future__ import annotations

from typing import Any

from zoo_report import svg
from zoo_report.sections.base import Cell, Section, Table, header
from zoo_report.text import (
    NONE,
    byte_unit,
    count,
    duration,
    fixed,
    interval,
    known,
    listed,
    measure,
    metric_text,
    plain,
    sentence_label,
    time_unit,
    unit,
)

SPLITS = {"val": "validation", "test": "test", "train": "training"}
LIMITS = {  # constraints of a sweep, in words
    "max_drop": ("a loss of at most", ""),
    "max_worst_group_drop": ("no group that loses more than", ""),
    "max_bytes": ("at most", " bytes"),
    "max_p90_ms": ("a p90 latency of at most", ""),
}
PREFERRED = {"size": "smallest", "gzip": "smallest when zipped", "latency": "fastest"}
FRONTS = {"size": "size", "latency": "latency", "worst_group_size": "worst group / size",
          "worst_group_latency": "worst group / latency"}  # fmt: skip


class Sweep(Section):
    """What a sweep tried, and what it took."""

    def sweep(self) -> dict[str, Any] | None:
        """The recipes that were tried: losses against costs with the Pareto fronts, and the choice."""
        sweep = self.bundle.sweep
        if sweep is None:
            return None
        rows = [
            row for row in sweep["results"] if row["variant"] in self.names or row.get("error")
        ]  # fmt: skip
        metric, taken = sweep["metric"], sweep["chosen"]
        table, charts = self._sweep_table(sweep, rows), []
        worst = f"Worst group: {header(metric)}"
        planes = {
            "size": (header(metric), lambda row: row["value"], "bytes"),
            "worst_group_size": (worst, lambda row: (row["worst_group"] or {}).get("value"), "bytes"),
            "latency": (header(metric), lambda row: row["value"], "p90_ms"),
            "worst_group_latency": (
                worst, lambda row: (row["worst_group"] or {}).get("value"), "p90_ms",
            ),
        }  # fmt: skip
        divisor, word = byte_unit([row.get("bytes") for row in rows])
        per_ms, short = time_unit([row.get("p90_ms") for row in rows])
        for front, (label, value_of, cost) in planes.items():
            unit_, factor = (
                ("size, " + word, 1 / divisor)
                if cost == "bytes"
                else (f"p90 latency, {short}", per_ms)
            )
            points = [
                (self.names.index(row["variant"]), row["variant"], row[cost] * factor, point)
                for row in rows
                if not row.get("error")
                and known(row.get(cost))
                and (point := self._point(metric, {"value": value_of(row)}))
            ]
            if len(points) > 1:
                on = [row["variant"] for row in rows if front in row["front"]]
                charts.append(
                    svg.scatter(
                        f"{label} against {unit_}", points, x_label=unit_, y_label=label,
                        front=on, taken=taken,
                    )
                )  # fmt: skip
        return {
            "table": table,
            "charts": charts,
            "legend": self._legend([n for n in self.names if any(r["variant"] == n for r in rows)]),
            "split": SPLITS[sweep["split"]],
            "limits": [_limit(name, value, metric) for name, value in sweep["limits"].items()],
            "prefer": PREFERRED[sweep["prefer"]],
            "taken": taken,
            "test": self._sweep_test(next((r for r in rows if r["variant"] == taken), None)),
            "rejected": [
                (row["variant"], listed([_missed(entry, metric) for entry in row["missed"]]))
                for row in rows
                if row["missed"] and row["variant"] != "base"
            ],
        }

    def _sweep_table(self, sweep: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
        metric = sweep["metric"]
        divisor, word = byte_unit([row.get("bytes") for row in rows])
        per_ms, short = time_unit([row.get("p90_ms") for row in rows])
        own = Cell("base", tone="faint")
        base = next((row for row in rows if row["variant"] == "base"), {})
        columns = ["Variant", header(metric), "Loss", "Worst group", "Largest loss of a group",
                   f"Size, {word}", f"gzip, {word}", f"p90, {short}", "On the front of"]  # fmt: skip
        cells = []
        for row in rows:
            error, worst = row.get("error"), row.get("worst_group") or {}
            hurt = row.get("hurt_most") or {}
            few = error or "Every group has fewer rows than --min-cell"
            lost = _lost(metric, row.get("worst_group_drop"))
            cells.append([
                Cell(row["variant"], "taken" if row["variant"] == sweep["chosen"] else "",
                     tone="good" if row["variant"] == sweep["chosen"] else ""),
                self._metric(metric, {"value": row.get("value")}, error),
                own if row["variant"] == "base"
                else Cell(_lost(metric, row["drop"]), _lost_interval(metric, row.get("drop_ci")))
                if known(row.get("drop")) else self._dash(error),
                Cell(measure(metric, worst["value"]), extra=f"{worst['attribute']} = {worst['group']}")
                if known(worst.get("value")) else self._dash(few),
                own if row["variant"] == "base"
                else Cell(lost, f"of {count(hurt['n'])} rows", extra=f"{hurt['attribute']} = {hurt['group']}")
                if hurt else self._dash(few),
                *self._sizes(row, base, error, divisor),
                self._number(row.get("p90_ms"), error, lambda v: plain(per_ms * v)),
                Cell(", ".join(FRONTS[name] for name in row["front"]) or NONE),
            ])  # fmt: skip
        return Table(
            f"What was tried; losses on the {SPLITS[sweep['split']]} rows", columns, cells,
            frozenset(range(1, 8)),
        )  # fmt: skip

    def _sweep_test(self, row: dict[str, Any] | None) -> str:
        """What the taken variant does on the test rows, which did not choose it."""
        if row is None:
            return ""
        test, metric = row["test"], row["test"]["metric"]
        said = f"{sentence_label(metric)} {measure(metric, test['value'])}{unit(metric)}, "
        said += _loss_or_gain(metric, test["drop"])
        if known(test["worst_group_drop"]):
            hurt = test["hurt_most"]
            said += (
                f"; worst changed group {hurt['attribute']} = {hurt['group']} "
                f"(n = {count(hurt['n'])}): {_loss_or_gain(metric, test['worst_group_drop'])}"
            )
        return said


def _lost(metric: str, drop: float | None) -> str:
    """A loss as a sweep counts it: points of a share, the share by which an error grew."""
    if not known(drop):
        return NONE
    direction = metric_text(metric).direction
    if direction < 0:
        return f"{fixed(100 * drop, 2)} % of its error"
    return measure(metric, drop, change=True) + unit(metric, change=True)


def _lost_interval(metric: str, bounds: list[float] | None) -> str:
    if not bounds:
        return ""
    if metric_text(metric).direction < 0:
        return f"[{fixed(100 * bounds[0], 1)}, {fixed(100 * bounds[1], 1)}]"
    return interval(metric, bounds[0], bounds[1], change=True)


def _loss_or_gain(metric: str, drop: float) -> str:
    if not drop:
        return "no loss"
    size = _lost(metric, abs(drop)).lstrip("+")
    return f"a loss of {size}" if drop > 0 else f"a gain of {size}"


def _amount(name: str, value: float, metric: str) -> str:
    """The value of a constraint, in the unit of what it limits."""
    if name.endswith("drop"):
        return _lost(metric, value).lstrip("+")
    return duration(value) if name.endswith("_ms") else plain(value)


def _limit(name: str, value: float, metric: str) -> str:
    before, after = LIMITS[name]
    return f"{before} {_amount(name, value, metric)}{after}"


def _missed(entry: dict[str, Any], metric: str) -> str:
    """Which constraint was not met, and by what."""
    name = entry["constraint"]
    if not known(entry["received"]):
        return f"{_limit(name, entry['expected'], metric)} ({entry['reason']})"
    return (
        f"{_limit(name, entry['expected'], metric)} "
        f"(it is {_amount(name, entry['received'], metric)})"
    )
