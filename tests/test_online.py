"""Data sets of public collections, by the libraries that fetch them, from what their caches hold."""

import gzip
import hashlib
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


def openml(home, rows, targets="class", more=()):
    """Data set 31 as OpenML's server gives it, where scikit-learn keeps its answers.

    ``more`` are further (attribute, type of ARFF, type of OpenML), whose values end each row.
    """
    kinds = [("duration", "REAL", "numeric"), ("code", "{01,1}", "nominal"),
             ("class", "{good,bad}", "nominal"), *more]  # fmt: skip
    arff = "@RELATION credit\n" + "".join(f"@ATTRIBUTE {name} {kind}\n" for name, kind, _ in kinds)
    arff += "@DATA\n" + "".join(
        ",".join("?" if cell is None else str(cell) for cell in row) + "\n" for row in rows
    )
    features = [
        {"index": str(k), "name": name, "data_type": kind, "is_ignore": "false",
         "is_row_identifier": "false", "is_target": str(name in targets).lower(),
         "number_of_missing_values": "0",
         **({"nominal_value": form.strip("{}").split(",")} if kind == "nominal" else {})}
        for k, (name, form, kind) in enumerate(kinds)
    ]  # fmt: skip
    path = "data/v1/download/31/credit.arff"
    said = {
        "id": "31", "name": "credit-g", "version": "1", "format": "ARFF", "licence": "CC BY 4.0",
        "status": "active", "description": "", "url": f"https://www.openml.org/{path}",
        "default_target_attribute": targets, "md5_checksum": hashlib.md5(arff.encode()).hexdigest(),
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


def test_rows_without_a_label_are_left_out(own_cache):
    rows = [(d, c, None if k % 10 == 3 else label) for k, (d, c, label) in enumerate(credits())]
    openml(own_cache / "sklearn", rows)
    data = open_data(Request("openml:31"))
    assert (len(data.y), data.classes) == (180, ("bad", "good"))
    assert "20 rows without 'class' were left out" in data.notes


def test_what_else_could_be_predicted_is_no_input(own_cache):
    """Of several targets one is asked for, and the error that says so names what the user typed."""
    rows = [(*row, (row[0] or 30) * 100) for row in credits()]
    openml(own_cache / "sklearn", rows, "class,amount", [("amount", "REAL", "numeric")])
    with pytest.raises(ZooError, match=r"Which column of openml:31 is to be predicted") as refused:
        open_data(Request("openml:31"))
    assert "--data openml:31 --target" in refused.value.hint
    data = open_data(Request("openml:31", target="amount"))
    assert (data.task, list(data.x.columns)) == ("regression", ["duration", "code"])
    assert "no inputs: 'class'" in data.notes


@pytest.mark.parametrize(
    "name",
    ["openml:", "openml:../../x", "openml:x?y#z", "openml:x\x1b[31m", "tfds:a/data_dir=/tmp/x",
     "tfds:huggingface:a/b", "keras:../mnist", "tfds:\u0663"],
)  # fmt: skip
def test_names_that_are_none(zoo, name):
    code, _, error, _ = zoo("data", "info", name)
    assert code == 2
    assert "can't be the name of a data set" in error
    assert "\x1b" not in error


def test_a_run_trained_offline_is_opened_where_the_cache_is_gone(own_cache, zoo, tmp_path):
    openml(own_cache / "sklearn", credits())
    assert zoo("data", "info", "openml:31").code == 0
    words = ("--data", "openml:31", "--offline", "--epochs", "1", "--name", "o", "--runs", tmp_path)
    assert zoo("train", "mlp", *words).code == 0
    assert zoo("data", "clear").code == 0
    assert zoo("train", "mlp", *words[:3], "--runs", tmp_path).code == 2
    assert zoo("eval", tmp_path / "o").code == 0


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
    assert "openml:999999999 could not be fetched and read" in error
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


def handed(monkeypatch, name, x, y, **more):
    """Lets Keras' data set ``name`` be these rows, the last 20 of them for testing: there is no network."""
    from zoo.backend import keras

    module = getattr(keras.datasets, name)
    monkeypatch.setattr(module, "load_data", lambda: ((x[:-20], y[:-20]), (x[-20:], y[-20:])))
    for key, value in more.items():
        monkeypatch.setattr(module, key, lambda value=value: value)


def test_a_hundred_classes_are_classes(monkeypatch):
    labels = np.resize(np.arange(100), 300)
    images = np.zeros((300, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = labels
    handed(monkeypatch, "cifar100", images, labels[:, None])
    data = open_data(Request("keras:cifar100"))
    assert (data.task, len(data.classes)) == ("multiclass", 100)
    assert np.array_equal(data.take(np.arange(300))[:, 0, 0, 0], data.y)


def test_texts_of_keras_are_words_again(monkeypatch):
    words = {f"word{k}": k for k in range(1, 200)}
    texts = np.empty(120, object)
    texts[:] = [
        [1, 4, 2, *range(5 + k, 15 + k)] for k in range(120)
    ]  # 1 begins a text, 2 is unknown
    handed(monkeypatch, "imdb", texts, (np.arange(120) + 1) % 2, get_word_index=words)
    data = open_data(Request("keras:imdb"))
    assert (data.kind, data.task, data.classes) == ("text", "binary", ("negative", "positive"))
    assert str(data.x[1]) == " ".join(f"word{k}" for k in (1, *range(3, 13)))
    assert data.classes[data.y[1]] == "negative"
    assert data.parts["test"].tolist() == list(range(100, 120))


def test_a_table_of_keras(monkeypatch):
    x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    handed(monkeypatch, "california_housing", x, np.round(x[:, 0] * 2))
    data = open_data(Request("keras:california_housing"))
    assert (data.kind, data.task, data.x.shape) == ("tabular", "regression", (200, 8))


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
    stored("pinguins", features, None, {"train": rows})
    assert list(open_data(Request("tfds:pinguins", target="species")).x.columns) == [
        "island",
        "mass",
    ]
    data = open_data(Request("tfds:pinguins:1.0.0", target="species", sensitive=("island",)))
    assert data.classes == ("Adelie", "Gentoo")
    assert list(data.groups["island"].categories) == ["Biscoe", "Dream", "Torgersen"]
    assert sorted(data.x["mass"]) == pytest.approx(sorted(rows["mass"]))
    assert data.source == "TensorFlow Datasets: pinguins/1.0.0"


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
    """With what real ones have beside them: a number of each, a file's name, nested attributes."""
    import tensorflow_datasets as tfds

    kinds, rng = tfds.features, np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    labels = np.resize([0, 1], 60)
    images[labels == 1, 0, 0] = 255
    images[labels == 0, 0, 0] = 0
    features = {
        "image": kinds.Image(shape=shape, encoding_format="png"),
        "mask": kinds.Image(shape=(12, 12, 1)),
        "label": kinds.ClassLabel(names=["01", "1"]),
        "id": kinds.Text(),
        "file_name": kinds.Text(),
        "split": kinds.Scalar(np.int64),
        "attributes": {"place": kinds.Text(), "smiling": kinds.Scalar(np.bool_)},
    }
    rows = {
        "image": images,
        "mask": images[..., :1],
        "label": labels,
        "id": [f"x{k}" for k in range(60)],
        "file_name": [f"{k}.png" for k in range(60)],
        "split": np.arange(60),
        "attributes": [{"place": p, "smiling": k % 3 == 0}
                       for k, p in enumerate(np.resize(["in", "out", "in"], 60))],
    }  # fmt: skip
    name = "fixed" if shape[0] else "loose"
    parts = {"train": {k: v[:40] for k, v in rows.items()},
             "validation": {k: v[40:] for k, v in rows.items()}}  # fmt: skip
    stored(name, features, ("image", "label") if shape[0] else None, parts)
    data = open_data(Request(f"tfds:{name}"))
    assert (data.kind, data.task, data.classes) == ("image", "binary", ("01", "1"))
    seen = data.take(np.arange(60))
    assert sorted(map(bytes, seen)) == sorted(map(bytes, images))
    assert np.array_equal(seen[:, 0, 0, 0] == 255, data.y == 1)
    assert data.parts["val"].tolist() == list(range(40, 60))
    assert list(data.groups) == ["class"]
    data = open_data(Request(f"tfds:{name}", sensitive=("attributes/place",)))
    assert data.groups["attributes/place"].categories.tolist() == ["in", "out"]
    other = open_data(Request(f"tfds:{name}", target="attributes/smiling"))
    assert (other.task, len(other.classes)) == ("binary", 2)


def test_a_name_that_tfds_has_not(zoo):
    pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")
    code, _, error, _ = zoo("data", "info", "tfds:imdb_review")
    assert code == 2
    assert "Did you mean imdb_reviews" in error


def test_vectors_and_nested_features_are_columns(stored):
    import tensorflow_datasets as tfds

    kinds, rng = tfds.features, np.random.default_rng(0)
    rows = {
        "features": rng.normal(size=(90, 4)).astype(np.float32),
        "person": [{"age": k, "sex": k % 2} for k in range(90)],
        "frames": [[b"a", b"b"]] * 90,
        "species": np.resize([0, 1, 2, -1, 0, 1], 90),
    }
    features = {
        "features": kinds.Tensor(shape=(4,), dtype=np.float32),
        "person": {"age": kinds.Scalar(np.int64), "sex": kinds.ClassLabel(names=["F", "M"])},
        "frames": kinds.Sequence(kinds.Text()),
        "species": kinds.ClassLabel(num_classes=3),
    }
    parts = {"train": {k: v[:60] for k, v in rows.items()},
             "test": {k: v[60:] for k, v in rows.items()}}  # fmt: skip
    stored("birds", features, ("features", "species"), parts)
    data = open_data(Request("tfds:birds", sensitive=("person/sex",)))
    assert (data.task, data.classes, len(data.y)) == ("multiclass", ("0", "1", "2"), 75)
    assert list(data.x.columns) == [*(f"features_{k}" for k in range(4)), "person/age"]
    assert data.groups["person/sex"].categories.tolist() == ["F", "M"]
    assert "15 rows without 'species' were left out" in data.notes
    assert "features that are no numbers, texts or classes: frames" in data.notes


def test_texts_keep_their_attributes_and_can_stand_alone(stored):
    import tensorflow_datasets as tfds

    kinds = tfds.features
    features = {"text": kinds.Text(), "toxic": kinds.ClassLabel(names=["no", "yes"]),
                "source": kinds.Text(), "stars": kinds.Scalar(np.int64)}  # fmt: skip
    rows = {"text": [f"this is comment number {k} of {k % 7} here" for k in range(90)],
            "toxic": np.resize([0, 1], 90), "source": np.resize(["a", "b", "b"], 90),
            "stars": np.arange(90) % 5}  # fmt: skip
    parts = {"train": {k: v[:60] for k, v in rows.items()},
             "validation": {k: v[60:] for k, v in rows.items()}}  # fmt: skip
    stored("comments", features, ("text", "toxic"), parts)
    data = open_data(Request("tfds:comments", sensitive=("source",)))
    assert (data.kind, data.classes) == ("text", ("no", "yes"))
    assert data.groups["source"].categories.tolist() == ["a", "b"]
    assert data.parts["val"].tolist() == list(range(60, 90))
    assert open_data(Request("tfds:comments", target="source")).classes == ("a", "b")
    alone = open_data(Request("tfds:comments", task="causal_lm"))
    assert (alone.kind, sorted(alone.x)) == ("text", sorted(rows["text"]))
