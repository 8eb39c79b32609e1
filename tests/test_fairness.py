"""Group metrics against fairlearn and hand-worked tables; intervals against simulation."""

import json
import os
import subprocess
import sys
from math import comb

import fairlearn.metrics as fair
import numpy as np
import pytest
import sklearn.metrics as learn
from scipy import stats

from zoo import schema
from zoo.errors import ZooError
from zoo.metrics import SHARES
from zoo.predictions import Predictions
from zoo_explain.fairness import adjust_holm, audit, bands, compare, noise_floor
from zoo_explain.fairness.measures import BY_LABEL, DISPARITIES, cell_draws, row_draws
from zoo_explain.fairness.paired import mcnemar, sign_flip


def binary(y, p, groups, s=None, classes=("no", "yes")):
    y, p = np.asarray(y), np.asarray(p)
    s = np.eye(len(classes))[p] * 0.8 + 0.2 / len(classes) if s is None else s
    return Predictions(np.arange(len(y)), y, p, s, tuple(classes), groups)


def regression(y, p, groups):
    y, p = np.asarray(y, float), np.asarray(p, float)
    return Predictions(np.arange(len(y)), y, p, (y - p) ** 2, (), groups)


def random_binary(n=1200, seed=0):
    rng = np.random.default_rng(seed)
    g = rng.choice(["a", "b", "c", "(missing)"], n, p=[0.4, 0.3, 0.2, 0.1])
    h = rng.choice(["x", "y"], n)
    y = rng.integers(0, 2, n)
    s = np.clip(0.3 + 0.4 * y + 0.05 * (g == "b") + rng.normal(0, 0.3, n), 0.01, 0.99)
    return binary(y, (s > 0.5).astype(int), {"g": g, "h": h}, np.stack([1 - s, s], axis=1))


