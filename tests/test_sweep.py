"""Sweeps: the grid, the fronts, the choice, and the whole command on a real run."""

from __future__ import annotations

import dataclasses
import json

import pytest
from report_fixtures import build, write

from zoo import schema
from zoo.compress.recipe import parse
from zoo.compress.steps import STEPS
from zoo.compress.sweep import FRONTS, LIMITS, PREFER, choose, front, grid, harm, judged, missed
from zoo_report import read_bundle, render, svg


def row(variant, drop=0.0, worst=0.0, size=100, gzip=90, p90=1.0, error=None):
    return {"variant": variant, "drop": drop, "worst_group_drop": worst, "bytes": size,
            "bytes_gzip": gzip, "p90_ms": p90, "error": error}  # fmt: skip


def test_the_grid_is_every_step_alone_and_retrained_ones_converted():
    recipes = grid()
    for recipe in recipes:
        parse(recipe)
    assert len(set(recipes)) == len(recipes)
    for step in STEPS.values():
        for text in step.grid:
            assert text in recipes
            if step.kind == "retrain":
                assert f"{text}+int8" in recipes
    without = grid({"int8", "int16x8", "prune"})
    assert "qat+dynamic" in without
    assert not any("int8" in recipe or "prune" in recipe for recipe in without)


def test_the_smallest_that_meets_all_is_taken():
    rows = [
        row("tiny", drop=0.05, size=10),
        row("small", drop=0.005, worst=0.09, size=20),
        row("middle", drop=0.004, worst=0.01, size=30, p90=3.0),
        row("big", drop=0.0, worst=0.0, size=90, p90=0.5),
        row("broken", size=1, error="the converter gave up"),
    ]
    assert choose(rows, {"max_drop": 0.1}, "size") == "tiny"
    assert choose(rows, {"max_drop": 0.01}, "size") == "small"
    assert choose(rows, {"max_drop": 0.01, "max_worst_group_drop": 0.02}, "size") == "middle"
    assert choose(rows, {"max_drop": 0.01, "max_worst_group_drop": 0.02}, "latency") == "big"
    assert choose(rows, {"max_p90_ms": 0.9, "max_drop": 0.01}, "size") == "big"
    assert choose(rows, {"max_bytes": 5}, "size") is None
    same = [row("plain", gzip=90), row("zipped", gzip=20)]
    assert choose(same, {"max_bytes": 100}, "size") == "zipped"


def test_every_constraint_that_is_missed_is_named():
    limits = {"max_drop": 0.01, "max_worst_group_drop": 0.02, "max_bytes": 50, "max_p90_ms": 2}
    found = missed(row("x", drop=0.02, worst=0.02, size=51, p90=None), limits)
    assert [(m["constraint"], m["received"]) for m in found] == [
        ("max_drop", 0.02), ("max_bytes", 51), ("max_p90_ms", None)
    ]  # fmt: skip
    assert found[-1]["reason"] == "it was not measured"
    lost = missed({"variant": "y", "error": "it crashed"}, limits)
    assert [m["constraint"] for m in lost] == list(limits)
    assert {m["reason"] for m in lost} == {"it crashed"}
    assert missed(row("z", drop=0.01, worst=0.02, size=50, p90=2), limits) == []  # "at most"


def test_a_front_holds_what_nothing_beats():
    rows = [row("a", drop=0.0, size=100), row("b", drop=0.01, size=50), row("c", drop=0.01, size=60),
            row("d", drop=0.0, size=100), row("e", drop=0.02, size=None)]  # fmt: skip
    assert front(rows, "drop", "bytes") == ["a", "b", "d"]


def test_harm_is_points_of_a_share_and_growth_of_an_error():
    assert harm(0.9, 0.8, +1) == pytest.approx(0.1)
    assert harm(2.0, 2.5, -1) == pytest.approx(0.25)
    assert harm(0.0, 0.1, -1) == 1.0


def test_the_worst_group_and_the_one_that_lost_most_are_not_the_same():
    def delta(attribute, group, base, value):
        return {"attribute": attribute, "group": group, "n": 50, "metric": "accuracy", "base": base,
                "value": value, "delta": value - base, "ci_low": value - base - 0.02,
                "ci_high": value - base + 0.01}  # fmt: skip

    deltas = [
        delta("(all)", "(all)", 0.90, 0.88),
        delta("sex", "F", 0.70, 0.69),
        delta("sex", "M", 0.95, 0.85),
        {**delta("sex", "(gap)", 0.25, 0.16), "group": "(gap)"},
        {**delta("age", "young", 0.5, 0.5), "value": None, "base": None},
    ]
    found = judged(deltas, ("accuracy", "log_loss"), lambda name: +1)
    assert found["drop"] == pytest.approx(0.02)
    assert found["drop_ci"] == pytest.approx([0.01, 0.04])
    assert (found["worst_group"]["group"], found["hurt_most"]["group"]) == ("F", "M")
    assert found["worst_group_loss"] == pytest.approx(-0.69)
    assert found["worst_group_drop"] == pytest.approx(0.10)


