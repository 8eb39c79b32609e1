"""Series: windows without leakage, MASE by hand, own files, a forecaster from training to report."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoo.data import series
from zoo.data.core import open_data
from zoo.data.table import PARTS, Request
from zoo.errors import ZooError
from zoo.metrics import evaluate
from zoo.tasks import get_task


def weekly(path, rows=400, drop=(), step="W", noise=0.2):
    """A CSV with a date, a rising seasonal value, and a column that is no use."""
    rng = np.random.default_rng(0)
    k = np.arange(rows)
    value = 50 + 0.05 * k + 5 * np.sin(2 * np.pi * k / 52) + rng.normal(0, noise, rows)
    frame = pd.DataFrame(
        {
            "shop": "Aix",
            "week": pd.date_range("2015-01-04", periods=rows, freq=step).strftime("%Y-%m-%d"),
            "sold": value.round(3),
        }
    ).drop(index=list(drop))
    frame.to_csv(path, index=False)
    return path


def opened(path, **more):
    return open_data(Request(data=str(path), target="sold", task="forecasting", **more))


# Windows ------------------------------------------------------------------------------------------


def places(data, part):
    """The places in the series of all targets of a part."""
    windows = data.x
    return windows.origins[data.parts[part]][:, None] + np.arange(1, windows.horizon + 1)


def assert_no_leak(data):
    """No target of a part is a target of another or lies before the end of an earlier one."""
    ends = [(places(data, part).min(), places(data, part).max()) for part in PARTS]
    for (_, last), (first, _) in pairwise(ends):
        assert last < first
    newest = data.x.origins[data.parts["train"]].max()
    assert newest < places(data, "val").min()
    assert data.x.known > places(data, "train").max()  # what scaling is fitted on ends there, too
    assert data.x.known <= places(data, "val").min()


@pytest.mark.parametrize("horizon", [1, 12, 26])
def test_no_target_of_a_part_is_seen_by_another(tmp_path, horizon):
    assert_no_leak(opened(weekly(tmp_path / "s.csv"), horizon=horizon))


def test_the_check_for_leaks_finds_one(tmp_path):
    data = opened(weekly(tmp_path / "s.csv"))
    data.parts["train"] = np.append(data.parts["train"], data.parts["val"][0])
    with pytest.raises(AssertionError):
        assert_no_leak(data)


def test_training_windows_do_not_depend_on_later_values(tmp_path):
    """Inputs, targets and the scale of training are the same whatever comes after its block."""
    frame = pd.read_csv(weekly(tmp_path / "s.csv"))
    first = opened(tmp_path / "s.csv")
    frame.loc[first.x.known :, "sold"] += 1000
    frame.to_csv(tmp_path / "t.csv", index=False)
    second = opened(tmp_path / "t.csv")
    train = first.parts["train"]
    assert np.array_equal(train, second.parts["train"])
    assert np.array_equal(first.take(train), second.take(train))
    assert np.array_equal(first.y[train], second.y[train])
    assert first.x.scale() == second.x.scale()


def test_gaps_are_filled_from_the_past_of_a_window_alone():
    gap = np.nan
    assert series.fill(np.array([gap, 2.0, gap, 4.0, gap])).tolist() == [2, 2, 3, 4, 4]


def test_a_window_whose_target_has_a_gap_is_left_out(tmp_path):
    whole, holed = (
        opened(weekly(tmp_path / f"{len(drop)}.csv", drop=drop)) for drop in ((), (350,))
    )
    # the test block is 340 to 399: of its 35 windows, those from 339 to 349 reach 350
    assert (len(whole.parts["test"]), len(holed.parts["test"])) == (35, 24)
    assert np.isfinite(holed.y).all()
    assert not (places(holed, "test") == 350).any()
    rows = holed.parts["test"][holed.x.origins[holed.parts["test"]] >= 350]
    assert np.isfinite(holed.take(rows)).all()


def test_co2_as_windows():
    data = open_data(Request(data="co2"))
    assert data.kind == "series"
    assert data.y.shape[1] == 26
    assert {part: len(rows) for part, rows in data.parts.items()} == {
        "train": 1209, "val": 318, "test": 318
    }  # fmt: skip
    assert set(data.groups) == {"season"}
    assert set(data.groups["season"]) == {"winter", "spring", "summer", "autumn"}
    assert_no_leak(data)


# MASE and the baseline ----------------------------------------------------------------------------


def test_mase_by_hand():
    """Hyndman & Koehler 2006: the mean error over the mean change of a season (here 2 steps)."""
    past = np.array([1.0, 5.0, 3.0, 6.0, 4.0, np.nan])  # changes: 2, 1, 1
    scale = series.seasonal_scale(past, 2)
    assert scale == pytest.approx(4 / 3)
    plan = {"target": {"mean": 0.0, "scale": scale}}
    task = get_task("forecasting")
    labels = np.array([[7.0, 9.0], [4.0, 4.0]])
    example = task.frame(plan, np.array([[3.0, 5.0], [2.0, 4.0]]), labels)
    assert example.x.tolist() == [[-1.5, 0.0], [-1.5, 0.0]]
    assert example.y.tolist() == [[1.5, 3.0], [0.0, 0.0]]
    said = np.array([[1.5, 1.5], [0.75, -0.75]])  # forecasts 7, 7 and 5, 3
    truth, forecast, scores = task.judge(said, example, plan)
    assert forecast.tolist() == [[7.0, 7.0], [5.0, 3.0]]
    assert scores == pytest.approx([0.75, 0.75])  # mean errors 1 and 1, over 4/3
    found = {name: evaluate(name, truth, forecast, scores) for name in task.metrics}
    assert found["mase"] == pytest.approx(0.75)
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(np.sqrt((0 + 4 + 1 + 1) / 4))
    assert found["smape"] == pytest.approx((0 + 2 * 2 / 16 + 2 / 9 + 2 / 7) / 4)


def test_the_seasonal_naive_forecast_by_hand():
    windows = np.array([[1.0, 5.0, 3.0, 8.0]])  # a season of 2: the last rose by 3
    assert series.seasonal_naive(windows, 5, 2).tolist() == [[6, 11, 9, 14, 12]]


def test_the_models_own_naive_forecast_is_the_baseline():
    from zoo.models.forecast import naive

    x = np.random.default_rng(0).normal(size=(3, 15)).astype(np.float32)
    x -= x[:, -1:]
    for horizon, season in ((4, 7), (7, 7), (9, 4), (5, 1)):
        expected = series.seasonal_naive(x, horizon, season)
        assert np.allclose(naive(x, horizon, season), expected, atol=1e-6)


def test_linear_forecasters_are_what_the_paper_says():
    from zoo.models.forecast import build_linear

    x = np.random.default_rng(1).normal(size=(2, 9)).astype(np.float32)
    x -= x[:, -1:]
    model = build_linear(True, (9,), 4, 3, window=5)
    padded = np.concatenate([x[:, :1]] * 2 + [x] + [x[:, -1:]] * 2, axis=1)
    trend = np.stack([padded[:, k : k + 5].mean(axis=1) for k in range(9)], axis=1)
    (a, b), (c, d) = (model.get_layer(f"map_{name}").get_weights() for name in ("trend", "rest"))
    assert np.allclose(model(x), trend @ a + b + (x - trend) @ c + d, atol=1e-5)


# Own files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "unit", "season"),
    [("h", "hour", 24), ("D", "day", 7), ("W", "week", 52), ("MS", "month", 12), ("ME", "month", 12),
     ("QS", "quarter", 4), ("YE", "year", 1)],
)  # fmt: skip
def test_the_step_of_a_series_is_found(step, unit, season):
    dates = pd.Series(pd.date_range("1980-01-31", periods=150, freq=step).astype(str))
    values = np.random.default_rng(0).normal(size=150)
    grid, stamps, found, name, _ = series.on_grid(dates.to_frame("when"), values, "sold")
    assert (found.unit, found.season, name) == (unit, season, "when")
    assert np.array_equal(grid, values)
    assert str(stamps[0])[:10] == dates[0][:10]


def test_rows_in_any_order_and_missing_weeks(tmp_path):
    path = weekly(tmp_path / "s.csv", drop=(7, 8))
    shuffled = pd.read_csv(path).sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "t.csv", index=False)
    one, two = opened(path), opened(tmp_path / "t.csv")
    assert np.array_equal(one.x.values, two.x.values, equal_nan=True)
    assert np.flatnonzero(np.isnan(one.x.values)).tolist() == [7, 8]
    assert any("not used: shop" in note for note in one.notes)


def rewritten(path, change):
    frame = pd.read_csv(path)
    change(frame).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda f: f.head(150), "too_short", "about"),
        (lambda f: f.drop(columns="week"), "no_dates", "2024-12-31"),
        (lambda f: pd.concat([f, f.iloc[:3]]), "bad_dates", "one value for each week"),
        (lambda f: f.assign(sold="many"), "not_numeric", "number"),
        (lambda f: f.assign(sold=3.0), "bad_values", "vary"),
        (lambda f: f.iloc[np.r_[:100, 300:320]], "bad_dates", "half"),
        (lambda f: f.iloc[::3], "bad_dates", "week, month"),
        (lambda f: f.assign(split=["train"] * 380 + ["test"] * 20), "bad_split", "no split column"),
    ],
)
def test_series_that_can_not_be_used_say_why(tmp_path, change, kind, words):
    with pytest.raises(ZooError) as raised:
        opened(rewritten(weekly(tmp_path / "s.csv"), change))
    assert raised.value.kind == kind
    assert words in raised.value.expected


def test_a_horizon_is_for_forecasts_alone(tmp_path, zoo):
    from conftest import loans

    code, *_, document = zoo(
        "train", "mlp", "--data", loans(tmp_path / "l.csv"), "--target", "approved",
        "--horizon", "3", "--json",
    )  # fmt: skip
    assert code == 2
    assert "--horizon" in document["error"]["message"]


@pytest.mark.parametrize(
    ("ends", "last", "ahead"),
    [
        ("ME", "2019-02-28", ["2019-03-31", "2019-04-30", "2019-05-31"]),
        ("QE", "2019-06-30", ["2019-09-30", "2019-12-31", "2020-03-31"]),
        ("YE-FEB", "2019-02-28", ["2020-02-29", "2021-02-28", "2022-02-28"]),
        ("MS", "2019-02-01", ["2019-03-01", "2019-04-01", "2019-05-01"]),
    ],
)
def test_month_ends_go_on_as_month_ends(ends, last, ahead):
    """Of a series with a gap, whose own date is made up; the model's answer plays no part."""
    dates = pd.date_range(end=last, periods=60, freq=ends).delete(7)
    frame = pd.DataFrame({"day": dates.astype(str), "y": np.arange(59.0) % 5})
    unit, season = {"M": ("month", 12), "Q": ("quarter", 4), "Y": ("year", 1)}[ends[0]]
    plan = {"kind": "series", "column": "y", "date": "day", "shape": [2 * season], "outputs": 3,
            "season": season, "unit": unit, "target": {"mean": 0.0, "scale": 1.0}}  # fmt: skip
    inputs = series.newest(frame, plan)
    said = series.answers(plan, inputs, np.arange(1), lambda x: np.zeros((len(x), 3)))
    assert said["date"] == ahead


