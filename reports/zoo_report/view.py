"""From findings to what the templates show: tables of cells, charts, and lists of sentences.

The HTML page and the Markdown card are made from the same view, so they never disagree.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup

from zoo_report import picture, svg
from zoo_report.bundle import Bundle
from zoo_report.findings import (
    ALL,
    ALPHA,
    GAP,
    RELEVANT,
    Findings,
    Outcome,
    benefit,
    grouped,
    measurable,
    times_of,
)
from zoo_report.text import (
    NONE,
    byte_unit,
    capital,
    clean,
    count,
    duration,
    fixed,
    interval,
    known,
    listed,
    measure,
    metric_text,
    plain,
    plural,
    sentence_label,
    time_unit,
    times,
    unit,
)

QUALITY = (
    "accuracy",
    "balanced_accuracy",
    "roc_auc",
    "log_loss",
    "ece",
    "mase",
    "elbo",
    "mae",
    "rmse",
    "r2",
    "token_loss",
    "bits_per_character",
    "token_accuracy",
)
PLOTTED = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate",
           "mase", "elbo", "mae", "mean_prediction")  # fmt: skip
TOP_FEATURES, BEES = 12, 150  # bars and rows of a beeswarm; points in one of its rows
NOTABLE = 12  # changes shown before the full list
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
SIZE = ("smaller", "larger", "same size")  # what a ratio of base to a variant says
SPEED = ("faster", "slower", "as fast")
PATCH = re.compile(r"r(\d+)c(\d+)")
SPLITS = {"val": "validation", "test": "test", "train": "training"}
LIMITS = {  # constraints of a sweep, in words
    "max_drop": ("a loss of at most", ""),
    "max_worst_group_drop": ("no group that loses more than", ""),
    "max_bytes": ("at most", " bytes"),
    "max_p90_ms": ("a p90 latency of at most", ""),
}
PREFERRED = {"size": "smallest", "gzip": "smallest when zipped", "latency": "fastest"}
BETTER = {1: "Up and to the left is better. ", -1: "Down and to the left is better. ", 0: ""}
FILLING = (
    "(padding)",
    "[PAD]",
    "<|pad|>",
)  # what fills a short text: of words, word pieces, byte pairs
IN_UNITS = ("mae", "rmse")  # metrics in the unit of the target
FRONTS = {"size": "size", "latency": "latency", "worst_group_size": "worst group / size",
          "worst_group_latency": "worst group / latency"}  # fmt: skip
DOCUMENTS = {  # what each section needs, and the command that makes it
    "metrics": "zoo eval",
    "benchmark": "zoo benchmark",
    "explain": "zoo explain",
    "fairness": "zoo fairness",
}


@dataclass(frozen=True)
class Cell:
    """One cell: a text, small print (an interval), the footnote of a missing number, and more."""

    text: str
    small: str = ""
    note: int | None = None
    tone: str = ""
    extra: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it. ``numeric`` are the right-aligned columns."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    numeric: frozenset[int] = frozenset()


@dataclass
class Notes:
    """Footnotes: the reasons why numbers are missing, each once."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> int:
        """The number of the footnote with this reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


class View:
    """Everything the templates ask for, in the order of the page's sections."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = Bundle(
            run=clean(bundle.run),
            variants={
                clean(name): {**clean({**found, "arrays": None}), "arrays": found.get("arrays")}
                for name, found in bundle.variants.items()
            },
            audit=clean(bundle.audit),
            sweep=clean(bundle.sweep),
            log=clean(bundle.log),
            stale=clean(bundle.stale),
            private=bundle.private,
        )
        self.found = Findings(self.bundle)
        self.run = self.bundle.run
        self.names = self.found.names
        self.notes = Notes()
        self.main = self.found.main
        # Sections are made in page order once, so that footnotes are numbered as they are read.
        self.head = self._head()
        self.verdict = self._verdict()
        self.variants = self._variants()
        self.sweep = self._sweep()
        self.answers = self._answers()
        self.fairness = self._fairness()
        self.explanations = self._explanations()
        self.training = self._training()
        self.limits = self._limits()
        self.commands = self._commands()

    # Cells

    def _dash(self, reason: str | None) -> Cell:
        return Cell(NONE, note=self.notes.mark(reason or "It was not measured"))

    def _number(self, value: Any, reason: str | None = None, show: Callable = plain) -> Cell:
        return Cell(show(value)) if known(value) else self._dash(reason)

    def _sizes(
        self, made: dict[str, Any], base: dict[str, Any], missing: str | None, divisor: float
    ) -> list[Cell]:
        """Bytes of a file and of it zipped, each with how base's are to them."""
        cells = []
        for name in ("bytes", "bytes_gzip"):
            cell = self._number(made.get(name), missing, lambda v: plain(v / divisor))
            factor = times_of(base.get(name), made.get(name)) if made is not base else None
            cells.append(Cell(cell.text, _versus(factor, *SIZE)) if factor else cell)
        return cells

    def _metric(self, name: str, entry: dict[str, Any] | None, missing: str | None = None) -> Cell:
        """A value with its interval; text values (the worst group's name) as they are."""
        entry = entry or {}
        value = entry.get("value")
        small = interval(name, entry.get("ci_low"), entry.get("ci_high"))
        between = entry.get("between")
        who = between if isinstance(between, (list, tuple)) else [entry.get("group")]
        extra = " / ".join(str(group) for group in who if group is not None)
        if isinstance(value, str):
            return Cell(value, small)
        if not known(value):
            return self._dash(entry.get("reason") or missing)
        return Cell(measure(name, value), small, extra=extra)

    def _change(self, row: dict[str, Any] | None, missing: str) -> Cell:
        if row is None or not known(row.get("delta")):
            return self._dash((row or {}).get("reason") or missing)
        name, low, high = row["metric"], row.get("ci_low"), row.get("ci_high")
        width = high - low if known(low) and known(high) else None
        tone = ""
        if self.found.finding(row):
            tone = {-1: "bad", 0: "shift", 1: "good"}[int(np.sign(benefit(row)))]
        return Cell(
            measure(name, row["delta"], change=True, scale=width),
            interval(name, low, high, change=True),
            tone=tone,
        )

    def _lacking(self, kind: str) -> list[str]:
        return [name for name in self.names if not self.bundle.variants[name].get(kind)]

    def _command(self, kind: str, name: str) -> str:
        return f"{DOCUMENTS[kind]} {self.run['run']} --variant {name}"

    def _make(self, kind: str) -> list[str]:
        """The commands that make the documents of a kind which are absent."""
        return [self._command(kind, name) for name in self._lacking(kind)]

    # 1. Head and verdict

    def _head(self) -> dict[str, Any]:
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
            "date": _date(
                (self.bundle.audit or {}).get("created") or self.run.get("created") or ""
            ),
            "badges": badges,
            "task": spec["task"] if not data.get("task") else data["task"],
        }

    def _verdict(self) -> dict[str, Any]:
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
            "missing": [] if self.bundle.audit else [f"zoo audit {self.run['run']}"],
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
                "value": _versus(best.smaller, *SIZE),
                "small": self._bytes(best.name),
            },
            {
                "label": "Latency",
                "value": _versus(self.found.shown_speed(best), *SPEED, 2 if within else None)
                or NONE,
                "small": ", ".join(small) or "it was not measured",
            },
            {
                "label": f"{label} change",
                "value": cell.text + unit(self.main, change=True),
                "small": f"{cell.small}, n = {count(row.get('n'))}",
            },
            {
                "label": "Groups with a measurable loss",
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
                Cell("passed", tone="good") if gate.get("passed") else Cell("failed", tone="bad"),
                Cell(_word(gate.get("expected"))),
                Cell(_word(gate.get("received"))),
            ]
            for gate in gates
        ]
        return Table("Gates", ["Gate", "Result", "Expected", "Received"], rows)

    # 2. Variants

    def _variants(self) -> dict[str, Any]:
        quality, cost = self._quality(), self._cost()
        return {
            "quality": quality,
            "cost": cost,
            "legend": self._legend(self.names),
            "charts": self._trade_offs(),
            "better": BETTER[metric_text(self.main).direction],
            "missing": [*self._make("metrics"), *self._make("benchmark")],
            "none": not self.names,
        }

    def _title(self, name: str) -> Cell:
        document = self.found.document(name)
        recipe = document.get("recipe") or ""
        return Cell(name, "failed" if document.get("error") else recipe if recipe != name else "")

    def _quality(self) -> Table:
        shown = [name for name in QUALITY if any(name in self.found.metrics(v) for v in self.names)]
        if self.main not in shown:
            shown.insert(0, self.main)
        shown = sorted(shown, key=lambda name: name != self.main)[:5]
        first, rest = shown[0], shown[1:]
        columns = ["Variant", "Rows", _header(first), _header(first, change=True)]
        columns += [_header(name) for name in rest] + ["Largest difference of outputs"]
        rows = []
        outcomes = {outcome.name: outcome for outcome in self.found.outcomes}
        for name in self.names:
            metrics = self.found.metrics(name)
            document = self.found.document(name)
            missing = document.get("error") or f"Not evaluated: `{self._command('metrics', name)}`"
            evaluation = self.found.evaluation(name) or {}
            outcome = outcomes.get(name)
            row = [self._title(name), self._number(evaluation.get("n"), missing, count)]
            row.append(self._metric(first, metrics.get(first), missing))
            row.append(
                self._change(outcome.overall, f"Not compared: `zoo audit {self.run['run']}`")
                if outcome
                else Cell("base", tone="faint")
            )
            row += [self._metric(name_, metrics.get(name_), missing) for name_ in rest]
            parity = document.get("parity") or {}
            row.append(
                self._number(
                    parity.get("max_abs"),
                    document.get("error")
                    or parity.get("reason")
                    or "The outputs were not compared with the parent's",
                )
            )
            rows.append(row)
        return Table(
            "Quality on the test split, with 95 % intervals",
            columns,
            rows,
            frozenset(range(1, len(columns))),
        )

    def _cost(self) -> Table:
        documents = [self.found.document(name) for name in self.names]
        divisor, word = byte_unit([document.get("bytes") for document in documents])
        factor, short = self._latency_unit()
        columns = ["Variant", f"Size, {word}", f"gzip, {word}", "Zeros, %", f"p50, {short}",
                   f"p90, {short}", "Throughput, 1/s", "Load, ms", "Peak memory, MB"]  # fmt: skip
        outcomes = {outcome.name: outcome for outcome in self.found.outcomes}
        rows = []
        for name, document in zip(self.names, documents, strict=True):
            error = document.get("error")
            single = self.found.latest(name, "benchmark", scenario="SingleStream") or {}
            offline = self.found.latest(name, "benchmark", scenario="Offline") or {}
            command = f"Not benchmarked: `{self._command('benchmark', name)}`"
            missing = error or single.get("error") or (None if single else command)
            outcome = outcomes.get(name)
            p50, p90 = (
                self._number(self.found.latency(name, p), missing, lambda v: plain(factor * v))
                for p in ("p50", "p90")
            )
            if outcome and outcome.faster:
                paired, note = self.found.speed_interval(outcome), self.found.speed(outcome)
                if paired:  # it is the median latency that was compared side by side
                    p50 = Cell(p50.text, note)
                else:
                    p90 = Cell(p90.text, note.removesuffix(" at p90"))
            elif self.found.unlike(name) and p90.text:
                p90 = Cell(p90.text, "by Keras, base by LiteRT: not like for like")
            no_offline = error or offline.get("error") or (None if offline else command)
            if single and not offline and not error:  # as a sweep leaves it: one footnote for all
                no_offline = "Latency alone was measured: `zoo benchmark` measures throughput too"
            rows.append(
                [
                    self._title(name),
                    *self._sizes(document, self.found.document("base"), error, divisor),
                    self._number(
                        document.get("sparsity"),
                        error or "Sparsity is counted where a recipe prunes",
                        lambda v: fixed(100 * v, 1),
                    ),
                    p50,
                    p90,
                    self._number(offline.get("throughput"), no_offline),
                    self._number(single.get("load_ms"), missing),
                    self._number(single.get("peak_memory_mb"), missing),
                ]
            )
        return Table(
            "Cost: size on disk, latency of one sample at a time, throughput of all at once",
            columns,
            rows,
            frozenset(range(1, len(columns))),
        )

    def _latency_unit(self) -> tuple[float, str]:
        return time_unit([self.found.latency(n, p) for n in self.names for p in ("p50", "p90")])

    def _legend(self, names: Iterable[str]) -> Markup:
        return svg.legend([(self.names.index(name), name) for name in names])

    def _trade_offs(self) -> list[Markup]:
        """Quality against size and against latency."""
        values = [self.found.document(name).get("bytes") for name in self.names]
        divisor, word = byte_unit(values)
        factor, short = self._latency_unit()
        latencies = [self.found.latency(name, "p90") for name in self.names]
        axes = {
            f"size, {word}": [v / divisor if known(v) else None for v in values],
            f"p90 latency, {short}": [v * factor if known(v) else None for v in latencies],
        }
        charts = []
        for x_label, places in axes.items():
            points = [
                (index, name, x, point)
                for index, (name, x) in enumerate(zip(self.names, places, strict=True))
                if x is not None
                and (point := self._point(self.main, self.found.metrics(name).get(self.main)))
            ]
            if len(points) > 1:
                label = _header(self.main)
                charts.append(
                    svg.scatter(
                        f"{label} against {x_label}",
                        points,
                        x_label=x_label,
                        y_label=label,
                    )
                )
        return charts

    def _sweep(self) -> dict[str, Any] | None:
        """The recipes that were tried: losses against costs with the Pareto fronts, and the choice."""
        sweep = self.bundle.sweep
        if sweep is None:
            return None
        rows = [
            row for row in sweep["results"] if row["variant"] in self.names or row.get("error")
        ]  # fmt: skip
        metric, taken = sweep["metric"], sweep["chosen"]
        table, charts = self._sweep_table(sweep, rows), []
        worst = f"Worst group: {_header(metric)}"
        planes = {
            "size": (_header(metric), lambda row: row["value"], "bytes"),
            "worst_group_size": (worst, lambda row: (row["worst_group"] or {}).get("value"), "bytes"),
            "latency": (_header(metric), lambda row: row["value"], "p90_ms"),
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
        columns = ["Variant", _header(metric), "Loss", "Worst group", "Largest loss of a group",
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

    def _point(self, name: str, entry: dict[str, Any] | None) -> svg.Point | None:
        """A metric's entry in the unit it is plotted in (%), or None without a value."""
        if not entry or not known(entry.get("value")):
            return None
        factor = 100.0 if metric_text(name).percent else 1.0
        low, high = entry.get("ci_low"), entry.get("ci_high")
        told = f"{measure(name, entry['value'])}{unit(name)} {interval(name, low, high)}".strip()
        if not (known(low) and known(high)):
            return svg.Point(entry["value"] * factor, title=told)
        return svg.Point(entry["value"] * factor, low * factor, high * factor, told)

    # 3. Fairness

    def _fairness(self) -> dict[str, Any]:
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
            "audit_missing": None if self.bundle.audit else f"zoo audit {self.run['run']}",
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
            rows.append([Cell(_header(name)), *(self._metric(name, entry) for entry in entries)])
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
            [capital(attribute), "Variant", "Rows", *map(_header, metrics)],
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
            ["Groups", "Variant", "Rows", *map(_header, metrics)],
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
                    Cell(_header(name)),
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

    # 3b. What the answers look like

    def _answers(self) -> dict[str, Any]:
        """Forecasts or generated pictures of each variant that stored some: base first."""
        drawn: list[dict[str, Any]] = []
        for name in self.names:
            shown = self.bundle.variants[name].get("shown")
            make = _SHOWN.get(str(shown["kind"])) if shown else None
            if shown and make and not self.bundle.private:
                drawn.append({"variant": name, **make(shown)})
        return {
            "first": drawn[0] if drawn else None,
            "others": drawn[1:],
            "private": self.bundle.private
            and any(found.get("shown") for found in self.bundle.variants.values()),
        }

    # 4. Explanations

    def _explanations(self) -> dict[str, Any]:
        results = {n: r for n in self.names if (r := self.found.explained(n)) is not None}
        base = results.get("base") or next(iter(results.values()), None)
        shown = next((n for n, r in results.items() if r is base), None)
        return {
            "of": shown,
            "why": base["why_method"] if base else "",
            "method": base["method"] if base else None,
            "importance": self._importance(base) if base else None,
            "features": (base or {}).get("features", [])[:TOP_FEATURES],
            "beeswarm": self._beeswarm(shown, base) if base else None,
            "images": self._images(),
            "texts": self._texts(shown),
            "private": self.bundle.private
            and any(v.get("arrays") for v in self.bundle.variants.values()),
            "table": self._explain_table(),
            "quality": self._explain_quality(),
            "notes": [
                f"{text}."
                for text in grouped(
                    (f"{name} by {result['method']}", capital(result["note"]))
                    for name, result in self._explained()
                    if result.get("note")
                )
            ],
            "drift": self._drift(),
            "missing": self._make("explain"),
            "audit_missing": None if self.bundle.audit else f"zoo audit {self.run['run']}",
        }

    def _importance(self, result: dict[str, Any]) -> Markup | None:
        """Bars of the most important features; a heat map where the features are patches."""
        features = [row for row in result["features"] if known(row.get("importance"))]
        if not features:
            return None
        places = [PATCH.fullmatch(str(row["name"])) for row in features]
        if all(places):
            cells = [(int(m[1]), int(m[2])) for m in places if m]
            grid = np.zeros(np.max(cells, axis=0) + 1)
            for place, row in zip(cells, features, strict=True):
                grid[place] = max(row["importance"], 0.0)
            drawn = Markup('<img class="heat" src="{}" width="{}" height="{}" alt="{}">').format(
                picture.png(picture.heat(grid)),
                grid.shape[1],
                grid.shape[0],
                f"Mean importance of {grid.size} patches: the stronger, the more important",
            )
            steps = Markup("").join(Markup('<i class="h{}"></i>').format(k) for k in range(5))
            scale = Markup(
                '<p class="ramp"><span>0</span>{}<span>{}, mean size of a patch’s '
                "attribution</span></p>"
            )
            return drawn + scale.format(steps, plain(float(grid.max())))
        return svg.bars(
            "Global importance: mean size of the attributions",
            [
                (str(row["name"]), row["importance"], plain(float(row["importance"])))
                for row in features[:TOP_FEATURES]
            ],
        )

    def _beeswarm(self, name: str | None, result: dict[str, Any]) -> Markup | None:
        """Attributions of single rows, of the predicted class where there are several outputs."""
        arrays = self.bundle.variants[name]["arrays"] if name else None
        if (
            self.bundle.private
            or not arrays
            or "values" not in arrays
            or {"images", "words"} & set(arrays)
        ):
            return None
        values = np.asarray(arrays["values"], dtype=np.float64)
        if values.ndim != 3 or not len(values):
            return None
        outputs = np.asarray(arrays["output"]) if "output" in arrays else np.zeros((len(values), 1))
        chosen = outputs.argmax(axis=1) if values.shape[2] > 1 else np.zeros(len(values), int)
        values = np.take_along_axis(values, chosen[:, None, None], axis=2)[:, :, 0]
        names = [str(clean(str(item))) for item in arrays["names"]]
        display = np.asarray(arrays.get("display", np.full(values.shape, np.nan)), dtype=float)
        picked = np.unique(np.linspace(0, len(values) - 1, min(BEES, len(values))).astype(int))
        order = [names.index(str(f["name"])) for f in result["features"] if f["name"] in names]
        order = order[:TOP_FEATURES] or list(range(min(TOP_FEATURES, len(names))))
        rows = []
        for k in order:
            keep = [i for i in picked if np.isfinite(values[i, k])]
            colours = [
                float(np.clip(display[i, k], 0, 1)) if np.isfinite(display[i, k]) else None
                for i in keep
            ]
            rows.append((names[k], [float(values[i, k]) for i in keep], colours))
        return svg.beeswarm(
            "Attribution of each feature, one dot a row of the test split",
            rows,
            x_label=f"effect on the output ({result['space']})",
        )

    def _texts(self, name: str | None) -> list[dict[str, Any]] | None:
        """Single texts, each word with how much it spoke for (above 0) or against the output.

        ``level`` is one of -3 to 3: thirds of the largest value among the texts that are shown.
        """
        arrays = self.bundle.variants[name]["arrays"] if name else None
        if self.bundle.private or not arrays or "words" not in arrays:
            return None
        count = len(arrays["truth"])
        values = np.asarray(arrays["values"], dtype=np.float64)[:count, :, 0]
        largest = np.abs(values).max(initial=0.0) or 1.0
        levels = np.rint(3 * values / largest).astype(int)
        return [
            {
                "truth": clean(str(arrays["truth"][k])),
                "predicted": clean(str(arrays["predicted"][k])),
                "words": [
                    {
                        "word": clean(str(word)).removeprefix("##"),
                        "glued": str(word).startswith("##"),  # the rest of the word before
                        "level": int(level),
                        "value": plain(float(value)),
                    }
                    for word, level, value in zip(
                        arrays["words"][k], levels[k], values[k], strict=True
                    )
                    if word not in FILLING
                ],
            }
            for k in range(count)
        ]

    def _images(self) -> dict[str, Any] | None:
        """Exemplars: the input, then what spoke for and against the answer in each variant."""
        if self.bundle.private:
            return None
        stored = [
            (name, arrays)
            for name, found in self.bundle.variants.items()
            for arrays in [found.get("arrays"), *found.get("other_arrays", [])]
            if arrays and {"images", "dense"} <= set(arrays)
        ]
        if not stored:
            return None
        first = stored[0][1]
        same = [(n, a) for n, a in stored if np.array_equal(a["images"], first["images"])]
        several = len({_method(arrays) for _, arrays in same}) > 1
        rows = []
        for k, image in enumerate(first["images"]):
            truth = str(clean(str(first["truth"][k]))) if "truth" in first else ""
            pictures = [
                self._attributed(f"{n} ({_method(a)})" if several else n, a, k) for n, a in same
            ]
            rows.append({"truth": truth, "input": picture.png(image), "pictures": pictures})
        return {
            "rows": rows,
            "several": several,
            "truths": any(row["truth"] for row in rows),
            "width": first["images"].shape[2],
            "height": first["images"].shape[1],
        }

    def _attributed(self, name: str, arrays: dict[str, np.ndarray], k: int) -> dict[str, str]:
        predicted = str(arrays["predicted"][k]) if "predicted" in arrays else ""
        outputs = [str(item) for item in arrays.get("outputs", [])]
        column = outputs.index(predicted) if predicted in outputs else 0
        dense = arrays["dense"][k]  # (h, w, outputs), or (h, w, channels, outputs)
        if dense.ndim == 4:  # what a pixel did is what its channels did together
            dense = dense.sum(axis=2)
        column = min(column, dense.shape[-1] - 1)
        source = picture.png(picture.overlay(arrays["images"][k], dense[..., column]))
        return {"src": source, "predicted": clean(predicted), "variant": name}

    def _explained(self) -> list[tuple[str, dict[str, Any]]]:
        """``(variant, result)`` of every explanation."""
        return [(n, r) for n in self.names for r in self.bundle.variants[n]["explain"] or []]

    def _explain_quality(self) -> Table | None:
        """What was measured of the explanations themselves."""
        results = [(n, r) for n, r in self._explained() if any(map(known, r["quality"].values()))]
        if not results:
            return None
        names = list(
            dict.fromkeys(q for _, r in results for q, v in r["quality"].items() if known(v))
        )
        why = "This quality was not computed for this explanation"
        return Table(
            "How good the explanations are",
            ["Variant", "Method", *(_LABELS.get(q, _header(q)) for q in names)],
            [
                [
                    Cell(name),
                    Cell(result["method"] or NONE, _of_split(result)),
                    *(self._number(result["quality"].get(q), why) for q in names),
                ]
                for name, result in results
            ],
            frozenset(range(2, len(names) + 2)),
        )

    def _explain_table(self) -> Table | None:
        results = self._explained()
        if not results:
            return None
        columns = ["Variant", "Method", "Explains", "Rows", "Background", "Additivity error, max",
                   "Additivity error, mean", "Distance from the artefact", "Samples/s"]  # fmt: skip
        rows = []
        for name, result in results:
            error = result.get("error")
            why = error or "This method's values need not sum to the output"
            additivity = result["additivity_error"]
            rows.append(
                [
                    Cell(name),
                    Cell(result["method"] or NONE, error or _of_split(result)),
                    Cell(result["space"]),
                    self._number(result["samples"], error, count),
                    self._number(result["background"], error or "It needs none", count),
                    self._number(additivity.get("max"), why),
                    self._number(additivity.get("mean"), why),
                    self._number(
                        result.get("artifact_gap"), error or "It was not compared with the artefact"
                    ),
                    self._number(result["samples_per_second"], error),
                ]
            )
        return Table(
            "How each variant was explained; errors and distances relative to the output's range",
            columns,
            rows,
            frozenset(range(3, len(columns))),
        )

    def _drift(self) -> Table | None:
        drift = (self.bundle.audit or {}).get("drift") or []
        if not drift:
            return None
        fixed_columns = {"variant", "method", "error", "reason", "ci_low", "ci_high"}
        columns = list(
            dict.fromkeys(
                name
                for row in drift
                for name, value in row.items()
                if name not in fixed_columns and (known(value) or _is_interval(value))
            )
        )
        rows = []
        for row in drift:
            cells = [Cell(str(row.get("variant"))), Cell(str(row.get("method") or NONE))]
            for name in columns:
                value = row.get(name)
                entry = value if isinstance(value, dict) else {"value": value}
                if name == "sample_cosine" and "ci_low" not in entry:  # the row's own interval
                    entry |= {bound: row.get(bound) for bound in ("ci_low", "ci_high")}
                low, high = entry.get("ci_low"), entry.get("ci_high")
                cell = self._number(
                    entry.get("value"), entry.get("reason") or row.get("error") or row.get("reason")
                )
                bounds = f"[{plain(low)}, {plain(high)}]" if known(low) and known(high) else ""
                cells.append(Cell(cell.text, bounds, cell.note))
            rows.append(cells)
        return Table(
            "Drift of the reasons: base's attributions against the variant's, on the same rows",
            [
                "Variant",
                "Method",
                *(_LABELS.get(name, _header(name)) for name in columns),
            ],
            rows,
            frozenset(range(2, len(columns) + 2)),
        )

    # 5. Training and data

    def _training(self) -> dict[str, Any]:
        result = self.run.get("result") or {}
        spec, data = self.run["spec"], self.run["data"]
        retrained = {
            # Another model learns from base by another loss, of no unit of the run's.
            name: (found["log"], {} if found["variant"]["model"] else self.run["loss"])
            for name, found in self.bundle.variants.items()
            if name != "base" and found.get("log")
        }
        return {
            "charts": self._curves(self.bundle.log, self.run["loss"]),
            "advice": result.get("advice"),
            "retrained": [(name, self._curves(*found)) for name, found in retrained.items()],
            "missing": [] if self.bundle.log else [f"zoo train --resume {self.run['run']}"],
            "model": _facts(
                {
                    "Model": f"{spec['name']} {spec.get('version', '')}".strip(),
                    "Family": spec.get("family"),
                    "Task": self.head["task"],
                    "Source": spec.get("source"),
                    "License": spec.get("license"),
                    "Variables": self.run["params"],
                    "Structure": spec.get("structure"),
                    **{f"Config: {key}": value for key, value in self.run["config"].items()},
                }
            ),
            "run": _facts(
                {
                    "Seed": self.run["seed"],
                    "Epochs": result.get("epochs"),
                    "Training time, s": result.get("seconds"),
                    "Samples/s": result.get("samples_per_second"),
                    "Execution": result.get("execution"),
                    "Experiment": self.run["experiment"],
                    "Code revision": self.run.get("git"),
                    "Created": _date(self.run.get("created") or ""),
                    **{f"Device: {key}": value for key, value in self.run["device"].items()},
                    **{f"Version: {key}": value for key, value in self.run["versions"].items()},
                }
            ),
            "options": _facts(
                {capital(k.replace("_", " ")): v for k, v in self.run["options"].items()}
            ),
            "data": _facts(
                {
                    "Data set": data.get("name"),
                    "Rows": data.get("rows"),
                    **{f"Rows: {part}": n for part, n in (data.get("sizes") or {}).items()},
                    "Kind": data.get("kind"),
                    "Target": data.get("target"),
                    "Positive class": data.get("positive"),
                    "Inputs": len(_used(data["columns"])) if data.get("columns") else None,
                    "Source": data.get("source"),
                    "License": data.get("license"),
                    "SHA-256": data.get("sha256"),
                }
            ),
            "classes": self._class_table(data),
            "groups": self._groups_table(data),
            "columns": ", ".join(_names(_used(data.get("columns") or data.get("features")))),
            "unused": _unused(data.get("columns")),
            "notes": [str(note) for note in data.get("notes") or []],
            "baseline": self._baseline(result),
        }

    def _curves(self, log: list[dict[str, Any]], units: dict[str, str]) -> list[Markup]:
        """Loss, then the main metric, of train and validation by epoch.

        Losses share an axis where ``units`` says that they are of one unit, and only there.
        """
        rows = [(index, _flat(row)) for index, row in enumerate(log, 1)]
        columns = dict.fromkeys(key for _, row in rows for key in row)
        metric = next((m for m in (self.main, *QUALITY) if f"val_{m}" in columns), self.main)
        both = dict(zip(("training", "validation"), ("loss", "val_loss"), strict=True))
        if units and units["training"] == units["validation"]:
            panels = [(f"Loss, {units['training']}", tuple(both.values()))]
        else:
            panels = [
                (f"{capital(kind)} loss{', ' + units[kind] if units else ''}", (column,))
                for kind, column in both.items()
            ]
        panels.append((self._with_unit(metric), (metric, f"val_{metric}")))
        charts = []
        for label, shown in panels:
            series = []
            factor = 100.0 if metric_text(shown[0]).percent else 1.0
            for column in shown:
                line = [
                    (float(row.get("epoch", index)), factor * float(row[column]))
                    for index, row in rows
                    if known(row.get(column))
                ]
                if line:
                    held_out = column.startswith("val_")
                    series.append((int(held_out), "validation" if held_out else "training", line))
            if series:
                charts.append(
                    svg.lines(f"{label} by epoch", series, x_label="epoch", y_label=label)
                )
        return charts

    def _with_unit(self, name: str) -> str:
        """A metric's label; of an error in the target's unit, with the target's name."""
        label, target = _header(name), self.run["data"].get("target")
        return f"{label}, in units of {target}" if target and name in IN_UNITS else label

    def _baseline(self, result: dict[str, Any]) -> Table | None:
        baseline, mine = result.get("baseline") or {}, result.get("metrics") or {}
        shared = [name for name in (baseline.get("metrics") or {}) if name in mine]
        if not shared:
            return None
        return Table(
            f"The model beside its baseline ({baseline['name']})",
            ["Metric", "Model", "Baseline"],
            [
                [
                    Cell(_header(name)),
                    self._metric(name, {"value": mine[name]}),
                    self._metric(name, {"value": baseline["metrics"][name]}),
                ]
                for name in shared
            ],
            frozenset({1, 2}),
        )

    def _class_table(self, data: dict[str, Any]) -> Table | None:
        classes, counts = data.get("classes") or [], data.get("class_counts") or []
        if not classes or len(classes) != len(counts):
            return None
        total = sum(counts) or 1
        rows = [
            [Cell(str(name)), Cell(count(n)), Cell(fixed(100 * n / total, 1))]
            for name, n in zip(classes, counts, strict=True)
        ]
        return Table("Classes", ["Class", "Rows", "Share, %"], rows, frozenset({1, 2}))

    def _groups_table(self, data: dict[str, Any]) -> Table | None:
        groups = data.get("groups")
        if not isinstance(groups, dict):
            return None
        rows = [
            [Cell(str(group)), Cell(attribute), Cell(count(n))]
            for attribute, found in groups.items()
            if isinstance(found, dict)
            for group, n in found.items()
        ]
        if not rows:
            return None
        return Table("Groups in all splits", ["Group", "Attribute", "Rows"], rows, frozenset({2}))

    # 6. Limits, 7. reproduction

    def _limits(self) -> list[tuple[str, list[str]]]:
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
                *(f"No comparison with base: run `{c}`" for c in self.verdict["missing"]),
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

    def _commands(self) -> list[str]:
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


_LABELS = {  # measures of explanations and of their drift
    "topk_jaccard": "Overlap of the top features",
    "spearman": "Rank correlation of importance",
    "sample_cosine": "Cosine, mean over rows",
    "sign_flips": "Signs flipped",
    "top": "Top",
    "n": "Rows",
    "deletion_auc": "Deletion AUC",
    "insertion_auc": "Insertion AUC",
    "random_auc": "Random AUC",
    "randomization_similarity": "Similarity after randomisation",
}


def _forecasts(shown: dict[str, np.ndarray]) -> dict[str, Any]:
    """Charts of forecasts: what was known, what came, what the baseline and the model said."""
    unit, target = (str(clean(str(shown[name]))) for name in ("unit", "target"))
    names = ["known", "came", str(clean(str(shown["baseline_name"]))), "forecast"]
    charts = []
    for k, origin in enumerate(shown["origin"]):
        past = shown["past"][k]
        start = len(past)
        ahead = [
            (index, name, [(0.0, float(past[-1])), *enumerate(map(float, values), start=1)])
            for index, name, values in zip(
                (1, 2, 3), names[1:],
                (shown["truth"][k], shown["baseline"][k], shown["forecast"][k]), strict=True,
            )
        ]  # fmt: skip
        known_line = [(float(i + 1 - start), float(value)) for i, value in enumerate(past)]
        label = f"from {clean(str(origin))}: MASE {plain(float(shown['mase'][k]))}"
        lines = [(0, names[0], known_line), *ahead]
        charts.append(
            (label, svg.lines(label, lines, x_label=f"{unit}s from the origin", y_label=target))
        )
    return {
        "title": "Forecasts",
        "text": "Origins evenly spaced over the test block; the forecast saw what stands left of 0.",
        "legend": svg.legend(list(enumerate(names))),
        "charts": charts,
        "montages": [],
    }


def _generated(shown: dict[str, np.ndarray]) -> dict[str, Any]:
    """Reconstructions, samples and a walk through the code, each one picture."""
    pictures, samples, walk = shown["pictures"], shown["samples"], shown["walk"]
    pairs = np.stack([pictures, shown["reconstructions"]])
    columns = len(pictures)
    whole = len(samples) // columns * columns
    nats = [f"{d} ({plain(float(shown['nats'][d]))} nats)" for d in shown["dimensions"].tolist()]
    return {
        "title": "Reconstructions, samples and a walk through the code",
        "text": f"{len(shown['nats'])} latent dimensions tell "
        f"{plain(float(shown['nats'].sum()))} nats of a test picture on average.",
        "legend": "",
        "charts": [],
        "montages": [
            (title, picture.png(picture.montage(grid)))
            for title, grid in (
                ("Test pictures, above, and what their code gives back, below", pairs),
                ("Pictures from codes drawn at random",
                 samples[:whole].reshape(-1, columns, *samples.shape[1:])),
                (f"The first picture as one dimension moves from −2 to 2: {', '.join(nats)}", walk),
            )
        ],
    }  # fmt: skip


_SHOWN: dict[str, Callable[[dict[str, np.ndarray]], dict[str, Any]]] = {
    "forecasts": _forecasts,
    "generated": _generated,
}


def _either(row: dict[str, Any], first: str, second: str) -> Any:
    """The first value, or where there is none the second: rows of classes and of values."""
    return row[first] if row.get(first) is not None else row.get(second)


def _of_split(result: dict[str, Any]) -> str:
    return "" if result["split"] == "test" else f"{result['split']} rows"


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


def _header(name: str, *, change: bool = False) -> str:
    """A column's title with its unit: ``Accuracy, %``."""
    text = metric_text(name)
    label = f"{text.label}: change" if change else text.label
    shown = unit(name, change=change).strip()
    return f"{label}, {shown}" if shown else label


def _is_interval(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"val": {"loss": 1}}`` -> ``{"val_loss": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= (
            _flat(value, f"{prefix}{key}_") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _date(stamp: str) -> str:
    """``2026-03-04T05:06:07+00:00`` -> ``4 March 2026, 05:06 UTC``; other text as it is."""
    try:
        moment = datetime.fromisoformat(stamp).astimezone(UTC)
    except ValueError:
        return stamp
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment:%Y, %H:%M} UTC"


def _versus(
    factor: float | None, better: str, worse: str, same: str, digits: int | None = None
) -> str:
    """``3.7× smaller``, or what is said of two alike."""
    number, word = times(factor, better, worse, same, digits)
    return f"{number}× {word}" if number else word


def _word(value: Any) -> str:
    """Any JSON value in a cell."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else plain(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_word(item)}" for key, item in value.items()) or NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_word, value)) or NONE
    return str(value) or NONE


def _facts(pairs: dict[str, Any]) -> list[tuple[str, str]]:
    """Named facts, without those that are unknown."""
    return [
        (name, str(value) if "seed" in name.lower() else _word(value))
        for name, value in pairs.items()
        if value not in (None, "", [], {})
    ]


def _method(arrays: dict[str, Any]) -> str:
    """The explanation method that made some stored arrays."""
    return clean(str(arrays.get("method", "")))


def _used(columns: Any) -> list[Any]:
    """The columns that are inputs, of those of the file."""
    found = columns if isinstance(columns, list) else []
    return [item for item in found if not (isinstance(item, dict) and item.get("used") is False)]


def _unused(columns: Any) -> str:
    """The other columns, each with what it is instead (constant, empty, free text...)."""
    found = columns if isinstance(columns, list) else []
    used = _used(found)
    return ", ".join(f"{item['name']} ({item.get('kind')})" for item in found if item not in used)


def _comma_separated(names: Any) -> str:
    """Names as the command line takes them: one with a comma or a quote in it is quoted as CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(map(str, names))
    return line.getvalue()


def _names(columns: Any) -> list[str]:
    return [
        str(item.get("name", item)) if isinstance(item, dict) else str(item)
        for item in (columns if isinstance(columns, list) else [])
    ]


def _quoted(value: Any) -> str:
    return shlex.quote(str(value))
