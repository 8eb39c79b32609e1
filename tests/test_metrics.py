"""Every metric against scikit-learn and fairlearn, and the resampling against closed forms."""

import fairlearn.metrics as fair
import numpy as np
import pytest
import sklearn.metrics as learn
from scipy import stats

from zoo import metrics
from zoo.metrics import METRICS, bootstrap_cells, bootstrap_weights, cells, evaluate, intervals

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")


def _binary(w):
    def on(function, **options):
        return lambda y, p, s: function(y, p, sample_weight=w, **options)

    return {
        "accuracy": on(learn.accuracy_score),
        "balanced_accuracy": on(learn.balanced_accuracy_score),
        "f1_macro": on(learn.f1_score, average="macro", zero_division=0),
        "precision_macro": on(learn.precision_score, average="macro", zero_division=0),
        "recall_macro": on(learn.recall_score, average="macro", zero_division=0),
        "roc_auc": lambda y, p, s: learn.roc_auc_score(y, s[:, 1], sample_weight=w),
        "average_precision": lambda y, p, s: learn.average_precision_score(
            y, s[:, 1], sample_weight=w
        ),
        "log_loss": lambda y, p, s: learn.log_loss(y, s, sample_weight=w, labels=[0, 1]),
        "brier": lambda y, p, s: learn.brier_score_loss(y, s[:, 1], sample_weight=w),
        "selection_rate": on(fair.selection_rate),
        "true_positive_rate": on(fair.true_positive_rate),
        "false_positive_rate": on(fair.false_positive_rate),
        "true_negative_rate": on(fair.true_negative_rate),
        "false_negative_rate": on(fair.false_negative_rate),
        "precision": on(learn.precision_score),
    }


def _multiclass(w, classes):
    def ranked(function):
        def macro(y, p, s):
            values = [function(y == k, s[:, k], sample_weight=w) for k in range(classes)]
            return np.mean(values)

        return macro

    same = ("accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro")
    return {name: _binary(w)[name] for name in same} | {
        "roc_auc": ranked(learn.roc_auc_score),
        "average_precision": ranked(learn.average_precision_score),
        "log_loss": lambda y, p, s: learn.log_loss(y, s, sample_weight=w, labels=range(classes)),
        "brier": lambda y, p, s: learn.brier_score_loss(
            y, s, sample_weight=w, labels=range(classes)
        ),
    }


def _values(w):
    def on(function):
        return lambda y, p, s: function(y, p, sample_weight=w)

    return {
        "mse": on(learn.mean_squared_error),
        "rmse": on(learn.root_mean_squared_error),
        "mae": on(learn.mean_absolute_error),
        "r2": on(learn.r2_score),
        "mean_prediction": on(fair.mean_prediction),
    }


def _classified(classes, n=400, seed=0):
    """Labels, predictions and probabilities with many ties, and predictions that are not argmax."""
    rng = np.random.default_rng(seed)
    s = np.round(rng.dirichlet(np.ones(classes), n) * 20) + 0.5
    s /= s.sum(axis=1, keepdims=True)
    y = np.array([rng.choice(classes, p=row) for row in s])
    p = np.where(rng.random(n) < 0.2, rng.integers(0, classes, n), s.argmax(axis=1))
    return y, p, s


