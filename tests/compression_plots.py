"""The plots of zoo/compress/README.md, from the committed results: `make docs` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from zoo_report import svg
from zoo_report.text import byte_unit, measure, metric_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "compression.json"
FOLDER = ROOT / "benchmarks" / "results"
#: The page's style, for a picture that stands alone.
STYLE = """
svg { color-scheme: light dark; font-family: system-ui, sans-serif; font-size: 11.5px;
  --ink: #17202a; --soft: #55606c; --rule: #dfe3e8; --paper: #fff;
  --s0: #17202a; --s1: #0072b2; --s2: #c96f00; --s3: #00875f; --s4: #b5578c; --s5: #2f8fc4; --s6: #8a7a00; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8ecf0; --soft: #a3aeba; --rule: #303943; --paper: #12161b;
  --s0: #e8ecf0; --s1: #56b4e9; --s2: #e69f00; --s3: #2cc295; --s4: #e08fbd; --s5: #8cc9f0; --s6: #d8cc3a; } }
text { fill: var(--ink); } .tick { fill: var(--soft); font-size: 10.5px; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); }
.mark { fill: currentColor; } .whisker { stroke: currentColor; stroke-width: 1.6; opacity: 0.65; }
.grid { stroke: var(--rule); } .axis { stroke: var(--soft); } .paper { fill: var(--paper); }
.front { fill: none; stroke: var(--soft); stroke-width: 1.4; stroke-dasharray: 5 3; }
"""
GAP, TALL, ROW, COLUMNS = 24, 242, 17, 3


def plot(model: dict) -> str:
    """One model's recipes: its metric and its worst group's, against size and zipped size."""
    rows = [row for row in model["recipes"] if row["seeds"]]
    metric = metric_text(rows[0]["metric"])
    factor = 100 if metric.percent else 1
    charts = []
    for k, (value, cost, label) in enumerate((
        ("value", "bytes", "size"), ("worst_group", "bytes", "size"),
        ("value", "bytes_gzip", "zipped size"), ("worst_group", "bytes_gzip", "zipped size"),
    )):  # fmt: skip
        divisor, word = byte_unit([row[cost] for row in rows])
        points = []
        for index, row in enumerate(rows):
            if row[value] is None:
                continue
            half = row[f"{value}_sd"] or 0.0
            low, high = ((row[value] + side * half) * factor for side in (-1, 1))
            told = measure(row["metric"], row[value])
            ends = (low, high) if half else (None, None)
            point = svg.Point(row[value] * factor, *ends, told)
            points.append((index, row["recipe"], row[cost] / divisor, point))
        name = f"{'Worst group: ' if value == 'worst_group' else ''}{metric.label}"
        name += ", %" if metric.percent else ""
        chart = svg.scatter(name, points, x_label=f"{label}, {word}", y_label=name,
                            front=_front(points, metric.direction))  # fmt: skip
        x, y = (k % 2) * (svg.WIDTH + GAP), (k // 2) * TALL
        charts.append(
            Markup('<svg x="{}" y="{}" width="{}" height="{}">{}</svg>').format(
                x, y, svg.WIDTH, TALL, chart
            )
        )
    top = 2 * TALL + 14
    keys = [
        Markup('<g class="{}">{}<text x="{}" y="{}">{}</text></g>').format(
            svg.series_class(index), svg.marker(index, x, y), x + 9, y + 4, row["recipe"]
        )
        for index, row in enumerate(rows)
        for x, y in [(10 + 234 * (index % COLUMNS), top + ROW * (index // COLUMNS))]
    ]
    width, height = 2 * svg.WIDTH + GAP, top + ROW * -(-len(rows) // COLUMNS)
    title = f"{model['model']}: what each recipe costs and saves"
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -8 {} {}" role="img">'
            "<title>{}</title><style>{}</style>"
            '<rect x="-10" y="-8" width="100%" height="100%" class="paper"/>{}{}</svg>\n'
        ).format(
            width + 20, height + 16, title, Markup(STYLE), Markup("").join(charts), Markup("").join(keys)
        )
    )  # fmt: skip


def _front(points: list, direction: int) -> list[str]:
    """Names of the points that no other beats in both."""
    places = [(x, -direction * p.value, name) for _, name, x, p in points]
    return [
        name for x, y, name in places
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b, _ in places)
    ]  # fmt: skip


def plots() -> dict[Path, str]:
    """Every plot by its file."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {FOLDER / f"compression-{row['model']}.svg": plot(row) for row in rows}