def test_regular_gaps_are_said(tmp_path):
    """Working days: what is five days ahead can be learnt, what is six days ahead never is whole."""
    path = tmp_path / "a.csv"
    dates = pd.bdate_range("2015-01-01", periods=800)
    pd.DataFrame({"day": dates.astype(str), "y": np.sin(np.arange(800))}).to_csv(path, index=False)
    request = Request(str(path), target="y", task="forecasting")
    assert open_data(replace(request, horizon=5)).parts
    with pytest.raises(ZooError, match="regular gaps") as error:
        open_data(replace(request, horizon=6))
    assert error.value.kind == "regular_gaps"
    assert "2 of every 7 days" in error.value.received
    assert "--horizon 5" in error.value.hint


def test_players_share_out_the_window():
    plan = {"shape": [104], "unit": "week"}
    found = series.players(plan)
    covered = np.concatenate([np.arange(start, stop) for _, start, stop in found])
    assert sorted(covered.tolist()) == list(range(104))
    (year,) = [row for row in found if row[0] == "49-52 weeks ago"]
    assert year[1:] == (104 - 1 - 52, 104 - 1 - 48)
    assert found[-1] == ("the newest week", 103, 104)


# From training to report --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small forecaster trained on an own series."""
    from zoo import api

    root = tmp_path_factory.mktemp("series")
    request = Request(data=str(weekly(root / "s.csv")), target="sold", horizon=12)
    settings = {"epochs": "2", "width": "6"}
    return api.train("lstm_forecast", request=request, settings=settings, root=root / "runs")


