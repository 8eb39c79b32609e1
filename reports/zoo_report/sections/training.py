"""The section of the report on training and data."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from zoo_report import svg
from zoo_report.sections.base import QUALITY, Cell, Section, Table, date_text, header, value_text
from zoo_report.text import capital, count, fixed, known, metric_text

IN_UNITS = ("mae", "rmse")  # metrics in the unit of the target


class Training(Section):
    """How the model was trained, and on what."""

    def training(self) -> dict[str, Any]:
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
                    "Task": self.task,
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
                    "Created": date_text(self.run.get("created") or ""),
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
        label, target = header(name), self.run["data"].get("target")
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
                    Cell(header(name)),
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


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"val": {"loss": 1}}`` -> ``{"val_loss": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= (
            _flat(value, f"{prefix}{key}_") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _facts(pairs: dict[str, Any]) -> list[tuple[str, str]]:
    """Named facts, without those that are unknown."""
    return [
        (name, str(value) if "seed" in name.lower() else value_text(value))
        for name, value in pairs.items()
        if value not in (None, "", [], {})
    ]


def _used(columns: Any) -> list[Any]:
    """The columns that are inputs, of those of the file."""
    found = columns if isinstance(columns, list) else []
    return [item for item in found if not (isinstance(item, dict) and item.get("used") is False)]


def _unused(columns: Any) -> str:
    """The other columns, each with what it is instead (constant, empty, free text...)."""
    found = columns if isinstance(columns, list) else []
    used = _used(found)
    return ", ".join(f"{item['name']} ({item.get('kind')})" for item in found if item not in used)


def _names(columns: Any) -> list[str]:
    return [
        str(item.get("name", item)) if isinstance(item, dict) else str(item)
        for item in (columns if isinstance(columns, list) else [])
    ]
