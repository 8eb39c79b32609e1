"""What the report claims: directions, sizes that matter, the baseline, and too few rows."""

import dataclasses

import numpy as np
import pytest
from report_fixtures import build
from test_report import CALM, Page, altered, by_hand

from zoo.predictions import Predictions
from zoo_explain.fairness import compare
from zoo_report import render
from zoo_report.findings import Findings
from zoo_report.text import duration, letter, time_unit
from zoo_report.view import View


def of_metric(metric: str, *, base: float, n: int, bounds: tuple[float, float, float]) -> Findings:
    """int8 with one change over all rows, of a model that is judged by ``metric``."""
    found = by_hand([("(all)", "(all)", n, metric, *bounds, 0.001)])
    for document in found.bundle.variants.values():
        document["variant"]["metrics"] = {metric: base}
    found.deltas[0] |= {"base": base, "value": base + bounds[0]}
    return Findings(found.bundle)


@pytest.mark.parametrize(
    ("metric", "base", "bounds", "said"),
    [
        ("mae", 25_000.0, (3000.0, 1675.0, 4661.0), "its MAE rose by more than the rule allows"),
        ("mae", 25_000.0, (200.0, -100.0, 500.0), "its MAE may have risen by more than"),
        ("accuracy", 0.8, (-0.03, -0.04, -0.02), "its accuracy fell by more than the rule allows"),
        ("accuracy", 0.8, (-0.005, -0.02, 0.01), "its accuracy may have fallen by more than"),
        ("elbo", -103.0, (-2.0, -2.5, -1.5), "its ELBO fell by more than the rule allows"),
        ("elbo", -103.0, (-0.5, -1.2, 0.2), "its ELBO may have fallen by more than"),
    ],
)
def test_a_rejection_is_worded_by_the_direction(metric, base, bounds, said):
    found = of_metric(metric, base=base, n=5000, bounds=bounds)
    assert str(found.rejection(found.outcomes[0])).startswith(said)


@pytest.mark.parametrize(
    ("gzip", "cell", "says"),
    [(400, "2.5× smaller", "it is smaller than base only after gzip (2.5 times)"),
     (990, "same size", "it is not smaller than base")],
)  # fmt: skip
def test_a_pruned_file_is_smaller_after_gzip_alone(gzip, cell, says):
    found = of_metric("accuracy", base=0.8, n=5000, bounds=(0.0, -0.001, 0.001))
    for name, zipped in (("base", 1000), ("int8", gzip)):
        found.bundle.variants[name]["variant"] |= {"bytes": 1200, "bytes_gzip": zipped}
    found = Findings(found.bundle)
    assert found.rejection(found.outcomes[0]) == says
    told = "(2.5 times smaller after gzip)" in found.costs(found.outcomes[0])
    assert told == (gzip == 400)
    rows = {str(row[0].text): row for row in View(found.bundle).variants["cost"].rows}
    assert rows["int8"][2].small == cell


# Too few rows


def identical(n: int) -> dict:
    """What a comparison says of n rows on which a variant gives the same answers as base."""
    y = np.arange(n) % 2
    said = Predictions(np.arange(n), y, y, np.stack([1 - y, y], 1).astype(float), ("a", "b"))
    rows = compare(said, said, task="binary", variant="int8")
    return next(row for row in rows if row["metric"] == "accuracy")


@pytest.mark.parametrize(("n", "enough"), [(100, False), (275, False), (276, True), (2000, True)])
def test_too_few_rows_is_what_identical_answers_show(n, enough):
    row = identical(n)
    found = of_metric("accuracy", base=1.0, n=n, bounds=(0.0, row["ci_low"], row["ci_high"]))
    outcome = dataclasses.replace(found.outcomes[0], tested=1)
    reason = found.rejection(outcome)
    assert (reason is None) is enough
    if not enough:
        assert reason == (
            f"too few test rows ({n}) for a rule of 1 point: about 276 would be needed even if no "
            "answer changed"
        )
        assert found.headline() == f"T{reason[1:]}. So base stays the recommended one."


