"""The benchmark: the instrument against a function that keeps its own time, then artefacts."""

import gzip
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlperf_loadgen", reason="MLCommons LoadGen has wheels for Linux alone")

from zoo.errors import FAILURE, ZooError
from zoo.schema import BenchmarkResult
from zoo.tasks import TASKS
from zoo_bench import loadgen
from zoo_bench.loadgen import run_loadgen
from zoo_bench.measure import _spawn, measure, side_by_side
from zoo_bench.suite import load_suite, parse_suite, suite_names
from zoo_bench.table import describe, digits, environment, main_metric, markdown, result_name

# The converter's calibration makes the interpreter that TensorFlow itself has deprecated.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)
SHORT = "short run: {} s of the 600 s an official result needs"


class Sleeper:
    """Takes ``seconds`` to answer, and keeps its own record of how long it took."""

    def __init__(self, seconds):
        self.seconds, self.took = seconds, []

    def __call__(self, index):
        started = time.perf_counter()
        time.sleep(self.seconds)
        self.took.append(time.perf_counter() - started)


# ---------------------------------------------------------------------------- the instrument


def test_latency_is_that_of_the_function(tmp_path):
    sleeper = Sleeper(0.010)
    row = run_loadgen(sleeper, 8, scenario="SingleStream", seconds=1.0, log_dir=tmp_path)
    own = np.array(sleeper.took[-row["queries"] :]) * 1e3  # without the calls that calibrate
    assert row["latency_ms"]["p50"] == pytest.approx(np.median(own), rel=0.05)
    assert row["latency_ms"]["mean"] == pytest.approx(own.mean(), rel=0.05)
    assert row["throughput"] == pytest.approx(1e3 / own.mean(), rel=0.05)
    assert row["queries"] == row["samples"] >= 64
    assert row["seconds"] >= 0.99
    assert row["valid"] is True
    assert row["reason"] == SHORT.format(1)


def test_offline_throughput_is_that_of_the_function(tmp_path):
    seen = []
    sleeper = Sleeper(0.008)

    def batch(indices):
        seen.extend(indices)
        sleeper(0)

    row = run_loadgen(
        sleeper,
        5,
        scenario="Offline",
        seconds=0.5,
        log_dir=tmp_path,
        issue_batch=batch,
        batch=4,
    )
    calls = -(-row["samples"] // 4)
    assert row["throughput"] == pytest.approx(row["samples"] / sum(sleeper.took[-calls:]), rel=0.05)
    assert set(seen) == set(range(5))
    assert (row["batch"], row["queries"], row["valid"]) == (4, 1, True)
    assert row["seconds"] >= 0.5
    assert set(row["latency_ms"].values()) == {None}  # they wait for each other: no latency


def test_figures_are_those_of_loadgens_summary(tmp_path):
    row = run_loadgen(Sleeper(0.002), 3, scenario="SingleStream", seconds=0.3, log_dir=tmp_path)
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    stated = dict(line.split(":", 1) for line in summary.splitlines() if line.count(":") == 1)
    stated = {key.strip(): value.strip() for key, value in stated.items()}
    assert stated["Result is"] == "VALID"
    assert stated["Scenario"] == "SingleStream"
    for name, label in (("p50", "50.00"), ("p90", "90.00"), ("p99", "99.00")):
        nanoseconds = int(stated[f"{label} percentile latency (ns)"])
        assert row["latency_ms"][name] == pytest.approx(nanoseconds / 1e6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mlperf_log_detail.txt",
        "mlperf_log_summary.txt",
    ]


def test_a_run_too_short_for_its_settings_is_invalid_in_loadgens_words(tmp_path):
    log = loadgen._run(lambda indices: time.sleep(0.001), 4, "Offline", 0.5, 1e8, tmp_path, 1)
    row = loadgen._read(log, "Offline", 0.5, 1)
    assert row["valid"] is False
    assert "minimum duration was not met" in row["reason"]
    assert "Increase expected QPS" in row["reason"]
    assert SHORT.format(0.5) in row["reason"]


def test_a_function_that_speeds_up_is_measured_again(tmp_path):
    calls = []

    def warming(index):  # slow while the interval is estimated (0.2 s), 3 times faster afterwards
        calls.append(index)
        time.sleep(0.030 if len(calls) <= 7 else 0.010)

    row = run_loadgen(warming, 4, scenario="Offline", seconds=0.4, log_dir=tmp_path)
    assert row["valid"] is True
    assert row["seconds"] >= 0.4
    assert len(calls) > 7 + row["samples"]  # there was a first run, and it was too short


@pytest.mark.parametrize("scenario", loadgen.SCENARIOS)
def test_queries_are_bounded(scenario, tmp_path):
    row = run_loadgen(
        Sleeper(0.001), 4, scenario=scenario, seconds=500, log_dir=tmp_path, max_samples=400
    )
    assert row["samples"] <= 400
    assert 0.05 < row["seconds"] < 10
    assert "short run: 0." in row["reason"]


@pytest.mark.parametrize("scenario", loadgen.SCENARIOS)
def test_an_exception_surfaces_instead_of_killing_the_process(scenario, tmp_path):
    calls = []

    def failing(index):
        calls.append(index)
        time.sleep(0.005)
        if len(calls) > 60:
            raise ArithmeticError("no answer")

    with pytest.raises(ArithmeticError, match="no answer"):
        run_loadgen(failing, 4, scenario=scenario, seconds=0.2, log_dir=tmp_path)
    assert len(calls) == 61


def test_an_unknown_scenario_is_named(tmp_path):
    with pytest.raises(ZooError, match="SingleStream"):
        run_loadgen(print, 4, scenario="SingleSteam", seconds=1, log_dir=tmp_path)


def test_missing_loadgen_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)  # what Python does on a failed import
    with pytest.raises(ZooError, match="pip install mlcommons-loadgen") as caught:
        measure(tmp_path / "a.tflite", {"x": np.zeros((1, 2), np.float32)}, log_dir=tmp_path)
    assert (caught.value.kind, caught.value.exit_code) == ("missing_dependency", FAILURE)


