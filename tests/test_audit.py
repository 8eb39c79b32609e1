"""Explaining, judging and auditing real small runs, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from zoo.predictions import Predictions


def test_audit_of_a_table_model(zoo, run_mlp):
    code, _, _, document = zoo(
        "audit", str(run_mlp), "int8", "prune:0.5", "--seconds", "0.2", "--json",
        "--gate", "accuracy_drop<=0.9", "--gate", "bytes<=10",
    )  # fmt: skip
    assert code == 3  # the second gate can't hold
    names = [row["variant"] for row in document["variants"]]
    assert names == ["base", "int8", "prune-0.5"]
    gates = {(gate["name"], gate["variant"]): gate for gate in document["gates"]}
    assert len(gates) == 4
    assert gates["accuracy_drop", "int8"]["passed"]
    assert not gates["bytes", "int8"]["passed"]
    assert gates["bytes", "int8"]["received"] == document["variants"][1]["bytes"]
    assert document["passed"] is False

    base = Predictions.load(run_mlp / "base" / "predictions.npz")
    other = Predictions.load(run_mlp / "prune-0.5" / "predictions.npz")
    whole = next(
        row for row in document["deltas"]
        if row["variant"] == "prune-0.5" and row["group"] == "(all)" and row["metric"] == "accuracy"
    )  # fmt: skip
    hits = [said.y_true == said.y_pred for said in (base, other)]
    assert whole["n"] == len(base)
    assert whole["base"] == pytest.approx(hits[0].mean())
    assert whole["delta"] == pytest.approx(hits[1].mean() - hits[0].mean())
    assert whole["flips"] == {
        "correct_to_wrong": int((hits[0] & ~hits[1]).sum()),
        "wrong_to_correct": int((~hits[0] & hits[1]).sum()),
    }
    assert whole["ci_low"] <= whole["delta"] <= whole["ci_high"]
    assert document["noise_floor"]["reason"].startswith("1 seed;")
    for row in document["drift"]:
        assert row["variant"] in ("int8", "prune-0.5")
        assert 0 <= row["topk_jaccard"] <= 1
        assert -1 <= row["spearman"] <= 1

    page = (run_mlp / "report.html").read_text()
    for name in names:
        assert name in page
    assert "<script" not in page
    assert (run_mlp / "report.md").read_text().startswith("# ")
    assert (run_mlp / "base" / "loadgen" / "SingleStream" / "mlperf_log_summary.txt").exists()


def test_gates_without_a_variant_fail(run_mlp):
    from zoo import api

    gates = ["bytes<=1e9", "accuracy_drop<=1"]
    document = api.audit(str(run_mlp), [], gates=gates, seconds=0.05)
    assert document["passed"] is False
    assert [gate["name"] for gate in document["gates"]] == ["bytes", "accuracy_drop"]
    for gate in document["gates"]:
        assert (gate["passed"], gate["received"], gate["variant"]) == (False, None, "(none)")
        assert gate["reason"] == "no variant was compared with base"
    document = api.audit(str(run_mlp), [], seconds=0.05)
    assert (document["passed"], document["gates"]) == (True, [])


def test_a_variant_that_answers_nan_is_an_error_row(zoo, run_mlp):
    from dataclasses import replace

    from zoo.run import Run

    zoo("compress", run_mlp, "float16", "dynamic")
    half = Run(run_mlp).variant("float16")
    said = half.predictions()
    said.scores[3] = np.nan
    half.write_predictions(replace(said, scores=said.scores))
    code, _, _, document = zoo("fairness", run_mlp, "--variant", "all", "--json")
    assert code == 1
    assert [row["variant"] for row in document["results"] if row["error"]] == ["float16"]
    code, out, error, _ = zoo("compress", run_mlp, "--sweep", "dynamic", "float16",
                              "--max-drop", "1", "--seconds", "0.1")  # fmt: skip
    assert code == 1
    assert "1 of 90 rows are NaN or infinite" in error
    assert "taken: dynamic" in out
    code, _, error, document = zoo("audit", run_mlp, "float16", "dynamic", "--seconds", "0.1",
                                   "--gate", "accuracy>=0.01", "--json")  # fmt: skip
    assert code == 1
    assert "float16: scores holds values that are not finite. 1 of 90 rows" in error
    assert {row["variant"]: bool(row["error"]) for row in document["variants"]} == {
        "base": False, "dynamic": False, "float16": True,
    }  # fmt: skip
    for part in ("deltas", "drift"):
        assert {row["variant"] for row in document[part]} == {"dynamic"}
    gates = {gate["variant"]: gate for gate in document["gates"]}
    assert (gates["dynamic"]["passed"], gates["float16"]["passed"]) == (True, False)
    assert "not finite" in gates["float16"]["reason"]
    assert "not finite" in (run_mlp / "report.html").read_text()


def test_audit_of_an_image_model(zoo, run_cnn):
    code, _, _, document = zoo("audit", str(run_cnn), "dynamic", "--seconds", "0.2", "--json")
    assert code == 0
    assert document["passed"] is True
    with np.load(run_cnn / "base" / "explain.npz") as stored:
        white = {name: stored[name] for name in stored.files}
    with np.load(run_cnn / "dynamic" / "explain.npz") as stored:
        black = {name: stored[name] for name in stored.files}
    assert np.array_equal(white["images"], black["images"])  # the same exemplars
    assert white["dense"].shape == black["dense"].shape
    # patches add up to what their pixels got
    np.testing.assert_allclose(
        black["dense"].sum(axis=(1, 2, 3))[:, 0], black["values"][: len(black["dense"]), :, 0].sum(1),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    assert (run_cnn / "report.html").read_text().count("data:image/png") > 6
    code, _, _, _ = zoo("report", str(run_cnn), "--no-exemplars")
    assert code == 0
    page = (run_cnn / "report.html").read_text()
    assert page.count("data:image/png") == 1  # the mean importance of each patch: no one's picture


@pytest.mark.parametrize("split", ["val", "train"])
def test_pictures_of_any_split_are_explained(zoo, run_cnn, split):
    """Without predictions of that split: those of the exemplars are made."""
    code, _, error, _ = zoo("explain", run_cnn, "--split", split, "--samples", "8", "--json")
    assert code == 0, error
    assert not (run_cnn / "base" / f"predictions-{split}.npz").exists()
    zoo("predict", run_cnn, "--split", split)
    said = Predictions.load(run_cnn / "base" / f"predictions-{split}.npz")
    place = {row: k for k, row in enumerate(said.row.tolist())}
    with np.load(run_cnn / "base" / f"explain-{split}.npz") as stored:
        index = [place[row] for row in stored["row"][:6].tolist()]
        for name, classes in (("truth", said.y_true), ("predicted", said.y_pred)):
            assert stored[name].tolist() == [said.classes[k] for k in classes[index]]


def test_explanations_add_up(zoo, run_mlp):
    zoo("compress", str(run_mlp), "int8")
    code, _, _, document = zoo(
        "explain",
        str(run_mlp),
        "--variant",
        "all",
        "--samples",
        "20",
        "--background",
        "10",
        "--json",
    )
    assert code == 0
    for row in document["results"]:
        assert row["error"] is None
        assert row["additivity_error"]["max"] <= 1e-3
        assert row["space"] == "logit"
        stored = json.loads((run_mlp / row["variant"] / "explain.json").read_text())
        assert row["created"] in [result["created"] for result in stored["results"]]
    methods = {row["variant"]: row["method"] for row in document["results"]}
    assert methods["base"] == "deep"
    assert methods["int8"] in ("exact", "permutation")


def test_a_linear_model_is_explained_by_its_closed_form(zoo, run_mlp, tmp_path):
    """``hidden=`` empty is logistic regression: w * (x - mean), folded into the user's columns."""
    from zoo.run import Run
    from zoo.train.running import reopen

    request = Run(run_mlp).document()["data"]["request"]
    code, _, _, trained = zoo(
        "train", "mlp", "--data", request["data"], "--target", request["target"], "--set", "hidden=",
        "--epochs", "2", "--runs", str(tmp_path), "--json",
    )  # fmt: skip
    assert code == 0
    for method in ("linear", "deep", "permutation"):
        code, _, _, document = zoo(
            "explain", trained["run"], "--method", method, "--samples", "12", "--background", "8",
            "--json",
        )  # fmt: skip
        assert code == 0
        assert document["results"][0]["method"] == method
    run = Run(tmp_path / trained["run"].rsplit("/", 1)[-1])
    session = reopen(run)
    weights = (
        session.load(run.path / "base" / "model.weights.h5").get_layer("logits").kernel.numpy()
    )
    files = {name: run.path / "base" / name for name in
             ("explain.npz", "explain-deep.npz", "explain-permutation.npz")}  # fmt: skip
    with np.load(files["explain.npz"]) as stored:
        assert stored["method"] == "linear"
        rows, values = stored["row"], stored["values"][..., 0]
    rng = np.random.default_rng(0)
    rng.permutation(session.data.parts["test"])
    background = session.encoded(rng.permutation(session.data.parts["train"])[:8])
    terms = (session.encoded(rows) - background.mean(axis=0)) * weights[:, 0]
    expected = np.stack(
        [terms[:, c["start"] : c["stop"]].sum(axis=1) for c in session.plan["columns"]], axis=1
    )
    np.testing.assert_allclose(values, expected, atol=1e-5)
    before = files["explain.npz"].read_bytes()
    code, *_ = zoo("explain", str(run.path), "--split", "val", "--samples", "5", "--json")
    assert (code, files["explain.npz"].read_bytes()) == (0, before)
    assert (run.path / "base" / "explain-val.npz").exists()
    for name in ("explain-deep.npz", "explain-permutation.npz"):
        with np.load(files[name]) as stored:
            np.testing.assert_allclose(stored["values"][..., 0], expected, atol=2e-3, rtol=0.05)


