"""Series as windows: what is known up to a moment, and what comes after it.

The parts of the split are blocks in time, the earliest being the training block. A window belongs to
the block that all of its targets lie in; one whose targets straddle two blocks belongs to none. So no
target of a part is a target of another, nor an input of an earlier one. Inputs may reach back into
earlier blocks, as they would on the day of a forecast: rolling-origin evaluation (Tashman,
International Journal of Forecasting 16(4), 2000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import ZooError, unknown
from zoo.tasks import Example, get_task

if TYPE_CHECKING:
    from zoo.data.table import Request, Table

#: Steps ahead that are forecast, unless --horizon says otherwise.
HORIZON = 26
#: Shares of the time line: training, then validation; the rest is the test block.
BLOCKS = (0.70, 0.85)
#: Windows that training needs at least, and each of the other parts.
LEAST_TRAINING, LEAST_JUDGED = 20, 5
#: A series with a larger share of gaps than this is none.
MOST_GAPS = 0.5
SEASONS = ("winter", "spring", "summer", "autumn")  # of the northern hemisphere, by month
#: Players of an explanation, about so many.
PLAYERS = 26


#: Months of the steps that are no fixed number of days.
MONTHS = {"month": 1, "quarter": 3, "year": 12}


@dataclass(frozen=True)
class Step:
    """A distance in time between values: its name, its days, and how many make a season."""

    unit: str
    days: float
    season: int

    def slots(self, dates: Any) -> np.ndarray:
        """The place of each date on the regular grid of steps, int64 (n,), the first being 0."""
        if self.unit in MONTHS:
            months = dates.year.to_numpy() * 12 + dates.month.to_numpy() - 1
            place = months // MONTHS[self.unit]
        else:
            place = np.rint((dates - dates[0]).total_seconds().to_numpy() / 86_400 / self.days)
        return (place - place[0]).astype(np.int64)


#: A season of hours is a day, of days a week, of all others a year.
STEPS = (
    Step("hour", 1 / 24, 24),
    Step("day", 1.0, 7),
    Step("week", 7.0, 52),
    Step("month", 30.44, 12),
    Step("quarter", 91.31, 4),
    Step("year", 365.25, 1),
)


@dataclass(frozen=True)
class Windows:
    """Windows of one series: ``windows[rows]`` gives float64 (n, length), the newest value last.

    ``values`` float64 (t,) lie on a regular grid, NaN where there is a gap; ``dates`` datetime64
    (t,); ``origins`` int64 (n,) are the places of each window's newest value. ``known`` values of the
    series, from the first on, are the training block.
    """

    values: np.ndarray
    dates: np.ndarray
    origins: np.ndarray
    length: int
    horizon: int
    step: Step
    known: int
    column: str
    date: str

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.origins), self.length

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, rows: Any) -> np.ndarray:
        place = self.origins[rows][:, None] + np.arange(1 - self.length, 1)
        return np.stack([fill(row) for row in self.values[place]]).reshape(-1, self.length)

    def targets(self) -> np.ndarray:
        """What came after each window: float64 (n, horizon), NaN where there is a gap."""
        return self.values[self.origins[:, None] + np.arange(1, self.horizon + 1)]

    def scale(self) -> float:
        """The mean size of the change over a season within the training block.

        What MASE divides by (Hyndman & Koehler, International Journal of Forecasting 22(4), 2006,
        with the seasonal naive forecast).
        """
        return seasonal_scale(self.values[: self.known], self.step.season)


def seasonal_scale(values: np.ndarray, season: int) -> float:
    """Mean absolute difference between values (t,) a season apart, gaps left out.

    1 where that is 0 or there is none: a season that repeats itself exactly leaves no scale.
    """
    change = np.abs(values[season:] - values[:-season])
    change = change[np.isfinite(change)]
    return float(change.mean()) if len(change) and change.mean() > 0 else 1.0


def fill(window: np.ndarray) -> np.ndarray:
    """A window (length,) whose gaps are filled from its own values, which all lie in the past.

    Linearly between known values; after the last one it stays, before the first one that one does.
    """
    known = np.flatnonzero(np.isfinite(window))
    if len(known) == len(window):
        return window
    return np.interp(np.arange(len(window)), known, window[known])


def seasonal_naive(windows: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The same time of the last season, moved by what the series rose over that season.

    Args:
        windows: float (n, length). Returns (n, horizon): step h is the value a whole number k of
        seasons before, plus k times the change over the last season.
    """
    ahead = np.arange(1, horizon + 1)
    seasons = -(-ahead // season)
    place = windows.shape[1] - 1 + ahead - seasons * season
    drift = windows[:, -1] - windows[:, -1 - season]
    return windows[:, place] + seasons * drift[:, None]


def arrange(table: Table, request: Request) -> Table:
    """The table of a series (a date and a value a row) as one of windows, split in time.

    Raises :class:`ZooError` where there are no dates, they do not follow one step, or the series is
    too short.
    """
    horizon = HORIZON if request.horizon is None else request.horizon
    if table.split is not None:
        raise ZooError(
            "A series is split in time, not by a column.",
            expected="no split column for the task forecasting",
            received=f"--split {request.split}" if request.split else "a column called split",
            hint="Drop the column: 70 % of the time trains, 15 % validates, 15 % tests.",
            kind="bad_split",
        )
    values, dates, step, date, notes = on_grid(table.x, table.y, table.target)
    _check_regular_gaps(values, step, horizon, table.target)
    length = max(2 * step.season, horizon)
    ends = [0, *(int(share * len(values)) for share in BLOCKS), len(values)]
    origins, parts = [], []
    for name, start, end in zip(("train", "val", "test"), ends, ends[1:], strict=False):
        first = max(start - 1, length - 1)
        found = np.arange(first, end - horizon)
        ahead = values[found[:, None] + np.arange(1, horizon + 1)]
        past = values[found[:, None] + np.arange(1 - length, 1)]
        usable = np.isfinite(ahead).all(axis=1) & (np.isfinite(past).mean(axis=1) > MOST_GAPS)
        origins.append(found[usable])
        parts += [name] * int(usable.sum())
        least = LEAST_TRAINING if name == "train" else LEAST_JUDGED
        if usable.sum() < least:
            raise ZooError(
                f"The series {table.target!r} is too short to forecast {horizon} steps ahead.",
                expected=f"about {_shortest(length, horizon):,} values one {step.unit} apart, so that "
                f"the {name} block holds {least} windows",
                received=f"{len(values):,} values, {int(np.isnan(values).sum()):,} of them missing: "
                f"{int(usable.sum())} windows",
                hint="Give a longer series, or a shorter --horizon.",
                kind="too_short",
            )
    place = np.concatenate(origins)
    windows = Windows(values, dates, place, length, horizon, step, ends[1], table.target, date)
    gaps = int(np.isnan(values).sum())
    notes += [
        f"values one {step.unit} apart, from {str(dates[0])[:10]} to {str(dates[-1])[:10]}, "
        f"{gaps:,} gaps; the season is {step.season} steps",
        f"each row is a window: {length} values in, the next {horizon} out; the test block begins "
        f"after {str(dates[ends[2] - 1])[:10]}. Windows overlap, so intervals over rows are too "
        "narrow",
    ]
    month = dates[place].astype("datetime64[M]").astype(int) % 12 + 1
    return replace(
        table,
        kind="series",
        x=windows,
        y=windows.targets(),
        groups={"season": np.array(SEASONS)[month % 12 // 3]},
        split=np.array(parts),
        notes=[*table.notes, *notes],
        cache=None,
    )


def _check_regular_gaps(values: np.ndarray, step: Step, horizon: int, name: str) -> None:
    """Raise where some place of every season is a gap, so that no horizon is whole: weekends, nights."""
    places = [k for k in range(step.season) if k < len(values)]
    gaps = [k for k in places if np.isnan(values[k :: step.season]).all()]
    if not gaps:
        return
    whole = int(np.diff([*gaps, gaps[0] + step.season]).max()) - 1
    if horizon > whole:
        raise ZooError(
            f"The series {name!r} has regular gaps: no {horizon} {step.unit}s on end have values.",
            expected=f"at most {whole} steps ahead, or a value for every {step.unit}",
            received=f"{len(gaps)} of every {step.season} {step.unit}s without a value",
            hint=f"--horizon {whole}, or fill the gaps by the value before, or bring the series to a "
            "longer step by sums or means.",
            kind="regular_gaps",
        )


def _shortest(length: int, horizon: int) -> int:
    """Values that a series needs for its blocks to hold the least windows."""
    train = (length + horizon + LEAST_TRAINING) / BLOCKS[0]
    judged = (horizon + LEAST_JUDGED) / (1 - BLOCKS[1])
    return int(np.ceil(max(train, judged)))


def on_grid(
    frame: Any, target: Any, name: str
) -> tuple[np.ndarray, np.ndarray, Step, str, list[str]]:
    """Values and dates of a table, sorted, on a regular grid: ``(values (t,), dates (t,), step,
    the date column's name, notes)``. Steps without a row are gaps (NaN)."""
    import pandas as pd

    cells = pd.Series(target).reset_index(drop=True)
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    strange = cells[np.isnan(values) & cells.notna().to_numpy()]
    if len(strange):
        raise ZooError(
            f"The target {name!r} is not numeric.",
            expected="a number or an empty cell in every row, for the task forecasting",
            received=f"cells such as {str(strange.iloc[0])[:40]!r}",
            kind="not_numeric",
        )
    values = np.where(np.isfinite(values), values, np.nan)
    date, stamps = _dates(frame)
    order = np.argsort(stamps, kind="stable")
    stamps, values = stamps[order], values[order]
    apart = np.diff(stamps).astype("timedelta64[s]").astype(np.float64) / 86_400
    usual = float(np.median(apart))
    step = min(STEPS, key=lambda row: abs(np.log(max(usual, 1e-9) / row.days)))
    if abs(usual / step.days - 1) > 0.1:
        raise ZooError(
            "The dates do not follow a step that is known.",
            expected=f"values one {', '.join(row.unit for row in STEPS[:-1])} or {STEPS[-1].unit} "
            "apart",
            received=f"{date!r} with {usual:.3g} days between most dates",
            hint="Bring the series to one of these steps first, by sums or means.",
            kind="bad_dates",
        )
    slots = step.slots(pd.DatetimeIndex(stamps))
    doubled = np.flatnonzero(np.diff(slots) == 0)
    if len(doubled):
        raise ZooError(
            f"Two values of the series belong to the same {step.unit}.",
            expected=f"one value for each {step.unit}, of a single series",
            received=f"{len(doubled):,} such pairs, the first at {str(stamps[doubled[0]])[:10]}",
            hint="Several series in one file? Give each in a file of its own.",
            kind="bad_dates",
        )
    grid = np.full(int(slots[-1]) + 1, np.nan)
    grid[slots] = values
    missing = float(np.isnan(grid).mean())
    if missing > MOST_GAPS:
        raise ZooError(
            f"Most of the series {name!r} is missing.",
            expected=f"a value in at least half of the {len(grid):,} {step.unit}s",
            received=f"{100 * missing:.0f} % gaps",
            kind="bad_dates",
        )
    known = grid[np.isfinite(grid)]
    if np.ptp(known) == 0 or np.abs(known).max() > 1e18:
        raise ZooError(
            f"The series {name!r} can't be learnt.",
            expected="finite values that vary, up to 1e18",
            received=f"values from {known.min():g} to {known.max():g}",
            kind="bad_values",
        )
    stamps_of = np.interp(np.arange(len(grid)), slots, stamps.astype("datetime64[s]").astype(float))
    others = [str(column) for column in frame.columns if str(column) != date]
    notes = [f"not used: {', '.join(others[:20])}"] if others else []
    return grid, stamps_of.astype("datetime64[s]"), step, date, notes


def stamps(cells: Any) -> Any:
    """ISO dates (n,), perhaps with "UTC" at the end, as UTC timestamps; NaT where a cell is none."""
    import pandas as pd

    found = pd.to_datetime(cells, errors="coerce", utc=True, format="ISO8601")
    left = found.isna() & cells.notna()
    if left.any():
        plain = cells[left].astype(str).str.replace(r"\s*UTC\s*$", "", regex=True)
        again = pd.to_datetime(plain, errors="coerce", utc=True, format="ISO8601")
        found[left.to_numpy()] = again.array
    return found


def _dates(frame: Any) -> tuple[str, np.ndarray]:
    """The first column whose cells are all dates: its name and datetime64 (n,)."""
    import pandas as pd

    for column in frame.columns:
        cells = frame[column]
        if pd.api.types.is_numeric_dtype(cells):
            continue  # a date is never a bare number: no guessing of its unit
        found = stamps(cells)
        if found.notna().all():
            return str(column), found.dt.tz_localize(None).to_numpy("datetime64[s]")
    raise ZooError(
        "The series has no column of dates.",
        expected="a column of dates such as 2024-12-31 (or 2024-12-31 18:00) in every row",
        received=", ".join(repr(str(name)) for name in frame.columns)[:300] or "no other column",
        hint="The task forecasting needs a date in every row, and the value with --target.",
        kind="no_dates",
    )


def fit(data: Any, options: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The plan of a series. Its unit of change is the training block's, which MASE divides by."""
    windows: Windows = data.x
    return {
        "kind": "series",
        "column": windows.column,
        "date": windows.date,
        "shape": [windows.length],
        "outputs": windows.horizon,
        "season": windows.step.season,
        "unit": windows.step.unit,
        "target": {"mean": 0.0, "scale": windows.scale()},
    }


def apply(plan: dict[str, Any], windows: np.ndarray) -> np.ndarray:
    """Windows in the series' own unit, float64 (n, length); :func:`frame` brings them to a model."""
    if windows.shape[1:] != tuple(plan["shape"]):
        raise ZooError(
            "The windows are not of the length the model was trained on.",
            expected=f"(n, {plan['shape'][0]})",
            received=str(windows.shape),
        )
    return windows


def newest(frame: Any, plan: dict[str, Any]) -> Windows:
    """The single window that ends with a user's series, for a forecast of what comes next."""
    if plan["column"] not in frame.columns:
        raise unknown("column", plan["column"], frame.columns)
    others = frame.drop(columns=[plan["column"]])
    values, dates, step, date, _ = on_grid(others, frame[plan["column"]], plan["column"])
    length = plan["shape"][0]
    if step.unit != plan["unit"]:
        raise ZooError(
            "The series follows another step than the one the model was trained on.",
            expected=f"values one {plan['unit']} apart",
            received=f"values one {step.unit} apart",
            kind="bad_dates",
        )
    last = int(np.flatnonzero(np.isfinite(values))[-1])
    if last + 1 < length or np.isnan(values[last + 1 - length : last + 1]).mean() > MOST_GAPS:
        raise ZooError(
            f"The series {plan['column']!r} is too short for a forecast.",
            expected=f"at least {length} values one {step.unit} apart, most of them known",
            received=f"{last + 1} values",
            kind="too_short",
        )
    origins = np.array([last])
    return Windows(values, dates, origins, length, plan["outputs"], step, 0, plan["column"], date)


def answers(
    plan: dict[str, Any],
    inputs: Windows,
    rows: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Any]:
    """What ``zoo predict`` writes for a user's series: a date and a forecast for each step ahead."""
    import pandas as pd

    task = get_task("forecasting")
    example: Example = task.frame(plan, inputs[rows], np.zeros((len(rows), inputs.horizon)))
    assert task.judge is not None
    _, forecast, _ = task.judge(function(example.x), example, plan)
    last = pd.Timestamp(inputs.dates[inputs.origins[0]])
    known = pd.DatetimeIndex(inputs.dates[np.isfinite(inputs.values)])
    at_end = bool(known.is_month_end.all())
    steps = [_later(last, plan["unit"], k, at_end) for k in range(1, inputs.horizon + 1)]
    return {"date": [str(stamp) for stamp in steps], "prediction": forecast[0]}


def _later(date: Any, unit: str, steps: int, at_end: bool) -> Any:
    """The date some steps on: the same day of a later month, or its end, where steps are of months."""
    import pandas as pd

    if unit in MONTHS:
        later = date + pd.DateOffset(months=MONTHS[unit] * steps)
        return (later + pd.offsets.MonthEnd(0) if at_end else later).date()
    days = next(row.days for row in STEPS if row.unit == unit)
    later = date + pd.Timedelta(seconds=round(86_400 * days * steps))
    return later if unit == "hour" else later.date()


def players(plan: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Stretches of the past as ``(name, start, stop)`` in the window, oldest first.

    They begin at the newest value, so that the season before lies in one of them.
    """
    (length,) = plan["shape"]
    size = max(1, round(length / PLAYERS))
    found = []
    for near in range(0, length - 1, size):
        far = min(near + size, length - 1)  # steps ago: near + 1 to far
        label = f"{near + 1}" if far == near + 1 else f"{near + 1}-{far}"
        plural = "" if label == "1" else "s"
        found.append((f"{label} {plan['unit']}{plural} ago", length - 1 - far, length - 1 - near))
    return [*reversed(found), (f"the newest {plan['unit']}", length - 1, length)]
