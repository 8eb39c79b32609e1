"""The command line as promised: documents, exit codes, errors, signals, and nothing half-written."""

import ast
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import bars, loans, tree

from zoo import api
from zoo.cli import cli
from zoo.errors import ENFORCED, FAILURE, USAGE

ZOO = [sys.executable, "-m", "zoo.cli"]
# The converter's calibration makes the interpreter that TensorFlow itself has deprecated.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)

# --------------------------------------------------------------------------------------------- help


def commands(group=cli, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_the_overview_is_whole_and_in_order(zoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _, _ = zoo("--help")
    assert code == 0
    listed = re.findall(r"^  (\w+)  +(\S.*)$", out.split("Commands:")[1], re.MULTILINE)
    assert [name for name, _ in listed] == [
        "list", "info", "data", "train", "tune", "runs", "compare", "eval", "predict", "generate", "compress",
        "export", "benchmark", "explain", "fairness", "mitigate", "audit", "report", "doctor",
    ]  # fmt: skip
    assert all(text.endswith(".") and "..." not in text for _, text in listed)


@pytest.mark.parametrize("words", [" ".join(path) for path, _ in commands()])
def test_every_command_explains_itself(zoo, words):
    path = tuple(words.split())
    command = dict(commands())[path]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option.name
    code, out, _, _ = zoo(*path, "--help")
    assert code == 0
    assert f"zoo {' '.join(path)}" in out.split("Examples:")[1]
    assert {"--json", "--debug"} <= {o for p in command.params for o in p.opts}


def test_the_help_of_compress_is_the_table_of_steps(zoo, monkeypatch):
    from zoo.compress import steps
    from zoo.spec import Step

    new = Step("shrink", "transform", "RATIO", "make it smaller", dict, dict, "someone, 2030")
    monkeypatch.setitem(steps.STEPS, "shrink", new)
    out = zoo("compress", "--help").stdout
    assert re.search(r"shrink:RATIO +make it smaller", out)
    assert all(f"  {name}" in out for name in steps.STEPS)


@pytest.mark.parametrize("words", [(), ("data",)])
def test_without_a_command_the_help_is_shown(zoo, words):
    code, out, err, _ = zoo(*words)
    assert (code, out) == (USAGE, "")
    assert "Commands:" in err
    assert "Error" not in err


# ------------------------------------------------------------------------------------------- errors

#: words ("CSV", "RUN" and "TMP" are filled in) -> the error's kind, and what must be said
WRONG = [
    ("trian mlp", "unknown_command", "Did you mean train?"),
    ("train mlp --epoch 3", "usage", "--epochs"),
    ("info mpl", "unknown_model", "Did you mean mlp?"),
    ("info MLP", "unknown_model", "Did you mean mlp?"),
    ("list zz*", "unknown_model", "zz*"),
    ("list ''", "unknown_model", "''"),
    ("tune OK --trials 1 --study ../x", "bad_name", "name of a study"),
    ("tune OK --trials 1 --study ''", "bad_name", "name of a study"),
    ("tune OK --trials 1 --objective ''", "bad_input", "--objective names nothing"),
    ("train OK --strategy mirrored:99", "too_few_devices", "at most mirrored:"),
    ("audit mlp --seconds nan", "usage", "no finite number"),
    ("data info adlut", "unknown_data_set", "Did you mean adult?"),
    ("train mlp --data adlut", "unknown_data_set", "Did you mean adult?"),
    ("train mlp --data ''", "unknown_data_set", "''"),
    ("train mlp --data LONG", "unknown_data_set", "xxx"),
    ("train mlp --data TMP/none.csv --target y", "missing_file", "none.csv"),
    ("train", "usage", "--resume RUN"),
    ("train mlp --resume mlp", "usage", "--resume RUN"),
    ("train --resume mlp --epochs 9", "usage", "--epochs"),
    ("train --resume mlq", "unknown_run", "Did you mean mlp?"),
    ("train CSV --target aproved", "unknown_column", "Did you mean approved?"),
    ("train CSV --target approved --sensitive sxe", "unknown_column", "Did you mean sex?"),
    ("train CSV --target approved --task binry", "unknown_task", "Did you mean binary?"),
    ("train CSV --target approved --positive yess", "unknown_label", "Did you mean yes?"),
    ("train CSV", "missing_target", "--target COLUMN"),
    ("train OK --epochs 0", "bad_input", "at least 1"),
    ("train OK --epochs -3", "bad_input", "at least 1"),
    ("train OK --epochs many", "usage", "many"),
    ("train OK --batch-size 0", "bad_input", "at least 1"),
    ("train OK --seed -1", "usage", "-1"),
    ("train OK --seed 4294967296", "usage", "4294967296"),
    ("train OK --split-seed -1", "usage", "-1"),
    ("train OK --cpus 0", "usage", "0"),
    ("train OK --strategy mirrord", "unknown_strategy", "Did you mean mirrored"),
    ("train OK --set learning_rate=nan", "bad_input", "above 0"),
    ("train OK --set learning_rate=0", "bad_input", "above 0"),
    ("train OK --set weight_decay=nan", "bad_input", "from 0"),
    ("train OK --set hiden=3", "unknown_setting", "Did you mean hidden?"),
    ("train OK --set optimizer=adm", "unknown_optimizer", "Did you mean adam"),
    ("train OK --set hidden=wide", "bad_input", "'wide'"),
    ("train OK --set hidden=-1", "bad_config", "units=-1"),
    ("train OK --set hidden=0", "bad_config", "such as the model's own hidden=(128, 64)"),
    ("train OK --set dropout=1.5", "bad_config", "can't be built with dropout=1.5"),
    ("train OK --set dropout=1.5 --dry-run", "bad_config", "can't be built with dropout=1.5"),
    ("train OK --set hidden=1000000000", "too_large", "GB to be trained"),
    ("tune OK --trials 1 --set hidden=1000000000", "too_large", "GB to be trained"),
    ("train OK --set outputs=3", "bad_input", "the data decides"),
    ("train OK --set epochs", "bad_input", "key=value"),
    ("train OK --set bins=x", "bad_input", "whole number"),
    ("train OK --set size=12", "bad_input", "image data"),
    ("train OK --set augment=affine", "kind_mismatch", "image data"),
    ("train OK --config TMP/none.toml", "bad_input", "none.toml"),
    ("train OK --config TMP/broken.toml", "bad_input", "could not be read as settings"),
    ("train OK --config TMP/broken.json", "bad_input", "line 1 column 8"),
    ("train OK --config TMP/wrong.toml", "bad_input", "wrong.toml, line 3: The setting epochs=x"),
    ("train OK --config TMP/range.json", "bad_input", "range.json, line 2: epochs is out of range"),
    ("train OK --config TMP/option.toml", "bad_input", "option.toml, line 1: seed can't be 'x'"),
    ("train OK --config TMP/typo.toml", "unknown_setting", "typo.toml, line 2: Unknown setting"),
    ("train OK --config TMP/dropout.toml", "bad_config", "dropout.toml, line 1: mlp can't be built"),
    ("train OK --config TMP/dropout.toml --set dropout=2", "bad_config", "None mlp can't be built"),
    ("train OK --track ''", "usage", "separated by commas"),
    ("train OK --config TMP", "bad_input", "Is a directory"),
    ("train OK --name ../../x", "bad_name", "../../x"),
    ("train OK --name a/b", "bad_name", "a/b"),
    ("train OK --name ''", "bad_name", "letters"),
    ("train OK --name latest", "bad_name", "latest"),
    ("train OK --name .hidden", "bad_name", ".hidden"),
    ("train OK --name ünï", "bad_name", "ünï"),
    ("train OK --name LONG", "bad_name", "xxx"),
    ("train OK --name mlp", "run_exists", "--resume"),
    ("train OK --runs TMP/broken.toml", "usage", "is a file"),
    ("train OK --runs TMP/broken.toml/x", "io_error", "Not a directory"),
    ("train cnn --data TMP/loans.csv --target approved", "kind_mismatch", "tabular data"),
    ("train cnn --data adult", "kind_mismatch", "tabular data"),
    ("train cnn --data adult", "kind_mismatch", "Tabular data goes with mlp"),
    ("train mlp --data TMP/endless.csv --target approved --task regression", "bad_values",
     "inf in data rows 4, 8"),
    ("runs --runs TMP/broken.toml", "usage", "is a file"),
    ("eval nope", "unknown_run", "--runs"),
    ("eval TMP", "unknown_run", "is no run"),
    ("eval LONG", "unknown_run", "xxx"),
    ("eval mlp --variant nope", "unknown_variant", "zoo compress"),
    ("eval mlp --split tset", "usage", "'test'"),
    ("compare mlp nope", "unknown_run", "nope"),
    ("compress mlp prune:1.5", "bad_recipe", "between 0 and 1"),
    ("compress mlp prune", "bad_recipe", "between 0 and 1"),
    ("compress mlp prune:nan", "bad_recipe", "between 0 and 1"),
    ("compress mlp prune:٠.٥", "bad_name", "letters"),
    ("compress mlp int8+prune:0.5", "bad_recipe", "prune:0.5+int8"),
    ("compress mlp int8:3", "bad_recipe", "no argument"),
    ("compress mlp ''", "unknown_recipe", "zoo compress --help"),
    ("compress mlp +", "unknown_recipe", "zoo compress --help"),
    ("compress mlp float16 itn8", "unknown_recipe", "Did you mean int8"),
    ("compress mlp", "usage", "RECIPE"),
    ("compress mlp int8 --variant bse", "unknown_variant", "Did you mean base?"),
    ("compress mlp int8", "run_exists", "remove the folder"),  # a half-made one is in the way
    ("predict mlp TMP/none.csv", "missing_file", "none.csv"),
    ("predict mlp TMP/loans.csv --output TMP/no/x.csv", "usage", "no folder"),
    ("predict mlp TMP/loans.csv --split val", "usage", "--split"),
    ("predict mlp --output TMP/x.csv", "bad_input", "INPUT"),
    ("predict mlp TMP/loans.csv --output TMP/loans.csv", "file_exists", "another --output"),
    ("predict mlp TMP/loans.csv --output TMP/broken.toml", "file_exists", "another --output"),
    ("export mlp --output TMP/loans.csv", "file_exists", "another --output"),
    ("export mlp --format saved_model --output TMP/runs", "file_exists", "another --output"),
    ("benchmark mlp --output TMP/loans.csv", "file_exists", "another --output"),
    ("explain mlp --method deeep", "unknown_explanation_method", "Did you mean deep?"),
    ("fairness mlp --sensitive sxe", "unknown_attribute", "Did you mean sex?"),
    ("benchmark quik", "unknown_run", "Did you mean quick?"),
    ("benchmark mlp/ nope", "unknown_run", "nope"),
    ("benchmark quick --threads 2", "usage", "--threads"),
    ("audit mlq", "unknown_run", "Did you mean mlp?"),
    ("audit mlp --epochs 3", "usage", "trained already"),
    ("audit mlp itn8", "unknown_recipe", "Did you mean int8"),
    ("audit mlp --gate acuracy>=0.5", "unknown_gate", "Did you mean accuracy"),
    ("audit mlp --gate accuracy", "bad_gate", "NAME<=VALUE"),
    ("audit mlp --gate accuracy>=1e999", "bad_gate", "finite"),
    ("report nope", "unknown_run", "nope"),
]  # fmt: skip


@pytest.fixture(scope="module")
def playground(trained, tmp_path_factory):
    """A folder with a run, its data, a half-made variant and a broken file; errors change nothing."""
    import shutil

    folder = tmp_path_factory.mktemp("playground")
    shutil.copytree(trained("mlp"), folder / "runs" / "mlp")
    loans(folder / "loans.csv")
    for name, text in {
        "broken.toml": "a = [",
        "broken.json": '{"a": 1',
        "wrong.toml": 'hidden = [8, 4]\n\nepochs = "x"\n',
        "range.json": '{"seed": 1,\n "epochs": 0}',
        "option.toml": 'seed = "x"\n',
        "typo.toml": "seed = 1\nhiden = 8\n",
        "dropout.toml": "dropout = 1.5\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    rows = [f"{k},{'inf' if k in (3, 7) else k}" for k in range(40)]
    (folder / "endless.csv").write_text("\n".join(["age,approved", *rows]), encoding="utf-8")
    (folder / "runs" / "mlp" / "int8").mkdir()
    (folder / "runs" / "mlp" / "int8" / "model.tflite").write_bytes(b"half")
    return folder


@pytest.mark.parametrize(("line", "kind", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_bad_usage_is_named_and_changes_nothing(zoo, playground, line, kind, said):
    csv = f"mlp --data {playground}/loans.csv"
    line = line.replace("OK", f"{csv} --target approved").replace("CSV", csv)
    line = line.replace("TMP", str(playground)).replace("LONG", "x" * 300)
    words = [word.replace("''", "") for word in line.split(" ")]
    if words[0] not in ("list", "info", "data", "trian") and "--runs" not in words:
        words += ["--runs", str(playground / "runs")]
    before = tree(playground)
    code, _, err, document = zoo(*words, "--json")
    assert tree(playground) == before
    assert code == USAGE
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) == {"kind", "message", "expected", "received", "hint"}
    assert error["kind"] == kind
    assert (
        said in f"{None} {error['message']} {error['expected']} {error['received']} {error['hint']}"
    )
    assert "Traceback" not in err
    shown = err[err.index("Error: ") :]
    assert shown.count("\n") <= 4
    assert len(shown) < 2000  # one screen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sensitive", "sex", "--sensitive", "city"], ["sex", "city"]),
        (["--sensitive", "sex,city", "--sensitive", '"of, both"'], ["sex", "city", "of, both"]),
        (["--sensitive", '"sex', "--sensitive", "city"], ["sex", "city"]),
    ],
)
def test_every_sensitive_option_counts(zoo, tmp_path, words, expected):
    header, *rows = loans(tmp_path / "loans.csv").read_text(encoding="utf-8").splitlines()
    lines = [f'{header},"of, both"', *(f"{row},{'ab'[k % 2]}" for k, row in enumerate(rows))]
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    done = zoo("data", "info", path, "--target", "approved", *words, "--json")
    assert sorted(done.document["groups"]) == sorted(expected)
    assert not set(expected) & {column["name"] for column in done.document["columns"]}


def test_names_with_marks_are_quoted_in_suggestions(zoo, tmp_path):
    path = loans(tmp_path / "loans.csv")
    path.write_text(path.read_text(encoding="utf-8").replace(",approved", ",approved?", 1))
    done = zoo("data", "info", path, "--target", "aproved", "--json")
    assert done.error["hint"] == "Did you mean 'approved?'?"
    assert done.error["expected"] == "one of: age, 'approved?', city, income, sex"


def test_debug_shows_the_traceback_and_keeps_the_rest(zoo):
    code, _, err, document = zoo("info", "mpl", "--debug", "--json")
    assert code == USAGE
    assert document["error"]["kind"] == "unknown_model"
    assert "Traceback (most recent call last)" in err
    assert "registry.py" in err


def test_a_bug_is_a_failure_on_one_screen(zoo, monkeypatch):
    def bug(pattern):
        raise RuntimeError("x" * 5000)

    monkeypatch.setattr(api, "list_models", bug)
    code, _, err, document = zoo("list", "--json")
    assert code == FAILURE
    assert document["error"]["kind"] == "internal"
    assert "--debug" in err
    assert len(err) < 1000


@pytest.mark.parametrize(("number", "code"), [(28, FAILURE), (13, USAGE)])
def test_a_full_disk_is_said_plainly(zoo, monkeypatch, number, code):
    def refuse(pattern):
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr(api, "list_models", refuse)
    done = zoo("list", "--json")
    assert done.code == code
    assert done.error["kind"] == "io_error"
    assert "/some/file" in done.stderr


# ------------------------------------------------------------------------------------ damaged runs


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))


