"""Several devices equal one: parts of the CPU stand in for GPUs, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import loans

from zoo.errors import ZooError

HERE = Path(__file__).parent
#: Rows, and what the net has besides dense layers; a batch has 16 rows.
CASES: list[tuple] = [(n, kind) for n in (64, 65, 67, 70) for kind in ("plain", "normalised")]
# A batch holds a word several times: their gradients are summed before Adam squares, or a clip measures.
CASES += [(67, "embedded", options)
          for options in ({}, {"optimizer": "adamw"}, {"optimizer": "adamw", "clip_norm": 0.05})]  # fmt: skip

#: Options whose arithmetic crosses rows or gradients, with a last batch that does not divide evenly.
OPTIONS = [{"clip_norm": 0.05}, {"clip_value": 0.01}, {"l2": 0.1, "label_smoothing": 0.1}]
CASES += [(67, "plain", options) for options in OPTIONS]


@pytest.fixture(scope="module")
def results():
    """What one device and two made of the same cases, in two processes at once."""
    words = [sys.executable, "-W", "ignore", str(HERE / "engine_mirrored.py")]
    both = [
        subprocess.Popen([*words, devices, json.dumps(CASES)], stdout=subprocess.PIPE, text=True)
        for devices in "12"
    ]
    texts = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda k: str(CASES[k]))
def test_two_devices_equal_one(results, number):
    one, two = (result[number] for result in results)
    np.testing.assert_allclose(two["weights"], one["weights"], atol=1e-5)
    assert one["steps"] == two["steps"]
    rows, kind, *_ = CASES[number]
    # With batch statistics the last batch is left out, on one device as on two, and it is said.
    assert one["dropped"] == two["dropped"] == (rows % 16 if kind == "normalised" else 0)


def test_texts_are_prepared_after_the_cpu_is_divided(tmp_path):
    path = tmp_path / "texts.csv"
    said = ["a long film", "good music and a bad plot", "the end"]
    path.write_text("review\n" + "\n".join(f"{said[k % 3]} {k}" for k in range(90)) + "\n")
    words = [sys.executable, "-m", "zoo.cli", "train", "bert_tiny_mlm", "--data", path, "--epochs", "1",
             "--set", "width=8", "--set", "vocabulary=60", "--cpus", "1", "--strategy", "mirrored:2",
             "--name", "two", "--runs", tmp_path / "runs", "--json"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["perplexity"] > 1


def test_the_command_trains_on_two_parts_of_the_cpu(tmp_path):
    words = [sys.executable, "-m", "zoo.cli", "train", "mlp", "--data",
             loans(tmp_path / "loans.csv"), "--target", "approved", "--epochs", "2", "--set",
             "hidden=8", "--batch-size", "33", "--strategy", "mirrored:2", "--name", "two",
             "--runs", tmp_path / "runs", "--json"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    run = json.loads((tmp_path / "runs" / "two" / "run.json").read_text())
    assert run["replicas"] == 2
    assert run["engine"]["strategy"] == "mirrored:2"
    assert document["metrics"]["accuracy"] > 0.6
    assert (tmp_path / "runs" / "two" / "base" / "model.tflite").exists()


def words(tmp_path: Path, name: str, *more: str) -> list[str]:
    """A training without dropout, whose last batch does not divide evenly."""
    data = tmp_path / "loans.csv"
    if not data.exists():
        loans(data)
    return [sys.executable, "-m", "zoo.cli", "train", "mlp", "--data", str(data), "--target",
            "approved", "--set", "hidden=8", "--set", "dropout=0", "--batch-size", "33", "--name",
            name, "--runs", str(tmp_path / "runs"), "--json", *more]  # fmt: skip


def test_two_local_workers_equal_one_process(tmp_path):
    from zoo.train import checkpoint

    one = subprocess.Popen(
        words(tmp_path, "one", "--epochs", "2"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    done = subprocess.run(
        words(tmp_path, "two", "--epochs", "2", "--local-workers", "2"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(tmp_path / "runs" / "two")
    one.communicate()
    assert one.returncode == 0
    # Only the chief wrote: nothing is left beside the two runs.
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"one", "two", "latest"}
    arrays = [
        checkpoint.newest(tmp_path / "runs" / name / "checkpoints").arrays
        for name in ("one", "two")
    ]
    compared = [key for key in arrays[0] if key.startswith("model/")]
    assert len(compared) >= 4
    for key in compared:
        np.testing.assert_allclose(arrays[1][key], arrays[0][key], atol=1e-5)


def children(pid: int) -> list[int]:
    """Process ids of a process's children (Linux)."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_dies_ends_the_other_and_resume_goes_on(tmp_path, victim):
    process = subprocess.Popen(
        words(tmp_path, "two", "--epochs", "100", "--local-workers", "2"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    os.kill(children(process.pid)[victim], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"worker {victim} ended with exit code -9" in said
    assert "Another worker of the cluster is gone" in said
    resume = [sys.executable, "-m", "zoo.cli", "train", "--resume", str(tmp_path / "runs" / "two"),
              "--json"]  # fmt: skip
    alone = subprocess.run(resume, capture_output=True, text=True)
    assert alone.returncode == 2
    assert "--local-workers" in alone.stderr
    process = subprocess.Popen(
        [*resume, "--local-workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch "):
            break
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    done = subprocess.run([*resume, "--local-workers", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stderr
    assert json.loads(done.stdout)["epochs"] == 100


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    ],
)
def test_a_cluster_that_is_not_described_is_said(zoo, monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    outcome = zoo("train", "mlp", "--strategy", "multiworker", "--json")
    assert outcome.code == 2
    assert outcome.error["kind"] == "bad_cluster"
    assert "--local-workers" in outcome.error["hint"]


def test_ranks_come_from_tf_config(monkeypatch):
    from zoo.train.distribution import cluster

    hosts = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for task, rank in ((("chief", 0), 0), (("worker", 0), 1), (("worker", 1), 2)):
        described = {"cluster": hosts, "task": dict(zip(("type", "index"), task, strict=True))}
        monkeypatch.setenv("TF_CONFIG", json.dumps(described))
        assert cluster() == (3, rank)
    described["cluster"] = {**hosts, "ps": ["d:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps(described))
    with pytest.raises(ZooError, match="ParameterServerStrategy"):
        cluster()


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("parameter_server", "Keras 3 does not support ParameterServerStrategy"),
        ("parameter-server", "Keras 3 does not support ParameterServerStrategy"),
        ("miror", "Did you mean mirrored"),
        ("mirrored:0", "Unknown strategy"),
    ],
)
def test_what_is_not_served_is_said(zoo, strategy, says):
    code, _, err, _ = zoo("train", "mlp", "--strategy", strategy, "--json")
    assert code == 2
    assert says in err


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there are GPUs to mirror on")
def test_mirrored_without_several_devices_says_so():
    from zoo.train.distribution import Strategy, open_replicas

    with pytest.raises(ZooError, match="not several devices"):
        open_replicas(Strategy("mirrored"))
    assert open_replicas(None) is None


def test_rows_are_weighted_so_that_the_mean_is_that_of_the_real_ones():
    from zoo.train.feed import Feed, Samples
    from zoo.train.options import TrainOptions

    values = np.arange(7, dtype="float32")
    feed = Feed(Samples(values[:, None], values), TrainOptions(batch_size=5), 0, replicas=4)
    batches = [[np.asarray(part) for part in batch] for batch in feed.epoch(0)]
    assert [len(y) for _, y, _ in batches] == [8, 4]
    for (_, y, weights), real in zip(batches, (5, 2), strict=True):
        assert np.mean(weights) == pytest.approx(1)
        assert np.mean(weights * y) == pytest.approx(np.mean(y[:real]))
    assert sorted([*batches[0][1][:5], *batches[1][1][:2]]) == list(values)


def test_batches_that_can_not_be_shared_out_are_refused():
    from zoo.backend import keras
    from zoo.train.distribution import Replicas

    class Two:
        num_replicas_in_sync = 2

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.BatchNormalization()])
    with pytest.raises(ZooError, match="shared out evenly") as error:
        Replicas(Two()).adopt(model, 33)
    assert error.value.hint == "--batch-size 34"
    Replicas(Two()).adopt(model, 32)
    assert model.layers[0].synchronized


# Launchers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("alone", ["alone"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("node[08-10,12],gpu1", ["node08", "node09", "node10", "node12", "gpu1"]),
        ("a-[1,3]-x,b", ["a-1-x", "a-3-x", "b"]),
    ],
)
def test_slurms_lists_of_nodes(text, hosts):
    from zoo.train.resolvers import hosts_of

    assert hosts_of(text) == hosts


def test_slurms_numbers_of_tasks():
    from zoo.train.resolvers import tasks_of

    assert tasks_of("2(x3),1") == [2, 2, 2, 1]
    assert tasks_of("4") == [4]
    with pytest.raises(ValueError, match="number of tasks"):
        tasks_of("2x3")


SLURM = {"SLURM_JOB_ID": "1005", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "n[1-2]",
         "SLURM_STEP_TASKS_PER_NODE": "2,1"}  # fmt: skip


def test_launchers_become_tf_config():
    from zoo.train.resolvers import tf_config

    port = 20_000 + 1005 * 64 % 20_000
    assert json.loads(tf_config(SLURM)) == {
        "cluster": {"worker": [f"n1:{port}", f"n1:{port + 1}", f"n2:{port}"]},
        "task": {"type": "worker", "index": 2},
    }
    pods = {"JOB_COMPLETION_INDEX": "1", "ZOO_WORKERS": "t-node-0-0.t, t-node-0-1.t:7000"}
    assert json.loads(tf_config(pods)) == {
        "cluster": {"worker": ["t-node-0-0.t:20000", "t-node-0-1.t:7000"]},
        "task": {"type": "worker", "index": 1},
    }
    assert tf_config({**SLURM, "TF_CONFIG": "{}"}) == "{}"  # what is set outright comes first
    assert tf_config({}) is None
    assert tf_config({"SLURM_JOB_ID": "3"}) is None  # in a job, not in a step of srun
    with pytest.raises(ValueError, match="3 workers and number 3"):
        tf_config({**SLURM, "SLURM_PROCID": "3"})


def test_slurm_says_who_is_the_chief(monkeypatch):
    from zoo.train.distribution import Strategy, cluster, is_chief

    monkeypatch.setenv("TF_CONFIG", "")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert not is_chief(Strategy("multiworker"))
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert cluster() == (3, 0)
    assert json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n1")
    with pytest.raises(ZooError, match="needs to know its cluster") as error:
        cluster()
    assert "1 nodes and tasks for 2" in str(error.value)


def test_two_tasks_of_slurm_train_together(tmp_path):
    """The variables that srun sets, on this machine's two processes."""
    from zoo.train import resolvers

    job = next(j for j in range(1, 500) if all(map(_free, (p := resolvers.PORT + j * 64, p + 1))))
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost",
             "SLURM_STEP_TASKS_PER_NODE": "2"}  # fmt: skip
    command = words(tmp_path, "two", "--epochs", "1", "--strategy", "multiworker")
    started = [
        subprocess.Popen(command, env={**os.environ, **slurm, "SLURM_PROCID": str(rank)},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    run = json.loads((tmp_path / "runs" / "two" / "run.json").read_text())
    assert run["replicas"] == 2
    assert json.loads(said[1][0])["worker"] == 1


def _free(port):
    import socket

    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) != 0


def test_without_a_tpu_it_says_so(tmp_path):
    command = words(tmp_path, "tpu", "--epochs", "1", "--strategy", "tpu")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "no_tpu"
    assert not (tmp_path / "runs" / "tpu").exists()


def test_replicas_drop_other_units(results):
    """The mean of two masks of 0 and 2: the same on both would make no 1."""
    first, second = (np.array(mask) for mask in results[1][-1]["masks"])
    for mask in (first, second):
        assert set(np.unique(mask)) == {0.0, 1.0, 2.0}
        assert (mask == 1).mean() == pytest.approx(0.5, abs=0.1)
    assert not np.array_equal(first, second)
