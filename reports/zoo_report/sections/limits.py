"""The section of the report on limits, and its commands."""

from __future__ import annotations

import csv
import io
import shlex
from typing import Any

from zoo_report.findings import grouped
from zoo_report.sections.base import DOCUMENTS, Section
from zoo_report.text import capital, known


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
        data, run = self.run["data"], self.run["run"]
        request = data.get("request")
        asked = request if isinstance(request, dict) else {"data": request or data.get("name")}
        train = ["zoo train", str(self.run["spec"]["name"])]
        for option in ("data", "target", "task", "positive", "split"):
            if asked.get(option):
                train.append(f"--{option} {_quoted(asked[option])}")
        if asked.get("sensitive"):
            train.append(f"--sensitive {_quoted(_comma_separated(asked['sensitive']))}")
        if asked.get("include_sensitive"):
            train.append("--include-sensitive")
        if asked.get("rare_groups") == "merge":
            train.append("--rare-groups merge")
        if asked.get("split_seed"):
            train.append(f"--split-seed {asked['split_seed']}")
        for option in ("epochs", "batch_size"):
            if known(self.run["options"].get(option)):
                train.append(f"--{option.replace('_', '-')} {self.run['options'][option]}")
        train.append(f"--seed {self.run['seed']} --name {run}")
        recipes = [
            str(document["recipe"])
            for name in [*self.names, *self.found.lost]
            if name != "base" and (document := self.found.document(name)).get("recipe")
        ]
        return [" ".join(train), " ".join(["zoo audit", run, *map(_quoted, recipes)])]


def _comma_separated(names: Any) -> str:
    """Names as the command line takes them: one with a comma or a quote in it is quoted as CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(map(str, names))
    return line.getvalue()


def _quoted(value: Any) -> str:
    return shlex.quote(str(value))
