"""Run folders: whole or not at all, never two writers, and what is damaged is named."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from zoo import run as runs
from zoo import schema
from zoo.errors import FAILURE, USAGE, ZooError
from zoo.predictions import Predictions
from zoo.run import (
    Run,
    check_name,
    create_run,
    find_run,
    guard_disk,
    list_runs,
    locked,
    new_folder,
    sha256_file,
    write_arrays,
    write_atomic,
)


def document(name="one", created="2026-01-01T00:00:00+00:00", status="done"):
    return {"schema_version": 1, "run": name, "spec": {"name": "mlp"}, "config": {}, "options": {},
            "data": {"name": "d"}, "experiment": "e", "seed": 0, "status": status,
            "created": created}  # fmt: skip


def make(root, name="one", **changes):
    """A run with the variant base, as small as can be."""

    def fill(folder):
        write_atomic(folder / "run.json", json.dumps(document(name, **changes)))

    made = create_run(root, name, fill)
    add_variant(made, "base", "base", None)
    return made


def add_variant(run, name, kind, parent, weights=True):
    with run.new_variant(name) as folder:
        (folder / "model.tflite").write_bytes(name.encode())
        if weights:
            (folder / "model.weights.h5").write_bytes(b"w")
        text = {"schema_version": 1, "variant": name, "recipe": name, "kind": kind,
                "parent": parent and {"variant": parent, "sha256": run.variant(parent).sha256},
                "artifact": "model.tflite",
                "inputs": [{"path": f"{name}/model.tflite",
                            "sha256": sha256_file(folder / "model.tflite")}]}  # fmt: skip
        write_atomic(folder / "variant.json", json.dumps(text))
    return run.variant(name)


def leftovers(folder):
    return [p.name for p in folder.rglob("*") if p.name.startswith(".tmp-")]


# ------------------------------------------------------------------------------ whole or not at all


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_failed_folder_is_not_there(tmp_path):
    def write():
        with new_folder(tmp_path / "x") as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_with_its_content(tmp_path):
    with new_folder(tmp_path / "x") as folder:
        (folder / "file").write_text("all of it")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x" / "file").read_text() == "all of it"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("content", [None, "kept"])
def test_an_existing_folder_is_never_replaced(tmp_path, content):
    target = tmp_path / "x"
    target.mkdir()
    if content:
        (target / "file").write_text(content)
    with pytest.raises(ZooError, match="exists already"), new_folder(target) as folder:
        (folder / "file").write_text("other")
    assert [p.read_text() for p in target.iterdir()] == ([content] if content else [])
    assert leftovers(tmp_path) == []


def test_a_run_that_can_not_be_filled_leaves_no_trace(tmp_path):
    make(tmp_path, "first")

    def fill(folder):
        write_atomic(folder / "run.json", "{}")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        create_run(tmp_path, "second", fill)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "latest"]
    assert find_run("latest", tmp_path).name == "first"


def test_arrays_are_plain(tmp_path):
    with pytest.raises(TypeError, match=r"object arrays .*'b'"):
        write_arrays(tmp_path / "x.npz", {"a": np.ones(2), "b": np.array([None, "x"])})
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- two writers

UPSERT = """
import sys
from pathlib import Path
from zoo.run import Run
variant = Run(Path(sys.argv[1])).variant("base")
for k in range(25):
    variant.upsert("benchmark.json", [{"who": sys.argv[2], "k": k}], key=("who", "k"))
"""


def test_two_processes_lose_nothing(tmp_path):
    run = make(tmp_path)
    workers = [
        subprocess.Popen([sys.executable, "-c", UPSERT, str(run.path), who]) for who in ("a", "b")
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    found = run.variant("base").results("benchmark.json")
    assert {(r["who"], r["k"]) for r in found} == {(w, k) for w in "ab" for k in range(25)}
    assert len(found) == 50


def test_a_result_replaces_the_one_with_its_key(tmp_path):
    base = make(tmp_path).variant("base")
    for method, value in (("deep", 1), ("exact", 2), ("deep", 3)):
        base.upsert("explain.json", [{"method": method, "v": value}], key=("method",))
    assert base.results("explain.json") == [{"method": "deep", "v": 3}, {"method": "exact", "v": 2}]
    assert base.results("fairness.json") == []


HOLD = """
import sys, time
from pathlib import Path
from zoo.run import Run
with Run(Path(sys.argv[1])).training():
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_training_at_a_time_until_its_process_is_gone(tmp_path):
    run = make(tmp_path, status="training")
    assert run.status == "interrupted"  # nobody trains it
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run.status == "training"
        with (
            pytest.raises(ZooError, match="being trained by another process") as busy,
            run.training(),
        ):
            pass
        assert busy.value.kind == "run_busy"
        holder.send_signal(signal.SIGKILL)
    assert run.status == "interrupted"
    with run.training():
        assert run.status == "training"
    (run.path / runs.TRAINING).unlink()
    (run.path / runs.TRAINING).mkdir()  # a lock that can't be opened, as in a folder to read only
    assert run.status == "training"
    run.update(status="done")
    assert run.status == "done"


