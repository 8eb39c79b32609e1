"""The section of the report on limits, and its commands."""

from __future__ import annotations

import shlex
from typing import Any

from zoo_report.findings import grouped
from zoo_report.sections.base import DOCUMENTS, Section
from zoo_report.text import capital


class Limits(Section):
    """What the numbers do not say, and the commands that make them again."""

    def limits(self) -> list[tuple[str, list[str]]]:
        found, names = self.found, self.names
        results = {
            kind: [(n, r) for n in names for r in self.bundle.variants[n].get(kind) or []]
            for kind in ("benchmark", "explain", "fairness")
        }
        floor = found.noise_floor
        skips = self.run["spec"].get("skips") or {}
        sections = {
            "Stale documents": [f"{path}: {why}" for path, why in self.bundle.stale.items()],
            "Failed": grouped(
                [(n, str(e)) for n in [*names, *found.lost] if (e := found.document(n).get("error"))]
                + [(n, f"{k}: {r['error']}") for k, rows in results.items() for n, r in rows
                   if r.get("error")]
            ),
            "Not measured": [
                *(f"No comparison with base: run `{c}`" for c in self._uncompared()),
                *(f"No {kind} of {name}: run `{self._command(kind, name)}`"
                  for kind in DOCUMENTS for name in self._lacking(kind)),
            ],
            "Noise floor": [f"{capital(str(floor['reason']))}"] if floor.get("reason") else [],
            "Fairness warnings": grouped(
                (n, w) for n, r in results["fairness"] for w in r.get("warnings") or []
            ),
            "Benchmark": grouped(
                (n, r["reason"] if r.get("valid") else f"Invalid: {r['reason']}")
                for n, r in results["benchmark"] if r.get("reason")
            ),
            "Decided by group": [
                f"{name}: its answers depend on {document['options']['attribute']}"
                + (", some are drawn" if document.get("randomized") else "")
                + "; scores, what follows from them, and explanations are those of "
                f"{document['parent']['variant']}."
                for name in names if (document := found.document(name)).get("needs_groups")
            ],
            "Does not apply": [f"{step}: {reason}" for step, reason in skips.items()],
            "Left out on request": [
                "Row values, texts and pictures (--no-exemplars); aggregates only are shown."
            ] if self.bundle.private else [],
            "In general": [
                "Measured on one test split of this data set; other data may behave otherwise. "
                "Latency, throughput and memory are single runs on one machine, without intervals.",
                "Disparities are measured, on the groups and metrics listed; their absence here is "
                "no certificate, and no measurable change is not proof of no change.",
                "An attribution says what moved the model's output, not what causes what.",
                "Staleness is checked against files inside the run's folder only.",
            ],
        }  # fmt: skip
        return [(title, lines) for title, lines in sections.items() if lines]

    def commands(self) -> list[str]:
        """The commands that make this run again, as far as the documents tell."""
        run = self.run["run"]
        train = [f"{self.run['command']} --name {run}"] if self.run.get("command") else []
        recipes = [
            str(document["recipe"])
            for name in [*self.names, *self.found.lost]
            if name != "base" and (document := self.found.document(name)).get("recipe")
        ]
        return [*train, " ".join(["zoo audit", run, *map(_quoted, recipes)])]


def _quoted(value: Any) -> str:
    return shlex.quote(str(value))
