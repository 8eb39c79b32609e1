"""Bias mitigation: weights and thresholds against oracles, and the variants of a run."""

import json

import numpy as np
import pytest

from zoo.decision import CONSTRAINTS, decide, learn, positive_share, randomized
from zoo.predictions import Predictions
from zoo.train.reweighing import reweighed_by, reweighing


def test_weights_of_the_papers_example():
    """Kamiran & Calders 2012, table 1: ten applicants, weights of section 3.3."""
    sex = np.array(list("MMMMMFFFFF"))
    hired = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 1])
    weights = reweighing(hired, sex)
    expected = {("M", 1): 0.75, ("M", 0): 2.0, ("F", 1): 1.5, ("F", 0): 2 / 3}
    for s, h, weight in zip(sex, hired, weights, strict=True):
        assert weight == pytest.approx(expected[s, h], rel=1e-6)
    shares = [np.average(hired[sex == s], weights=weights[sex == s]) for s in "MF"]
    assert shares[0] == pytest.approx(shares[1])
    assert weights.mean() == pytest.approx(1)


def test_the_attribute_of_a_recipe():
    assert reweighed_by("reweigh:age%20band+prune:0.8") == "age band"
    assert reweighed_by("prune:0.8+int8") is None


def simulated(rows: int, seed: int):
    """Scores that are right, labels drawn by them; one group has lower ones."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(["a", "b"], rows)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1.5, rows) + np.where(groups == "a", 0.8, -0.8))))
    return scores, rng.random(rows) < scores, groups


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_rules_say_what_fairlearns_optimizer_says(constraint):
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.dummy import DummyClassifier

    scores, labels, groups = simulated(2000, 0)

    class Scored(DummyClassifier):
        def predict_proba(self, X):
            return np.stack([1 - X[:, 0], X[:, 0]], axis=1)

    inner = Scored().fit(scores[:, None], labels)
    theirs = ThresholdOptimizer(
        estimator=inner, constraints=constraint, prefit=True, predict_method="predict_proba"
    ).fit(scores[:, None], labels.astype(int), sensitive_features=groups)
    new, _, of = simulated(500, 1)
    meant = theirs._pmf_predict(new[:, None], sensitive_features=of)[:, 1]
    rules = learn(scores, labels, groups, constraint)["groups"]
    said = np.zeros(len(new))
    for name, rule in rules.items():
        said[of == name] = positive_share(rule, new[of == name])
    assert np.abs(said - meant).max() < 1e-12
    assert json.loads(json.dumps(rules)) == rules


@pytest.mark.parametrize(
    ("constraint", "among"), [("demographic_parity", None), ("true_positive_rate_parity", True)]
)
def test_a_learned_decision_treats_new_rows_alike(constraint, among):
    """20,000 new rows: the standard error of a difference of rates is below 0.01."""
    scores, labels, groups = simulated(20_000, 2)
    decision = {"attribute": "g", "seed": 0, "positive_index": 1, "plain": []}
    decision |= learn(scores, labels, groups, constraint)
    scores, labels, groups = simulated(20_000, 3)

    def gap(answers):
        judged = np.ones(len(labels), bool) if among is None else labels == among
        rates = [answers[(groups == name) & judged].mean() for name in ("a", "b")]
        return abs(rates[0] - rates[1])

    plain = (scores > 0.5).astype(int)
    both = np.stack([1 - scores, scores], axis=1)
    said = decide(decision, np.arange(20_000), groups, plain, both)
    assert gap(plain) > 0.2
    assert gap(said) < 0.03
    assert np.mean(said == labels) > 0.65


def test_draws_depend_on_seed_and_row_alone():
    rule = {"parts": [], "p_ignore": 1.0, "constant": 0.3}
    decision = {
        "attribute": "g", "seed": 7, "positive_index": 0, "groups": {"a": rule}, "plain": ["b"]
    }  # fmt: skip
    rows, groups = np.arange(4000), np.array(["a", "b"] * 2000)
    own, scores = np.full(4000, 1), np.full((4000, 2), 0.5)
    said = decide(decision, rows, groups, own, scores)
    assert np.mean(said[groups == "a"] == 0) == pytest.approx(0.3, abs=0.03)
    assert np.all(said[groups == "b"] == 1)  # the model's own answer
    some = rows[::-7]
    assert np.array_equal(decide(decision, some, groups[some], own[some], scores[some]), said[some])
    other = decide({**decision, "seed": 8}, rows, groups, own, scores)
    assert np.any(other != said)
    assert randomized({"a": rule})
    assert not randomized({"a": {**rule, "p_ignore": 0.0}})


def test_groups_with_too_few_rows_of_a_class_keep_their_answers():
    from zoo.errors import ZooError

    scores, labels, groups = simulated(400, 4)
    groups[:20], labels[:20] = "r", False
    found = learn(scores, labels, groups, "equalized_odds")
    assert (sorted(found["groups"]), found["plain"]) == (["a", "b"], ["r"])
    with pytest.raises(ZooError, match="too few rows"):
        learn(scores[groups != "b"], labels[groups != "b"], groups[groups != "b"], "equalized_odds")


def test_variants_that_treat_groups_alike(zoo, run_mlp, tmp_path):
    """All that apply, judged beside base; what follows from a variant that decides by group."""
    code, _, _, document = zoo("mitigate", run_mlp, "--json")
    assert code == 0
    assert document["attribute"] == "sex"
    rows = {row["variant"]: row for row in document["results"]}
    assert list(rows) == ["reweigh-sex", "threshold-sex"]
    assert [row["kind"] for row in rows.values()] == ["retrain", "transform"]
    assert [row["needs_groups"] for row in rows.values()] == [False, True]
    for row in rows.values():
        assert row["disparity"]["metric"] == "demographic_parity_difference"
        said = Predictions.load(run_mlp / row["variant"] / "predictions.npz")
        rates = [said.y_pred[said.groups["sex"] == sex].mean() for sex in "FM"]
        assert row["disparity"]["after"]["value"] == pytest.approx(abs(rates[0] - rates[1]))
        assert row["metrics"]["accuracy"] == pytest.approx(np.mean(said.y_true == said.y_pred))

    base, made = run_mlp / "base", run_mlp / "threshold-sex"
    assert (made / "model.tflite").read_bytes() == (base / "model.tflite").read_bytes()
    decision = json.loads((made / "decision.json").read_text())
    said, own = (Predictions.load(folder / "predictions.npz") for folder in (made, base))
    assert np.array_equal(said.scores, own.scores)
    again = decide(decision, own.row, own.groups["sex"], own.y_pred, own.scores)
    assert np.array_equal(again, said.y_pred)
    assert zoo("predict", run_mlp, "--variant", "threshold-sex").code == 0
    assert np.array_equal(Predictions.load(made / "predictions.npz").y_pred, said.y_pred)

    refused = zoo("export", run_mlp, "--variant", "threshold-sex", "--json")
    assert (refused.code, refused.error["kind"]) == (2, "needs_groups")
    source = tmp_path / "new.csv"
    source.write_text("age,income,city\n30,50,Aix\n")
    output = ("--output", tmp_path / "out.csv")
    refused = zoo("predict", run_mlp, source, "--variant", "threshold-sex", *output, "--json")
    assert (refused.code, refused.error["kind"]) == (2, "needs_groups")
    source.write_text("age,income,city,sex\n30,50,Aix,X\n")
    refused = zoo("predict", run_mlp, source, "--variant", "threshold-sex", *output, "--json")
    assert (refused.code, refused.error["kind"]) == (2, "unknown_group")
    assert not output[1].exists()
    source.write_text("age,income,city,sex\n60,90,Aix,F\n20,10,Bonn,M\n")
    assert zoo("predict", run_mlp, source, "--variant", "threshold-sex", *output).code == 0
    assert [line.split(",")[1] for line in output[1].read_text().splitlines()[1:]] == ["yes", "no"]

    (made / "decision.json").write_text(json.dumps({**decision, "seed": 1}))
    refused = zoo("predict", run_mlp, "--variant", "threshold-sex", "--json")
    assert (refused.code, refused.error["kind"]) == (2, "changed_artifact")


def test_mitigation_and_compression_go_together(zoo, run_mlp):
    """Retrained further, a reweighed model keeps its weights; thresholds are found on int8's scores."""
    from zoo.run import Run
    from zoo.train.session import reopen

    recipe = "reweigh:sex+prune:0.5+int8+threshold:sex:equalized_odds"
    code, _, _, document = zoo("compress", run_mlp, recipe, "--json")
    assert code == 0
    (row,) = document["results"]
    assert row["variant"] == "reweigh-sex_prune-0.5_int8_threshold-sex-equalized_odds"
    assert row["sparsity"] == pytest.approx(0.5, abs=0.01)
    run = Run(run_mlp)
    session = reopen(run).of(run.variant("reweigh-sex_prune-0.5"))
    rows = session.data.parts["train"]
    labels, sex = session.data.y[rows], np.asarray(session.data.groups["sex"][rows])
    assert np.allclose(session.samples("train").weights, reweighing(labels, sex))
    code, _, error, _ = zoo("compress", run_mlp, "threshold:sex+int8")
    assert code == 2
    assert "int8+threshold:sex" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("threshhold",), "Did you mean threshold"),
        (("--sensitive", "sexx"), "Did you mean sex"),
        (("--constraint", "parity"), "equalized_odds"),
    ],
)
def test_wrong_mitigations_are_refused(zoo, run_mlp, words, said):
    code, _, error, _ = zoo("mitigate", run_mlp, *words)
    assert code == 2
    assert said in error
    assert not list(run_mlp.glob("*-sex"))


def test_labels_are_no_groups_to_mitigate(zoo, run_cnn, tmp_path):
    code, _, error, _ = zoo("compress", run_cnn, "reweigh:class")
    assert code == 2
    assert "Expected: one of: make" in error
    assert zoo("mitigate", run_cnn, "reweigh").code == 0  # pictures, too
    refused = zoo("mitigate", run_cnn, "threshold", "--json")  # there are 18 validation rows
    assert (refused.code, refused.error["kind"]) == (2, "too_few_rows")
    assert not (run_cnn / "threshold-make").exists()