def test_sweep_of_a_run(zoo, run_mlp):
    """The command: every row measured, the choice explained, exit 3 where nothing fits."""
    words = ("compress", run_mlp, "--sweep", "dynamic", "prune:0.5", "--seconds", "0.1")
    code, _, error, document = zoo(*words, "--max-drop", "1", "--max-bytes", "10000000", "--json")
    assert code == 0, error
    rows = {r["variant"]: r for r in document["results"]}
    assert list(rows) == ["base", "dynamic", "prune-0.5"]
    assert document["chosen"] == min(("dynamic", "prune-0.5"), key=lambda name: rows[name]["bytes"])
    for r in rows.values():
        assert r["p90_ms"] > 0
        assert r["missed"] == []
        assert 0 <= r["worst_group"]["value"] <= r["value"] <= 1
        assert r["parity"]["n"] > 0  # the whole row of `zoo compress`
        assert (run_mlp / r["variant"] / "predictions-val.npz").exists()
    assert rows["base"]["drop"] == 0.0
    assert any("size" in r["front"] for r in rows.values())
    stored = json.loads((run_mlp / "sweep.json").read_text())
    assert str(run_mlp.parent) not in json.dumps(stored)
    assert {entry["path"] for entry in stored["inputs"]} >= {"base/model.tflite"}
    page = (run_mlp / "report.html").read_text()
    assert "The sweep" in page

    code, out, _, _ = zoo(*words, "--max-bytes", "10")
    assert code == 3
    assert f"not prune-0.5: bytes {rows['prune-0.5']['bytes']} > 10" in out
    assert "taken: none" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max-drop", "0.1"), "it goes with --sweep"),
        (("int8", "--max-p90-ms", "1"), "it goes with --sweep"),
        ((), "at least one RECIPE"),
        (("--sweep", "--variant", "int8"), "--variant"),
        (("--sweep", "--prefer", "gzip"), "--prefer"),
        (("--sweep", "int9"), "Did you mean int8"),
        (("--sweep", "--max-drop", "-1"), "--max-drop"),
        (("--sweep", "float16", "--min-cell", "9999"), "too small to judge losses on"),
    ],
)
def test_wrong_use(zoo, trained, words, says):
    code, _, error, _ = zoo("compress", trained("mlp"), *words)
    assert code == 2
    assert says in error
    assert not (trained("mlp") / "sweep.json").exists()


def swept(task):
    """A bundle with a sweep of two recipes that failed, one that was taken, and base."""
    bundle = build(task, recipes=("float16", "int8"))
    metric = "mae" if task == "regression" else "accuracy"
    group = {"attribute": "sex", "group": "Female", "n": 80, "value": 0.8, "base": 0.82}
    rows = [
        {"variant": name, "recipe": name, "bytes": size, "bytes_gzip": size, "p90_ms": p90,
         "value": 0.85, "drop": drop, "drop_ci": [drop - 0.01, drop + 0.01], "metric": metric,
         "worst_group": group, "worst_group_drop": 0.02, "hurt_most": group, "error": None,
         "front": ["size"] if name == "int8" else [],
         "missed": [{"constraint": "max_bytes", "expected": 1, "received": 2, "reason": None}],
         "test": {"metric": metric, "value": 0.84, "drop": drop, "worst_group_drop": 0.03,
                  "hurt_most": group}}
        for name, size, p90, drop in (("base", 400_000, 0.02, 0.0), ("float16", 200_000, 9.0, 0.0),
                                      ("int8", 100_000, 0.03, 0.012))
    ]  # fmt: skip
    rows.append({"variant": "prune-0.8", "recipe": "prune:0.8", "error": "<it> crashed", "front": [],
                 "missed": [{"constraint": "max_drop", "expected": 0.02, "received": None,
                             "reason": "<it> crashed"}]})  # fmt: skip
    document = schema.SweepDocument(
        run="demo", report="report.html", split="val", metric=metric, prefer="size",
        limits={"max_drop": 0.02, "max_bytes": 300_000}, chosen="int8", results=rows,
    )  # fmt: skip
    return dataclasses.replace(bundle, sweep=document.model_dump())


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_report_shows_a_sweep(task, tmp_path):
    bundle = swept(task)
    folder = write(bundle, tmp_path / "run")
    (folder / "sweep.json").write_text(schema.dump(bundle.sweep))
    page = render(read_bundle(folder))
    for text in ("The sweep", "had no say in it", "&lt;it&gt; crashed", "at most 300,000 bytes"):
        assert text in page.html
    assert "a loss of at most 2.0 points" in page.html or task == "regression"
    assert "a loss of at most 2.00 % of its error" in page.html or task == "binary"
    assert page.html.count('class="ring"') == 4
    assert page.html.count('class="front"') == 1
    assert "Taken: int8" in page.markdown
    table = page.markdown[page.markdown.index("What was tried") :]
    assert table.count("2.0× smaller") == table.count("4.0× smaller") == 2  # as it is, and zipped


def test_axes_of_far_apart_costs_are_logarithmic():
    points = [(k, str(k), x, svg.Point(0.5)) for k, x in enumerate((0.03, 0.05, 12.0))]
    chart = svg.scatter("t", points, x_label="ms", y_label="accuracy")
    assert "ms (logarithmic)" in chart
    assert "logarithmic" not in svg.scatter("t", points[:2], x_label="ms", y_label="accuracy")


def test_the_tables_agree():
    assert {limit.field for limit in LIMITS.values()} == {
        "drop", "worst_group_drop", "bytes", "p90_ms"
    }  # fmt: skip
    from zoo_report.sections import sweep

    assert set(sweep.LIMITS) == set(LIMITS)
    assert set(sweep.PREFERRED) == set(PREFER)
    assert set(sweep.FRONTS) == set(FRONTS)
