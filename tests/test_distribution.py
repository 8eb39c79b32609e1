"""Several devices equal one: parts of the CPU stand in for GPUs, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import loans

from zoo.errors import ZooError

HERE = Path(__file__).parent
#: Rows, and whether there is batch normalisation; a batch has 16 rows.
CASES = [(rows, normalised) for rows in (64, 65, 67, 70) for normalised in (False, True)]


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
    return [dict(zip(CASES, json.loads(text), strict=True)) for text in texts]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{'-bn' * case[1]}")
def test_two_devices_equal_one(results, case):
    one, two = (result[case] for result in results)
    np.testing.assert_allclose(two["weights"], one["weights"], atol=1e-5)
    assert one["steps"] == two["steps"]
    rows, normalised = case
    # With batch statistics the last batch is left out, on one device as on two, and it is said.
    assert one["dropped"] == two["dropped"] == (rows % 16 if normalised else 0)


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


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("parameter_server", "Keras 3 does not support ParameterServerStrategy"),
        ("parameter-server", "Keras 3 does not support ParameterServerStrategy"),
        ("tpu", "not served yet"),
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