# Two groups of ten. a: 4 positives (3 found), 6 negatives (1 false alarm).
# b: 5 positives (2 found), 5 negatives (2 false alarms).
Y = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
P = [1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
G = np.array(["a"] * 10 + ["b"] * 10)
BY_HAND = {
    "a": {
        "accuracy": 8 / 10, "selection_rate": 4 / 10, "true_positive_rate": 3 / 4,
        "false_positive_rate": 1 / 6, "true_negative_rate": 5 / 6, "false_negative_rate": 1 / 4,
        "precision": 3 / 4, "balanced_accuracy": (3 / 4 + 5 / 6) / 2,
    },
    "b": {
        "accuracy": 5 / 10, "selection_rate": 4 / 10, "true_positive_rate": 2 / 5,
        "false_positive_rate": 2 / 5, "true_negative_rate": 3 / 5, "false_negative_rate": 3 / 5,
        "precision": 2 / 4, "balanced_accuracy": (2 / 5 + 3 / 5) / 2,
    },
}  # fmt: skip
DISPARITIES_BY_HAND = {
    "demographic_parity_difference": 0,
    "demographic_parity_ratio": 1,
    "equalized_odds_difference": 3 / 4 - 2 / 5,
    "equalized_odds_ratio": (1 / 6) / (2 / 5),
    "equal_opportunity_difference": 3 / 4 - 2 / 5,
    "accuracy_difference": 3 / 10,
    "worst_group_accuracy": 5 / 10,
}


def test_a_table_worked_by_hand():
    found = audit(binary(Y, P, {"g": G}), task="binary", min_cell=1)
    assert found["positive"] == "yes"
    one = found["attributes"]["g"]
    assert [(row["group"], row["n"]) for row in one["groups"]] == [("a", 10), ("b", 10)]
    for row in one["groups"]:
        for name, value in BY_HAND[row["group"]].items():
            assert row["metrics"][name]["value"] == pytest.approx(value, abs=1e-15), name
    values = {name: row["value"] for name, row in one["disparities"].items()}
    assert values == pytest.approx(DISPARITIES_BY_HAND, abs=1e-12)
    assert one["worst_group"] == "b"
    assert one["disparities"]["worst_group_accuracy"]["group"] == "b"
    assert one["disparities"]["equalized_odds_difference"]["metric"] == "true_positive_rate"
    assert one["disparities"]["equalized_odds_difference"]["between"] == ["b", "a"]
    assert found["warnings"] == []


def test_regression_worked_by_hand():
    y = np.zeros(6)
    p = [1, -1, 3, 2, 2, 2]  # errors 1 1 3 and 2 2 2
    groups = {"g": np.array(list("aaabbb"))}
    found = audit(regression(y, p, groups), task="regression", min_cell=1)["attributes"]["g"]
    a, b = (row["metrics"] for row in found["groups"])
    assert (a["mae"]["value"], b["mae"]["value"]) == pytest.approx((5 / 3, 2))
    assert a["rmse"]["value"] == pytest.approx(np.sqrt(11 / 3))
    assert (a["mean_prediction"]["value"], b["mean_prediction"]["value"]) == (1, 2)
    values = {name: row["value"] for name, row in found["disparities"].items()}
    assert values == pytest.approx(
        {"mae_difference": 1 / 3, "worst_group_mae": 2, "mean_prediction_difference": 1}
    )
    assert found["worst_group"] == "b"


PEERS = {
    "accuracy": learn.accuracy_score,
    "balanced_accuracy": learn.balanced_accuracy_score,
    "f1_macro": lambda y, p: learn.f1_score(y, p, average="macro"),
    "selection_rate": fair.selection_rate,
    "true_positive_rate": fair.true_positive_rate,
    "false_positive_rate": fair.false_positive_rate,
    "true_negative_rate": fair.true_negative_rate,
    "false_negative_rate": fair.false_negative_rate,
    "precision": learn.precision_score,
}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_equal_fairlearn(seed):
    predictions = random_binary(seed=seed)
    y, p, g = predictions.y_true, predictions.y_pred, predictions.groups["g"]
    one = audit(predictions, task="binary", attributes=["g"], resamples=50)["attributes"]["g"]
    frame = fair.MetricFrame(metrics=PEERS, y_true=y, y_pred=p, sensitive_features=g).by_group
    assert [row["group"] for row in one["groups"]] == sorted(set(g))
    for row in one["groups"]:
        members = g == row["group"]
        expected = frame.loc[row["group"]].to_dict()
        expected["log_loss"] = learn.log_loss(y[members], predictions.scores[members])
        values = {name: metric["value"] for name, metric in row["metrics"].items()}
        assert values == pytest.approx(expected, abs=1e-12)
    for name in (
        "demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference",
        "equalized_odds_ratio", "equal_opportunity_difference",
    ):  # fmt: skip
        known = getattr(fair, name)(y, p, sensitive_features=g)
        assert one["disparities"][name]["value"] == pytest.approx(known, abs=1e-12), name
    accuracy = fair.MetricFrame(
        metrics=learn.accuracy_score, y_true=y, y_pred=p, sensitive_features=g
    )
    assert one["disparities"]["accuracy_difference"]["value"] == pytest.approx(
        accuracy.difference(), abs=1e-12
    )
    assert one["disparities"]["worst_group_accuracy"]["value"] == pytest.approx(
        accuracy.group_min(), abs=1e-12
    )


def test_own_values_equal_fairlearn():
    """The values shown are fairlearn's; the intervals come from ours. They must not differ."""
    from zoo.metrics import evaluate
    from zoo.tasks import TASKS
    from zoo_explain.fairness.measures import View, fairlearn_values

    predictions = random_binary()
    codes = np.unique(predictions.groups["g"], return_inverse=True)[1]
    y, p, s = predictions.y_true, predictions.y_pred, predictions.scores
    v = View(TASKS["binary"], y, p, s, 1)
    values = fairlearn_values(v, codes, v.metrics())
    for name, by_group in values.items():
        ours = [evaluate(name, *v.inputs(name, codes == g)) for g in range(4)]
        np.testing.assert_allclose(by_group, ours, rtol=0, atol=1e-12, err_msg=name)


def test_intervals_equal_fairlearns_bootstrap():
    predictions = random_binary(n=600)
    names = ("accuracy", "selection_rate", "true_positive_rate")
    frame = fair.MetricFrame(
        metrics={name: PEERS[name] for name in names},
        y_true=predictions.y_true,
        y_pred=predictions.y_pred,
        sensitive_features=predictions.groups["h"],
        n_boot=60,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    one = audit(predictions, task="binary", attributes=["h"], resamples=4000)["attributes"]["h"]
    low, high = frame.by_group_ci
    for row in one["groups"]:
        for name in names:
            ours = row["metrics"][name]
            width = ours["ci_high"] - ours["ci_low"]
            assert ours["interval"] == "bootstrap"
            # the standard error of fairlearn's 60-resample quantile is about 0.09 of the width
            assert ours["ci_low"] == pytest.approx(low.loc[row["group"], name], abs=0.3 * width)
            assert ours["ci_high"] == pytest.approx(high.loc[row["group"], name], abs=0.3 * width)


def test_multiclass_rates_need_a_positive_class():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, 600), rng.integers(0, 3, 600)
    g = rng.choice(["a", "b"], 600)
    predictions = binary(y, p, {"g": g}, classes=("cat", "dog", "owl"))
    plain = audit(predictions, task="multiclass", resamples=50)
    assert plain["positive"] is None
    assert set(plain["attributes"]["g"]["disparities"]) == {
        "accuracy_difference",
        "worst_group_accuracy",
    }
    dogs = audit(predictions, task="multiclass", positive="dog", resamples=50)
    known = fair.equalized_odds_difference(y == 1, p == 1, sensitive_features=g)
    found = dogs["attributes"]["g"]["disparities"]["equalized_odds_difference"]["value"]
    assert found == pytest.approx(known, abs=1e-12)
    macro = learn.f1_score(y[g == "a"], p[g == "a"], average="macro")
    assert dogs["attributes"]["g"]["groups"][0]["metrics"]["f1_macro"]["value"] == pytest.approx(
        macro
    )


def test_the_other_class_can_be_positive():
    predictions = random_binary()
    y, p, g = predictions.y_true, predictions.y_pred, predictions.groups["g"]
    found = audit(predictions, task="binary", positive="no", attributes=["g"], resamples=50)
    assert found["positive"] == "no"
    known = fair.equal_opportunity_difference(1 - y, 1 - p, sensitive_features=g)
    value = found["attributes"]["g"]["disparities"]["equal_opportunity_difference"]["value"]
    assert value == pytest.approx(known, abs=1e-12)


def test_where_the_group_is_the_label_rates_are_not_judged():
    predictions = random_binary()
    labels = np.where(predictions.y_true == 1, "yes", "no")
    predictions.groups["label"] = labels
    found = audit(predictions, task="binary", label_groups=("label",), resamples=50)
    one = found["attributes"]["label"]
    assert set(one["groups"][0]["metrics"]) == {"accuracy", "log_loss"}
    assert set(one["groups"][0]["metrics"]) <= set(BY_LABEL)
    assert set(one["disparities"]) == {"accuracy_difference", "worst_group_accuracy"}
    assert any("the group is the label" in line for line in found["warnings"])
    crossed = [row for row in found["intersections"] if "label" in row["attributes"]]
    assert {name for row in crossed for name in row["metrics"]} == {"accuracy"}
    rows = compare(
        predictions, predictions, task="binary", variant="v", label_groups=("label",), resamples=50
    )
    metrics = {row["metric"] for row in rows if row["attribute"] == "label"}
    assert metrics == {"accuracy", "accuracy_difference"}


def test_small_groups_are_suppressed_and_named():
    y, p = Y * 3 + [1] * 3, P * 3 + [0] * 3
    g = np.array([*np.tile(G, 3), "rare", "rare", "rare"])
    found = audit(binary(y, p, {"g": g}), task="binary", min_cell=10)
    one = found["attributes"]["g"]
    rare = one["groups"][2]
    assert (rare["group"], rare["n"]) == ("rare", 3)
    for metric in rare["metrics"].values():
        assert (metric["value"], metric["ci_low"], metric["ci_high"]) == (None, None, None)
        assert metric["reason"] == "3 rows, fewer than 10"
    # with it the difference in accuracy would be 0.8: its values must not leak into disparities
    accuracy = one["disparities"]["accuracy_difference"]
    assert accuracy["value"] == pytest.approx(0.3)
    assert accuracy["excluded"] == ["rare"]
    assert any("'rare' has 3 rows" in line for line in found["warnings"])
    rows = compare(binary(y, p, {"g": g}), binary(y, y, {"g": g}), task="binary", variant="v")
    hidden = [row for row in rows if row["group"] == "rare"]
    assert hidden
    for row in hidden:
        assert row["reason"] == "3 rows, fewer than 10"
        assert all(row[key] is None for key in ("base", "value", "delta", "p", "flips"))


def test_a_share_of_few_rows_is_suppressed():
    """30 rows but 4 positives: the accuracy is told, the true positive rate is not."""
    g = np.array(["a"] * 60 + ["b"] * 30)
    y = np.array([1, 0] * 30 + [1] * 4 + [0] * 26)
    found = audit(binary(y, y, {"g": g}), task="binary")
    b = found["attributes"]["g"]["groups"][1]["metrics"]
    assert b["true_positive_rate"]["reason"] == "a share of fewer than 10 rows"
    for name in ("balanced_accuracy", "f1_macro"):
        assert b[name]["value"] is None
        assert b[name]["reason"] == "an average over classes, one of fewer than 10 rows"
    assert not any(" 4 rows" in line for line in found["warnings"])
    assert b["accuracy"]["value"] == 1
    odds = found["attributes"]["g"]["disparities"]["equalized_odds_difference"]
    assert odds["value"] is None
    assert "fewer than two groups" in odds["reason"]
    y[60:64] = 0  # a class that does not occur hides nobody
    found = audit(binary(y, y, {"g": g}), task="binary")
    b = found["attributes"]["g"]["groups"][1]["metrics"]
    assert b["balanced_accuracy"]["value"] == b["f1_macro"]["value"] == 1
    assert b["true_positive_rate"]["reason"] == "a share of fewer than 10 rows"


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_degenerate_groups_do_not_crash(task):
    """One row alone, a group with no positive label, one that is always right."""
    g = np.array(["one"] + ["negative"] * 12 + ["right"] * 12)
    y = np.array([1] + [0] * 12 + [0, 1] * 6)
    p = np.array([0] + [1, 0] * 6 + [0, 1] * 6)
    make = binary if task == "binary" else regression
    found = audit(make(y, p, {"g": g}), task=task, min_cell=1, resamples=200)
    schema.dump(found)
    rows = {row["group"]: row["metrics"] for row in found["attributes"]["g"]["groups"]}
    if task == "binary":
        missing = rows["negative"]["true_positive_rate"]
        assert missing["value"] is None  # fairlearn says 0, which is not what no rows mean
        assert missing["reason"]
        assert any("negative" in w and "true_positive_rate" in w for w in found["warnings"])
        assert found["attributes"]["g"]["disparities"]["equal_opportunity_difference"]["value"] == 1
        right = rows["right"]["accuracy"]
        assert right["value"] == 1
        assert right["ci_low"] < 0.8  # 12 of 12 is no certainty
    else:
        assert rows["one"]["mae"] == {
            "value": 1.0, "ci_low": None, "ci_high": None, "interval": "bootstrap",
            "reason": "one row has no interval",
        }  # fmt: skip
        worst = found["attributes"]["g"]["disparities"]["worst_group_mae"]
        assert worst["ci_low"] is None
        assert worst["reason"] == "too few rows for an interval"
    compare(make(y, p, {"g": g}), make(y, y, {"g": g}), task=task, variant="v", min_cell=1)


def test_one_group_has_no_disparities():
    found = audit(binary(Y, P, {"g": np.array(["all"] * 20)}), task="binary", min_cell=1)
    for row in found["attributes"]["g"]["disparities"].values():
        assert (row["value"], row["ci_low"], row["ci_high"]) == (None, None, None)
        assert "fewer than two groups" in row["reason"]
    assert any("one group" in line for line in found["warnings"])


@pytest.mark.parametrize("answer", [0, 1])
def test_all_predictions_alike(answer):
    found = audit(binary(Y, [answer] * 20, {"g": G}), task="binary", min_cell=1)
    one = found["attributes"]["g"]["disparities"]
    assert one["demographic_parity_difference"]["value"] == 0
    if answer:
        assert one["demographic_parity_ratio"]["value"] == 1
    else:  # no group is selected at all: 0 / 0
        assert one["demographic_parity_ratio"]["value"] is None
        assert "of every group is 0" in one["demographic_parity_ratio"]["reason"]
        assert found["attributes"]["g"]["groups"][0]["metrics"]["precision"]["value"] is None


def test_without_groups_it_says_so():
    found = audit(binary(Y, P, {}), task="binary")
    assert found["attributes"] == {}
    assert "no groups" in found["warnings"][0]


@pytest.mark.parametrize("kept", [20, 0])
def test_no_probabilities_is_a_reason(kept):
    predictions = binary(Y, P, {"g": G}, s=np.zeros(kept))
    found = audit(predictions, task="binary", min_cell=1, resamples=50)
    loss = found["attributes"]["g"]["groups"][0]["metrics"]["log_loss"]
    assert loss["value"] is None
    assert loss["reason"] == "the predictions hold no probabilities"


@pytest.mark.parametrize(
    ("change", "options", "kind", "says"),
    [
        ({}, {"attributes": ["sexx"]}, "unknown_attribute", "sex"),
        ({}, {"positive": "yess"}, "unknown_class", "yes"),
        ({}, {"resamples": 3}, "bad_input", "at least 20"),
        ({}, {"confidence": 95}, "bad_input", "0.95"),
        ({}, {"min_cell": 0}, "bad_input", "at least 1"),
        ({"y_pred": np.full(20, np.nan)}, {"task": "regression"}, "not_finite", "20 of 20"),
        ({"scores": np.full((20, 2), [[0.5, np.nan]])}, {}, "not_finite", "scores"),
        (
            {"scores": np.array([np.inf] + 19 * [0.0])},
            {"task": "causal_lm"},
            "not_finite",
            "1 of 20",
        ),
        ({"row": np.empty(0)}, {}, "bad_input", "at least one row"),
        ({}, {"task": "regression", "positive": "yes"}, "bad_input", "no positive class"),
        ({"groups": {"sex": G[:3]}}, {}, "bad_input", "20 groups"),
    ],
)
def test_what_cannot_be_judged_is_an_error(change, options, kind, says):
    from dataclasses import replace

    predictions = replace(binary(Y, P, {"sex": G}), **change)
    with pytest.raises(ZooError) as caught:
        audit(predictions, **{"task": "binary", **options})
    assert caught.value.kind == kind
    assert says in str(caught.value)


def test_intersections():
    predictions = random_binary()
    found = audit(predictions, task="binary", min_cell=70, resamples=200)
    g, h = predictions.groups["g"], predictions.groups["h"]
    expected = {
        (a, b): int(((g == a) & (h == b)).sum())
        for a in np.unique(g)
        for b in np.unique(h)
        if ((g == a) & (h == b)).sum() >= 70
    }
    assert 0 < len(expected) < 8  # the threshold bites
    assert {tuple(row["group"]): row["n"] for row in found["intersections"]} == expected
    for row in found["intersections"]:
        assert row["attributes"] == ["g", "h"]
        members = (g == row["group"][0]) & (h == row["group"][1])
        y, p = predictions.y_true[members], predictions.y_pred[members]
        assert row["metrics"]["accuracy"]["value"] == pytest.approx((y == p).mean(), abs=1e-12)
        assert row["metrics"]["selection_rate"]["value"] == pytest.approx(p.mean(), abs=1e-12)
        assert row["metrics"]["accuracy"]["ci_low"] < row["metrics"]["accuracy"]["ci_high"]
    assert any("crossed groups have fewer than 70" in line for line in found["warnings"])


def test_every_interval_holds_its_value_and_fits_the_schema():
    predictions = random_binary(n=400)
    found = audit(predictions, task="binary")
    document = schema.FairnessResult(variant="base", **found)
    assert json.loads(schema.dump(document))["attributes"]["g"]["disparities"]
    for one in found["attributes"].values():
        rows = [m for row in one["groups"] for m in row["metrics"].values()]
        for row in rows + list(one["disparities"].values()):
            assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_the_same_seed_gives_the_same_document():
    predictions = random_binary(n=300)
    one, two, other = (
        schema.dump(audit(predictions, task="binary", resamples=100, seed=s)) for s in (1, 1, 2)
    )
    assert one == two
    assert one != other
    changed = binary(predictions.y_true, predictions.y_true, predictions.groups)
    rows = [compare(predictions, changed, task="binary", variant="v", seed=3) for _ in range(2)]
    assert rows[0] == rows[1]


# --- intervals -----------------------------------------------------------------------------------


def estimate(hits, rows):
    hits, rows = np.array(hits), np.array(rows)
    return bands.share(hits, rows, hits[None], rows[None])


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [
        ((56, 48), (70, 80), 0.0524, 0.3339),
        ((9, 3), (10, 10), 0.1705, 0.8090),
        ((10, 0), (10, 10), 0.6075, 1.0000),
    ],
)
def test_differences_equal_newcombes_published_examples(hits, rows, low, high):
    """Newcombe 1998, Statistics in Medicine 17, table II, method 10."""
    _, lower, upper = bands.differences(estimate(hits, rows), 1.959964)
    assert (lower[0, 1], upper[0, 1]) == pytest.approx((low, high), abs=5e-5)
    assert (-upper[1, 0], -lower[1, 0]) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("hits", "rows"), [((56, 48), (70, 80)), ((3, 9), (10, 10)), ((100, 1), (1000, 10))]
)
def test_two_groups_have_the_interval_of_their_signed_difference(hits, rows):
    """By hand from Wilson's limits, at the normal quantile: no group is compared with itself."""
    one = estimate(hits, rows)
    z = stats.norm.ppf(0.975)
    assert bands.critical([one], 0.95, pairs=True) == pytest.approx(z, abs=0.05)
    c = bands.critical([one], 0.95, pairs=True)
    p, n = one.value, np.array(rows)
    middle, root = p + c**2 / (2 * n), c * np.sqrt(p * (1 - p) / n + c**2 / (4 * n**2))
    low, high = (middle - root) / (1 + c**2 / n), (middle + root) / (1 + c**2 / n)
    gap = p[0] - p[1]
    least = gap - np.hypot(p[0] - low[0], high[1] - p[1])
    most = gap + np.hypot(high[0] - p[0], p[1] - low[1])
    expected = max(0, least, -most), max(most, -least)
    assert bands.largest_difference([one], 0.95) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("hits", [(30, 45), (3, 40), (50, 1)])