def test_a_loss_that_few_rows_show_is_told_as_a_loss():
    found = of_metric("accuracy", base=0.8, n=100, bounds=(-0.2, -0.3, -0.1))
    assert "fell by more than the rule allows" in str(found.rejection(found.outcomes[0]))
    assert found.headline().startswith("No variant meets the rule")


# What matters


@pytest.mark.parametrize(
    ("metric", "base", "delta", "matters"),
    [
        ("selection_rate", 0.2, 0.0005, False),
        ("selection_rate", 0.2, 0.002, True),
        ("mean_prediction", 100_000.0, 2.8, False),  # of a mean absolute error of 25,000
        ("mean_prediction", 100_000.0, 28.0, True),
        ("mae", 25_000.0, 10.0, False),
        ("mae", 25_000.0, 100.0, True),
    ],
)
def test_a_small_change_is_counted_not_told(metric, base, delta, matters):
    row = ("sex", "Male", 600, metric, delta, 0.9 * delta, 1.1 * delta, 0.001)
    found = by_hand([("(all)", "(all)", 1000, "mae", 0.0, -1.0, 1.0, 1.0), row])
    for document in found.bundle.variants.values():
        document["variant"]["metrics"] = {"mae": 25_000.0}
    found.deltas[1]["base"] = base
    found = Findings(found.bundle)
    outcome = found.outcomes[0]
    told = outcome.losses + outcome.gains + outcome.shifts
    assert (len(told), outcome.negligible) == ((1, 0) if matters else (0, 1))
    words = " ".join(found.effects(outcome))
    assert ("1 change in groups is measurable but negligible." in words) is not matters
    assert ("No group changed by more than is negligible (" in words) is not matters
    card = render(found.bundle).markdown
    assert ("and a size that matters; 1 is measurable but negligible" in card) is not matters
    deltas = View(found.bundle).fairness["deltas"]
    assert (deltas["count"], deltas["negligible"]) == ((1, 0) if matters else (0, 1))


def test_an_interval_that_holds_zero_is_no_finding():
    row = ("sex", "Male", 600, "selection_rate", 0.02, -0.001, 0.04, 0.04)
    outcome = by_hand([*CALM, row]).outcomes[0]
    assert (outcome.shifts, outcome.negligible) == ([], 0)


# The baseline


def beside(metric: str, mine: float, theirs: float, difference: dict | None = None) -> Findings:
    bundle = build(recipes=(), n=500)
    for document in bundle.variants.values():
        document["variant"]["metrics"], document["metrics"] = {metric: mine}, None
    baseline = {"name": "the simple one", "metrics": {metric: theirs}}
    if difference:
        baseline["difference"] = {metric: difference}
    result = {**bundle.run["result"], "metrics": {metric: mine}, "baseline": baseline}
    return Findings(altered(bundle, run={**bundle.run, "result": result}))


@pytest.mark.parametrize(
    ("metric", "mine", "theirs", "difference", "said", "beaten"),
    [
        ("accuracy", 0.863, 0.854, {"delta": 0.009, "ci_low": 0.006, "ci_high": 0.012, "n": 16_281},
         "Accuracy 86.30 %, against 85.40 % of the baseline (the simple one): the model is better by "
         "0.90 points [0.60, 1.20] (n = 16,281).", False),
        ("accuracy", 0.81, 0.83, {"delta": -0.02, "ci_low": -0.03, "ci_high": -0.01, "n": 900},
         "Accuracy 81.0 %, against 83.0 % of the baseline (the simple one): the baseline is better "
         "by 2.0 points [1.0, 3.0] (n = 900).", True),
        ("mae", 24_961.0, 22_246.0, {"delta": 2715.0, "ci_low": 1500.0, "ci_high": 3900.0, "n": 225},
         "MAE 24,961, against 22,246 of the baseline (the simple one): the baseline is better by "
         "2,715 [1,500, 3,900] (n = 225).", True),
        ("mase", 0.48, 0.54, None,
         "MASE 0.480, against 0.540 of the baseline (the simple one): the model is better by 0.060.",
         False),
        ("elbo", -105.0, -206.0, {"delta": 101.0, "ci_low": 99.0, "ci_high": 103.0, "n": 1000},
         "ELBO −105.0 nats, against −206.0 nats of the baseline (the simple one): the model is better "
         "by 101.0 nats [99.00, 103.0] (n = 1,000).", False),
        ("token_loss", 2.1, 1.9, {"delta": 0.2, "ci_low": -0.1, "ci_high": 0.5, "n": 40},
         "Loss a token 2.100 nats, against 1.900 nats of the baseline (the simple one): no measurable "
         "difference ([−0.100, +0.500] nats, n = 40).", False),
    ],
)  # fmt: skip
def test_the_model_is_set_beside_its_baseline(metric, mine, theirs, difference, said, beaten):
    found = beside(metric, mine, theirs, difference)
    assert found.standing() == said
    assert found.beaten is beaten
    page = Page(render(found.bundle).html)
    assert said in page.words
    assert ("Below its baseline" in page.words) is beaten
    # what matters more comes first
    assert (page.words.index(said) < page.words.index(found.headline())) is beaten