def test_a_lock_waits_unless_told_otherwise(tmp_path):
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path, wait=False):
        pass


# ------------------------------------------------------------------------------------ finding runs


def test_runs_come_oldest_first_whatever_touched_them(tmp_path):
    make(tmp_path, "b", created="2026-01-02T00:00:00+00:00")
    make(tmp_path, "a", created="2026-01-01T00:00:00+00:00")
    make(tmp_path, "c", created="2026-01-02T00:00:00+00:00")
    (tmp_path / ".tmp-x").mkdir()
    shutil.copy(tmp_path / "a" / "run.json", tmp_path / ".tmp-x")
    (tmp_path / "empty").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["a", "b", "c"]
    time.sleep(0.01)
    Run(tmp_path / "a").update(status="failed")
    assert [run.name for run in list_runs(tmp_path)] == ["a", "b", "c"]
    assert list_runs(tmp_path / "nowhere") == []


def test_latest_points_to_the_newest_and_moves_along(tmp_path):
    make(tmp_path / "runs", "one")
    make(tmp_path / "runs", "two")
    assert find_run("latest", tmp_path / "runs").name == "two"
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert find_run("latest", tmp_path / "moved").path == tmp_path / "moved" / "two"
    shutil.rmtree(tmp_path / "moved" / "two")
    with pytest.raises(ZooError, match="Unknown run 'latest'"):
        find_run("latest", tmp_path / "moved")


def test_a_run_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    made = make(tmp_path / "runs", "one")
    monkeypatch.chdir(tmp_path)
    for text in ("one", str(made.path), "runs/one", "runs/latest"):
        assert find_run(text, tmp_path / "runs").path == made.path
    monkeypatch.chdir(made.path)
    for text in ("", " ", "q" * 400, "a\0b"):
        with pytest.raises(ZooError, match="Unknown run"):
            find_run(text, tmp_path / "runs")
    with pytest.raises(ZooError, match="is no run"):
        find_run(str(tmp_path), tmp_path / "runs")
    with pytest.raises(ZooError) as error:
        find_run("oen", tmp_path / "runs")
    assert error.value.hint == "Did you mean one?"
    with pytest.raises(ZooError) as error:
        find_run("one", tmp_path / "nowhere")
    assert "Make one: zoo train" in str(error.value.hint)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "latest", "-x", "a b", "a\n", "ü", "x" * 101],
)
def test_names_that_can_not_be(name):
    with pytest.raises(ZooError) as error:
        check_name(name)
    assert error.value.kind == "bad_name"
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "0", "x" * 100])
def test_names_that_can_be(name):
    assert check_name(name) == name


# ----------------------------------------------------------------------------------------- variants


def test_variants_come_base_first_then_as_they_were_made(tmp_path):
    run = make(tmp_path)
    add_variant(run, "zz", "transform", "base")
    time.sleep(0.01)
    add_variant(run, "aa", "transform", "base")
    (run.path / ".tmp-int8").mkdir()
    (run.path / "half").mkdir()
    assert run.variants() == ["base", "zz", "aa"]
    assert [v.name for v in run.select("all")] == ["base", "zz", "aa"]
    with pytest.raises(ZooError) as error:
        run.variant("zzz")
    assert error.value.hint == "Did you mean zz?"


def test_without_base_the_training_is_named(tmp_path):
    run = make(tmp_path)
    shutil.rmtree(run.path / "base")
    for name in ("base", "int8"):
        with pytest.raises(ZooError) as error:
            run.variant(name)
        assert error.value.hint == f"zoo train --resume {run.path}"
    with pytest.raises(ZooError):
        run.select("all")


def test_a_half_made_variant_says_what_to_do(tmp_path):
    run = make(tmp_path)
    (run.path / "int8").mkdir()
    with pytest.raises(ZooError, match="exists already") as error, run.new_variant("int8"):
        pass
    assert "remove the folder" in str(error.value.hint)


def test_weights_come_from_the_nearest_that_has_its_own(tmp_path):
    run = make(tmp_path)
    add_variant(run, "prune", "retrain", "base")
    add_variant(run, "int8", "transform", "prune", weights=False)
    assert run.variant("int8").weights == run.path / "prune" / "model.weights.h5"
    (run.path / "prune" / "model.weights.h5").unlink()
    for name in ("prune", "int8"):  # never those of base, which are others
        with pytest.raises(ZooError, match=r"Variant 'prune' .* has lost its weights"):
            _ = run.variant(name).weights


def test_an_artefact_that_changed_is_not_measured(tmp_path):
    run = make(tmp_path)
    write_predictions(run)
    assert run.variant("base").artifact.read_bytes() == b"base"
    assert len(run.variant("base").predictions()) == 2
    (run.path / "base" / "model.tflite").write_bytes(b"other")
    with pytest.raises(ZooError, match="is not the file") as error:
        _ = run.variant("base").artifact
    assert error.value.kind == "changed_artifact"
    with pytest.raises(ZooError, match="is not the file"):
        run.variant("base").predictions()
    (run.path / "base" / "model.tflite").unlink()
    with pytest.raises(ZooError) as error:
        _ = run.variant("base").artifact
    assert error.value.received == "no such file"