def test_ratios_solve_their_equation(hits):
    """A limit r of top / bottom is where the interval of top - r * bottom ends at 0."""
    one = estimate(hits, (50, 60))
    low, high = one.band(1.96)
    top, bottom = one.value
    _, lower, upper = bands.ratios(one, 1.96)
    r = lower[0, 1]
    assert top - r * bottom == pytest.approx(
        np.hypot(top - low[0], r * (high[1] - bottom)), abs=1e-9
    )
    if np.isfinite(upper[0, 1]):
        r = upper[0, 1]
        assert r * bottom - top == pytest.approx(
            np.hypot(high[0] - top, r * (bottom - low[1])), abs=1e-9
        )


def test_ratio_of_a_share_of_zero():
    value, low, high = bands.ratios(estimate((0, 30), (40, 60)), 1.96)
    assert (value[0, 1], low[0, 1]) == (0, 0)
    assert 0 < high[0, 1] < 0.5
    assert low[1, 0] > 2
    assert high[1, 0] == np.inf


def test_critical_values_reach_tukeys_and_the_normal():
    """Equal Gaussian groups: the sup-t of all pairs is Tukey's studentised range over sqrt 2."""
    rng = np.random.default_rng(0)
    for groups in (2, 4, 8):
        ones = np.ones((20_000, groups))
        draws = rng.normal(size=ones.shape)
        zeros = np.zeros(groups)
        one = bands.Estimate(zeros, ones[0], draws, ones, NotImplemented)
        tukey = stats.studentized_range.ppf(0.95, groups, np.inf) / np.sqrt(2)
        assert bands.critical([one], 0.95, pairs=True) == pytest.approx(tukey, abs=0.05)
        sidak = stats.norm.ppf((1 + 0.95 ** (1 / groups)) / 2)
        assert bands.critical([one], 0.95, pairs=False) == pytest.approx(sidak, abs=0.05)