# How it is shown


def test_short_latencies_are_in_microseconds():
    assert duration(0.0048) == "4.80 µs"
    assert duration(1.2) == "1.20 ms"
    assert time_unit([0.05, 3.0, None]) == (1000.0, "µs")
    assert time_unit([0.2, 3.0]) == (1.0, "ms")
    view = View(build(n=500))
    columns, rows = view.variants["cost"].columns, view.variants["cost"].rows
    assert columns[4:6] == ["p50, µs", "p90, µs"]
    assert rows[0][5].text == "23.1"  # 0.0231 ms


def test_footnotes_are_letters():
    assert [letter(k) for k in (1, 2, 26, 27, 53)] == ["a", "b", "z", "aa", "ba"]
    bundle = build(n=300)
    page = render(bundle).html
    assert 'href="#note-1" aria-label="why it is missing">a</a>' in page
    assert '<ol class="notes" type="a">' in page


def test_the_page_shows_the_variables_of_the_model_that_was_built():
    bundle = build(n=300)
    facts = dict(View(bundle).training["model"])
    assert bundle.run["spec"]["params"] == 22_145
    assert facts["Variables"] == "12,345"


def test_losses_share_an_axis_only_in_one_unit():
    bundle = build(n=300)

    def labels(**units):
        view = View(altered(bundle, run={**bundle.run, "loss": units}))
        return [
            str(chart).split("</title>")[0].split("<title>")[1] for chart in view.training["charts"]
        ]

    metric = "Accuracy, % by epoch"
    assert labels(training="nats", validation="nats") == ["Loss, nats by epoch", metric]
    assert labels(training="nats, focal", validation="nats") == [
        "Training loss, nats, focal by epoch", "Validation loss, nats by epoch", metric,
    ]  # fmt: skip
    assert labels() == ["Training loss by epoch", "Validation loss by epoch", metric]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("binary", "Up and to the left is better."),
        ("regression", "Down and to the left is better."),
    ],
)
def test_the_caption_says_where_better_is(task, said):
    assert said in Page(render(build(task, n=500)).html).words


def test_a_long_group_is_whole_in_its_chart():
    name = "Old town, by the river"
    bundle = build(attributes={"district": {name: 0.5, "North": 0.5}}, n=500)
    (chart, *_), *_ = [a["charts"] for a in View(bundle).fairness["attributes"]]
    assert ">Old town, by the</text>" in chart[1]
    assert ">river</text>" in chart[1]


def test_the_heat_map_has_a_scale_and_the_page_behind_it():
    import base64
    import io

    from PIL import Image

    drawn = View(build("multiclass", n=500)).explanations["importance"]
    assert "mean size of a patch" in drawn
    picture = Image.open(io.BytesIO(base64.b64decode(drawn.split("base64,")[1].split('"')[0])))
    assert picture.mode == "RGBA"
    assert np.asarray(picture)[..., 3].max() == 255


def test_reductions_of_an_explanation_are_told():
    bundle = build(n=300)
    note = "26 of 50 background rows were used, evenly spaced: a row may cost 2,500 calls"
    bundle.variants["int8"]["explain"][0]["note"] = note
    made = render(bundle)
    assert f"{note} (int8 by permutation)." in Page(made.html).words
    assert f"{note} (int8 by permutation)." in made.markdown