def test_a_forecaster_is_trained_beside_the_seasonal_naive(run):
    assert run["baseline"]["name"] == "seasonal naive with drift (m = 52)"
    assert set(run["metrics"]) == {"mase", "mae", "rmse", "smape"}
    assert run["metrics"]["mase"] < 1 > run["baseline"]["metrics"]["mase"]
    assert run["target"]["reason"].startswith("the target is a claim about the data set co2")


def test_the_baseline_of_a_run_is_the_formula(run):
    from zoo.run import Run
    from zoo.train.baseline import seasonal
    from zoo.train.running import reopen

    session = reopen(Run(Path(run["run"])))
    _, said = seasonal(session)
    windows = session.data.take(session.data.parts["test"])
    expected = series.seasonal_naive(windows, 12, 52)
    assert np.allclose(said.y_pred, expected, atol=1e-3)
    assert said.scores == pytest.approx(
        np.abs(said.y_true - said.y_pred).mean(axis=1) / session.data.x.scale()
    )


def test_an_audit_of_a_forecaster(run, zoo):
    folder = Path(run["run"])
    code, *_, document = zoo(
        "audit", folder, "dynamic", "--seconds", "0.1", "--json", "--runs", folder.parent
    )
    assert code == 0
    assert {row["variant"] for row in document["drift"]} == {"dynamic"}
    assert {row["metric"] for row in document["deltas"]} >= {"mase", "mae", "mase_difference"}
    page = (folder / "report.html").read_text()
    assert "Forecasts" in page
    assert "seasonal naive with drift (m = 52)" in page
    with np.load(folder / "base" / "explain.npz", allow_pickle=False) as stored:
        error = np.abs(stored["base"] + stored["values"].sum(axis=1) - stored["output"])
        assert error.max() < 1e-3 * np.ptp(stored["output"])
        assert "the newest week" in stored["names"].tolist()
    assert zoo("report", folder, "--no-exemplars").code == 0
    assert "left out on request" in (folder / "report.html").read_text()


