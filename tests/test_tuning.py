"""Tuning: the two quick measurements, and studies of real trainings that can be gone on with."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import replace

import numpy as np
import pytest
from conftest import loans

from zoo.errors import Interrupted, ZooError
from zoo.progress import Progress
from zoo.tasks import TASKS

pytest.importorskip("optuna", reason="the extra `tune` is not installed")


# The quick measurements ---------------------------------------------------------------------------


def test_smoothing_is_a_corrected_average():
    from zoo.train.quick import smoothed

    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([1.0, 3.0])[1] == pytest.approx((0.9 * 1 + 3) / 1.9)


def test_the_recommended_rate_is_a_tenth_of_the_lowest():
    from zoo.train.quick import recommend_rate

    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    found = recommend_rate(rates, [1.0, 0.9, 0.5, 0.3, 2.0])
    assert found == {"recommended": pytest.approx(0.01), "lowest_at": 0.1}
    with pytest.raises(ZooError, match="never fell"):
        recommend_rate(rates, [1.0, 1.1, 1.2, 1.3, 2.0])


def test_the_recommended_batch_is_the_smallest_of_the_fast():
    from zoo.train.quick import recommend_size

    rows = [{"batch_size": b, "samples_per_second": s}
            for b, s in ((16, 100), (32, 190), (64, 330), (128, 400), (256, 395))]  # fmt: skip
    assert recommend_size(rows) == 64  # 330 is at least 80 % of 400, 190 is not


def test_quick_finds_a_rate_that_trains(zoo, tmp_path):
    data = loans(tmp_path / "loans.csv", 600)
    words = (
        "mlp",
        "--data",
        data,
        "--target",
        "approved",
        "--set",
        "dropout=0",
        "--batch-size",
        32,
    )
    done = zoo("tune", *words, "--quick", "--json")
    assert done.code == 0, done.stderr
    document = done.document
    assert set(document) >= {"model", "study", "trials", "best"}
    rate = document["learning_rate"]
    assert 1e-4 < rate["recommended"] < 0.3
    assert rate["recommended"] == pytest.approx(rate["lowest_at"] / 10, rel=0.1)
    assert len(rate["rates"]) == len(rate["losses"])
    assert np.argmin(rate["losses"]) > 0
    assert [r["batch_size"] for r in document["batch_size"]["sizes"]] == [16, 32, 64]
    assert all(r["samples_per_second"] > 0 for r in document["batch_size"]["sizes"])
    assert not (tmp_path / "runs").exists()
    from zoo.cli.training import _quick_text

    text = _quick_text(document)
    assert "recommended" in text
    assert "--set learning_rate=" in text


# Search spaces and objectives ---------------------------------------------------------------------


def test_every_model_has_a_space_and_its_own_settings_lie_within():
    from zoo.registry import models
    from zoo.train.search import default_point, search_space

    for spec in models().specs.values():
        space = search_space(spec)
        assert {"learning_rate", "batch_size"} <= set(space), spec.name
        point = default_point(spec, space)
        assert point["learning_rate"] == spec.train.get("learning_rate", 1e-3), spec.name
        known = {**spec.config, **dict.fromkeys(("learning_rate", "weight_decay", "batch_size",
                                                 "warmup"))}  # fmt: skip
        assert set(space) <= set(known), spec.name
    mlp = models().get("mlp")
    assert "hidden" in search_space(mlp)
    assert "hidden" not in search_space(mlp, {"hidden"})
    with pytest.raises(ZooError, match="nothing left"):
        search_space(mlp, set(search_space(mlp)))


@pytest.mark.parametrize(
    ("text", "weights", "direction"),
    [
        (None, {"accuracy": 1}, "maximize"),
        ("log_loss", {"log_loss": 1}, "minimize"),
        ("latency_ms", {"latency_ms": 1}, "minimize"),
        ("worst_group", {"worst_group": 1}, "maximize"),
        ("accuracy:1, latency_ms:-0.01,worst_group:0.5",
         {"accuracy": 1, "latency_ms": -0.01, "worst_group": 0.5}, "maximize"),
    ],
)  # fmt: skip
def test_objectives(text, weights, direction):
    from zoo.api.tuning import Objective

    found = Objective.parse(text, TASKS["binary"])
    assert (found.weights, found.direction) == (weights, direction)


@pytest.mark.parametrize("text", ["acuracy", "accuracy:x", "accuracy:1,rmse:2", ","])
def test_wrong_objectives_are_said(text):
    from zoo.api.tuning import Objective

    with pytest.raises(ZooError):
        Objective.parse(text, TASKS["binary"])


def test_the_worst_group_is_the_worst_of_all_attributes():
    from zoo.api.tuning import SMALLEST_GROUP, Trained, _worst_group
    from zoo.predictions import Predictions

    n = 4 * SMALLEST_GROUP
    y = np.zeros(n, int)
    p = np.zeros(n, int)
    p[:5] = 1  # wrong for five of the first ten rows
    group = np.repeat(["a", "b", "c", "d"], SMALLEST_GROUP)
    few = np.array(["x"] * 3 + ["y"] * (n - 3))  # three rows, all wrong: too few to count
    said = Predictions(np.arange(n), y, p, np.tile([0.5, 0.5], (n, 1)), ("n", "y"),
                       {"group": group, "few": few}, "val")  # fmt: skip
    assert _worst_group(Trained(None, None, said, TASKS["binary"])) == 0.5


# Studies ------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    """``study(trials, ...)`` calls the api on a few loans; two epochs a trial."""
    from zoo import api
    from zoo.data.table import Request

    data = loans(tmp_path / "loans.csv", 300)

    def call(trials, progress=None, **more):
        request = Request(data=str(data), target="approved", sensitive=("sex",))
        request = replace(request, **more.pop("asked", {}))
        settings = {"epochs": 2, "hidden": "8", **more.pop("settings", {})}
        return api.tune(
            "mlp", trials, request=request, settings=settings, root=tmp_path / "runs",
            progress=progress or Progress(quiet=True), deterministic=True, **more,
        )  # fmt: skip

    return call


class Stopper(Progress):
    """Raises SIGINT when a trial of that number begins, as Ctrl-C would."""

    def __init__(self, trial):
        super().__init__(quiet=True)
        self.trial, self.said = trial, []

    def say(self, text):
        self.said.append(text)
        if text.startswith(f"trial {self.trial} of"):
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(study):
    """The same trials with the same values as in one go, and not one too many."""
    whole = study(3, study="whole")
    with pytest.raises(Interrupted, match="1 kept") as error:
        study(3, study="cut", progress=Stopper(2))
    assert error.value.exit_code == 130
    rest = Stopper(99)
    cut = study(3, study="cut", progress=rest)
    assert [t.partition(":")[0] for t in rest.said if " of " in t] == [
        "trial 2 of 3",
        "trial 3 of 3",
    ]
    for document in (whole, cut):
        for trial in document["trials"]:
            trial.pop("seconds")
    assert cut["trials"] == whole["trials"]
    assert whole["trials"][0]["config"]["learning_rate"] == 2e-3  # the model's own come first
    again = study(3, study="cut")
    assert len(again["trials"]) == 3  # nothing was left to do
    with pytest.raises(ZooError, match="about something else") as error:
        study(5, study="cut", objective="log_loss")
    assert error.value.kind == "other_study"


def test_a_study_is_of_one_question_and_its_fixed_settings(study):
    """Another target, group, split or fixed setting is another study; the same ones are not."""
    study(1)
    assert len(study(1)["trials"]) == 1
    for other, says in (
        ({"asked": {"target": "sex", "sensitive": ("city",)}}, "target sex"),
        ({"asked": {"sensitive": ("city",)}}, "sensitive ['city']"),
        ({"asked": {"split_seed": 3}}, "split_seed 3"),
        ({"settings": {"hidden": "16"}}, "hidden [16]"),
        ({"settings": {"bins": "4"}}, "bins 4"),
        ({"settings": {"epochs": "3"}}, "epochs 3"),
    ):
        with pytest.raises(ZooError, match="about something else") as error:
            study(1, **other)
        assert error.value.kind == "other_study"
        assert says in error.value.received


def test_the_best_command_repeats_the_best_trial(study, zoo, tmp_path):
    """Trained by the command that is printed, the model says the same about the validation rows."""
    document = study(2, objective="roc_auc")
    best = document["best"]
    assert best["value"] == max(t["value"] for t in document["trials"] if t["value"] is not None)
    assert document["objective"]["split"] == "val"
    words = shlex.split(best["command"])[1:]
    done = zoo(
        *words, "--runs", tmp_path / "runs", "--name", "best", "--execution", "graph", "--json"
    )
    assert done.code == 0, done.stderr
    run = json.loads((tmp_path / "runs" / "best" / "run.json").read_text())
    assert run["options"]["learning_rate"] == best["config"]["learning_rate"]
    found = zoo("eval", tmp_path / "runs" / "best", "--split", "val", "--json").document
    metrics = found["results"][0]["metrics"]
    for name in ("accuracy", "roc_auc", "log_loss"):
        assert metrics[name]["value"] == pytest.approx(best["metrics"][name], abs=1e-4), name


def test_a_weighted_objective_is_the_sum(study):
    document = study(1, objective="accuracy:1,latency_ms:-0.01,worst_group:0.5,params:-1e-6")
    (trial,) = document["trials"]
    metrics = trial["metrics"]
    assert metrics["latency_ms"] > 0
    assert metrics["worst_group"] <= metrics["accuracy"] + 1e-9
    expected = (metrics["accuracy"] - 0.01 * metrics["latency_ms"] + 0.5 * metrics["worst_group"]
                - 1e-6 * metrics["params"])  # fmt: skip
    assert trial["value"] == pytest.approx(expected)


def test_bad_trials_are_stopped_early(study, monkeypatch):
    """With rates that hardly train among good ones, some trial ends before its last epoch."""
    from zoo.api import tuning
    from zoo.train import search

    monkeypatch.setattr(tuning, "STARTUP_TRIALS", 1)
    monkeypatch.setattr(
        search, "default_space", lambda spec: {"learning_rate": ("choice", 2e-3, 1e-7, 3e-7)}
    )
    document = study(3, settings={"epochs": 3, "dropout": 0})
    states = {t["config"]["learning_rate"]: set() for t in document["trials"]}
    for trial in document["trials"]:
        states[trial["config"]["learning_rate"]].add(trial["state"])
        assert (trial["state"] == "pruned") == (trial["value"] is None)
        assert trial["epochs"] < 3 or trial["state"] == "complete"
    assert "pruned" in {s for rate, found in states.items() if rate < 1e-3 for s in found}
    assert document["best"]["config"]["learning_rate"] == 2e-3


def test_a_trial_that_fails_is_a_row(study, monkeypatch):
    """A rate at which the training diverges is an error of that trial, not of the study."""
    from zoo.train import search

    monkeypatch.setattr(
        search,
        "default_space",
        lambda spec: {"clip_norm": ("choice", 0.5), "l2": ("choice", 0, -1)},
    )
    document = study(3)
    failed = [t for t in document["trials"] if t["state"] == "fail"]
    assert failed
    assert all("l2 is out of range" in t["error"] for t in failed)
    assert document["best"]["config"]["l2"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("mlp",), "--quick or --trials"),
        (("mlp", "--quick", "--trials", "2"), "--quick or --trials"),
        (("mlp", "--quick", "--study", "x"), "--study can't be used here"),
        (("mlp", "--trials", "2", "--name", "x"), "--name can't be used here"),
        (("mpl", "--quick"), "Did you mean mlp"),
        (("mlp", "--trials", "1", "--study", "../x"), "../x"),
    ],
)
def test_wrong_calls(zoo, tmp_path, words, says):
    done = zoo("tune", *words, "--json")
    assert done.code == 2
    assert says in json.dumps(done.document)


def test_without_optuna_the_extra_is_named(study, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else find(name, *a)
    )
    with pytest.raises(ZooError) as error:
        study(1)
    assert "glasszoo[tune]" in str(error.value)