def test_the_readmes_way_to_measure_the_instrument_works(tmp_path, monkeypatch, capsys):
    readme = Path(__file__).parent.parent / "benchmarks" / "README.md"
    (block,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    single, offline = (float(line.split()[1]) for line in capsys.readouterr().out.splitlines())
    assert 0 < offline < 1000
    assert 0 < single < 1000


# ---------------------------------------------------------------------------- artefacts


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """``{name: path}`` of small LiteRT files, with the arrays they hold under ``weights``."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("artefacts")
    rng = np.random.default_rng(0)
    weights = {
        "dense": rng.normal(size=(13, 4)).astype(np.float32),
        "wide_in": rng.normal(size=(13, 1024)).astype(np.float32) / 4,
        "wide": rng.normal(size=(1024, 1024)).astype(np.float32) / 32,
        "kernel": rng.normal(size=(3, 3, 1, 4)).astype(np.float32),
        "flat": rng.normal(size=(6 * 6 * 4, 3)).astype(np.float32),
    }
    module = tf.Module()
    module.held = {name: tf.Variable(value) for name, value in weights.items()}
    held = module.held

    def dense(x):
        return {"logits": tf.matmul(x, held["dense"])}

    def wide(x):
        hidden = tf.nn.relu(tf.matmul(x, held["wide_in"]))
        return {"logits": tf.matmul(tf.nn.relu(tf.matmul(hidden, held["wide"])), held["wide"])}

    def cnn(image):
        maps = tf.nn.relu(tf.nn.conv2d(image, held["kernel"], 1, "VALID"))
        return {"logits": tf.matmul(tf.nn.tanh(tf.reshape(maps, (1, 144))), held["flat"])}

    def centred(x):  # mixes the samples of a batch: right at batch 1 alone
        return {"logits": tf.matmul(x, held["dense"]) - 2 * tf.reduce_mean(x, axis=0)[0]}

    def two(second, first):
        return {"logits": tf.matmul(first, held["dense"]) + second}

    vector = tf.TensorSpec((1, 13), tf.float32, name="x")
    image = tf.TensorSpec((1, 8, 8, 1), tf.float32, name="image")
    pair = (
        tf.TensorSpec((1, 4), tf.float32, name="second"),
        tf.TensorSpec((1, 13), tf.float32, name="first"),
    )
    signatures = {
        name: tf.function(function, input_signature=inputs)
        for name, function, inputs in (
            ("dense", dense, (vector,)),
            ("wide", wide, (vector,)),
            ("cnn", cnn, (image,)),
            ("centred", centred, (vector,)),
            ("two", two, pair),
        )
    }
    paths = {"weights": weights}

    def write(name, converter):
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(converter.convert())

    for name, function in signatures.items():
        module.function = function
        tf.saved_model.save(module, folder / name, signatures={"serving_default": function})
        write(name, tf.lite.TFLiteConverter.from_saved_model(str(folder / name)))
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "cnn"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        {"image": rng.random((1, 8, 8, 1), dtype=np.float32)} for _ in range(20)
    )
    write("int8", converter)
    concrete = signatures["dense"].get_concrete_function()
    write("unsigned", tf.lite.TFLiteConverter.from_concrete_functions([concrete]))
    return paths


def vectors(count=50):
    return {"x": np.random.default_rng(1).random((count, 13), dtype=np.float32)}


def images(count=20):
    return {"image": np.random.default_rng(1).random((count, 8, 8, 1), dtype=np.float32)}


def test_rows_hold_what_the_schema_promises(artefacts, tmp_path):
    path = artefacts["dense"]
    rows = measure(path, vectors(), seconds=0.3, log_dir=tmp_path)
    assert [row["scenario"] for row in rows] == ["SingleStream", "Offline"]
    for row in rows:
        BenchmarkResult.model_validate({**row, "run": None, "model": "m", "variant": "base"})
        assert row["error"] is None
        assert row["valid"] is True
        assert row["reason"].startswith(SHORT.format(0.3))
        assert row["runtime"] == "litert"
        assert row["bytes"] == path.stat().st_size
        assert row["bytes_gzip"] == len(gzip.compress(path.read_bytes(), mtime=0))
        assert row["load_ms"] > 0
        assert row["first_invoke_ms"] > 0
        # Python, NumPy, LiteRT and a kilobyte of weights: TensorFlow alone would be 400 MB.
        assert 10 < row["memory_before_load_mb"] <= row["peak_memory_mb"] < 120
        summary = tmp_path / row["scenario"] / "mlperf_log_summary.txt"
        assert "Result is : VALID" in summary.read_text()
    single, offline = rows
    latency = single["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert (single["batch"], offline["batch"], offline["batch_reason"]) == (1, 32, None)


@pytest.mark.parametrize("name", ["cnn", "int8"])
def test_an_artefact_that_refuses_a_batch_runs_one_by_one(artefacts, name, tmp_path):
    (row,) = measure(
        artefacts[name], images(), scenarios=("Offline",), seconds=0.2, log_dir=tmp_path
    )
    assert (row["error"], row["valid"], row["batch"]) == (None, True, 1)
    assert row["batch_reason"].startswith("batch 32 refused: ")


def test_a_batch_with_other_answers_is_not_used(artefacts, tmp_path):
    (row,) = measure(
        artefacts["centred"], vectors(), scenarios=("Offline",), seconds=0.2, log_dir=tmp_path
    )
    assert row["batch"] == 1
    assert "answers differ" in row["batch_reason"]


def test_the_measured_call_is_the_whole_inference(artefacts):
    from zoo_bench.worker import Model

    samples = {
        "first": np.random.default_rng(2).normal(size=(7, 13)).astype(np.float32),
        "second": np.random.default_rng(3).normal(size=(7, 4)).astype(np.float32),
    }
    expected = samples["first"] @ artefacts["weights"]["dense"] + samples["second"]
    model = Model(str(artefacts["two"]), 1, samples, 1)
    for index in (3, 0):
        model.one(index)
        answer = model.interpreter.get_tensor(model.outputs[0])
        np.testing.assert_allclose(answer[0], expected[index], rtol=1e-4, atol=1e-5)
    (answers,) = Model(str(artefacts["two"]), 1, samples, 4).many([6, 1, 5])
    np.testing.assert_allclose(answers[:3], expected[[6, 1, 5]], rtol=1e-4, atol=1e-5)


def test_an_artefact_without_a_signature_takes_its_inputs_in_order(artefacts):
    from zoo_bench.worker import Model

    samples = {"anything": vectors()["x"]}
    model = Model(str(artefacts["unsigned"]), 1, samples, 1)
    assert model.interpreter.get_signature_list() == {}
    model.one(4)
    expected = samples["anything"][4] @ artefacts["weights"]["dense"]
    answer = model.interpreter.get_tensor(model.outputs[0])[0]
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_the_worker_imports_what_a_deployment_would(artefacts, tmp_path):
    np.savez(tmp_path / "samples.npz", input_0=vectors()["x"])
    job = {
        "artifact": str(artefacts["dense"]),
        "runtime": "litert",
        "inputs": ["x"],
        "scenarios": ["SingleStream", "Offline"],
        "seconds": 0.1,
        "threads": 1,
        "batch": 8,
        "log_dir": str(tmp_path),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    code = (
        "import sys, pathlib, zoo_bench.worker as worker;"
        "worker.run(pathlib.Path(sys.argv[1]));"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    assert {"numpy", "ai_edge_litert", "mlperf_loadgen", "zoo_bench"} <= modules
    assert not modules & {"tensorflow", "keras", "pydantic", "pandas", "sklearn", "scipy", "zoo"}
    assert len(json.loads((tmp_path / "result.json").read_text())["rows"]) == 2


BROKEN = {
    "garbage": (b"not a model" * 100, vectors(), "valid Flatbuffer"),
    "empty": (b"", vectors(), "empty"),
    "cut short": (None, vectors(), "valid Flatbuffer"),
    "wrong name": ("dense", {"y": vectors()["x"]}, "inputs are ['x'], the samples' ['y']"),
    "wrong dtype": ("dense", {"x": np.zeros((3, 13))}, "takes float32, received float64"),
    "wrong shape": ("dense", {"x": np.zeros((3, 12), np.float32)}, "takes (13,) a sample"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_measured_is_a_row_with_its_error(artefacts, case, tmp_path):
    content, samples, expected = BROKEN[case]
    path = artefacts[content] if isinstance(content, str) else tmp_path / "broken.tflite"
    if not isinstance(content, str):
        path.write_bytes(artefacts["cnn"].read_bytes()[:900] if content is None else content)
    rows = measure(path, samples, seconds=0.1, log_dir=tmp_path / "logs")
    assert [row["scenario"] for row in rows] == ["SingleStream", "Offline"]
    for row in rows:
        assert expected in row["error"]
        assert row["valid"] is False
        assert row["throughput"] is None
        BenchmarkResult.model_validate({**row, "run": None, "model": "m", "variant": "base"})


def test_samples_of_the_only_input_need_no_name(artefacts, tmp_path):
    x = vectors()["x"]
    for samples in (x, {"x": x}):
        (row,) = measure(artefacts["dense"], samples, scenarios=("SingleStream",), seconds=0.1,
                         log_dir=tmp_path)  # fmt: skip
        assert row["error"] is None
        assert row["queries"] > 0
    (row,) = measure(artefacts["two"], x, scenarios=("Offline",), seconds=0.1, log_dir=tmp_path)
    assert "inputs are ['first', 'second'], the samples' ['(the only input)']" in row["error"]


def test_a_missing_file_is_a_row_with_its_error(tmp_path):
    rows = measure(tmp_path / "none.tflite", vectors(), seconds=0.1, log_dir=tmp_path)
    assert {row["error"] for row in rows} == {"there is no file none.tflite"}
    assert {row["bytes"] for row in rows} == {None}


def test_a_process_that_hangs_is_stopped(artefacts, tmp_path):
    rows = measure(artefacts["dense"], vectors(), seconds=60, log_dir=tmp_path, timeout=0.1)
    assert {row["error"].split(";")[0] for row in rows} == {
        "the measuring process was stopped after 0.1 s"
    }


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the process in /proc")
def test_a_process_that_crashes_is_a_row_with_its_signal(artefacts, tmp_path):
    rows = []
    thread = threading.Thread(
        target=lambda: rows.extend(
            measure(artefacts["dense"], vectors(), seconds=30, log_dir=tmp_path)
        )
    )
    thread.start()
    deadline = time.monotonic() + 20
    while not (child := _worker_process()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGSEGV)
    thread.join(20)
    assert [row["valid"] for row in rows] == [False, False]
    assert all("the measuring process died of SIGSEGV" in row["error"] for row in rows)


def _worker_process():
    """The id of this process's child that runs the worker, once it has been replaced by it."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"zoo_bench.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


@pytest.mark.parametrize(
    ("samples", "arguments", "expected"),
    [
        ({}, {}, "needs samples"),
        ({"x": np.zeros((0, 13), np.float32)}, {}, "needs samples"),
        ({"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}, {}, "one length"),
        (vectors(), {"seconds": 0}, "seconds must be positive"),
        (vectors(), {"seconds": float("nan")}, "seconds must be positive"),
        (vectors(), {"threads": 0}, "threads must be positive"),
        (vectors(), {"scenarios": ("Server",)}, "Unknown scenario"),
    ],
)
def test_wrong_arguments_are_explained(samples, arguments, expected, tmp_path):
    with pytest.raises(ZooError, match=expected):
        measure(tmp_path / "a.tflite", samples, log_dir=tmp_path, **arguments)


def test_rounds_tell_a_small_model_from_a_large_one(artefacts, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "zoo_bench.measure._spawn",
        lambda file, *rest: asked.append(file.name) or _spawn(file, *rest),
    )
    files = {"wide": artefacts["wide"], "dense": artefacts["dense"]}
    (found,) = side_by_side(files, vectors(), rounds=2, seconds=0.1).values()
    assert found["error"] is None
    assert found["ratio"] > 3  # 52 multiplications against 2 million
    assert found["ratio"] == statistics.median(found["rounds"])
    assert (found["ci_low"], found["ci_high"]) == (min(found["rounds"]), max(found["rounds"]))
    assert asked == ["wide.tflite", "dense.tflite", "dense.tflite", "wide.tflite"]


def test_a_comparison_with_a_broken_file_has_no_ratio(artefacts, tmp_path):
    files = {"base": artefacts["dense"], "lost": tmp_path / "none", "same": artefacts["dense"]}
    found = side_by_side(files, vectors(), rounds=1, seconds=0.1)
    assert (found["lost"]["ratio"], found["lost"]["rounds"]) == (None, [])
    assert found["lost"]["error"] == "lost: there is no file none"
    assert found["same"]["ratio"] > 0


# ---------------------------------------------------------------------------- suites


def test_every_shipped_suite_is_sound():
    assert "quick" in suite_names()
    for name in suite_names():
        suite = load_suite(name)
        assert suite.name == name
        assert suite.description
        assert all("base" in entry.variants for entry in suite.entries)  # what ratios refer to


def test_a_suites_file_becomes_values():
    text = """
    name = "mine"
    description = "d"
    [[entry]]
    model = "mlp"
    variants = ["base", "prune:0.8+int8"]
    seconds = 2
    set = {epochs = 3}
    """
    (entry,) = parse_suite(text, "mine").entries
    assert (entry.model, entry.variants, entry.seconds) == ("mlp", ("base", "prune:0.8+int8"), 2.0)
    assert entry.set == {"epochs": 3}


def test_an_unknown_suite_gets_a_suggestion():
    with pytest.raises(ZooError, match="Did you mean quick") as caught:
        load_suite("quikc")
    assert caught.value.kind == "unknown_suite"
    with pytest.raises(ZooError, match="Unknown suite"):
        load_suite("../suites/quick")


ENTRY = '[[entry]]\nmodel = "mlp"\nvariants = ["base"]\nseconds = 1\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = ", "TOML"),
        ('name = "other"\ndescription = "d"\n' + ENTRY, "as the file"),
        ('name = "s"\n' + ENTRY, "description"),
        ('name = "s"\ndescription = "d"\nentry = []', "at least one"),
        ('name = "s"\ndescription = "d"\nentry = [1]', r"\[\[entry\]\] tables"),
        ('name = "s"\ndescription = 1\n' + ENTRY, "right type"),
        ('name = "s"\ndescription = "d"\n' + ENTRY + "epochs = 3", "epochs"),
        ('name = "s"\ndescription = "d"\n' + ENTRY + ENTRY, "one entry a model"),
        ('name = "s"\ndescription = "d"\n' + ENTRY.replace("1", "0"), "seconds > 0"),
        ('name = "s"\ndescription = "d"\n' + ENTRY.replace("1", "true"), "right type"),
        ('name = "s"\ndescription = "d"\n' + ENTRY.replace('"base"', ""), "list of recipes"),
        ('name = "s"\ndescription = "d"\n' + ENTRY.replace('"base"', "8"), "list of recipes"),
        (
            'name = "s"\ndescription = "d"\n' + ENTRY.replace('"base"', '"base", "base"'),
            "each variant once",
        ),
    ],
)
def test_a_broken_suite_is_explained(text, expected):
    with pytest.raises(ZooError, match=expected) as caught:
        parse_suite(text, "s")
    assert caught.value.kind == "bad_suite"


# ---------------------------------------------------------------------------- tables

MACHINE = {
    "cpu": "Example CPU @ 2.00GHz",
    "cores": 2,
    "memory_gb": 25.3,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "packages": {"numpy": "2.4.6", "keras": None, "ai-edge-litert": "2.3.0"},
    "date": "2026-01-31",
}
ROW = {
    "model": "mlp",
    "variant": "int8",
    "runtime": "litert",
    "scenario": "SingleStream",
    "batch": 1,
    "valid": True,
    "reason": SHORT.format(1.5),
    "latency_ms": {"mean": 0.00708, "p50": 0.006943, "p90": 0.0089, "p99": 0.0127},
    "throughput": 141223.0,
    "bytes": 41148,
    "bytes_gzip": 37498,
    "load_ms": 1.0665,
    "peak_memory_mb": 41.394,
    "metrics": {"accuracy": 0.85349, "roc_auc": 0.9071},
    "error": None,
    "environment": MACHINE,
}


def test_the_table_is_the_one_worked_by_hand():
    offline = {**ROW, "scenario": "Offline", "batch": 32, "latency_ms": {}, "reason": None}
    failed = {"model": "cnn", "variant": "base", "scenario": "Offline", "environment": MACHINE,
              "error": "died of SIGSEGV", "valid": False, "metrics": {}}  # fmt: skip
    invalid = {**ROW, "valid": False, "reason": "LoadGen: too few queries", "metrics": {}}
    assert markdown([ROW, offline, failed, invalid]).splitlines() == [
        "Example CPU @ 2.00GHz, 2 cores; 25.3 GB; Linux x86_64; Python 3.11.7; "
        "numpy 2.4.6, ai-edge-litert 2.3.0; 2026-01-31",
        "",
        "| model | variant | runtime | scenario | batch | p50 ms | p90 ms | samples/s | size | gzip |"
        " load ms | peak MB | metric | valid |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        "| mlp | int8 | litert | SingleStream | 1 | 0.00694 | 0.00890 | 141,000 | 41.1 kB | 37.5 kB |"
        " 1.07 | 41.4 | accuracy 0.853 | short |",
        "| mlp | int8 | litert | Offline | 32 | - | - | 141,000 | 41.1 kB | 37.5 kB | 1.07 | 41.4 |"
        " accuracy 0.853 | yes |",
        "| cnn | base | - | Offline | - | - | - | - | - | - | - | - | - | error: died of SIGSEGV |",
        "| mlp | int8 | litert | SingleStream | 1 | 0.00694 | 0.00890 | 141,000 | 41.1 kB | 37.5 kB |"
        " 1.07 | 41.4 | - | INVALID: LoadGen: too few queries |",
        "",
        "short: valid for its settings, but shorter than the 600 s of an official run.",
    ]


def test_text_of_users_cannot_break_the_table():
    hostile = {**ROW, "model": "a|b\n| c", "variant": "<img src=x>[t](javascript:1)`"}
    lines = markdown([hostile]).splitlines()
    assert len(lines) == len(markdown([ROW]).splitlines())
    assert r"| a\|b \| c | &lt;img src=x>\[t\](javascript:1)\` |" in lines[4]


def test_results_of_two_machines_name_both():
    other = {**ROW, "environment": {**MACHINE, "cpu": "Another CPU"}}
    head = markdown([ROW, other, ROW]).split("\n\n")[0].splitlines()
    assert [line.split(",")[0] for line in head] == ["Example CPU @ 2.00GHz", "Another CPU"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0069432, "0.00694"), (0.00999999, "0.0100"), (0.85349, "0.853"),
     (9.996, "10.0"), (12.34, "12.3"), (999.6, "1,000"), (141223.0, "141,000"), (-1.5, "-1.50")],
)  # fmt: skip
def test_digits(value, text):
    assert digits(value) == text