def test_what_comes_after_an_own_series(run, zoo, tmp_path):
    later = weekly(tmp_path / "later.csv", rows=130)
    out = tmp_path / "out.csv"
    code, *_, document = zoo("predict", run["run"], later, "--output", out, "--json")
    assert code == 0
    assert document["results"][0]["n"] == 12
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["date"] for row in rows[:2]] == ["2017-07-02", "2017-07-09"]
    assert all(30 < float(row["prediction"]) < 80 for row in rows)
    short = weekly(tmp_path / "short.csv", rows=60)
    code, *_, document = zoo("predict", run["run"], short, "--json")
    assert (code, document["error"]["kind"]) == (2, "too_short")
    daily = weekly(tmp_path / "daily.csv", step="D")
    code, *_, document = zoo("predict", run["run"], daily, "--json")
    assert (code, document["error"]["kind"]) == (2, "bad_dates")


def test_a_forecaster_takes_what_its_config_names():
    """``season`` is known of the data; a build that does not ask for it is not given it."""
    from dataclasses import replace

    from zoo.backend import keras
    from zoo.data.table import Request
    from zoo.registry import models
    from zoo.train.preparing import prepare

    def build(shape, outputs):
        series = keras.Input(shape)
        return keras.Model(series, keras.layers.Dense(outputs)(series))

    spec = replace(
        models().get("nlinear"), build=build, config={"shape": (104,), "outputs": 26}, tiny={}
    )
    session = prepare(spec, Request(data="co2"), settings={}, seed=0, deterministic=False)
    assert set(session.config) == {"shape", "outputs"}
    assert session.build().output_shape == (None, session.config["outputs"])