DAMAGES = {
    "run.json cut": ("run.json", cut, "eval", "bad_document"),
    "run.json newer": ("run.json", newer, "report", "bad_document"),
    "run.json gone": ("run.json", Path.unlink, "eval", "unknown_run"),
    "variant.json cut": ("base/variant.json", cut, "fairness", "bad_document"),
    "variant.json newer": ("base/variant.json", newer, "eval", "bad_document"),
    "variant.json gone": ("base/variant.json", Path.unlink, "eval", "not_trained"),
    "artefact gone": ("base/model.tflite", Path.unlink, "predict", "changed_artifact"),
    "artefact cut": ("base/model.tflite", cut, "eval", "changed_artifact"),
    "weights gone": ("base/model.weights.h5", Path.unlink, "compress", "missing_weights"),
    "predictions cut": ("base/predictions.npz", cut, "fairness", "bad_document"),
    "predictions gone": ("base/predictions.npz", Path.unlink, "compare", "missing_predictions"),
    "metrics cut": ("base/metrics.json", cut, "eval", "bad_document"),
    "preprocess cut": ("preprocess.json", cut, "predict", "bad_document"),
    "preprocess gone": ("preprocess.json", Path.unlink, "explain", "bad_document"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_refused(zoo, run_mlp, name):
    file, damage, command, kind = DAMAGES[name]
    damage(run_mlp / file)
    before = tree(run_mlp)
    more = {"compare": ["mlp"], "compress": ["float16"]}.get(command, [])
    done = zoo(command, "mlp", *more, "--runs", run_mlp.parent, "--json")
    assert (done.code, done.error["kind"]) == (USAGE, kind)
    assert tree(run_mlp) == before
    assert done.error["hint"]


def test_weights_that_are_torn_are_an_error_row(zoo, run_mlp):
    cut(run_mlp / "base" / "model.weights.h5")
    before = tree(run_mlp)
    done = zoo("compress", run_mlp, "float16", "--json")
    assert done.code == FAILURE
    (row,) = done.document["results"]
    assert "does not hold this model's weights" in row["error"]
    assert row["artifact"] is None
    assert "float16: " in done.stderr
    assert tree(run_mlp) == before


def test_a_damaged_run_is_a_row_and_harms_no_other(zoo, run_mlp, run_cnn):
    (run_mlp / "run.json").write_text("{")
    done = zoo("runs", "--runs", run_mlp.parent, "--json")
    assert done.code == FAILURE
    rows = {row["name"]: row for row in done.document}
    assert "run.json could not be read" in rows["mlp"]["error"]
    assert rows["cnn"]["status"] == "done"
    table = zoo("runs", "--runs", run_mlp.parent).stdout
    assert re.search(r"^mlp .*damaged", table, re.MULTILINE)
    assert zoo("eval", "cnn", "--runs", run_mlp.parent).code == 0


def test_a_run_that_lost_its_base_gets_it_back(zoo, run_mlp):
    import shutil

    before = json.loads((run_mlp / "base" / "variant.json").read_text())["metrics"]
    shutil.rmtree(run_mlp / "base")
    done = zoo("eval", run_mlp, "--json")
    assert done.error["hint"] == f"zoo train --resume {run_mlp}"
    again = zoo("train", "--resume", run_mlp, "--json")
    assert again.code == 0
    assert again.document["metrics"] == pytest.approx(before)


def test_own_data_that_changed_is_refused(zoo, tmp_path):
    csv = loans(tmp_path / "own.csv", rows=120)
    words = ("train", "mlp", "--data", csv, "--target", "approved", "--epochs", "1",
             "--set", "hidden=4", "--runs", tmp_path / "runs", "--name", "own")  # fmt: skip
    assert zoo(*words).code == 0
    loans(csv, rows=120, seed=1)
    for command in (("predict", "own"), ("compress", "own", "int8"), ("explain", "own")):
        done = zoo(*command, "--runs", tmp_path / "runs", "--json")
        assert (done.code, done.error["kind"]) == (USAGE, "data_changed")
    csv.unlink()
    done = zoo("predict", "own", "--runs", tmp_path / "runs", "--json")
    assert (done.code, done.error["kind"]) == (USAGE, "missing_file")


# ---------------------------------------------------------------------------------------- documents

LISTED = "name version family task params data target source skips"
DATA = "name kind rows task classes groups features license source bytes sha256 offline"
TRAIN = ("run model data variant experiment seed epochs seconds steps_per_second samples_per_second "
         "execution metrics baseline target")  # fmt: skip
#: What JSON promises: command -> fields of the document, or of each element of a list or `results`.
PROMISED = {
    "list": LISTED,
    "info mlp": f"{LISTED} config",
    "info mlp --summary": f"{LISTED} config layers",
    "data list": DATA,
    "data info mnist_5k": DATA,
    "data info TMP/loans.csv --target approved": DATA,
    "train --resume RUN": TRAIN,
    "runs --runs ROOT": "run model data status created metrics variants",
    "eval RUN": "variant split n metrics",
    "predict RUN --split val": "variant split n path",
    "predict RUN TMP/loans.csv --output TMP/out.csv": "variant split n path",
    "compress RUN float16": "variant recipe kind parent artifact bytes bytes_gzip sparsity "
                            "sparsity_total metrics parity seconds error",
    "benchmark RUN --seconds 0.1": "run model variant runtime scenario batch threads valid reason "
                                   "queries seconds latency_ms throughput peak_memory_mb load_ms "
                                   "bytes metrics error",
    "explain RUN --samples 10": "variant method why_method space samples background seconds "
                                "samples_per_second additive additivity_error features quality error",
    "fairness RUN": "variant split positive attributes intersections warnings",
    "audit RUN float16 --seconds 0.1 --gate accuracy_drop<=0.5":
        "run report variants deltas noise_floor drift gates passed",
    "compare RUN RUN --variant float16": "runs metrics deltas reason",
    "report RUN": "run html markdown",
    "doctor": "python packages devices cpus memory_gb problems",
}  # fmt: skip
NESTED = {
    "target": "metric value",
    "baseline": "name metrics",
    "parity": "max_abs n",
    "latency_ms": "mean p50 p90 p99",
    "additivity_error": "max mean",
    "quality": "deletion_auc insertion_auc random_auc randomization_similarity stability",
    "parent": "variant sha256",
}


@pytest.fixture(scope="module")
def stage(trained, tmp_path_factory):
    """One run that the commands below work on, one after the other."""
    import shutil

    folder = tmp_path_factory.mktemp("stage")
    shutil.copytree(trained("mlp"), folder / "runs" / "mlp")
    loans(folder / "loans.csv")
    return folder


def said_of(stage, line):
    run = stage / "runs" / "mlp"
    (stage / "out.csv").unlink(missing_ok=True)  # what is there already is refused
    line = line.replace("RUN", str(run)).replace("ROOT", str(run.parent))
    return line.replace("TMP", str(stage)).split()


@pytest.mark.parametrize("line", PROMISED)
def test_documents_have_the_promised_fields(zoo, stage, line):
    code, _, err, document = zoo(*said_of(stage, line), "--json")
    assert code == 0, err
    rows = document if isinstance(document, list) else document.get("results", [document])
    if "results" in document:
        assert document["run"] == str(stage / "runs" / "mlp")
    assert rows
    for row in rows:
        assert set(PROMISED[line].split()) <= set(row)
        assert row.get("error") is None
        for name, fields in NESTED.items():
            if row.get(name):
                assert set(fields.split()) <= set(row[name])
        for name in {"run", "path", "html", "markdown", "report"} & set(row):
            assert Path(row[name]).is_absolute()  # stdout names paths that can be used
            assert Path(row[name]).exists()


@pytest.mark.parametrize("line", PROMISED)
def test_humans_get_a_tidy_text(zoo, stage, line):
    code, out, _, _ = zoo(*said_of(stage, line))
    assert code == 0
    assert out.strip()
    assert not re.search(r"[{}]|None\b|\bnan\b|Traceback|b'|array\(", out)
    assert all(text == text.rstrip() for text in out.splitlines())


def test_details_of_documents(zoo, stage):
    run = str(stage / "runs" / "mlp")
    judged = zoo("fairness", run, "--json").document["results"][0]
    groups = judged["attributes"]["sex"]["groups"]
    assert [group["group"] for group in groups] == ["F", "M"]
    assert {"value", "ci_low", "ci_high"} <= set(groups[0]["metrics"]["accuracy"])
    assert "demographic_parity_difference" in judged["attributes"]["sex"]["disparities"]
    metrics = zoo("eval", run, "--json").document["results"][0]["metrics"]
    assert (
        metrics["accuracy"]["ci_low"]
        <= metrics["accuracy"]["value"]
        <= metrics["accuracy"]["ci_high"]
    )
    everyone = zoo("eval", run, "--variant", "all", "--json").document["results"]
    assert [row["variant"] for row in everyone] == ["base", "float16"]
    target = zoo("train", "--resume", run, "--json").document["target"]
    assert (target["reached"], target["hit"]) == (None, False)
    assert "adult" in target["reason"]


def test_stored_documents_name_no_folder_of_this_machine(zoo, stage):
    zoo("audit", stage / "runs" / "mlp", "float16", "--seconds", "0.1")
    files = [*(stage / "runs" / "mlp").rglob("*.json"), *(stage / "runs" / "mlp").glob("report.*")]
    assert {"run.json", "audit.json", "benchmark.json", "variant.json", "report.html"} <= {
        file.name for file in files
    }
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.name == "run.json":  # where the data is must be known to find it again
            document = json.loads(text)
            assert Path(document["data"]["request"].pop("data")).is_absolute()
            text = json.dumps(document)
        assert str(stage) not in text, file
        assert str(Path.cwd()) not in text, file
    audit = json.loads((stage / "runs" / "mlp" / "audit.json").read_text())
    assert (audit["run"], audit["report"]) == ("mlp", "report.html")


def test_stdout_is_ours_alone(zoo, monkeypatch):
    real = api.list_models

    def chatty(pattern):
        print("a library speaks")
        os.write(1, b"and its C++ too\n")
        subprocess.run(["echo", "and its child"], check=True)
        return real(pattern)

    monkeypatch.setattr(api, "list_models", chatty)
    done = zoo("list", "--json")  # the fixture parses stdout as one document
    assert done.code == 0
    for text in ("a library speaks", "and its C++ too", "and its child"):
        assert text in done.stderr
    assert "speaks" not in zoo("list").stdout


def test_a_failed_gate_is_3_and_the_page_is_there(zoo, run_mlp):
    words = ("audit", run_mlp, "float16", "--seconds", "0.1", "--json",
             "--gate", "accuracy>=0.01", "--gate", "bytes<=10")  # fmt: skip
    done = zoo(*words)
    assert done.code == ENFORCED
    assert [(g["name"], g["variant"], g["passed"]) for g in done.document["gates"]] == [
        ("accuracy", "float16", True),
        ("bytes", "float16", False),
    ]
    assert done.document["gates"][1]["received"] > 10
    assert done.document["passed"] is False
    assert (run_mlp / "report.html").exists()


def test_require_target(zoo, run_mlp, monkeypatch):
    assert zoo("train", "--resume", run_mlp, "--require-target").code == ENFORCED
    document = zoo("train", "--resume", run_mlp, "--json").document
    document["target"]["hit"] = True
    monkeypatch.setattr(api, "resume", lambda *given: document)
    assert zoo("train", "--resume", run_mlp, "--require-target").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "conv_vae", "--require-target"), "no target of conv_vae"),
        (("train", "mlp", "--data", "mnist_5k", "--require-target"), "roc_auc on adult"),
        (("train", "mlp", "--sensitive", ""), "expected names separated by commas"),
        (("audit", "mlp", "--seconds", "nan"), "no finite number"),
        (("compress", "latest", "int8+float16"), "can stand side by side"),
        (("compress", "latest", "int8+int8"), "Hint: int8\n"),
    ],
)
def test_what_can_not_come_true_is_refused_before_the_work(zoo, run_mlp, words, said):
    words = tuple(run_mlp if word == "latest" else word for word in words)
    code, _, err, _ = zoo(*words)
    assert code == 2
    assert said in err


