"""Small charts as SVG text. Colours come from CSS classes, so that dark mode and print work.

Every chart is WIDTH units wide, about a phone's screen: text keeps its size there, and wider
screens lay charts side by side. No style attributes: the page's security policy blocks them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from zoo_report.text import fixed, plain, shorten

WIDTH = 340
SERIES = 7  # colours in the style sheet, s0 (base) to s6; markers differ too, then both repeat


@dataclass(frozen=True)
class Point:
    """A value with an interval (each may be None), and what to say when it is pointed at."""

    value: float | None
    low: float | None = None
    high: float | None = None
    title: str = ""


def series_class(index: int) -> str:
    """The CSS class of a series: base first, colours repeat after the sixth variant."""
    return f"s{index if index < SERIES else 1 + (index - 1) % (SERIES - 1)}"


def _chart(height: float, title: str, body: list[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{t}">'
        "<title>{t}</title>{body}</svg>"
    ).format(w=WIDTH, h=_n(height), t=title, body=Markup("").join(body))


def _n(value: float) -> str:
    """A coordinate, two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> Markup:
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        _n(x), _n(y), css, anchor, text
    )


def _label(x: float, y: float, text: str, anchor: str = "start") -> Markup:
    """A row's name around the height y, on two lines where it is long; the rest is in its title."""
    lines = wrapped(text)
    top = y - 6 * (len(lines) - 1)
    return Markup("").join(
        _text(x, top + 12 * k, line, "label", anchor) for k, line in enumerate(lines)
    )


LABEL = 17  # characters of a row's name on one line


def wrapped(text: str) -> list[str]:
    """A name on at most two lines of :data:`LABEL` characters, broken at a space if there is one."""
    if len(text) <= LABEL:
        return [text]
    cut = text.rfind(" ", 1, LABEL + 1)
    cut = cut if cut > 0 else LABEL
    return [text[:cut].rstrip(), shorten(text[cut:].lstrip(), LABEL)]


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup('<path d="M{} {}L{} {}" class="{}"/>').format(_n(x1), _n(y1), _n(x2), _n(y2), css)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (steps of 1, 2 or 5) inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def tick_texts(marks: list[float]) -> list[str]:
    """The marks of one axis, all with the digits that its step needs."""
    step = min((b - a for a, b in itertools.pairwise(marks)), default=marks[0] if marks else 1.0)
    digits = max(0, -math.floor(math.log10(abs(step) or 1.0) + 1e-9))
    return [fixed(value, digits) if digits < 6 else plain(value) for value in marks]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A linear map of [low, high] to [start, end]; the middle where the range is empty."""
    if high <= low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def span(values: Sequence[float | None], pad: float = 0.06) -> tuple[float, float]:
    """The range of the known values with some air around it."""
    found = [value for value in values if value is not None]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    air = (high - low) * pad or abs(high) * 0.1 or 1.0
    return low - air, high + air


# Markers: path data around the origin, of about equal area.
MARKERS = (
    "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.4L4.4 0L0 4.4L-4.4 0z",
    "M0-4.2L4 3.2H-4z",
    "M0 4.2L4-3.2H-4z",
    "M-1.5-4h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z",
    "M-4-1.6L0-4.4L4-1.6L2.6 3.6H-2.6z",
)


def marker(index: int, x: float = 0, y: float = 0) -> Markup:
    """The marker of a series at a place."""
    return Markup('<path d="{}" transform="translate({} {})" class="mark"/>').format(
        MARKERS[index % len(MARKERS)], _n(x), _n(y)
    )


def key(index: int) -> Markup:
    """A marker on its own, for a legend in the page's text."""
    return Markup('<svg class="key {}" viewBox="-6 -6 12 12" aria-hidden="true">{}</svg>').format(
        series_class(index), marker(index)
    )


def _group(index: int, parts: list[Markup], title: str = "") -> Markup:
    label = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<g class="{}">{}{}</g>').format(
        series_class(index), label, Markup("").join(parts)
    )


def _axis_x(
    place: Callable[[float], float],
    marks: list[float],
    top: float,
    bottom: float,
    *,
    grid: bool = True,
) -> list[Markup]:
    parts = []
    even = len({round(b - a, 9) for a, b in itertools.pairwise(marks)}) <= 1
    texts = tick_texts(marks) if even else [f"{value:g}" for value in marks]
    for value, shown in zip(marks, texts, strict=True):
        if grid:
            parts.append(_line(place(value), top, place(value), bottom, "grid"))
        parts.append(_text(place(value), bottom + 14, shown, "tick", "middle"))
    return parts


def _axis_y(
    place: Callable[[float], float], marks: list[float], left: float, right: float
) -> list[Markup]:
    parts = []
    for value, shown in zip(marks, tick_texts(marks), strict=True):
        parts.append(_line(left, place(value), right, place(value), "grid"))
        parts.append(_text(left - 5, place(value) + 4, shown, "tick", "end"))
    return parts