def test_the_main_metric_is_the_tasks_own():
    for task in TASKS.values():
        assert main_metric(dict.fromkeys(task.metrics, 0.5)) == (task.metrics[0], 0.5)
    assert main_metric({"accuracy": None, "roc_auc": 0.7}) == ("roc_auc", 0.7)
    assert main_metric({"accuracy": None}) is None


def test_the_environment_names_the_machine_but_not_the_host():
    import numpy

    machine = environment()
    assert machine["packages"]["numpy"] == numpy.__version__
    assert machine["python"] == platform.python_version()
    assert 1 <= machine["cores"] <= os.cpu_count()
    assert platform.node() not in json.dumps(machine)
    assert str(machine["cores"]) in describe(machine)
    assert result_name(MACHINE) == "example-cpu-2.00ghz-2-cores-litert-2.3.0.json"


def result(variant, scenario="SingleStream", p90=2.0, throughput=500.0, size=1000, **other):
    return {"model": "mlp", "variant": variant, "runtime": "litert", "scenario": scenario, "batch": 1,
            "threads": 1, "latency_ms": {"p90": p90}, "throughput": throughput, "bytes": size,
            "error": None, **other}  # fmt: skip


def test_a_comparison_worked_by_hand():
    from zoo_bench.compare import compare

    before = [result("base"), result("base", "Offline", None), result("int8", error="it broke")]
    now = [
        result("base", p90=3.0, size=1600),
        result("base", "Offline", None, throughput=400.0),
        result("int8"),
        result("float16"),
    ]
    said = {(r["variant"], r["scenario"], r["name"]): (r["ratio"], r["passed"], r["reason"])
            for r in compare(now, before, 0.5)}  # fmt: skip
    assert said == {
        ("base", "SingleStream", "p90_ms"): (1.5, True, None),
        ("base", "SingleStream", "bytes"): (1.6, False, None),
        ("base", "Offline", "ms_per_sample"): (1.25, True, None),
        ("base", "Offline", "bytes"): (1.0, True, None),
        ("int8", "SingleStream", "p90_ms"): (None, None, "it broke"),
        ("int8", "SingleStream", "bytes"): (None, None, "it broke"),
        ("float16", "SingleStream", "p90_ms"): (None, None, "not among the earlier results"),
        ("float16", "SingleStream", "bytes"): (None, None, "not among the earlier results"),
    }