def test_fairness_of_a_run_is_fairlearns(zoo, run_mlp):
    from fairlearn.metrics import MetricFrame, selection_rate

    code, _, _, document = zoo("fairness", str(run_mlp), "--json")
    assert code == 0
    said = Predictions.load(run_mlp / "base" / "predictions.npz")
    (row,) = document["results"]
    for attribute, found in row["attributes"].items():
        frame = MetricFrame(
            metrics=selection_rate,
            y_true=said.y_true,
            y_pred=said.y_pred,
            sensitive_features=said.groups[attribute],
        )
        for group in found["groups"]:
            value = group["metrics"]["selection_rate"]["value"]
            if value is not None:
                assert value == pytest.approx(frame.by_group[group["group"]], abs=1e-12)
    path = row["inputs"][1]["path"]
    assert path == "base/predictions.npz"


def test_siblings_give_a_noise_floor(zoo, trained, tmp_path):
    """Three seeds of one experiment, of which the first was trained elsewhere and copied."""
    import shutil

    from conftest import TRAINED

    from zoo.api.auditing import _noise_floor
    from zoo.run import Run

    first = Path(shutil.copytree(trained("mlp"), tmp_path / "mlp"))
    data = Run(first).document()["data"]["request"]["data"]
    for seed in ("11", "12"):
        code, *_ = zoo("train", "mlp", "--data", data, *TRAINED["mlp"][2:], "--seed", seed,
                       "--runs", str(tmp_path))  # fmt: skip
        assert code == 0
    floor = _noise_floor(Run(first))
    assert floor["seeds"] == 3
    assert floor["metrics"]["accuracy"]["range95"] >= 0

    again = Run(Path(shutil.copytree(first, tmp_path / "again")))  # the same seed, not another
    assert _noise_floor(Run(first)) == floor
    document = again.document()
    document["result"]["metrics"]["accuracy"] = 0.0
    again.update(result=document["result"])
    assert _noise_floor(Run(first)) == floor
    assert _noise_floor(again)["metrics"]["accuracy"]["mean"] < floor["metrics"]["accuracy"]["mean"]