def dots(
    title: str,
    rows: Sequence[tuple[str, str]],
    series: Sequence[tuple[int, Sequence[Point]]],
    *,
    unit: str = "",
) -> Markup:
    """Dots with intervals: one row a group, one dot a series in it.

    Args:
        rows: (label, small print below it) of each row.
        series: (index, one point a row); the index chooses colour and marker.
    """
    left, top, step = 112.0, 8.0, 9.0
    long = 12 * any(len(wrapped(label)) > 1 for label, _ in rows)
    row_height = max(30.0 + long, step * len(series) + 11)
    points = [point for _, line in series for point in line]
    low, high = span([bound for p in points for bound in (p.value, p.low, p.high)])
    place = scale(low, high, left, WIDTH - 12)
    bottom = top + row_height * len(rows)
    parts = _axis_x(place, ticks(low, high), top, bottom)
    if unit:
        parts.append(_text(WIDTH - 12, bottom + 27, unit, "tick", "end"))
    for r, (label, small) in enumerate(rows):
        middle = top + row_height * (r + 0.5)
        if r:
            parts.append(_line(0, top + row_height * r, WIDTH, top + row_height * r, "rule"))
        full = Markup("<g><title>{}</title>{}{}</g>").format(
            f"{label} {small}",
            _label(0, middle - 1 if small else middle + 4, label),
            _text(0, middle + (18 if len(wrapped(label)) > 1 else 12), small, "tick"),
        )
        parts.append(full)
        for s, (index, line) in enumerate(series):
            point = line[r]
            y = middle + step * (s - (len(series) - 1) / 2)
            if point.value is None:
                parts.append(_group(index, [_text(left, y + 3, "–", "gone")], point.title))
                continue
            drawn = [marker(index, place(point.value), y)]
            if point.low is not None and point.high is not None:
                drawn.insert(0, _line(place(point.low), y, place(point.high), y, "whisker"))
            parts.append(_group(index, drawn, point.title))
    return _chart(bottom + (32 if unit else 18), title, parts)


def bars(title: str, items: Sequence[tuple[str, float, str]]) -> Markup:
    """Horizontal bars: (label, value >= 0, value as text), in the order given."""
    left = 122.0
    height = 30.0 if any(len(wrapped(label)) > 1 for label, *_ in items) else 22.0
    place = scale(0, max((value for _, value, _ in items), default=0) or 1.0, left, WIDTH - 48)
    parts = []
    for r, (label, value, shown) in enumerate(items):
        y = height * r + 4
        parts.append(
            Markup(
                '<g class="s1"><title>{}: {}</title>{}<rect x="{}" y="{}" width="{}" height="13" '
                'class="bar"/>{}</g>'
            ).format(
                label,
                shown,
                _label(left - 6, y + 11, label, "end"),
                _n(left),
                _n(y),
                _n(max(0.5, place(value) - left)),
                _text(place(value) + 5, y + 11, shown, "tick"),
            )
        )
    return _chart(height * len(items) + 4, title, parts)


def scatter(
    title: str,
    points: Sequence[tuple[int, str, float, Point]],
    *,
    x_label: str,
    y_label: str,
    front: Collection[str] = (),
    taken: str | None = None,
) -> Markup:
    """(series, name, x, y with interval): x from 0, since sizes and times are compared as ratios.

    On a logarithmic axis where they are :data:`FAR` apart. ``front`` names the points of the Pareto
    front, which a line of steps joins; ``taken`` the one that gets a ring.
    """
    left, right, top, bottom = 44.0, WIDTH - 14.0, 24.0, 206.0
    places = [x for _, _, x, _ in points]
    low, high = span([b for *_, p in points for b in (p.value, p.low, p.high)], 0.1)
    up = scale(low, high, bottom, top)
    across, marks = _ratios(places, left, right)
    if min(places, default=0) > 0 and max(places) > FAR * min(places):
        x_label += " (logarithmic)"
    parts = [_text(0, 11, y_label, "tick")]
    parts += _axis_y(up, ticks(low, high), left, right)
    parts += _axis_x(across, marks, top, bottom, grid=False)
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text(right, bottom + 31, x_label, "tick", "end"))
    corners = sorted(
        (across(x), up(p.value)) for _, name, x, p in points
        if name in front and p.value is not None
    )  # fmt: skip
    if corners:
        path = f"M{_n(corners[0][0])} {_n(corners[0][1])}"
        path += "".join(f"H{_n(x)}V{_n(y)}" for x, y in corners[1:])
        parts.append(Markup('<path d="{}" class="front"/>').format(path))
    for index, name, x, point in points:
        if point.value is None:
            continue
        drawn = [marker(index, across(x), up(point.value))]
        if point.low is not None and point.high is not None:
            drawn.insert(0, _line(across(x), up(point.low), across(x), up(point.high), "whisker"))
        if name == taken:
            ring = Markup('<circle cx="{}" cy="{}" r="8" class="ring"/>')
            drawn.append(ring.format(_n(across(x)), _n(up(point.value))))
        parts.append(_group(index, drawn, f"{name}: {point.title}"))
    return _chart(bottom + 36, title, parts)