WEIGHTS = {
    "plain": np.ones(400),
    "counts": np.random.default_rng(1).multinomial(400, np.full(400, 1 / 400)).astype(float),
    "real": np.random.default_rng(2).exponential(size=400),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_equals_scikit_learn(classes, kind):
    w = WEIGHTS[kind]
    y, p, s = _classified(classes)
    known = _binary(w) if classes == 2 else _multiclass(w, classes)
    for name, peer in known.items():
        assert evaluate(name, y, p, s, w) == pytest.approx(peer(y, p, s), abs=1e-12), name


@pytest.mark.parametrize("kind", WEIGHTS)
def test_regression_equals_scikit_learn(kind):
    w = WEIGHTS[kind]
    rng = np.random.default_rng(3)
    y = rng.normal(400, 0.1, 400)  # a level like CO2's, where a raw variance cancels
    p = y + rng.normal(0, 0.05, 400)
    for name, peer in _values(w).items():
        assert evaluate(name, y, p, np.empty(0), w) == pytest.approx(peer(y, p, None), rel=1e-9)


def test_every_metric_has_an_oracle():
    compared = set(_binary(None)) | set(_multiclass(None, 3)) | set(_values(None))
    by_hand = {"ece"}  # below
    by_hand |= {"mase", "smape", "elbo"}  # in test_series.py and test_vae.py
    by_hand |= {
        "token_loss",
        "exact_match",
        "character_error_rate",
        "perplexity",
        "bits_per_character",
        "token_accuracy",
    }  # test_language.py
    assert set(METRICS) - compared == by_hand


def test_calibration_error_by_hand():
    # bins of a fifteenth: 0.55 and 0.58 share one (8/15 to 9/15), 0.95 is alone (14/15 to 1)
    s = np.array([[0.45, 0.55], [0.42, 0.58], [0.95, 0.05], [0.95, 0.05]])
    y = np.array([1, 0, 0, 0])
    expected = (abs((1 - 0.55) + (0 - 0.58)) + abs(2 * (1 - 0.95))) / 4
    assert evaluate("ece", y, s.argmax(axis=1), s) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_weight_is_a_repeated_row(name):
    """What the bootstrap relies on: counts as weights give what the drawn rows would."""
    rng = np.random.default_rng(4)
    needs = METRICS[name].needs
    if needs in ("values", "losses"):
        y, s = rng.normal(size=400), rng.exponential(size=400)
        p = y + rng.normal(size=400)
    elif needs == "tokens":
        y, s = rng.integers(1, 50, (400, 2)), rng.exponential(size=400)
        off = rng.integers(0, 3, 400)  # of those that make texts; others have the first column
        p = np.stack([rng.integers(0, y[:, 0] + 1), off, off == 0], axis=1)
    else:
        y, p, s = _classified(2 if METRICS[name].needs == "positive" else 4)
    drawn = rng.integers(0, 400, 400)
    w = np.bincount(drawn, minlength=400).astype(float)
    repeated = evaluate(name, y[drawn], p[drawn], s[drawn])
    assert evaluate(name, y, p, s, w) == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "y", "p"),
    [
        ("true_positive_rate", [0, 0], [1, 0]),
        ("false_negative_rate", [0, 0], [1, 0]),
        ("false_positive_rate", [1, 1], [1, 0]),
        ("true_negative_rate", [1, 1], [1, 0]),
        ("precision", [1, 0], [0, 0]),
        ("roc_auc", [1, 1], [1, 0]),
        ("average_precision", [0, 0], [1, 0]),
        ("r2", [0.1, 0.1, 0.1], [1.0, 0.0, 2.0]),
    ],
)
def test_undefined_is_nan_without_a_warning(name, y, p):
    y, p = np.array(y), np.array(p)
    s = np.full((len(y), 2), 0.5)
    assert np.isnan(evaluate(name, y, p, s))
    found = intervals([name], y, p, s, resamples=50)[name]
    expected = dict.fromkeys(("value", "ci_low", "ci_high", "interval"))
    assert found == {**expected, "reason": "undefined on these rows"}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_rows_is_nan(name):
    y = np.empty(0, dtype=int)
    needs = METRICS[name].needs
    truth = np.empty((0, 2)) if needs == "tokens" else y
    said = np.empty((0, 3)) if needs == "tokens" else y
    scores = np.empty((0, 2) if needs in ("scores", "classes") else 0)
    assert np.isnan(evaluate(name, truth, said, scores))


def test_a_class_without_rows_is_nan_one_against_rest():
    y, p, s = _classified(3)
    kept = y != 2
    assert np.isnan(evaluate("roc_auc", y[kept], p[kept], s[kept]))
    assert not np.isnan(evaluate("balanced_accuracy", y[kept], p[kept], s[kept]))


def test_many_resamples_at_once_equal_one_at_a_time():
    y, p, s = _classified(5)
    w = next(bootstrap_weights(400, 8, seed=0))
    for name in METRICS:
        if METRICS[name].needs in ("classes", "scores"):
            together = METRICS[name].function(y, p, s, w)
            alone = [evaluate(name, y, p, s, row) for row in w]
            np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_bootstrap_weights_are_multinomial_counts():
    drawn = np.concatenate(list(bootstrap_weights(20, 4000, seed=5, chunk=64)))
    assert drawn.shape == (4000, 20)
    assert (drawn.sum(axis=1) == 20).all()
    # Multinomial(n, 1/n): mean 1, variance 1 - 1/n, covariance -1/n
    covariance = np.cov(drawn.T)
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.07)
    np.testing.assert_allclose(np.diag(covariance), 0.95, atol=0.12)
    assert covariance[~np.eye(20, dtype=bool)].mean() == pytest.approx(-0.05, abs=0.005)