def test_a_variant_whose_file_changed_is_a_row_among_several(zoo, run_mlp):
    """The others are measured and explained; asked for alone it is an error."""
    assert zoo("compress", run_mlp, "dynamic").code == 0
    path = run_mlp / "dynamic" / "model.tflite"
    path.write_bytes(path.read_bytes()[:-8])
    for command, *options in (("benchmark", "--seconds", "0.1"), ("explain", "--samples", "4")):
        code, _, error, document = zoo(command, run_mlp, "--variant", "all", *options, "--json")
        assert code == 1
        assert "dynamic" in error
        errors = {row["variant"]: row["error"] for row in document["results"]}
        assert errors["base"] is None
        assert "is not the file" in errors["dynamic"]
        lost = document["results"][-1]
        if command == "benchmark":
            assert lost["latency_ms"]["p90"] is None
            assert {"queries", "throughput", "bytes", "metrics", "peak_memory_mb"} <= set(lost)
        code, _, error, document = zoo(command, run_mlp, "--variant", "dynamic", *options, "--json")
        assert code == 2
        assert list(document) == ["error"]


def test_an_audit_row_says_what_could_not_be_measured(run_mlp):
    from zoo.api.auditing import _audit_row
    from zoo.gates import judge, parse_gates
    from zoo.run import Run

    died = {"variant": "base", "scenario": "Offline", "throughput": None,
            "error": "the measuring process died of SIGKILL"}  # fmt: skip
    fine = {"variant": "base", "scenario": "SingleStream", "latency_ms": {"p90": 1.0},
            "load_ms": 1.0, "peak_memory_mb": 1.0, "error": None}  # fmt: skip
    row = _audit_row(Run(run_mlp).variant("base"), [fine, died], None)
    assert (row["error"], row["latency_ms"]) == (died["error"], {"p90": 1.0})
    (gate,) = judge(parse_gates(["p90_ms<=5"]), [{**row, "variant": "other"}], [], [])
    assert (gate["passed"], gate["reason"]) == (False, died["error"])


