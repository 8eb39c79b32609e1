"""The section of the report on what to take."""

from __future__ import annotations

from typing import Any

from zoo_report.findings import Outcome
from zoo_report.sections.base import SIZE, Cell, Section, Table, date_text, value_text, versus
from zoo_report.text import (
    NONE,
    byte_unit,
    capital,
    count,
    duration,
    known,
    metric_text,
    plain,
    plural,
    unit,
)

SPEED = ("faster", "slower", "as fast")


class Verdict(Section):
    """What the page begins with: which run it is, and what is recommended."""

    def head(self) -> dict[str, Any]:
        spec, data = self.run["spec"], self.run["data"]
        gates = (self.bundle.audit or {}).get("gates") or []
        target = (self.run.get("result") or {}).get("target") or {}
        badges = []
        if gates:
            passed = all(gate.get("passed") for gate in gates)
            badges.append((self.found.gates(), "good" if passed else "bad"))
        if target and not target.get("reason"):
            badges.append(("Target hit", "good") if target["hit"] else ("Target missed", "bad"))
        if self.found.beaten:
            badges.append(("Below its baseline", "warn"))
        if self.run["status"] != "done":
            badges.append((f"Training {self.run['status']}", "warn"))
        if self.bundle.stale:
            badges.append((plural(len(self.bundle.stale), "stale document"), "warn"))
        if self.bundle.private:
            badges.append(("No exemplars", "plain"))
        return {
            "model": spec["name"],
            "data": data.get("name") or "unknown data",
            "title": f"{spec['name']} on {data.get('name') or 'unknown data'}",
            "run": self.run["run"],
            "date": date_text(
                (self.bundle.audit or {}).get("created") or self.run.get("created") or ""
            ),
            "badges": badges,
            "task": self.task,
        }

    def verdict(self) -> dict[str, Any]:
        best = self.found.recommended
        return {
            "headline": self.found.headline(),
            "effects": self.found.effects(best) if best else [],
            "rule": capital(self.found.rule) + ".",
            "rejected": [
                (outcome.name, reason)
                for outcome in self.found.outcomes
                if (reason := self.found.rejection(outcome))
            ],
            "others": [
                {
                    "name": outcome.name,
                    "costs": self.found.costs(outcome) + "." if not outcome.error else "",
                    "effects": self.found.effects(outcome),
                    "bad": bool(outcome.losses or outcome.error),
                }
                for outcome in self.found.outcomes
                if outcome is not best
            ]
            if self.bundle.audit
            else [],
            "tiles": self._tiles(best),
            "standing": self.found.standing(),
            "beaten": self.found.beaten,
            "target": self.found.target(),
            "gates": self._gates(),
            "missing": self._uncompared(),
        }

    def _tiles(self, best: Outcome | None) -> list[dict[str, str]]:
        """Four figures of the recommended variant; of base alone where none is."""
        if best is None:
            return []
        row = best.overall or {}
        label = metric_text(self.main).label
        cell = self._change(row, "It was not compared")
        latency, within = self.found.latency(best.name, "p90"), self.found.speed_interval(best)
        small = [f"{within} side by side"] if within else []
        small += [f"p90 alone {duration(latency)}"] if latency else []
        return [
            {
                "label": "Size",
                "value": versus(best.smaller, *SIZE),
                "small": self._bytes(best.name),
            },
            {
                "label": "Latency",
                "value": versus(self.found.shown_speed(best), *SPEED, 2 if within else None)
                or NONE,
                "small": ", ".join(small) or "it was not measured",
            },
            {
                "label": f"{label} change",
                "value": cell.text + unit(self.main, change=True),
                "small": f"{cell.small}, n = {count(row.get('n'))}",
            },
            {
                "label": "Groups with a loss that matters",
                "value": f"{len({(r['attribute'], r['group']) for r in best.losses})}",
                "small": f"of {best.groups}, in {plural(best.tested, 'comparison')}",
            },
        ]

    def _bytes(self, name: str) -> str:
        size = self.found.document(name).get("bytes")
        divisor, word = byte_unit([size])
        return f"{plain(size / divisor)} {word}" if known(size) else NONE

    def _gates(self) -> Table | None:
        gates = (self.bundle.audit or {}).get("gates") or []
        if not gates:
            return None
        rows = [
            [
                Cell(str(gate["name"])),
                Cell(value_text(gate.get("variant"))),
                Cell("passed", tone="good") if gate.get("passed") else Cell("failed", tone="bad"),
                Cell(value_text(gate.get("expected"))),
                self._number(gate.get("received"), gate.get("reason"), value_text),
            ]
            for gate in gates
        ]
        return Table("Gates", ["Gate", "Variant", "Result", "Expected", "Received"], rows)
