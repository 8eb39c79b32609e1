"""Large data: what is read in chunks and held on disk is what reading everything at once gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import data_builders as build
import numpy as np
import pandas as pd
import pytest
from test_text import reviews

from zoo.data import cells, images, large, preprocess, shards
from zoo.data.core import open_data
from zoo.data.shards import Stored, StoredTable
from zoo.data.table import Request
from zoo.errors import ZooError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glasszoo" / "data"


@pytest.fixture
def all_large(monkeypatch):
    """Every file counts as large, in chunks of 300 rows that are mapped 2 kB at a time."""

    def switch(on: bool = True) -> None:
        monkeypatch.setattr(shards, "LARGE", 0 if on else 10**12)

    monkeypatch.setattr(large, "CHUNK", 300)
    monkeypatch.setattr(shards, "WINDOW", 2000)
    switch()
    return switch


def nasty(path, kind):
    """A stranger's file: the table of :mod:`data_builders` in some format."""
    table = build.columns(1100)
    table = {**table, "half": [f"{k % 37 / 2:.1f}".replace(".", ",") for k in range(1100)],
             "late": ["7" if k < 900 else f"word {k % 3}" for k in range(1100)],
             "y": build.labels(kind, table)}  # fmt: skip
    if ".csv" in path.suffixes:
        return build.write_csv(path, table, separator=";" if kind == "words" else ",")
    frame = pd.DataFrame(table).rename(columns=lambda name: name.strip() or "column 1")
    for name in frame:
        known = frame[name].replace("", None)
        try:
            frame[name] = pd.to_numeric(known)
        except ValueError:
            frame[name] = known
    frame["list"] = [[k] for k in range(len(frame))]
    if path.suffix == ".parquet":
        frame["when"] = pd.to_datetime(frame["seen"]).dt.tz_localize("Europe/Paris")
        frame["member"] = frame["member"].map({"TRUE": True, "FALSE": False})
        frame.to_parquet(path, row_group_size=170)
        return path
    lines = (json.loads(row.to_json()) for _, row in frame.iterrows())
    kept = ({k: v for k, v in line.items() if v is not None} for line in lines)  # keys go missing
    path.write_text("\n".join(map(json.dumps, kept)))
    return path


@pytest.mark.parametrize("kind", ["words", "one two", "three numbers", "values"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_a_converted_table_is_the_table(tmp_path, all_large, monkeypatch, name, kind):
    path = nasty(tmp_path / name, kind)
    monkeypatch.setattr(large, "VOCABULARY", 40)  # names, ids and dates are kept as text
    sensitive = (build.NAMES["sex"], build.NAMES["age"])
    found = []
    for on in (False, True):
        all_large(on)
        found.append(open_data(Request(str(path), target="y", sensitive=sensitive)))
    whole, stored = found
    assert isinstance(whole.x, pd.DataFrame)
    assert isinstance(stored.x, StoredTable)
    assert stored.cache is not None
    facts = [replace(data, notes=[], cache=None).describe() for data in found]
    assert facts[0] == facts[1]
    np.testing.assert_array_equal(whole.y, stored.y)
    plans = [preprocess.fit(data, {}) for data in found]
    assert plans[0] == plans[1]
    for part, rows in whole.parts.items():
        np.testing.assert_array_equal(rows, stored.parts[part])
        rows = np.random.default_rng(0).permutation(rows)
        encoded = [preprocess.apply(plans[0], data.take(rows)) for data in found]
        np.testing.assert_array_equal(*encoded)
    for column in whole.x.columns:
        assert whole.x[column].isna().tolist() == stored.x[column].isna().tolist()
    assert len(stored.take(np.array([], dtype=np.int64))) == 0
    for attribute, values in whole.groups.items():
        assert values.tolist() == stored.groups[attribute].tolist()


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.jsonl"])
def test_converted_texts_are_the_texts(tmp_path, all_large, monkeypatch, name):
    monkeypatch.setattr(large, "VOCABULARY", 40)
    path = reviews(tmp_path / name, rows=700)
    request = Request(str(path), target="liked", sensitive=("source",))
    all_large(False)
    whole = open_data(request)
    all_large()
    stored = open_data(request)
    assert stored.kind == whole.kind == "text"
    plans = [preprocess.fit(data, {}) for data in (whole, stored)]
    assert plans[0] == plans[1]
    rows = whole.parts["test"][::-1]
    assert stored.take(rows).tolist() == whole.take(rows).tolist()


def test_many_pictures_are_decoded_once(tmp_path, monkeypatch, cache):
    folder = build.write_pictures(tmp_path / "p")
    whole = open_data(Request(str(folder)))
    monkeypatch.setattr(images, "HELD", 1000)
    monkeypatch.setattr(shards, "WINDOW", 300)
    stored = open_data(Request(str(folder)))
    assert stored.cache.parent == cache
    rows = np.random.default_rng(0).permutation(len(whole.y))
    np.testing.assert_array_equal(stored.take(rows), whole.take(rows))
    assert preprocess.fit(stored, {}) == preprocess.fit(whole, {})
    monkeypatch.setattr(images, "_pixels", None)  # decoding again would fail
    np.testing.assert_array_equal(open_data(Request(str(folder))).take(rows), whole.take(rows))


def write_records(path, rows):
    """A TFRecord file of ``tf.train.Example``; None and lists as they are."""
    from zoo.backend import tf

    def feature(value):
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], (str, bytes)):
            raw = [v.encode() if isinstance(v, str) else v for v in values]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=raw))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else None) as out:
        for row in rows:
            features = {k: feature(v) for k, v in row.items() if v is not None}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            out.write(example.SerializeToString())
    return path