def percentile(estimates, confidence, seed):
    gaps = np.ptp(estimates[0].draws, axis=1)
    return np.quantile(gaps, [(1 - confidence) / 2, (1 + confidence) / 2])


# the true value of each, from (base rate, true positive rate, false positive rate) by group
INTERVALS = {
    "difference": (
        lambda e, c, seed: bands.largest_difference(e[:1], c, seed),
        lambda rates: np.ptp(rates[:, 1]),
    ),
    "odds": (bands.largest_difference, lambda rates: np.ptp(rates[:, 1:], axis=0).max()),
    "ratio": (
        lambda e, c, seed: bands.smallest_ratio(e[:1], c, seed),
        lambda rates: rates[:, 1].min() / rates[:, 1].max(),
    ),
    "worst": (
        lambda e, c, seed: bands.extreme(e[0], c, +1, seed),
        lambda rates: rates[:, 1].min(),
    ),
    "percentile": (percentile, lambda rates: np.ptp(rates[:, 1])),
}


def coverage(sizes, rates, trials=200, resamples=300):
    """Share of trials in which each 95 % interval holds its true value."""
    rng = np.random.default_rng(11)
    codes, rates = np.repeat(np.arange(len(sizes)), sizes), np.array(rates)
    covered = dict.fromkeys(INTERVALS, 0)
    for trial in range(trials):
        y = rng.random(len(codes)) < rates[codes, 0]
        p = rng.random(len(codes)) < np.where(y, rates[codes, 1], rates[codes, 2])
        masks = {("t", "rows"): y, ("t", "hits"): y & p, ("f", "rows"): ~y, ("f", "hits"): ~y & p}
        found, _ = cell_draws(codes, (y, p), masks, {}, resamples, trial)
        estimates = []
        for kind in "tf":
            hits, rows = found[kind, "hits"], found[kind, "rows"]
            estimates.append(bands.share(hits[0], rows[0], hits[1], rows[1]))
        for name, (interval, truth) in INTERVALS.items():
            low, high = interval(estimates, 0.95, trial)
            covered[name] += low - 1e-12 <= truth(rates) <= high + 1e-12
    return {name: count / trials for name, count in covered.items()}


