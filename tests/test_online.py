"""Data sets of public collections, by the libraries that fetch them, from what their caches hold."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from zoo.data.core import open_data
from zoo.data.online import COLLECTIONS, kept
from zoo.data.table import Request
from zoo.errors import ZooError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "sklearn"))
    return tmp_path


def clothes(home, train=300, test=60):
    """Fashion-MNIST's four files, of random pictures, where Keras keeps them."""
    rng, made = np.random.default_rng(0), {}
    folder = home / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for part, rows in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        labels = np.resize(np.arange(10, dtype=np.uint8), rows)
        for name, head, array in (
            ("images-idx3", 16, images),
            ("labels-idx1", 8, labels),
        ):
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(head) + array.tobytes())
        made[part] = images, labels
    return made


def test_pictures_of_keras(own_cache):
    """Fetched by another process, whose stdout is one document; then opened from the cache here."""
    made = clothes(own_cache / "keras")
    environment = {**os.environ, "KERAS_HOME": str(own_cache / "keras")}
    done = subprocess.run(
        [sys.executable, "-m", "zoo.cli", "data", "info", "keras:fashion_mnist", "--json"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["name"], row["kind"], row["task"]) == ("keras:fashion_mnist", "image", "multiclass")
    assert (row["rows"], row["offline"], row["source"]) == (
        360, False, "keras.datasets.fashion_mnist"
    )  # fmt: skip
    assert row["sizes"]["test"] == 60
    assert row["bytes"] > 360 * 28 * 28  # random pictures don't get smaller
    data = open_data(Request("keras:fashion_mnist", offline=True))
    images, labels = (np.concatenate([made["train"][k], made["t10k"][k]]) for k in (0, 1))
    assert np.array_equal(data.take(np.arange(360))[..., 0], images)
    names = np.array(data.classes)[data.y]
    assert names[labels == 9].tolist() == ["Ankle boot"] * 36
    assert data.parts["test"].tolist() == list(range(300, 360))


def openml(home, rows):
    """Data set 31 as OpenML's server gives it, where scikit-learn keeps its answers."""
    names = {"duration": "numeric", "code": "nominal", "class": "nominal"}
    arff = "@RELATION credit\n@ATTRIBUTE duration REAL\n@ATTRIBUTE code {01,1}\n"
    arff += "@ATTRIBUTE class {good,bad}\n@DATA\n" + "".join(
        f"{d if d is not None else '?'},{c},{k}\n" for d, c, k in rows
    )
    features = [
        {"index": str(k), "name": name, "data_type": kind, "is_ignore": "false",
         "is_row_identifier": "false", "number_of_missing_values": "0", "is_target": str(name == "class").lower(),
         **({} if kind == "numeric" else {"nominal_value": {"code": ["01", "1"], "class": ["good", "bad"]}[name]})}
        for k, (name, kind) in enumerate(names.items())
    ]  # fmt: skip
    import hashlib

    path = "data/v1/download/31/credit.arff"
    said = {
        "id": "31", "name": "credit-g", "version": "1", "format": "ARFF", "licence": "CC BY 4.0",
        "status": "active", "description": "", "url": f"https://www.openml.org/{path}",
        "md5_checksum": hashlib.md5(arff.encode()).hexdigest(),
    }  # fmt: skip
    quality = [{"name": "NumberOfInstances", "value": str(len(rows))}]
    answers = {
        path: arff,
        "api/v1/json/data/31": json.dumps({"data_set_description": said}),
        "api/v1/json/data/features/31": json.dumps({"data_features": {"feature": features}}),
        "api/v1/json/data/qualities/31": json.dumps({"data_qualities": {"quality": quality}}),
    }
    for name, content in answers.items():
        target = home / "openml" / "openml.org" / f"{name}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(content.encode()))


def credits(count=200):
    """(duration, code, class) of each row; the tenth has no duration."""
    rng = np.random.default_rng(0)
    durations = [*map(float, rng.integers(4, 72, count))]
    durations[9] = None
    return [(d, "01" if k % 2 else "1", "bad" if (d or 30) > 36 else "good")
            for k, d in enumerate(durations)]  # fmt: skip


def test_a_table_of_openml(own_cache, zoo, tmp_path):
    """Its own target, what is a text stays one, and a run of it is opened again without OpenML."""
    rows = credits()
    openml(own_cache / "sklearn", rows)
    run = tmp_path / "runs" / "one"
    code, _, _, document = zoo(
        "train", "mlp", "--data", "openml:31", "--sensitive", "code", "--epochs", "1", "--name", "one",
        "--runs", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert (code, document["data"]) == (0, "openml:31")
    told = json.loads((run / "run.json").read_text())["data"]
    assert told["source"] == "OpenML 31: credit-g, version 1"
    assert told["license"] == "CC BY 4.0"
    assert told["groups"] == {"code": {"01": 100, "1": 100}}
    for file in (own_cache / "sklearn").rglob("*.gz"):
        file.unlink()
    assert zoo("eval", run, "--json").code == 0
    data = open_data(Request("openml:31", offline=True))
    assert data.x["duration"].isna().sum() == 1
    assert data.x["duration"].tolist()[:9] == [row[0] for row in rows[:9]]
    assert [data.classes[k] for k in data.y] == [row[2] for row in rows]
    other = open_data(Request("openml:31", target="code", offline=True))
    assert (other.target, other.classes) == ("code", ("01", "1"))


def test_a_damaged_file_of_the_cache_is_fetched_again(own_cache):
    openml(own_cache / "sklearn", credits())
    before = open_data(Request("openml:31"))
    (file,) = kept("openml:31").glob("data.jsonl")
    file.write_text("{}\n")
    after = open_data(Request("openml:31"))
    assert (after.sha256, len(after.y)) == (before.sha256, 200)
    file.write_text("{}\n")
    with pytest.raises(ZooError, match="not in the cache") as refused:
        open_data(Request("openml:31", offline=True))
    assert refused.value.kind == "offline"


@pytest.mark.parametrize("source", COLLECTIONS)
def test_offline_forbids_what_is_not_there(zoo, source, tmp_path):
    example = COLLECTIONS[source].example
    code, _, error, _ = zoo(
        "train", "mlp", "--data", example, "--offline", "--runs", tmp_path / "r"
    )
    assert code == 2
    assert "--offline forbids to fetch it" in error
    assert not (tmp_path / "r").exists()
    assert not kept(example).exists()


def test_what_collections_lack(zoo):
    code, _, error, _ = zoo("data", "info", "keras:fashion_mnits")
    assert code == 2
    assert "Did you mean fashion_mnist?" in error
    code, _, error, _ = zoo("data", "info", "openml:999999999")  # neither cached nor a network's
    assert code == 1
    assert "openml:999999999 could not be fetched" in error
    assert "Traceback" not in error
    assert not kept("openml:999999999").exists()


@pytest.fixture
def stored(tmp_path):
    """``stored(name, features, keys, parts)`` writes a data set as TensorFlow Datasets does."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")

    def store(called, features, keys, parts):
        with tfds.core.registered.skip_registration():

            class Made(tfds.core.GeneratorBasedBuilder):
                name = called
                VERSION = tfds.core.Version("1.0.0")

                def _info(self):
                    told = {
                        "features": tfds.features.FeaturesDict(features),
                        "supervised_keys": keys,
                    }
                    return tfds.core.DatasetInfo(builder=self, **told)

                def _split_generators(self, manager):
                    return {part: self._generate_examples(rows) for part, rows in parts.items()}

                def _generate_examples(self, rows):
                    for k, row in enumerate(zip(*rows.values(), strict=True)):
                        yield k, dict(zip(rows, row, strict=True))

        Made(data_dir=str(tmp_path / "tfds")).download_and_prepare()
        tfds.core.add_data_dir(tmp_path / "tfds")

    return store


def test_a_table_of_tfds(stored):
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    rows = {"mass": rng.normal(4000, 500, 120).astype(np.float32),
            "island": np.resize([0, 1, 2], 120), "species": np.resize([0, 1], 120)}  # fmt: skip
    features = {
        "mass": tfds.features.Scalar(np.float32),
        "island": tfds.features.ClassLabel(names=["Biscoe", "Dream", "Torgersen"]),
        "species": tfds.features.ClassLabel(names=["Adelie", "Gentoo"]),
    }
    stored("penguins", features, None, {"train": rows})
    data = open_data(Request("tfds:penguins:1.0.0", target="species", sensitive=("island",)))
    assert data.classes == ("Adelie", "Gentoo")
    assert list(data.groups["island"].categories) == ["Biscoe", "Dream", "Torgersen"]
    assert sorted(data.x["mass"]) == pytest.approx(sorted(rows["mass"]))
    assert data.source == "TensorFlow Datasets: penguins/1.0.0"


def test_texts_of_tfds(stored):
    import tensorflow_datasets as tfds

    texts = [f"a rather {'good' if k % 2 else 'bad'} film, number {k} of many" for k in range(90)]
    features = {
        "text": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["neg", "pos"]),
    }
    labels = np.resize([0, 1], 90)
    parts = {
        "train": {"text": texts[:60], "label": labels[:60]},
        "test": {"text": texts[60:], "label": labels[60:]},
        "unsupervised": {"text": texts[:10], "label": labels[:10]},
    }
    stored("films", features, ("text", "label"), parts)
    data = open_data(Request("tfds:films"))
    assert (data.kind, data.classes, len(data.y)) == ("text", ("neg", "pos"), 90)
    assert len(data.parts["test"]) == 30
    assert sorted(data.x) == sorted(texts)
    assert all(("good" in text) == bool(k) for text, k in zip(data.x, data.y, strict=True))


@pytest.mark.parametrize("shape", [(12, 12, 3), (None, None, 3)])
def test_pictures_of_tfds(stored, shape):
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    labels = np.resize([0, 1], 60)
    images[labels == 1, 0, 0] = 255
    images[labels == 0, 0, 0] = 0
    features = {
        "image": tfds.features.Image(shape=shape, encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        "place": tfds.features.Text(),
    }
    rows = {"image": images, "label": labels, "place": np.resize(["in", "out", "in"], 60)}
    name = "fixed" if shape[0] else "loose"
    stored(name, features, ("image", "label"), {"train": rows})
    data = open_data(Request(f"tfds:{name}"))
    assert (data.kind, data.classes) == ("image", ("cat", "dog"))
    seen = data.take(np.arange(60))
    assert sorted(map(bytes, seen)) == sorted(map(bytes, images))
    assert np.array_equal(seen[:, 0, 0, 0] == 255, data.y == 1)
    assert sorted(np.unique(np.asarray(data.groups["place"])).tolist()) == ["in", "out"]