def test_word_pieces_are_shown_as_words_without_their_filling():
    bundle = build(n=300)
    words = np.array([["[CLS]", "teen", "##ager", "[PAD]"]])
    arrays = {"method": np.array("tokens"), "words": words, "values": np.ones((1, 4, 1)),
              "truth": np.array(["b"]), "predicted": np.array(["b"])}  # fmt: skip
    bundle.variants["base"]["arrays"] = arrays
    page = render(bundle).html
    assert "[PAD]" not in page
    assert '>teen</span><span class="w3" title="1.00">ager</span>' in page


def test_the_rule_for_a_metric_that_is_no_share_is_a_share_of_base():
    found = of_metric("elbo", base=-103.0, n=1000, bounds=(-0.5, -0.6, -0.4))
    assert "stays above −1% of base's" in found.rule
    outcome = dataclasses.replace(found.outcomes[0], tested=1)
    assert found.rejection(outcome) is None
    assert "stays above −1 point" in of_metric("accuracy", base=0.8, n=9, bounds=(0, 0, 0)).rule


@pytest.mark.parametrize(
    ("faster", "told"),
    [
        ((0.99, 0.96, 0.998), "about as fast [0.96, 1.00]"),  # no turn where no side is named
        ((0.5, 0.4, 0.6), "2.0 times slower [1.67, 2.50]"),
        ((1.4, 1.2, 1.6), "1.4 times faster [1.20, 1.60]"),
    ],
)
def test_an_interval_of_speed_is_on_the_scale_that_is_told(faster, told):
    found = by_hand(CALM)
    outcome = dataclasses.replace(found.outcomes[0], faster=faster)
    assert found.speed(outcome).replace("0 times", " times").replace("..", ".") in (
        told, told.replace("2.0", "2.").replace("1.4 ", "1.4 ")
    )  # fmt: skip


def test_gates_say_which_variant_and_why():
    bundle = build("binary", n=700)
    gates = [
        {"name": "bytes", "variant": "int8", "passed": True, "expected": "<= 9", "received": 8.0},
        {"name": "p90_ms", "variant": "float16", "passed": False, "expected": "<= 5",
         "received": None, "reason": "it died"},
    ]  # fmt: skip
    made = render(altered(bundle, audit={**bundle.audit, "gates": gates}))
    words = Page(made.html).words
    assert "1 of 2 gate checks failed" in words
    assert "p90_msfloat16failed<= 5–a" in words  # a cell each, the last with its footnote
    assert "it died" in words


@pytest.mark.parametrize(("predicted", "flipped"), [("dog", False), ("cat", True)])
def test_a_logit_of_the_other_class_is_turned_around(predicted, flipped):
    """The one logit of a binary model is the second class's; evidence is shown for what is said."""
    from zoo_report import picture
    from zoo_report.bundle import ARRAYS
    from zoo_report.sections.base import Page as SectionPage
    from zoo_report.sections.explanations import Explanations

    section = Explanations(SectionPage.of(build("binary", n=700)))
    dense = np.random.default_rng(0).normal(size=(1, 8, 8, 1, 1))
    arrays = {"images": np.zeros((1, 8, 8, 1), np.uint8), "dense": dense, "targets": np.array([0]),
              "outputs": np.array(["dog"]), "predicted": np.array([predicted])}  # fmt: skip
    shown = section._attributed("base", arrays, 0)
    seen = -dense[0, :, :, 0, 0] if flipped else dense[0, :, :, 0, 0]
    assert shown["src"] == picture.png(picture.overlay(arrays["images"][0], seen))
    assert shown["other"] == ""
    assert set(arrays) <= set(ARRAYS)  # what is read of a file
    other = Explanations(SectionPage.of(build("multiclass", n=700)))
    arrays |= {"outputs": np.array(["cat", "dog", "emu"]), "targets": np.array([2])}
    assert other._attributed("int8", arrays, 0)["other"] == "emu"  # base's answer, explained there


def test_what_is_explained_is_named():
    bundle = build("binary", n=700)
    for found in bundle.variants.values():
        for result in found["explain"]:
            result["output_names"] = [">50K"]
    page = Page(render(bundle).html)
    assert "What is explained is the logit of >50K." in page.words
    assert "effect on the logit of >50K" in page.words