def some_rows(count=800):
    rng = np.random.default_rng(0)
    return [
        {"age": None if k % 9 == 0 else int(rng.integers(90)), "pay": float(rng.normal()),
         "city": str(rng.choice(["Aix", "Köln"])), "pair": [1.0, 2.0],
         "sex": str(rng.choice(["f", "m"])), "y": str(rng.choice(["no", "yes"]))}
        for k in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz", "folder"])
def test_tfrecords_are_a_table(tmp_path, all_large, name):
    rows, path = some_rows(), tmp_path / name
    if name == "folder":
        path.mkdir()
        write_records(path / "a.tfrecord-00000-of-00002", rows[:300])
        write_records(path / "a.tfrecord-00001-of-00002", rows[300:])
    else:
        write_records(path, rows)
    found = []
    for on in (False, True):
        all_large(on)
        found.append(open_data(Request(str(path), target="y", sensitive=("sex",))))
    whole, stored = found
    assert isinstance(stored.x, StoredTable)
    assert whole.y.tolist() == [int(row["y"] == "yes") for row in rows]
    assert {c["name"]: c["kind"] for c in whole.columns} == {
        "age": "numeric", "pay": "numeric", "city": "categorical", "pair": "nested",
    }  # fmt: skip
    facts = [replace(data, notes=[], cache=None).describe() for data in found]
    assert facts[0] == facts[1]
    plan = preprocess.fit(whole, {})
    encoded = [preprocess.apply(plan, data.take(data.parts["test"])) for data in found]
    np.testing.assert_array_equal(*encoded)


def test_tfrecords_of_pictures(tmp_path, monkeypatch):
    folder = build.write_pictures(tmp_path / "p")
    plain = open_data(Request(str(folder)))
    files = sorted(folder.rglob("*.png"))
    rows = [
        {
            "image/encoded": file.read_bytes(),
            "label": file.parent.name,
            "hand": f"h{k % 2}",
            "mask": b"\x89PNG",
        }
        for k, file in enumerate(files)
    ]
    path = write_records(tmp_path / "p.tfrecord", rows)
    data = open_data(Request(str(path), sensitive=("hand",)))
    assert data.kind == "image"
    assert data.classes == plain.classes
    assert set(data.groups["hand"]) == {"h0", "h1"}
    every = np.arange(len(files))
    np.testing.assert_array_equal(data.x, plain.x)
    monkeypatch.setattr(images, "HELD", 1000)
    stored = open_data(Request(str(path), sensitive=("hand",)))
    np.testing.assert_array_equal(stored.take(every), plain.x)
    with pytest.raises(ZooError, match="have no feature 'foot'"):
        open_data(Request(str(path), sensitive=("foot",)))


@pytest.mark.parametrize("harm", ["cut", "flip", "other", "picture"])
def test_damaged_tfrecords_are_one_message(tmp_path, harm):
    from test_data import check_message

    path = write_records(tmp_path / "a.tfrecord", some_rows(40))
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[:-9])
    elif harm == "flip":
        path.write_bytes(content[:900] + bytes([content[900] ^ 1]) + content[901:])
    elif harm == "other":
        path.write_text("a,b\n" * 50)
    else:
        write_records(path, [{"image": b"no picture", "label": "a"}] * 30)
    with pytest.raises(ZooError) as caught:
        open_data(Request(str(path), target="label" if harm == "picture" else "y"))
    check_message(caught.value)


