"""What the sections of the page share: its documents, tables of cells, and how numbers are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup

from zoo_report import svg
from zoo_report.bundle import Bundle
from zoo_report.findings import Findings, benefit
from zoo_report.text import (
    NONE,
    clean,
    interval,
    known,
    measure,
    metric_text,
    plain,
    times,
    times_of,
    unit,
)

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
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
SIZE = ("smaller", "larger", "same size")  # what a ratio of base to a variant says
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


@dataclass(frozen=True)
class Page:
    """What all sections are made of: the documents of a run, what they say, and the footnotes."""

    bundle: Bundle
    found: Findings
    notes: Notes

    @classmethod
    def of(cls, bundle: Bundle) -> Page:
        """The page of a bundle, whose texts are cleaned of what no page should hold."""
        bundle = Bundle(
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
        return cls(bundle, Findings(bundle), Notes())


class Section:
    """A section of the page, and how it shows numbers, changes and what is missing."""

    def __init__(self, page: Page) -> None:
        self.bundle, self.found, self.notes = page.bundle, page.found, page.notes
        self.run, self.names, self.main = self.bundle.run, self.found.names, self.found.main
        self.task = self.run["data"].get("task") or self.run["spec"]["task"]

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
            cells.append(Cell(cell.text, versus(factor, *SIZE)) if factor else cell)
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

    def _uncompared(self) -> list[str]:
        return [] if self.bundle.audit else [f"zoo audit {self.run['run']}"]

    def _command(self, kind: str, name: str) -> str:
        return f"{DOCUMENTS[kind]} {self.run['run']} --variant {name}"

    def _make(self, kind: str) -> list[str]:
        """The commands that make the documents of a kind which are absent."""
        return [self._command(kind, name) for name in self._lacking(kind)]

    def _legend(self, names: Iterable[str]) -> Markup:
        return svg.legend([(self.names.index(name), name) for name in names])

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


def header(name: str, *, change: bool = False) -> str:
    """A column's title with its unit: ``Accuracy, %``."""
    text = metric_text(name)
    label = f"{text.label}: change" if change else text.label
    shown = unit(name, change=change).strip()
    return f"{label}, {shown}" if shown else label


def date_text(stamp: str) -> str:
    """``2026-03-04T05:06:07+00:00`` -> ``4 March 2026, 05:06 UTC``; other text as it is."""
    try:
        moment = datetime.fromisoformat(stamp).astimezone(UTC)
    except ValueError:
        return stamp
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment:%Y, %H:%M} UTC"


def versus(
    factor: float | None, better: str, worse: str, same: str, digits: int | None = None
) -> str:
    """``3.7× smaller``, or what is said of two alike."""
    number, word = times(factor, better, worse, same, digits)
    return f"{number}× {word}" if number else word


def value_text(value: Any) -> str:
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
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) or NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value)) or NONE
    return str(value) or NONE