EQUAL = (0.4, 0.7, 0.2)


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [
        ([300, 200], [EQUAL] * 2),
        ([300, 200], [EQUAL, (0.4, 0.5, 0.35)]),
        ([400, 300, 200, 100], [EQUAL] * 4),
        ([400, 300, 200, 100], [EQUAL] * 3 + [(0.4, 0.5, 0.4)]),
        ([40, 30, 30, 30], [(0.5, 0.95, 0.05)] * 4),
    ],
)
def test_disparities_are_covered(sizes, rates):
    found = coverage(sizes, rates)
    naive = found.pop("percentile")
    assert min(found.values()) >= 0.93, found
    if len(sizes) == 4 and sizes[0] == 400 and rates[0] == rates[3]:
        assert naive < 0.05  # why the percentile bootstrap does not do


@pytest.mark.parametrize("scales", [(1, 1), (1, 1, 1, 1), (1, 1, 1, 1.8)])
def test_differences_of_means_are_covered(scales):
    rng = np.random.default_rng(12)
    codes, scales = np.repeat(np.arange(len(scales)), 50), np.array(scales)
    covered = np.zeros(2)
    for trial in range(150):
        errors = rng.exponential(size=len(codes)) * scales[codes]
        one = row_draws(codes, {"mae": errors}, {}, 300, trial)[0]["mae"]
        low, high = bands.largest_difference([one], 0.95, trial)
        covered[0] += low <= np.ptp(scales) <= high
        low, high = bands.extreme(one, 0.95, -1, trial)
        covered[1] += low <= scales.max() <= high
    assert (covered / 150 >= 0.93).all()