def test_preprocessing_is_fitted_on_a_draw_of_many_rows(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=3000), "y": rng.choice(["a", "b"], 3000)})
    frame.to_csv(tmp_path / "a.csv", index=False)
    request = Request(str(tmp_path / "a.csv"), target="y")
    exact = preprocess.fit(open_data(request), {})["columns"][0]
    monkeypatch.setattr(cells, "FIT_ROWS", 1000)
    drawn = preprocess.fit(open_data(request), {})["columns"][0]
    assert drawn["edges"] != exact["edges"]
    ranks = np.searchsorted(np.sort(frame["x"]), [exact["edges"], drawn["edges"]]) / 3000
    assert np.abs(ranks[0] - ranks[1]).max() < 0.05  # three standard deviations at the median
    assert preprocess.fit(open_data(request), {})["columns"][0] == drawn


def test_rows_of_a_file_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WINDOW", 100)
    values = np.random.default_rng(0).integers(0, 255, (500, 3, 2), dtype=np.uint8)
    values.tofile(tmp_path / "rows")
    stored = Stored(tmp_path / "rows", values.shape, values.dtype)
    rows = np.random.default_rng(1).integers(0, 500, 900)
    np.testing.assert_array_equal(stored[rows], values[rows])
    assert len(stored[np.array([], dtype=np.int64)]) == 0
    np.testing.assert_array_equal(np.concatenate([w.copy() for w in stored.windows()]), values)


def loans(path, rows=900):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.integers(18, 90, rows), "city": rng.choice(["Aix", "Bonn"], rows),
         "y": rng.choice(["yes", "no"], rows)}
    )  # fmt: skip
    frame.to_csv(path, index=False)
    return Request(str(path), target="y")


@pytest.mark.parametrize("harm", ["cut", "flip", "manifest", "gone"])
def test_a_damaged_conversion_is_made_again(tmp_path, all_large, cache, harm):
    request = loans(tmp_path / "a.csv")
    before = open_data(request)
    file = before.cache / shards.ROWS
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[:-5])
    elif harm == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "gone":
        file.unlink()
    else:
        manifest = before.cache / shards.MANIFEST
        manifest.write_text(manifest.read_text().replace("Bonn", "Born"))
    after = open_data(request)
    assert (after.cache / shards.ROWS).read_bytes() == content
    assert set(after.x["city"]) == {"Aix", "Bonn"}
    stamp = (after.cache / shards.MANIFEST).stat().st_mtime_ns
    open_data(request)
    assert (after.cache / shards.MANIFEST).stat().st_mtime_ns == stamp  # whole: not made again


KILLED = """
import os, sys
from zoo.data import large, shards
from zoo.data.core import open_data
from zoo.data.table import Request
shards.LARGE, large.CHUNK = 0, 100
write = large._codes
def count(cells, known, left=[3]):
    left[0] -= 1
    if not left[0]: os.kill(os.getpid(), 9)
    return write(cells, known)
large._codes = count
open_data(Request(sys.argv[1], target="y"))
"""


