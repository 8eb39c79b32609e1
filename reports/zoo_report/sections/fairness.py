"""The section of the report on groups."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from zoo_report import svg
from zoo_report.findings import ALL, ALPHA, GAP, RELEVANT, benefit, grouped, measurable
from zoo_report.sections.base import Cell, Section, Table, header
from zoo_report.text import capital, count, fixed, known, metric_text, unit

PLOTTED = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate",
           "mase", "elbo", "mae", "mean_prediction")  # fmt: skip
NOTABLE = 12  # changes shown before the full list


class Fairness(Section):
    """Metrics by group, and what compression changed in them."""

    def fairness(self) -> dict[str, Any]:
        results = {
            name: result
            for name in self.names
            if (result := self.found.latest(name, "fairness", split="test")
                or self.found.latest(name, "fairness")) is not None
        }  # fmt: skip
        attributes = list(dict.fromkeys(a for r in results.values() for a in r["attributes"]))
        return {
            "positive": next((r["positive"] for r in results.values() if r["positive"]), None),
            "attributes": [self._attribute(a, results) for a in attributes],
            "intersections": self._intersections(results),
            "deltas": self._deltas(),
            "errors": grouped((n, r["error"]) for n, r in results.items() if r.get("error")),
            "missing": self._make("fairness"),
            "audit_missing": self._uncompared(),
        }

    def _attribute(self, attribute: str, results: dict[str, Any]) -> dict[str, Any]:
        """Plots, disparities and all numbers of one sensitive attribute."""
        found = {n: r["attributes"][attribute] for n, r in results.items()
                 if attribute in r["attributes"]}  # fmt: skip
        rows: dict[str, Any] = {}
        for result in found.values():
            for group in result["groups"]:
                rows.setdefault(group["group"], group.get("n"))
        by_group = {
            name: {group["group"]: group["metrics"] for group in result["groups"]}
            for name, result in found.items()
        }
        metrics = list(
            dict.fromkeys(m for groups in by_group.values() for g in groups.values() for m in g)
        )
        plotted = [name for name in PLOTTED if name in metrics] or metrics[:2]
        return {
            "name": attribute,
            "groups": len(rows),
            "legend": self._legend(found),
            "charts": [
                (metric_text(metric).label, self._by_group(attribute, metric, rows, by_group))
                for metric in plotted
            ],
            "disparities": self._disparities(attribute, found),
            "numbers": self._group_table(attribute, metrics, rows, by_group),
        }

    def _by_group(self, attribute: str, metric: str, rows: dict, by_group: dict) -> Markup:
        series = []
        for name, groups in by_group.items():
            points = []
            for group in rows:
                entry = groups.get(group, {}).get(metric) or {}
                point = self._point(metric, entry)
                reason = entry.get("reason") or "no value"
                told = f"{name}, {group}: {point.title if point else reason}"
                points.append(
                    svg.Point(point.value, point.low, point.high, told)
                    if point
                    else svg.Point(None, title=told)
                )
            series.append((self.names.index(name), points))
        return svg.dots(
            f"{metric_text(metric).label} by {attribute}",
            [(group, f"n = {count(n)}") for group, n in rows.items()],
            series,
            unit=unit(metric).strip(),
        )

    def _disparities(self, attribute: str, found: dict[str, Any]) -> Table | None:
        names = list(dict.fromkeys(d for r in found.values() for d in r.get("disparities") or {}))
        if not names:
            return None
        rows = []
        for name in names:
            entries = [(r.get("disparities") or {}).get(name) for r in found.values()]
            entries = [e if isinstance(e, dict) or e is None else {"value": e} for e in entries]
            rows.append([Cell(header(name)), *(self._metric(name, entry) for entry in entries)])
        return Table(
            f"Disparities by {attribute}, with 95 % intervals",
            ["Disparity", *found],
            rows,
            frozenset(range(1, len(found) + 1)),
        )

    def _group_table(self, attribute: str, metrics: list, rows: dict, by_group: dict) -> Table:
        lines = [
            [
                Cell(str(group)),
                Cell(name),
                Cell(count(n)),
                *(self._metric(m, by_group[name].get(group, {}).get(m)) for m in metrics),
            ]
            for group, n in rows.items()
            for name in by_group
        ]
        return Table(
            f"Every metric by {attribute} and variant",
            [capital(attribute), "Variant", "Rows", *map(header, metrics)],
            lines,
            frozenset(range(2, len(metrics) + 3)),
        )

    def _intersections(self, results: dict[str, Any]) -> Table | None:
        crossed = [(n, row) for n, r in results.items() for row in r.get("intersections") or []]
        if not crossed:
            return None
        metrics = list(dict.fromkeys(m for _, row in crossed for m in row.get("metrics") or {}))
        rows = []
        for name, row in crossed:
            groups = row.get("group")
            parts = groups if isinstance(groups, list) else [groups]
            attributes = row.get("attributes") or []
            rows.append(
                [
                    Cell(" and ".join(map(str, parts)), " × ".join(map(str, attributes))),
                    Cell(name),
                    Cell(count(row.get("n"))),
                    *(self._metric(m, (row.get("metrics") or {}).get(m)) for m in metrics),
                ]
            )
        return Table(
            "Groups crossed",
            ["Groups", "Variant", "Rows", *map(header, metrics)],
            rows,
            frozenset(range(2, len(metrics) + 3)),
        )

    def _deltas(self) -> dict[str, Any]:
        deltas = self.found.deltas
        notable = [row for row in deltas if self.found.finding(row)]
        notable.sort(key=lambda row: (benefit(row) >= 0, row.get("p_adjusted") or 0))
        return {
            "notable": self._delta_table("Changes against base that stand out", notable[:NOTABLE]),
            "all": self._delta_table("All changes against base", deltas),
            "compared": sum(known(row.get("p_adjusted")) for row in deltas),
            "count": len(notable),
            "negligible": sum(measurable(row) and not self.found.matters(row) for row in deltas),
            "threshold": f"below {100 * RELEVANT:g} points of a share, or {100 * RELEVANT:g} % of base's "
            "error or score",
            "alpha": ALPHA,
        }

    def _delta_table(self, caption: str, deltas: list[dict[str, Any]]) -> Table:
        columns = ["Variant", "Group", "Metric", "Change", "Adjusted p", "Rows", "Base",
                   "Variant's", "Got worse", "Got better"]  # fmt: skip
        rows = []
        for row in deltas:
            name = row["metric"]
            flips = row.get("flips") or {}
            none = "Rows that got worse or better are not counted for this metric"
            where = "all rows" if row["group"] == ALL else str(row["group"])
            if row["group"] == GAP:
                where = "gap between groups"
            rows.append(
                [
                    Cell(str(row["variant"])),
                    Cell(where, "" if row["attribute"] == ALL else str(row["attribute"])),
                    Cell(header(name)),
                    self._change(row, "Undefined in this group"),
                    self._number(
                        row.get("p_adjusted"),
                        row.get("reason") or "There is no exact test; see the interval",
                        lambda p: "< 0.001" if p < 0.001 else fixed(p, 3),
                    ),
                    self._number(row.get("n"), row.get("reason"), count),
                    self._metric(name, {"value": row.get("base"), "reason": row.get("reason")}),
                    self._metric(name, {"value": row.get("value"), "reason": row.get("reason")}),
                    self._number(_either(flips, "correct_to_wrong", "worse"), none, count),
                    self._number(_either(flips, "wrong_to_correct", "better"), none, count),
                ]
            )
        return Table(caption, columns, rows, frozenset(range(3, 10)))


def _either(row: dict[str, Any], first: str, second: str) -> Any:
    """The first value, or where there is none the second: rows of classes and of values."""
    return row[first] if row.get(first) is not None else row.get(second)