def write_predictions(run):
    two = np.array([0, 1])
    said = Predictions(two, two, two, np.eye(2), ("n", "y"), {"a/b": np.array(["x", "y"])})
    return run.variant("base").write_predictions(said)


def test_predictions_come_back_and_torn_ones_say_so(tmp_path):
    run = make(tmp_path)
    with pytest.raises(ZooError) as error:
        run.variant("base").predictions()
    assert error.value.kind == "missing_predictions"
    assert error.value.hint == f"zoo predict {run.path} --variant base --split test"
    path = write_predictions(run)
    found = run.variant("base").predictions()
    assert found.classes == ("n", "y")
    assert found.groups["a/b"].tolist() == ["x", "y"]
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):  # torn anywhere
        path.write_bytes(whole[:size])
        with pytest.raises(ZooError, match="could not be read"):
            run.variant("base").predictions()
    write_arrays(path, {"row": np.arange(2)})
    with pytest.raises(ZooError, match="could not be read"):
        run.variant("base").predictions()


def test_inputs_bind_by_content(tmp_path):
    run = make(tmp_path)
    base = run.variant("base")
    (bound,) = base.bound(base.artifact)["inputs"]
    assert bound == {
        "path": "base/model.tflite",
        "sha256": hashlib.sha256(b"base").hexdigest(),
    }
    before = sha256_file(base.path)
    assert before == sha256_file(base.path)
    (base.path / "new").write_text("x")
    assert sha256_file(base.path) != before


# ---------------------------------------------------------------------------------- documents, disk


def test_a_log_survives_a_torn_line_and_a_resume(tmp_path):
    run = make(tmp_path)
    for epoch, loss in ((1, 3.0), (2, 2.0), (2, 1.5)):
        run.log({"epoch": epoch, "loss": loss})
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert [(r["epoch"], r["loss"]) for r in run.read_log()] == [(1, 3.0), (2, 1.5)]


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "can't decode"),
        (b"[1]", "a list"),
        (b"{}", "run: Field required"),
        (b'{"schema_version": 99}', "schema version 99"),
        (b'{"schema_version": "1"}', "'1'"),
        (None, "No such file"),
    ],
)
def test_a_damaged_document_is_named(tmp_path, content, received):
    run = make(tmp_path)
    path = run.path / "run.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ZooError) as error:
        run.document()
    assert error.value.kind == "bad_document"
    assert error.value.exit_code == USAGE
    assert str(path) in error.value.message
    assert received in str(error.value.received)
    assert isinstance(error.value, ValueError)  # what zoo_report catches


def test_old_documents_are_lifted_step_by_step(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        {1: lambda raw: {**raw, "seed": raw["seed"] + 1}, 2: lambda raw: {**raw, "seed": raw["seed"] * 10}},
    )  # fmt: skip
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document()))
    assert schema.load(path, schema.RunDocument).seed == 10
    path.write_text(json.dumps({**document(), "schema_version": 2, "seed": 4}))
    assert schema.load(path, schema.RunDocument).seed == 40
    path.write_text(json.dumps({**document(), "schema_version": 3, "seed": 4}))
    assert schema.load(path, schema.RunDocument).seed == 4


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, FAILURE), (errno.EIO, FAILURE), (errno.EACCES, USAGE), (errno.ENOTDIR, USAGE)],
)
def test_a_disk_that_refuses_is_told_from_one_that_fails(number, code):
    error = guard_disk(OSError(number, os.strerror(number), "/x/y"))
    assert error.exit_code == code
    assert os.strerror(number) in error.message
    assert error.received == "/x/y"


def test_update_changes_what_is_named_alone(tmp_path):
    run = make(tmp_path)
    run.update(progress={"epochs": 3})
    assert run.document()["progress"] == {"epochs": 3}
    assert run.document()["experiment"] == "e"
    assert runs.hash_of({"a": 1, "b": 2}) == runs.hash_of({"b": 2, "a": 1})


def test_what_a_killed_process_left_goes_with_the_next_training(tmp_path):
    run = make(tmp_path, status="interrupted")
    for name in (".tmp-base-00aa00aa", ".tmp-int8-00bb00bb", ".tmp-base-x-00aa00aa"):
        (run.path / name).mkdir()
        (run.path / name / "model.tflite").write_bytes(b"half")
    with run.training():
        assert not (run.path / ".tmp-base-00aa00aa").exists()
        assert (run.path / ".tmp-base-x-00aa00aa").exists()
        assert (run.path / ".tmp-int8-00bb00bb").exists()  # a compression may be at work there
    run.log({"epoch": 1, "val_perplexity": float("inf"), "loss": 1.5})
    (row,) = run.read_log()
    assert row == {"epoch": 1, "val_perplexity": None, "loss": 1.5}