def test_predictions_never_overwrite_their_input(zoo, run_mlp, tmp_path):
    source = tmp_path / "people.csv"
    source.write_text("age\n30\n")
    code, _, err, _ = zoo("predict", run_mlp, str(source), "--output", str(source))
    assert (code, source.read_text()) == (2, "age\n30\n")
    assert "exists already" in err


def test_predictions_beside_the_folder_spare_their_input(zoo, run_mlp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "people.csv"
    source.write_text("age\n30\n")
    (tmp_path / "people-predictions.csv").symlink_to(source)
    code, _, err, _ = zoo("predict", run_mlp, "people.csv")
    assert (code, source.read_text()) == (2, "age\n30\n")
    assert "would overwrite their input" in err


def test_predictions_replace_predictions_alone(zoo, run_mlp, tmp_path, monkeypatch):
    """The name loses its ending alone; other files of that name stay as they are."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loans(tmp_path / "people.2024.CSV", 30)
    source, out = tmp_path / "people.2024.CSV", Path("people.2024-predictions.csv")
    for rows in (30, 20):  # the second time over the first
        loans(source, rows)
        assert zoo("predict", run_mlp, source).code == 0
        assert len(out.read_text().splitlines()) == rows + 1
    for content in ("row,predicted\n1,2\n", "", "notes"):
        out.write_text(content)
        done = zoo("predict", run_mlp, source, "--json")
        assert (done.code, done.error["kind"], out.read_text()) == (2, "file_exists", content)
        assert "--output" in done.error["hint"]
    assert zoo("predict", run_mlp, source, "--output", "other.csv").code == 0


def test_predictions_of_the_folder_one_is_in(zoo, run_cnn, tmp_path, monkeypatch):
    from PIL import Image

    folder = tmp_path / "set.v2.csv"
    folder.mkdir()
    Image.new("L", (12, 12)).save(folder / "a.png")
    monkeypatch.chdir(folder)
    for _ in range(2):
        assert zoo("predict", run_cnn, ".").code == 0
        assert [p.name for p in folder.glob("*.csv")] == ["set.v2.csv-predictions.csv"]


def hints():
    """The texts of all hints in the code; what is filled in later is ``X``."""
    for package in ("zoo", "benchmarks", "explain", "reports"):
        for path in (Path(__file__).parent.parent / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                for value in [k.value for k in getattr(node, "keywords", ()) if k.arg == "hint"]:
                    parts = [
                        "".join(
                            str(piece.value) if isinstance(piece, ast.Constant) else "X"
                            for piece in text.values
                        )
                        if isinstance(text, ast.JoinedStr)
                        else text.value
                        for text in ast.walk(value)
                        if isinstance(text, ast.JoinedStr)
                        or (isinstance(text, ast.Constant) and isinstance(text.value, str))
                    ]
                    yield from (f"{path.stem}: {part}" for part in parts)


def test_hints_name_commands_and_options_that_exist():
    known = {
        path: {o for p in command.params for o in p.opts} | {"--help"}
        for path, command in commands()
    }
    every = set().union(*known.values())
    found, wrong = list(hints()), []
    for hint in found:
        wrong += [(hint, o) for o in re.findall(r"--[a-z][a-z-]*", hint) if o not in every]
        for said in re.findall(r"\bzoo [^`;:,]*", hint.split(": ", 1)[1]):
            words = said.rstrip(".").split()[1:]
            path = tuple(words[:2]) if words[0] == "data" else tuple(words[:1])
            options = {w.split("=")[0] for w in words if w.startswith("--")}
            if path != ("X",) and not options <= known.get(path, set()):
                wrong.append((hint, said))
    assert len(found) > 100
    assert not wrong


def test_fairness_of_one_attribute_keeps_the_others(zoo, tmp_path, run_mlp):
    from zoo.run import Run

    csv = loans(tmp_path / "loans.csv")
    words = ("train", "mlp", "--data", csv, "--target", "approved", "--sensitive", "sex,city",
             "--epochs", "1", "--set", "hidden=(4,)", "--runs", tmp_path / "r", "--name", "a")  # fmt: skip
    assert zoo(*words).code == 0
    base = Run(tmp_path / "r" / "a").variant("base")
    assert zoo("fairness", base.run.path, "--min-cell", "12").code == 0
    (whole,) = base.results("fairness.json")
    assert set(whole["attributes"]) == {"sex", "city"}
    assert whole["intersections"]
    assert (
        zoo(
            "fairness",
            base.run.path,
            "--sensitive",
            "sex",
            "--resamples",
            "200",
            "--min-cell",
            "12",
        ).code
        == 0
    )
    (merged,) = base.results("fairness.json")
    assert merged["attributes"]["city"] == whole["attributes"]["city"]
    assert merged["attributes"]["sex"] != whole["attributes"]["sex"]  # fewer resamples
    assert merged["intersections"] == whole["intersections"]
    assert sorted(merged["warnings"]) == sorted(whole["warnings"])
    predictions = base.predictions()
    predictions.y_pred[:] = 1 - predictions.y_pred
    base.write_predictions(predictions)
    assert zoo("fairness", base.run.path, "--sensitive", "city").code == 0
    (alone,) = base.results("fairness.json")  # what was measured on other predictions is gone
    assert set(alone["attributes"]) == {"city"}


def test_data_info_counts_without_ambiguity(zoo, tmp_path):
    path = tmp_path / "places.csv"
    rows = [
        f'{k % 7},{"a" if k % 3 else "b"},"{"south, east" if k % 2 else "west"}"' for k in range(60)
    ]
    path.write_text("\n".join(["age,y,place", *rows]), encoding="utf-8")
    words = ("data", "info", path, "--target", "y", "--sensitive", "place", "--positive", "a")
    out = zoo(*words).stdout
    assert re.search(r"^groups +place: 'south, east' 30, west 30$", out, re.MULTILINE)
    assert re.search(r"^classes +a 40, b 20$", out, re.MULTILINE)
    assert re.search(r"^positive +a$", out, re.MULTILINE)
    assert zoo(*words, "--json").document["positive"] == "a"


def test_predicted_numbers_have_seven_digits(zoo, tmp_path):
    path = loans(tmp_path / "loans.csv", rows=100)
    words = ("train", "mlp", "--data", path, "--target", "income", "--epochs", "1",
             "--set", "hidden=4", "--runs", tmp_path / "r", "--name", "a")  # fmt: skip
    assert zoo(*words).code == 0
    out = tmp_path / "out.csv"
    assert zoo("predict", tmp_path / "r" / "a", path, "--output", out).code == 0
    cells = [line.split(",")[1] for line in out.read_text().splitlines()[1:]]
    assert len(set(cells)) > 50
    assert max(len(cell.lstrip("-0.").replace(".", "")) for cell in cells) <= 7


def test_predictions_far_from_zero_keep_their_digits(zoo, tmp_path):
    """A target such as 1700000123.4 is told to a millionth of its spread, as it was predicted."""
    import pandas as pd

    path = tmp_path / "moments.csv"
    x = np.random.default_rng(0).normal(size=100)
    pd.DataFrame({"x": x, "y": 1.7e9 + 30 * x}).to_csv(path, index=False)
    words = ("train", "mlp", "--data", path, "--target", "y", "--task", "regression", "--epochs", "1",
             "--set", "hidden=4", "--runs", tmp_path / "r", "--name", "a")  # fmt: skip
    assert zoo(*words).code == 0
    out = tmp_path / "out.csv"
    assert zoo("predict", tmp_path / "r" / "a", path, "--output", out).code == 0
    with np.load(tmp_path / "r" / "a" / "base" / "predictions.npz") as stored:
        row, said = stored["row"], stored["y_pred"]
    assert np.ptp(said) > 1
    written = pd.read_csv(out)["prediction"].to_numpy()
    np.testing.assert_allclose(written[row], said, rtol=0, atol=1e-4)
    assert max(map(len, out.read_text().splitlines())) <= len("99,1700000123.4567")


def test_cores_are_of_the_machine_and_go_with_resume(zoo, run_mlp, monkeypatch):
    from zoo import backend

    given = []
    monkeypatch.setattr(backend, "set_threads", given.append)
    shutil.rmtree(run_mlp / "base")  # not trained to its end
    assert zoo("train", "--resume", run_mlp, "--cpus", "1").code == 0
    assert given == [1]
    assert "but --cpus" in zoo("train", "--resume", run_mlp, "--cpus", "1", "--seed", "2").stderr


def test_settings_from_a_file_and_over_it(zoo, tmp_path):
    csv = loans(tmp_path / "loans.csv")
    (tmp_path / "a.toml").write_text("hidden = [8, 4]\nepochs = 3\n")
    (tmp_path / "a.json").write_text('{"hidden": 8, "epochs": 3}')
    words = ("train", "mlp", "--data", csv, "--target", "approved", "--dry-run", "--json",
             "--runs", tmp_path / "runs")  # fmt: skip
    for file, hidden in (("a.toml", [8, 4]), ("a.json", [8])):
        found = zoo(*words, "--config", tmp_path / file, "--epochs", "5").document
        assert (found["config"]["hidden"], found["options"]["epochs"]) == (hidden, 5)
    assert not (tmp_path / "runs").exists()  # a dry run writes nothing
    assert found["data"]["rows"] == 600


def test_predictions_of_own_input(zoo, run_cnn, tmp_path):
    import pandas as pd

    pictures = bars(tmp_path / "new.npz", rows=30, seed=1)
    out = tmp_path / "answers.csv"
    done = zoo("predict", run_cnn, pictures, "--output", out, "--json")
    assert done.document["results"] == [
        {"variant": "base", "split": None, "n": 30, "path": str(out)}
    ]
    frame = pd.read_csv(out)
    assert set(frame["prediction"]) <= {"lies", "stands"}
    assert np.allclose(frame["p(lies)"] + frame["p(stands)"], 1)


def test_predictions_of_a_folder_name_the_pictures(zoo, run_cnn, tmp_path):
    import pandas as pd
    from PIL import Image

    folder, out = tmp_path / "new", tmp_path / "answers.csv"
    (folder / "deep").mkdir(parents=True)
    images = np.load(bars(tmp_path / "new.npz", rows=3, seed=1))["images"]
    for name, pixels in zip(["b.png", "deep/c.png", "a.png"], images, strict=True):
        Image.fromarray(pixels).save(folder / name)
    assert zoo("predict", run_cnn, folder, "--output", out).code == 0
    frame = pd.read_csv(out).set_index("file")
    assert list(frame.index) == ["a.png", "b.png", "deep/c.png"]
    for name in frame.index:  # each alone gets the answer that stands beside its name
        alone = tmp_path / "alone"
        alone.mkdir(exist_ok=True)
        (alone / "x.png").write_bytes((folder / name).read_bytes())
        out.unlink()
        assert zoo("predict", run_cnn, alone, "--output", out).code == 0
        assert pd.read_csv(out)["p(lies)"][0] == pytest.approx(frame["p(lies)"][name], abs=1e-6)


# -------------------------------------------------------------------------------- signals, terminal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_outside_a_training(zoo, monkeypatch, number, code):
    before = signal.getsignal(signal.SIGTERM)
    # A shell's background jobs inherit an ignored SIGINT, which Python then leaves ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait(pattern):
        os.kill(os.getpid(), number)
        threading.Event().wait(10)
        pytest.fail("the signal did not arrive")

    monkeypatch.setattr(api, "list_models", wait)
    try:
        done = zoo("list", "--json")
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert (done.code, done.error["kind"]) == (code, "interrupted")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_leaves_is_no_traceback():
    process = subprocess.Popen([*ZOO, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == FAILURE
    assert error == b""


def train_words(root: Path, name: str) -> list[str]:
    return [*ZOO, "train", "mlp", "--data", str(root / "loans.csv"), "--target", "approved",
            "--sensitive", "sex", "--epochs", "24", "--batch-size", "8", "--set", "hidden=8",
            "--deterministic", "--name", name, "--runs", str(root / "runs"), "--json"]  # fmt: skip


def resume_words(root: Path, name: str) -> list[str]:
    return [*ZOO, "train", "--resume", name, "--runs", str(root / "runs"), "--json"]


def interrupt(words: list[str], number: int) -> tuple[int, str]:
    """Start a command, send a signal after its first epoch: (exit code, stdout)."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if line.startswith("epoch "):
                process.send_signal(number)
                break
        process.stderr.read()
        return process.wait(60), process.stdout.read()


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM, signal.SIGKILL),
        pytest.param((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), marks=pytest.mark.slow),
    ],
)
def test_interruptions_change_nothing(zoo, tmp_path, signals):
    loans(tmp_path / "loans.csv")
    whole = subprocess.Popen(
        train_words(tmp_path, "whole"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    run = tmp_path / "runs" / "cut"
    words = train_words(tmp_path, "cut")
    for number in signals:
        left, out = interrupt(words, number)
        assert left == (-9 if number == signal.SIGKILL else 128 + number)
        if number != signal.SIGKILL:
            assert json.loads(out)["error"]["kind"] == "interrupted"
            assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
        assert list((run / "checkpoints").glob("step-*/manifest.json"))
        (row,) = [
            r for r in zoo("runs", "--runs", run.parent, "--json").document if r["name"] == "cut"
        ]
        assert row["status"] == "interrupted"
        assert row["variants"] == []
        words = resume_words(tmp_path, "cut")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "going on after step" in done.stderr
    uncut, cut = json.loads(whole.communicate(timeout=120)[0]), json.loads(done.stdout)
    assert whole.returncode == 0
    assert cut["epochs"] == uncut["epochs"] == 24
    assert cut["metrics"] == uncut["metrics"]
    artefacts = [path / "base" / "model.tflite" for path in (run, run.parent / "whole")]
    assert artefacts[0].read_bytes() == artefacts[1].read_bytes()
    logs = [
        [(r["epoch"], r["loss"], r["val_loss"]) for r in rows_of(p)]
        for p in (run, run.parent / "whole")
    ]
    assert logs[0] == logs[1]
    assert zoo("runs", "--runs", run.parent, "--json").document[-1]["status"] == "done"
    assert zoo("train", "--resume", "cut", "--runs", run.parent).code == 0  # done already


def rows_of(path: Path):
    from zoo.run import Run

    return Run(path).read_log()


BAR = """
import time
from zoo.progress import Progress
progress = Progress()
progress.start("a-run-with-a-name-that-is-far-too-long-for-a-bar", 1635)
for step in range(0, 1636, 109):
    progress.advance(step, f"epoch {step // 109} loss 0.3144")
    time.sleep(0.03)
progress.say("a line between")
progress.stop()
"""


def test_a_terminal_gets_a_bar_with_an_eta_in_80_columns(monkeypatch):
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", BAR], stderr=theirs, env={**environment, "TERM": "xterm"}
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait(60) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "\n")
    lines = [line for line in plain.splitlines() if line.strip()]
    bar = [line for line in lines if "1635/1635" in line][-1]
    assert "ETA" in bar
    assert "epoch 15 loss 0.3144" in bar
    assert "━" in bar
    assert max(map(len, lines)) <= 80
    assert "a line between" in plain


def test_off_a_terminal_there_are_plain_lines(zoo, tmp_path):
    csv = loans(tmp_path / "loans.csv", rows=100)
    done = zoo("train", "mlp", "--data", csv, "--target", "approved", "--epochs", "2",
               "--set", "hidden=4", "--runs", tmp_path / "runs")  # fmt: skip
    assert [line[:9] for line in done.stderr.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert "\x1b" not in done.stderr + done.stdout


def test_weights_is_the_setting_of_that_name(zoo):
    by_option = zoo("train", "resnet50", "--weights", "imagenet", "--offline", "--json")
    by_setting = zoo("train", "resnet50", "--set", "weights=imagenet", "--offline", "--json")
    assert by_option.code == by_setting.code == 2
    assert by_option.error == by_setting.error
    assert by_option.error["received"] == "weights=imagenet and --offline"


def test_changes_of_every_metric_in_groups_are_counted():
    from zoo.cli.judging import _changes

    def row(attribute, group, metric, delta, p, variant="int8"):
        return {"variant": variant, "attribute": attribute, "group": group, "metric": metric,
                "delta": delta, "ci_low": delta - 0.01, "ci_high": delta + 0.01, "p_adjusted": p}  # fmt: skip

    deltas = [
        row("(all)", "(all)", "accuracy", 0.0006, 1.0),
        row("sex", "Male", "accuracy", 0.0, 1.0),
        row("sex", "Male", "true_positive_rate", -0.011, 0.001),
        row("race", "White", "true_positive_rate", -0.012, 0.0001),
        row("sex", "Male", "accuracy", -0.5, 0.0, variant="dynamic"),
    ]
    whole, groups = _changes(deltas, "int8", "accuracy")
    assert whole == "+0.0006 [-0.0094, +0.0106]"
    assert groups == "2 of 3: true_positive_rate race=White -0.0120"
    assert _changes(deltas, "float16", "accuracy") == ("-", "-")


@pytest.mark.parametrize("name", ["TF_USE_LEGACY_KERAS", "KERAS_BACKEND"])
def test_doctor_names_a_setting_that_keras_3_can_not_live_with(name):
    call = "import sys; from zoo.cli import main; main(sys.argv[1:])"
    for words, code in (["doctor"], FAILURE), (["train", "mlp", "--dry-run"], USAGE):
        done = subprocess.run(
            [sys.executable, "-c", call, *words, "--json"], capture_output=True, text=True,
            env={**os.environ, name: "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert f"{name}=1" in done.stdout
        assert f"unset {name}" in done.stdout
    assert json.loads(done.stdout)["error"]["kind"] == "wrong_environment"


def test_a_run_holds_the_command_that_trains_it(trained):
    import shlex

    document = json.loads((trained("mlp") / "run.json").read_text())
    words = shlex.split(document["command"])
    assert words[:4] == ["zoo", "train", "mlp", "--data"]
    settings = {words[k + 1] for k, word in enumerate(words) if word == "--set"}
    assert settings == {"hidden=32,32", "epochs=2", "batch_size=64"}
    assert words[words.index("--sensitive") + 1] == "sex"


def test_targets_are_judged_where_they_are_claimed(trained):
    """By the data that were asked for and by the task: a file may be called like a data set."""
    from dataclasses import replace

    from zoo.api.training import _target
    from zoo.data.table import Request
    from zoo.run import Run
    from zoo.train.running import reopen

    session = reopen(Run(trained("mlp")))
    named = replace(session, data=replace(session.data, name="adult"))
    metrics = {"roc_auc": 0.99}
    assert _target(named, metrics)["reason"] == (
        "the target is a claim about the data set adult, not about a file adult"
    )
    asked = replace(named, request=Request(data="adult"))
    assert _target(asked, metrics)["hit"]
    other = replace(asked, data=replace(asked.data, task="regression"))
    found = _target(other, metrics)
    assert (found["hit"], found["reached"]) == (False, None)
    assert found["reason"] == "the target is a claim about binary, not regression"


def test_a_setting_on_the_command_line_holds_against_the_same_option_in_a_file(zoo, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('weights = "imagenet"\n')
    found = zoo("train", "resnet50", "--config", file, "--set", "weights=absent.h5", "--offline",
                "--dry-run", "--json")  # fmt: skip
    assert found.code == 0, found.stderr
    assert found.document["config"]["weights"] == "absent.h5"


def test_the_baseline_has_a_row_of_each_class(trained, monkeypatch):
    from zoo.run import Run
    from zoo.train import session as sessions
    from zoo.train.baseline import linear
    from zoo.train.running import reopen

    session = reopen(Run(trained("cnn")))
    one = session.encoded(session.data.parts["train"][:1]).nbytes
    monkeypatch.setattr(sessions, "HELD_BYTES", one)  # a single row is drawn
    name, said = linear(session)
    assert name.endswith(" on 2 of 84 rows") or name.endswith(" on 3 of 84 rows")
    assert np.isfinite(said.scores).all()
