"""What a training writes for its report: losses in one unit, true sizes, the baseline beside it."""

import json
from pathlib import Path

import numpy as np
import pytest

from zoo import api
from zoo.data.table import Request
from zoo.progress import Progress
from zoo.run import find_run
from zoo_report import read_bundle
from zoo_report.findings import Findings
from zoo_report.view import View


@pytest.fixture(scope="module")
def flats(tmp_path_factory) -> Path:
    """A small regression in euros, which ridge regression learns better than two epochs do."""
    folder = tmp_path_factory.mktemp("flats")
    rng = np.random.default_rng(0)
    area, age = rng.normal(80, 25, 600), rng.integers(0, 80, 600)
    price = 2500 * area - 600 * age + rng.normal(0, 9000, 600)
    lines = [f"{a:.1f},{b},{c:.2f}" for a, b, c in zip(area, age, price, strict=True)]
    (folder / "flats.csv").write_text("\n".join(["area,age,price", *lines]))
    api.train(
        "mlp",
        request=Request(data=str(folder / "flats.csv"), target="price"),
        settings={"epochs": "3"},
        root=folder,
        name="own",
    )
    return folder / "own"


def test_both_curves_of_a_regression_are_in_one_unit(flats):
    run = json.loads((flats / "run.json").read_text())
    assert run["loss"] == dict.fromkeys(
        ("training", "validation"), "squared error of the standardised target"
    )
    rows = [json.loads(line) for line in (flats / "log.jsonl").read_text().splitlines()]
    scale = json.loads((flats / "preprocess.json").read_text())["target"]["scale"]
    for row in rows:
        assert row["val_loss"] == pytest.approx((row["val_rmse"] / scale) ** 2, rel=1e-4)
        assert 0.1 < row["val_loss"] / row["loss"] < 10
    charts = [str(chart) for chart in View(read_bundle(flats)).training["charts"]]
    assert len(charts) == 2
    assert "Loss, squared error of the standardised target" in charts[0]
    assert "RMSE, in units of price" in charts[1]


def test_the_variables_are_those_of_the_model_that_was_built(flats):
    from zoo.train.running import reopen

    run = json.loads((flats / "run.json").read_text())
    built = reopen(find_run(str(flats), flats.parent)).build()
    assert run["params"] == built.count_params() != run["spec"]["params"]
    facts = dict(View(read_bundle(flats)).training["model"])
    assert facts["Variables"] == f"{built.count_params():,}"


def test_the_verdict_says_that_the_baseline_is_better_and_by_how_much(flats):
    run = json.loads((flats / "run.json").read_text())
    result, row = run["result"], run["result"]["baseline"]["difference"]["mae"]
    mine, theirs = result["metrics"]["mae"], result["baseline"]["metrics"]["mae"]
    assert row["delta"] == pytest.approx(mine - theirs, rel=1e-6)
    assert 0 < row["ci_low"] < row["delta"] < row["ci_high"]
    said = Findings(read_bundle(flats)).standing()
    assert (
        f"the baseline (ridge regression): the baseline is better by {row['delta']:,.0f} [" in said
    )


def test_fewer_background_rows_than_asked_for_are_said(flats):
    said = []

    class Heard(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    found = api.explain(
        str(flats), method="exact", samples=2, background=5000, root=flats.parent, quality=False,
        progress=Heard(quiet=True),
    )  # fmt: skip
    rows = json.loads((flats / "run.json").read_text())["data"]["sizes"]["train"]
    note = f"the train split has {rows} of the 5,000 background rows asked for"
    assert found["results"][0]["note"] == note
    assert f"base: {note}" in said
    stored = json.loads((flats / "base" / "explain.json").read_text())["results"]
    assert [row["note"] for row in stored] == [note]
    assert (
        f"{note[0].upper()}{note[1:]} (base by exact)."
        in View(read_bundle(flats)).explanations["notes"]
    )