def test_an_audit_keeps_explanations_of_more_rows(zoo, run_mlp):
    from zoo.run import Run

    assert zoo("compress", run_mlp, "dynamic").code == 0
    assert zoo("explain", run_mlp, "--variant", "dynamic", "--samples", "60").code == 0
    before = Run(run_mlp).variant("dynamic").results("explain.json")
    arrays = (run_mlp / "dynamic" / "explain.npz").read_bytes()
    code, _, error, document = zoo("audit", run_mlp, "dynamic", "--seconds", "0.1", "--json")
    assert code == 0, error
    assert document["drift"][0]["n"] < 60
    assert Run(run_mlp).variant("dynamic").results("explain.json") == before
    assert (run_mlp / "dynamic" / "explain.npz").read_bytes() == arrays
    assert zoo("explain", run_mlp, "--variant", "dynamic", "--samples", "10").code == 0
    (after,) = Run(run_mlp).variant("dynamic").results("explain.json")
    assert after["samples"] == 10  # who asks for fewer gets them


def test_a_private_sweep_keeps_pictures_out_of_the_report(zoo, run_cnn):
    assert zoo("explain", run_cnn, "--samples", "4").code == 0
    words = ("compress", run_cnn, "--sweep", "dynamic", "--seconds", "0.1")
    pages = []
    for flags in ((), ("--no-exemplars",)):
        assert zoo(*words, *flags).code == 0
        pages.append((run_cnn / "report.html").read_text())
    assert pages[0].count("data:image/png") > 1
    assert pages[1].count("data:image/png") == 1  # the mean importance of each patch
    code, _, error, _ = zoo("compress", run_cnn, "dynamic", "--no-exemplars")
    assert code == 2
    assert "it goes with --sweep" in error


def test_a_distilled_variants_speed_is_compared(zoo, run_cnn):
    """Its input has another name than base's."""
    from zoo.api.benchmarking import compare_speed
    from zoo.progress import QUIET
    from zoo.run import Run
    from zoo.train.running import reopen

    assert zoo("compress", run_cnn, "distill:mlp").code == 0
    run = Run(run_cnn)
    speed = compare_speed(reopen(run), run.select("all"), 0.05, QUIET)
    assert speed["distill-mlp"]["error"] is None
    assert speed["distill-mlp"]["ratio"] > 0


def test_pictures_of_an_array_are_shown_at_the_models_size(zoo, trained, tmp_path):
    data = trained("cnn").parent.parent / "bars.npz"
    words = ("--set", "size=16", "--epochs", "1", "--set", "filters=4,4", "--set", "dense=8")
    assert (
        zoo("train", "cnn", "--data", data, *words, "--name", "wide", "--runs", tmp_path).code == 0
    )
    assert zoo("explain", tmp_path / "wide", "--samples", "4").code == 0
    with np.load(tmp_path / "wide" / "base" / "explain.npz", allow_pickle=False) as stored:
        assert stored["images"].shape[1:3] == stored["dense"].shape[1:3] == (16, 16)
    assert zoo("report", tmp_path / "wide").code == 0