FAR = 12  # the largest is so many times the smallest: a linear axis would crush the small ones


def _ratios(
    places: Sequence[float], left: float, right: float
) -> tuple[Callable[[float], float], list[float]]:
    """An axis for sizes or times, and its marks: from 0, or logarithmic where they are far apart."""
    least, most = min(places, default=0.0), max(places, default=1.0)
    if not (least > 0 and most > FAR * least):
        high = most * 1.12 or 1.0
        return scale(0, high, left, right), ticks(0, high)
    low, high = math.log10(least) - 0.1, math.log10(most) + 0.1
    exact = scale(low, high, left, right)
    tens = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        marks = [m * 10.0**k for k in tens for m in steps if low <= math.log10(m * 10.0**k) <= high]
        if len(marks) <= 7:
            break
    return lambda value: exact(math.log10(value)), marks


def lines(
    title: str,
    series: Sequence[tuple[int, str, Sequence[tuple[float, float]]]],
    *,
    x_label: str,
    y_label: str,
    reference: tuple[str, float] | None = None,
) -> Markup:
    """Curves: (series, name, points); the last point is marked. ``reference`` is a dashed level."""
    left, right, top, bottom = 44.0, WIDTH - 10.0, 24.0, 176.0
    every = [point for *_, line in series for point in line]
    low, high = span([y for _, y in every] + ([reference[1]] if reference else []))
    x_low, x_high = min(x for x, _ in every), max(x for x, _ in every)
    across, up = scale(x_low, x_high, left, right - 4), scale(low, high, bottom, top)
    parts = [_text(0, 11, y_label, "tick")]
    parts += _axis_y(up, ticks(low, high), left, right)
    whole = [value for value in ticks(x_low, x_high, 5) if value == int(value)]
    parts += _axis_x(across, whole, top, bottom, grid=False)
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text(right, bottom + 31, x_label, "tick", "end"))
    if reference:
        y = up(reference[1])
        parts.append(_line(left, y, right, y, "reference"))
        parts.append(_text(right, y - 4, shorten(reference[0], 44), "tick", "end"))
    for index, name, line in series:
        path = "L".join(f"{_n(across(x))} {_n(up(y))}" for x, y in line)
        drawn = [Markup('<path d="M{}" class="line"/>').format(path)]
        drawn.append(marker(index, across(line[-1][0]), up(line[-1][1])))
        parts.append(_group(index, drawn, name))
    return _chart(bottom + 36, title, parts)


RAMP = 5  # colour steps of a beeswarm, v0 (lowest feature value) to v4; vx without a value


def beeswarm(
    title: str,
    rows: Sequence[tuple[str, Sequence[float], Sequence[float | None]]],
    *,
    x_label: str,
) -> Markup:
    """One row a feature: (label, attributions, feature values in 0..1 or None for the colour).

    Points that would overlap are stacked away from the row's middle, so a row's thickness shows
    how many there are.
    """
    left, top = 112.0, 4.0
    height = 30.0 if any(len(wrapped(label)) > 1 for label, *_ in rows) else 26.0
    low, high = span([value for _, values, _ in rows for value in values])
    low, high = min(low, 0.0), max(high, 0.0)
    place = scale(low, high, left, WIDTH - 8)
    bottom = top + height * len(rows)
    parts = _axis_x(place, ticks(low, high), top, bottom)
    parts.append(_line(place(0), top, place(0), bottom, "axis"))
    parts.append(_text(WIDTH - 8, bottom + 27, x_label, "tick", "end"))
    for r, (label, values, colours) in enumerate(rows):
        middle = top + height * (r + 0.5)
        parts.append(
            Markup("<g><title>{}</title>{}</g>").format(
                label, _label(left - 6, middle + 4, label, "end")
            )
        )
        stacked: dict[int, int] = {}
        paths: dict[str, list[str]] = {}
        for value, colour in zip(values, colours, strict=True):
            column = round(place(value) / 2.5)
            level = stacked.get(column, 0)
            stacked[column] = level + 1
            offset = min((level + 1) // 2 * 2.2, height / 2 - 2) * (-1 if level % 2 else 1)
            step = "x" if colour is None else str(min(int(colour * RAMP), RAMP - 1))
            # A dot is an empty segment with round caps: nine bytes instead of forty.
            paths.setdefault(step, []).append(f"M{place(value):.1f} {middle + offset:.1f}h0")
        for step in sorted(paths):
            parts.append(
                Markup('<path d="{}" class="bee v{}"/>').format("".join(paths[step]), step)
            )
    return _chart(bottom + 32, title, parts)


def legend(names: Sequence[tuple[int, str]]) -> Markup:
    """The series' markers with their names, as a list."""
    items = [Markup("<li>{}{}</li>").format(key(index), escape(name)) for index, name in names]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))