def test_what_got_worse_ends_with_3(zoo, run_mlp, tmp_path):
    file = tmp_path / "before.json"
    words = ("benchmark", run_mlp, "--seconds", "0.1")
    assert zoo(*words, "--output", file).code == 0
    code, _, _, document = zoo(*words, "--compare", file, "--tolerance", "100", "--json")
    assert (code, document["passed"], len(document["compared"])) == (0, True, 4)
    stored = json.loads(file.read_text())

    def compared(**change):
        rows = [{**row, **change} for row in stored["results"]]
        file.write_text(json.dumps({**stored, "results": rows}))
        return zoo(*words, "--compare", file, "--tolerance", "100")

    code, text, _, _ = compared(bytes=1)
    assert code == 3
    assert "NO: more than 101" in text
    code, text, _, _ = compared(variant="int8")  # nothing to compare with
    assert code == 3
    assert "not among the earlier results" in text
    code, _, error, _ = compared(environment={**stored["results"][0]["environment"], "cores": 999})
    assert code == 2
    assert "another machine" in error
    file.write_text("[]")
    code, _, error, _ = zoo(*words, "--compare", file)
    assert code == 2
    assert "holds no results to compare with" in error
    code, _, error, _ = zoo(*words, "--tolerance", "1")
    assert code == 2
    assert "it goes with --compare" in error