def draw_changes(rng, sizes, base, other, agree):
    """Right or wrong before and after; with ``agree`` the second answer follows the first."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    first, second = rng.random(len(codes)), rng.random(len(codes))
    second = np.where(rng.random(len(codes)) < agree, first, second)
    return codes, first < np.array(base)[codes], second < np.array(other)[codes]


@pytest.mark.parametrize(
    ("base", "other"),
    [
        ((0.8, 0.8), (0.8, 0.8)),
        ((0.9, 0.7), (0.9, 0.6)),
        ((0.8, 0.8, 0.8, 0.8), (0.78, 0.78, 0.78, 0.78)),
        ((0.8, 0.8, 0.8, 0.8), (0.8, 0.8, 0.8, 0.65)),
        ((0.9, 0.8, 0.8, 0.6), (0.85, 0.8, 0.8, 0.7)),
    ],
)
def test_the_change_of_a_gap_is_covered(base, other):
    rng, truth, covered = np.random.default_rng(13), np.ptp(other) - np.ptp(base), 0
    for trial in range(100):
        codes, one, two = draw_changes(rng, [200] * len(base), base, other, agree=0.9)
        rows = np.ones(len(codes), dtype=bool)
        masks = {"rows": rows, "one": one, "two": two, "up": ~one & two, "down": one & ~two}
        found, _ = cell_draws(codes, (one, two), masks, {}, 300, trial)
        (n, dn), (a, da), (b, db), (up, dup), (down, ddown) = found.values()
        low, high = bands.gap_change(
            [bands.share(a, n, da, dn)],
            [bands.share(b, n, db, dn)],
            [bands.change(up, down, n, (dup, ddown, dn))],
            0.95,
            trial,
        )
        covered += low - 1e-12 <= truth <= high + 1e-12
    assert covered / 100 >= 0.93


@pytest.mark.parametrize("agree", [0.995, 0.7])
def test_paired_changes_are_covered_with_few_flips_and_many(agree):
    rng, covered = np.random.default_rng(14), 0
    for trial in range(150):
        _, one, two = draw_changes(rng, [300], (0.8,), (0.8,), agree)
        y = np.ones(300, dtype=int)
        rows = compare(
            binary(y, one.astype(int), {}), binary(y, two.astype(int), {}),
            task="binary", variant="v", resamples=200, seed=trial,
        )  # fmt: skip
        accuracy = next(row for row in rows if row["metric"] == "accuracy")
        covered += accuracy["ci_low"] <= 0 <= accuracy["ci_high"]
        discordant = sum(accuracy["flips"].values())
        assert accuracy["interval"] == ("bonett-price" if discordant < 20 else "bootstrap")
    assert covered / 150 >= 0.93


# --- two models ----------------------------------------------------------------------------------


def test_compare_worked_by_hand():
    """Group a loses two right answers and gains none; group b gains one."""
    other = np.array(P)
    other[[0, 1]] = 0  # two of a's true positives become misses
    other[5 + 10] = 0  # one of b's false alarms goes
    rows = compare(
        binary(Y, P, {"g": G}), binary(Y, other, {"g": G}), task="binary", variant="int8", min_cell=1
    )  # fmt: skip
    found = {(row["attribute"], row["group"], row["metric"]): row for row in rows}
    assert {row["variant"] for row in rows} == {"int8"}

    a = found["g", "a", "accuracy"]
    assert (a["n"], a["base"], a["value"]) == (10, 0.8, 0.6)
    assert a["delta"] == pytest.approx(-0.2)
    assert a["flips"] == {"correct_to_wrong": 2, "wrong_to_correct": 0}
    assert a["p"] == pytest.approx(0.5)  # 2 * (1/2)^2
    # Bonett & Price 2012 by hand: (0 + 1) / 12 - (2 + 1) / 12 -+ z sqrt((4/12 - (2/12)^2) / 12)
    half = stats.norm.ppf(0.975) * np.sqrt((4 / 12 - (2 / 12) ** 2) / 12)
    assert (a["ci_low"], a["ci_high"]) == pytest.approx((-2 / 12 - half, -2 / 12 + half))

    tpr = found["g", "a", "true_positive_rate"]
    assert (tpr["base"], tpr["value"], tpr["delta"]) == pytest.approx((3 / 4, 1 / 4, -1 / 2))
    unchanged = found["g", "b", "true_positive_rate"]
    assert (unchanged["delta"], unchanged["p"]) == (0, 1)
    assert unchanged["ci_low"] < 0 < unchanged["ci_high"]  # no flip in 5 rows is no proof of none
    false = found["g", "b", "false_positive_rate"]
    assert false["delta"] == pytest.approx(-1 / 5)
    assert false["flips"] == {"correct_to_wrong": 0, "wrong_to_correct": 1}

    whole = found["(all)", "(all)", "accuracy"]
    assert (whole["n"], whole["delta"]) == (20, pytest.approx(-1 / 20))
    assert whole["flips"] == {"correct_to_wrong": 2, "wrong_to_correct": 1}

    gap = found["g", "(gap)", "accuracy_difference"]
    assert (gap["base"], gap["value"], gap["delta"]) == pytest.approx((0.3, 0.0, -0.3))
    assert gap["p"] is None
    assert gap["p_adjusted"] is None
    assert gap["reason"]
    assert gap["ci_low"] <= gap["delta"] <= gap["ci_high"]
    assert {row["metric"] for row in rows if row["group"] == "(gap)"} == {
        row.name
        for row in DISPARITIES
        if row.kind == "difference" and set(row.metrics) <= set(SHARES)
    }
    tested = [row for row in rows if row["p"] is not None]
    assert [row["p_adjusted"] for row in tested] == adjust_holm([row["p"] for row in tested])


def test_a_change_that_hurts_one_group_is_found():
    rng = np.random.default_rng(15)
    codes, one, two = draw_changes(rng, [2000, 2000], (0.85, 0.85), (0.85, 0.75), agree=0.97)
    y, groups = np.ones(4000, dtype=int), {"g": np.array(["m", "w"])[codes]}
    rows = compare(
        binary(y, one.astype(int), groups), binary(y, two.astype(int), groups),
        task="binary", variant="v",
    )  # fmt: skip
    found = {(row["group"], row["metric"]): row for row in rows}
    assert found["w", "accuracy"]["p_adjusted"] < 0.001
    assert found["m", "accuracy"]["p_adjusted"] > 0.05
    assert found["w", "accuracy"]["ci_high"] < -0.07
    gap = found["(gap)", "accuracy_difference"]
    assert gap["delta"] > 0.05
    assert found["w", "accuracy"]["delta"] == pytest.approx(
        two[codes == 1].mean() - one[codes == 1].mean()
    )


def test_identical_models_do_not_differ():
    predictions = random_binary(n=300)
    for row in compare(predictions, predictions, task="binary", variant="v", resamples=50):
        assert row["delta"] == 0
        if row["group"] != "(gap)":
            assert (row["p"], row["p_adjusted"]) == (1, 1)
            assert row["flips"] == {"correct_to_wrong": 0, "wrong_to_correct": 0}
        assert row["ci_low"] <= 0 <= row["ci_high"]


def test_regressions_are_compared_by_each_rows_error():
    rng = np.random.default_rng(16)
    y = rng.normal(400, 1, 300)
    g = np.repeat(["a", "b", "c"], 100)
    p = y + rng.normal(0, 1, 300)
    q = p + np.where(g == "c", np.sign(p - y) * rng.exponential(0.5, 300), 0)  # worse for c alone
    rows = compare(
        regression(y, p, {"g": g}), regression(y, q, {"g": g}), task="regression", variant="v"
    )
    found = {(row["group"], row["metric"]): row for row in rows}
    c = found["c", "mae"]
    assert c["base"] == pytest.approx(np.abs(p - y)[g == "c"].mean())
    assert c["value"] == pytest.approx(np.abs(q - y)[g == "c"].mean())
    assert c["p"] == pytest.approx(1e-4)  # none of 9,999 sign flips is as extreme
    assert c["ci_low"] > 0.3
    assert (c["flips"]["worse"], c["flips"]["better"]) == (100, 0)
    assert found["a", "mae"]["p"] == 1
    assert found["a", "mae"]["delta"] == 0
    gap = found["(gap)", "mae_difference"]
    assert gap["ci_low"] <= gap["delta"] <= gap["ci_high"]
    assert ("(gap)", "mean_prediction_difference") in found


def test_losses_that_are_not_finite_are_refused():
    """Of language models: token and character counts, hits, and the loss of each window."""
    y, p = np.full((20, 2), 9), np.full(20, 5)
    base, other = (
        Predictions(np.arange(20), y, p, np.full(20, loss), (), {"g": G}) for loss in (1.0, np.nan)
    )
    for pair in ((base, other), (other, base)):
        with pytest.raises(ZooError, match="scores") as caught:
            compare(*pair, task="causal_lm", variant="v")
        assert caught.value.kind == "not_finite"


def test_unpaired_predictions_are_refused():
    from dataclasses import replace

    one = random_binary(n=100)
    for other in (
        replace(one, row=one.row[::-1]),
        replace(one, y_true=1 - one.y_true),
        replace(one, row=one.row[:50]),
        replace(one, classes=("a", "b")),
    ):
        with pytest.raises(ZooError) as caught:
            compare(one, other, task="binary", variant="v")
        assert caught.value.kind == "unpaired"


def test_mcnemar_by_hand():
    # 10 against 2: 2 * (C(12,0) + C(12,1) + C(12,2)) / 2^12
    by_hand = 2 * sum(comb(12, k) for k in range(3)) / 2**12
    assert mcnemar(10, 2) == mcnemar(2, 10) == pytest.approx(by_hand, abs=1e-15)
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 0) == 1
    assert mcnemar(0, 8) == stats.binomtest(0, 8).pvalue


def test_sign_flips_equal_scipys_permutations():
    rng = np.random.default_rng(17)
    few, many = rng.normal(0.4, 1, 11), rng.normal(0.25, 1, 60)

    def peer(values, resamples):
        return stats.permutation_test(
            (values, np.zeros_like(values)), lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples", n_resamples=resamples, vectorized=True, rng=0,
        ).pvalue  # fmt: skip

    assert sign_flip(few) == pytest.approx(peer(few, np.inf), abs=1e-12)
    assert sign_flip(many) == pytest.approx(peer(many, 9_999), abs=0.015)
    assert sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.015)
    assert sign_flip(np.r_[few, np.zeros(500)]) == sign_flip(few)  # rows that did not move
    assert sign_flip(np.zeros(30)) == 1
    assert sign_flip(np.ones(60)) == 1 / 10_000


def test_sign_flips_keep_their_level():
    rng = np.random.default_rng(18)
    p = np.array([sign_flip(rng.normal(size=30), seed, 199) for seed in range(300)])
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_holm_by_hand():
    # ordered .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, never falling: .02 .03 .06 .06
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert adjust_holm([0.7, 0.6]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_noise_floor():
    found = noise_floor({"accuracy": [0.81, 0.83, 0.82], "f1": [0.5, None, 0.6]})
    assert found["seeds"] == 3
    assert set(found["metrics"]) == {"accuracy"}
    one = found["metrics"]["accuracy"]
    assert (one["mean"], one["sd"]) == pytest.approx((0.82, 0.01))
    assert one["range95"] == pytest.approx(4.302653 * 0.01 * np.sqrt(2))  # t of 2 degrees, twice
    assert noise_floor({"accuracy": [0.8, 0.9]}) == {
        "seeds": 2,
        "reason": "2 seeds; three or more are needed",
    }
    assert noise_floor({})["seeds"] == 0


def test_noise_floor_holds_what_seeds_do():
    rng = np.random.default_rng(19)
    inside = 0
    for _ in range(400):
        *seeds, one, two = rng.normal(0.8, 0.01, 6)
        inside += abs(one - two) <= noise_floor({"m": seeds})["metrics"]["m"]["range95"]
    assert 0.92 <= inside / 400 <= 0.98


def test_importing_it_is_light():
    code = (
        "import sys, zoo_explain.fairness;"
        "print([m for m in ('fairlearn', 'sklearn', 'scipy', 'pandas', 'tensorflow', 'pydantic')"
        " if m in sys.modules])"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert found.stdout.strip() == "[]"
