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


@pytest.mark.parametrize("size", [1, 4, 32])
def test_batches_hold_the_weights_as_they_are(size):
    """Scaled to a mean of 1 in each batch, the groups' rates would differ, of single rows as before."""
    from zoo.train.feed import Feed, Samples
    from zoo.train.options import TrainOptions

    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 400)
    labels = (rng.random(400) < np.where(groups, 0.6, 0.1)).astype(np.float32)
    x = np.stack([groups, labels], axis=1).astype(np.float32)
    samples = Samples(x, labels[:, None], weights=reweighing(labels, groups), as_given=True)
    batches = list(Feed(samples, TrainOptions(batch_size=size), 0).epoch(0))
    seen = np.concatenate([batch[0] for batch in batches])
    weights = np.concatenate([batch[2] for batch in batches])
    rates = [np.average(seen[seen[:, 0] == g, 1], weights=weights[seen[:, 0] == g]) for g in (0, 1)]
    assert rates[0] == pytest.approx(rates[1], abs=1e-5)


def test_a_model_that_sees_the_group_no_longer_uses_it():
    from zoo.backend import keras, seed_everything
    from zoo.progress import QUIET
    from zoo.tasks import get_task
    from zoo.train.feed import Samples
    from zoo.train.loop import fit
    from zoo.train.options import TrainOptions

    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 400)
    labels = (rng.random(400) < np.where(groups, 0.8, 0.2)).astype(np.float32)
    x, y = groups[:, None].astype(np.float32), labels[:, None]
    options = TrainOptions(epochs=40, batch_size=8, learning_rate=0.02, keep="last")

    def gap(samples):
        seed_everything(0)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        fit(
            model, get_task("binary"), options, samples, lambda: {"val_loss": 0.0}, seed=0,
            progress=QUIET,
        )  # fmt: skip
        said = 1 / (1 + np.exp(-model.predict(np.array([[0.0], [1.0]]), verbose=0)[:, 0]))
        return abs(said[1] - said[0])

    assert gap(Samples(x, y)) > 0.4
    assert gap(Samples(x, y, weights=reweighing(labels, groups), as_given=True)) < 0.08


def test_new_values_fall_into_the_groups_there_are():
    from zoo.data.groups import as_known

    bands = ["< 2.5", "2.5 to < 40", ">= 1000", "(missing)"]
    said = as_known([1, 2.5, 39.9, 1000, 500, None], bands)
    assert said.tolist() == ["< 2.5", "2.5 to < 40", "2.5 to < 40", ">= 1000", "500", "(missing)"]
    assert as_known(["a", "zz", None], ["a", "(other)"]).tolist() == ["a", "(other)", "(other)"]
    assert as_known([1, 2], ["1", "2"]).tolist() == ["1", "2"]


def test_attributes_that_look_alike_have_folders_of_their_own():
    from zoo.compress.recipe import parse, slug

    recipes = ["reweigh:a%3Ab", "reweigh:a-b", "reweigh:x_int8", "reweigh:x+int8", "threshold:sex",
               "threshold:sex-equalized_odds", "threshold:sex:equalized_odds",
               "reweigh:" + "n" * 200, "reweigh:%C3%A4ge%20%2B"]  # fmt: skip
    names = [slug([part.text for part in parse(recipe)]) for recipe in recipes]
    assert len(set(names)) == len(names)
    assert names[3] == "reweigh-x_int8"
    assert max(map(len, names)) < 60


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
    narrow = [{"p": 0.5, "operator": ">", "threshold": t} for t in (2e-5, 3e-5)]
    assert randomized({"a": {"parts": narrow, "p_ignore": 0.0, "constant": 0.0}})


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

    zoo("eval", run_mlp, "--variant", "threshold-sex")
    bound = json.loads((made / "metrics.json").read_text())["results"][0]["inputs"]
    assert [entry["path"] for entry in bound] == [
        "threshold-sex/model.tflite", "threshold-sex/decision.json"
    ]  # fmt: skip
    (made / "decision.json").write_text(json.dumps({**decision, "seed": 1}))
    for command in ("predict", "eval", "fairness"):
        refused = zoo(command, run_mlp, "--variant", "threshold-sex", "--json")
        assert (refused.code, refused.error["kind"]) == (2, "changed_artifact")


def test_mitigation_and_compression_go_together(zoo, run_mlp):
    """Retrained further, a reweighed model keeps its weights; thresholds are found on int8's scores."""
    from zoo.run import Run
    from zoo.train.running import reopen

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
    code, _, error, _ = zoo("compress", run_mlp, "int8+threshold:sex", "--sweep")
    assert code == 2
    assert "a decision on the outputs" in error
    zoo("compress", run_mlp, "int8")
    _, _, error, document = zoo("mitigate", run_mlp, "--variant", "int8", "--json")
    made = [row["variant"] for row in document["results"]]
    assert made == ["int8_threshold-sex"]  # int8 is not trained anew, which is said:
    assert "reweigh:sex: left out: Variant 'int8' is converted for good" in error
    zoo("compress", run_mlp, "prune:0.5")
    _, _, error, document = zoo("mitigate", run_mlp, "--variant", "prune-0.5", "--json")
    assert [row["variant"] for row in document["results"]] == ["prune-0.5_threshold-sex"]
    assert "reweigh:sex: left out" in error
    code, _, error, _ = zoo("mitigate", run_mlp, "--variant", "int8_threshold-sex")
    assert code == 2
    assert "decides by group" in error


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