def test_bootstrap_is_seeded_and_bounded(monkeypatch):
    one, two = (np.concatenate(list(bootstrap_weights(50, 100, seed=s))) for s in (1, 1))
    assert (one == two).all()
    assert (one != np.concatenate(list(bootstrap_weights(50, 100, seed=2)))).any()
    monkeypatch.setattr(metrics, "_CHUNK_ELEMENTS", 500)
    assert [len(part) for part in bootstrap_weights(50, 25, seed=1)] == [10, 10, 5]
    assert [part.size for part in bootstrap_cells(np.full(50, 3), 25, seed=1)] == [500, 500, 250]


def test_cells_count_rows_that_agree():
    first, counts = cells(np.array([1, 0, 1, 1]), np.array([0, 2, 0, 5]), np.array([7, 7, 7, 7]))
    assert first.tolist() == [1, 0, 3]  # (0, 2), (1, 0), (1, 5)
    assert counts.tolist() == [1, 2, 1]


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1_macro"])
def test_resampling_cells_is_resampling_rows(name):
    y, p, s = _classified(4)
    first, counts = cells(y, p)
    function = METRICS[name].function
    assert function(y[first], p[first], s, counts[None].astype(float)) == pytest.approx(
        evaluate(name, y, p, s), abs=1e-12
    )
    by_cell = [function(y[first], p[first], s, w) for w in bootstrap_cells(counts, 4000, seed=0)]
    by_row = [function(y, p, s, w) for w in bootstrap_weights(400, 4000, seed=0)]
    test = stats.ks_2samp(np.concatenate(by_cell), np.concatenate(by_row))
    assert test.statistic < 0.05  # the 0.0001 critical value of two samples of 4,000 is 0.05


def test_intervals_agree_with_closed_forms():
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 3000)
    p = np.where(rng.random(3000) < 0.8, y, 1 - y)
    error = rng.exponential(size=3000)
    found = intervals(["accuracy"], y, p, np.empty(0), resamples=4000)["accuracy"]
    half = 1.96 * np.sqrt(found["value"] * (1 - found["value"]) / 3000)
    assert found["interval"] == "bootstrap"
    assert found["ci_low"] == pytest.approx(found["value"] - half, abs=0.1 * half)
    assert found["ci_high"] == pytest.approx(found["value"] + half, abs=0.1 * half)
    found = intervals(["mae"], error, np.zeros(3000), np.empty(0), resamples=2000)["mae"]
    half = 1.96 * error.std() / np.sqrt(3000)
    assert found["ci_low"] == pytest.approx(error.mean() - half, abs=0.12 * half)
    assert found["ci_high"] == pytest.approx(error.mean() + half, abs=0.12 * half)


def test_intervals_are_the_same_for_the_same_seed():
    y, p, s = _classified(3)
    names = ["accuracy", "f1_macro", "log_loss"]
    assert intervals(names, y, p, s, seed=7) == intervals(names, y, p, s, seed=7)
    assert intervals(names, y, p, s, seed=7) != intervals(names, y, p, s, seed=8)


@pytest.mark.parametrize(("hits", "rows"), [(0, 12), (12, 12), (3, 50), (81, 263), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_equals_scipy(hits, rows, confidence):
    z = stats.norm.ppf((1 + confidence) / 2)
    known = stats.binomtest(hits, rows).proportion_ci(confidence, method="wilson")
    low, high = metrics.wilson(np.array(hits), np.array(rows), z)
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert low <= hits / rows <= high


def test_no_failure_is_not_certainty():
    """The percentile interval of 40 hits of 40 is [1, 1]; Wilson's is not."""
    y = np.ones(40, dtype=int)
    found = intervals(["accuracy"], y, y, np.empty(0))["accuracy"]
    assert found["interval"] == "wilson"
    assert found["ci_high"] == 1
    assert found["ci_low"] == pytest.approx(
        stats.binomtest(40, 40).proportion_ci(method="wilson").low, abs=1e-9
    )


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_shares_are_covered(share):
    rng = np.random.default_rng(8)
    covered = 0
    for trial in range(300):
        y = np.ones(120, dtype=int)
        p = (rng.random(120) < share).astype(int)
        found = intervals(["accuracy"], y, p, np.empty(0), resamples=400, seed=trial)["accuracy"]
        covered += found["ci_low"] <= share <= found["ci_high"]
    assert covered / 300 >= 0.92


def test_interval_of_a_biased_metric_holds_its_value():
    """A well-calibrated model: the plain percentile interval of its ECE lies above the value."""
    rng = np.random.default_rng(3)
    chance = rng.uniform(0.02, 0.98, 400)
    y = (rng.random(400) < chance).astype(np.int64)
    scores = np.stack([1 - chance, chance], axis=1)
    found = metrics.intervals(("ece",), y, scores.argmax(1), scores, resamples=400)["ece"]
    assert found["ci_low"] <= found["value"] <= found["ci_high"]
