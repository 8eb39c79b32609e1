"""The section of the report on quality and cost."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from zoo_report import svg
from zoo_report.sections.base import QUALITY, Cell, Section, Table, header
from zoo_report.text import byte_unit, count, fixed, known, metric_text, plain, time_unit

BETTER = {1: "Up and to the left is better. ", -1: "Down and to the left is better. ", 0: ""}


class Variants(Section):
    """Quality and cost of each variant, and the trade-offs between them."""

    def variants(self) -> dict[str, Any]:
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
        columns = ["Variant", "Rows", header(first), header(first, change=True)]
        columns += [header(name) for name in rest] + ["Largest difference of outputs"]
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
                label = header(self.main)
                charts.append(
                    svg.scatter(
                        f"{label} against {x_label}",
                        points,
                        x_label=x_label,
                        y_label=label,
                    )
                )
        return charts