def test_a_killed_conversion_leaves_nothing_that_counts(tmp_path, all_large, cache):
    request = loans(tmp_path / "a.csv")
    killed = subprocess.run([sys.executable, "-c", KILLED, request.data], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert [p.name[:5] for p in cache.iterdir() if p.is_dir()] == [".tmp-"]
    found = open_data(request)
    assert [path for path in cache.iterdir() if path.is_dir()] == [found.cache]


def test_a_conversion_says_how_far_it_is_and_is_quiet_the_second_time(tmp_path, all_large, zoo):
    request = loans(tmp_path / "a.csv", rows=1200)
    first, second = (zoo("data", "info", request.data, "--target", "y") for _ in range(2))
    assert "data: 1,200 rows looked at" in first.stderr
    assert "data: 1,200 rows converted" in first.stderr
    assert "rows converted" not in second.stderr


def test_two_processes_convert_once(tmp_path, cache):
    request = loans(tmp_path / "a.csv", rows=3000)
    code = """
import sys
from zoo.data import large, shards
from zoo.data.core import open_data
from zoo.data.table import Request
shards.LARGE, large.CHUNK = 0, 200
convert, made = large._convert, []
large._convert = lambda *a: (made.append(1), convert(*a))[1]
data = open_data(Request(sys.argv[1], target="y"))
print(len(made), len(data.y))
"""
    command = [sys.executable, "-c", code, request.data]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate()[0].split() for process in both)
    assert said == [["0", "3000"], ["1", "3000"]]


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path, all_large, cache, monkeypatch):
    request = loans(tmp_path / "a.csv")

    def full(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(large, "_codes", full)
    with pytest.raises(ZooError, match="No space left on device") as caught:
        open_data(request)
    assert caught.value.exit_code == 1
    assert "zoo data clear" in caught.value.hint
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"x,y\n" + b"1,a\n" * 900 + b"1,2,3,4\n"),
        ("a.csv", b"x,y\n" + b"1,a\n" * 900 + b"\xff\xfe,b\n"),
        ("a.jsonl", b'{"x": 1, "y": "a"}\n' * 900 + b"[1]\n"),
        ("a.csv.gz", b"no gzip at all"),
        ("a.csv", b"x,y\n"),
        ("a.parquet", b"PAR1 and no more"),
    ],
)
def test_what_can_not_be_read_is_one_message(tmp_path, all_large, cache, name, content):
    from test_data import check_message

    (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError) as caught:
        open_data(Request(str(tmp_path / name), target="y"))
    check_message(caught.value)
    assert "converted" not in caught.value.message  # the file is at fault, not the cache


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("whole", [True, False])
def test_streamed_batches_are_the_held_ones(monkeypatch, replicas, whole):
    from zoo.train import feed
    from zoo.train.feed import Feed, Samples, Stream
    from zoo.train.options import TrainOptions

    rng = np.random.default_rng(0)
    x, y = rng.random((500, 6, 6, 1), np.float32), rng.integers(0, 3, 500)
    monkeypatch.setattr(feed, "BLOCK_BYTES", x[0].nbytes * 64 * 3)
    options = TrainOptions.parse({"batch_size": 64, "augment": ["affine"]})
    stream = Stream(lambda index: Samples(x[index], y[index]), len(x))
    held, streamed = (
        Feed(samples, options, 5, whole=whole, replicas=replicas)
        for samples in (Samples(x, y), stream)
    )
    for place in ((0, 0), (1, 3), (2, 7)):
        for one, two in zip(held.epoch(*place), streamed.epoch(*place), strict=True):
            for a, b in zip(one, two, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


def test_a_worker_makes_the_inputs_of_its_own_replicas():
    from zoo.train.feed import Feed, Samples, Stream
    from zoo.train.options import TrainOptions

    x = np.arange(1.0, 201, dtype=np.float32)[:, None]
    made = []

    def load(index):
        made.append(len(index))
        return Samples(x[index], index)

    options = TrainOptions.parse({"batch_size": 64})
    held = Feed(Samples(x, np.arange(200)), options, 0, replicas=4)
    shares = [Feed(Stream(load, 200), options, 0, replicas=4, share=(rank, 2)) for rank in (0, 1)]
    for one, *two in zip(held.epoch(0), *(feed.epoch(0) for feed in shares), strict=True):
        half = len(one[0]) // 2
        own = np.concatenate([two[0][0][:half], two[1][0][half:]])
        real = one[2].numpy() > 0
        np.testing.assert_array_equal(own[real], one[0].numpy()[real])
    assert max(made) < 200
    assert sum(made) - len(shares) == 200  # each row once, but for a first look


def test_a_training_from_disk_is_the_training_from_memory(zoo, tmp_path, all_large, monkeypatch):
    """The whole command both ways: weights, predictions, metrics and preprocessing, bit for bit."""
    from conftest import loans

    from zoo import predict
    from zoo.train import feed, session

    data = loans(tmp_path / "loans.csv")
    command = ["train", "mlp", "--data", data, "--target", "approved", "--sensitive", "sex",
               "--epochs", "2", "--set", "hidden=32,32", "--batch-size", "64", "--deterministic",
               "--runs", tmp_path / "runs", "--json", "--name"]  # fmt: skip
    all_large(False)
    held = zoo(*command, "held").document
    all_large()
    monkeypatch.setattr(session, "HELD_BYTES", 100_000)
    monkeypatch.setattr(predict, "CALL_BYTES", 20_000)
    monkeypatch.setattr(feed, "BLOCK_BYTES", 40_000)
    _, _, stderr, streamed = zoo(*command, "streamed")
    assert "converted once" in stderr
    assert streamed["metrics"] == held["metrics"]
    assert streamed["best"] == held["best"]
    assert held["baseline"]["name"] == "logistic regression"
    assert streamed["baseline"]["name"].startswith("logistic regression on ")
    assert streamed["baseline"]["name"].endswith(" of 420 rows")
    runs = [tmp_path / "runs" / name for name in ("held", "streamed")]
    for name in ("preprocess.json", "base/model.tflite"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    arrays = [np.load(run / "base/predictions.npz") for run in runs]
    for name in arrays[0].files:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
    for file in arrays:
        file.close()
    said = []
    for on in (False, True):
        all_large(on)
        assert zoo("predict", runs[0], data, "--output", tmp_path / f"{on}.csv").code == 0
        said.append((tmp_path / f"{on}.csv").read_bytes())
    assert said[0] == said[1]
    assert said[0].count(b"\n") == 601


def test_the_cache_is_shown_and_cleared(zoo, tmp_path, all_large, cache):
    request = loans(tmp_path / "a.csv")
    shown = zoo("data", "info", request.data, "--target", "y", "--json").document
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert shown["cache"] == str(folder)
    assert any("converted once" in note for note in shown["notes"])
    data = open_data(request)
    size = sum(file.stat().st_size for file in folder.iterdir())
    done = zoo("data", "clear", "--json").document
    assert done == {"cache": str(cache), "removed": 1, "bytes": size}
    assert not folder.exists()
    assert len(data.take(np.arange(9))) == 9  # what is open stays readable
    assert zoo("data", "clear", "--json").document["removed"] == 0
    with shards.locked(cache, f".{folder.name}.lock"):  # as a conversion holds it
        (cache / f".tmp-{folder.name}-0123").mkdir()
        assert zoo("data", "clear", "--json").document["removed"] == 0


@pytest.mark.parametrize("large_file", [False, True])
def test_a_file_sorted_by_its_label_is_split_and_fed_as_any_other(tmp_path, all_large, large_file):
    """Labels of every batch are a draw from all of them: counts within five standard deviations."""
    from zoo.train.feed import Feed, Samples, Stream
    from zoo.train.options import TrainOptions

    rows = 3000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=rows), "y": rng.choice(["a", "b"], rows, p=[0.7, 0.3])}
    )
    frame.sort_values("y").to_csv(tmp_path / "a.csv", index=False)
    all_large(large_file)
    data = open_data(Request(str(tmp_path / "a.csv"), target="y"))
    share = data.y.mean()
    for part in data.parts.values():
        assert abs(data.y[part].mean() - share) < 1 / len(part) + 0.001
    y = data.y[data.parts["train"]]
    x = y[:, None].astype(np.float32)
    samples: Samples | Stream = Samples(x, y)
    if large_file:
        samples = Stream(lambda index: Samples(x[index], y[index]), len(y))
    feed = Feed(samples, TrainOptions.parse({"batch_size": 100}), 0)
    counts = [int(batch[1].numpy().sum()) for batch in feed.epoch(0)]
    assert len(counts) == 21
    assert np.abs(np.array(counts) - 100 * share).max() < 5 * np.sqrt(100 * share * (1 - share))
    assert np.std(counts) > 1  # drawn, not dealt
