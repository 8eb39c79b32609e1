"""Data: the shipped sets, strangers' files, splits, groups, preprocessing, and bad input.

Files are written by :mod:`data_builders`; what is expected of them is worked out here by hand, by
the standard library, or by pandas.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import data_builders as build
import numpy as np
import pandas as pd
import pytest
from data_builders import AGE, CITY, COLOUR, SEX

from zoo.data import large, preprocess, shards, shipped
from zoo.data.core import open_data
from zoo.data.frames import read_frame
from zoo.data.groups import MAX_GROUPS
from zoo.data.images import COMMON_SIZE
from zoo.data.labels import MAX_CLASSES
from zoo.data.own import read_inputs
from zoo.data.table import Data, Request
from zoo.errors import ZooError
from zoo.registry import datasets
from zoo.run import sha256_file


def opened(path: Path | str, target: str | None = "y", **asked) -> Data:
    return open_data(Request(str(path), target=target, **asked))


def refused(path: Path | str, target: str | None = "y", **asked) -> ZooError:
    """The error of opening; checked to be one that helps: exit 2, and no word of Python's."""
    with pytest.raises(ZooError) as caught:
        opened(path, target, **asked)
    check_message(caught.value)
    return caught.value


def check_message(error: ZooError) -> None:
    assert error.exit_code == 2
    assert error.expected or error.hint
    text = str(error)
    assert len(text.splitlines()) <= 4
    for word in ("Traceback", "Error:", "ndarray", "NoneType", "codec", "dtype=", "object at 0x"):
        assert word not in text, text


def table(rows: int = 200, seed: int = 0, **changed) -> pd.DataFrame:
    """A small plain table: ``y`` yes/no, a number, a word, a group."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "number": rng.normal(size=rows).round(6),
            "word": rng.choice(["red", "green", "blue"], rows),
            "sex": rng.choice(["f", "m"], rows),
            "y": rng.choice(["no", "yes"], rows),
        }
    )
    return frame.assign(**changed)


@pytest.fixture
def write(tmp_path):
    """Write a frame as CSV; returns the path."""

    def writer(frame: pd.DataFrame, name: str = "data.csv") -> Path:
        path = tmp_path / name
        frame.to_csv(path, index=False)
        return path

    return writer


# The shipped sets ---------------------------------------------------------------------------------


def load(name: str, **asked):
    return datasets().get(name).load(Request(name, **asked))


def test_adult_is_the_published_one():
    data = open_data(Request("adult"))
    assert data.classes == ("<=50K", ">50K")
    assert np.bincount(data.y).tolist() == [37155, 11687]
    sizes = {part: len(rows) for part, rows in data.parts.items()}
    assert sizes["train"] + sizes["val"] == 32561
    assert sizes["test"] == 16281
    assert abs(sizes["val"] - 0.15 * 32561) <= 3
    assert set(data.groups) == {"sex", "race", "age"}
    assert not {"sex", "race", "fnlwgt", "income", "split"} & set(data.x.columns)
    assert "age" in data.x.columns  # the bands are derived from an input
    younger = data.x["age"].to_numpy() < 25
    assert set(data.groups["age"][younger]) == {"under 25"}
    assert not (data.groups["age"][~younger] == "under 25").any()


def test_mnist_is_balanced_and_split_as_shipped():
    data = open_data(Request("mnist_5k"))
    assert data.x.shape == (5000, 28, 28, 1)
    assert data.x.dtype == np.uint8
    assert np.bincount(data.y).tolist() == [500] * 10
    assert len(data.parts["train"]) + len(data.parts["val"]) == 4000
    assert len(data.parts["test"]) == 1000
    assert data.label_groups == ("class",)


def test_sentiment_is_the_sign_of_the_rating():
    rated, signed = load("sentiment", target="rating"), load("sentiment")
    assert len(rated) == 23619
    assert len(signed) == int((np.asarray(rated.y) != 0).sum())
    assert (signed.y == "positive").sum() == (np.asarray(rated.y) > 0).sum()
    assert np.mean(np.asarray(rated.split) == "test") == pytest.approx(0.2, abs=1e-3)


def test_co2_keeps_its_gaps():
    series = load("co2")
    assert len(series) == 2284
    values = np.asarray(series.y)
    assert int(np.isnan(values).sum()) == 59
    assert 310 < np.nanmin(values) < np.nanmax(values) < 375  # ppm, 1958 to 2001


def test_shakespeare_is_passages_of_nine_plays():
    table = load("shakespeare")
    titles, counts = np.unique(table.groups["play"], return_counts=True)
    assert len(titles) == 9
    assert "The Winter's Tale" in titles
    assert counts.min() > 300
    for play in titles:  # every play is in every split
        assert set(table.split[table.groups["play"] == play]) == {"train", "val", "test"}


@pytest.mark.parametrize("name", sorted(datasets().specs))
def test_shipped_files_are_what_their_spec_says(name):
    spec = datasets().get(name)
    assert len(shipped.read_bytes(spec)) == spec.bytes
    with pytest.raises(ZooError, match="damaged") as caught:
        shipped.read_bytes(replace(spec, sha256="0" * 64))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("asked", "word"), [({"target": "sex"}, "target"), ({"split": "age"}, "split")]
)
def test_a_shipped_set_says_no_to_another_target_or_split(asked, word):
    error = refused("adult", **{"target": None, **asked})
    assert word in error.message


def test_data_without_labels_are_refused():
    assert refused("shakespeare", None, task="regression").kind == "kind_mismatch"


# Strangers' tables --------------------------------------------------------------------------------

TARGETS = {
    "words": ("binary", ("will pay", "won't, ever")),
    "booleans": ("binary", ("False", "True")),
    "zero one": ("binary", ("0", "1")),
    "one two": ("binary", ("1", "2")),
    "three words": ("multiclass", ("NA", "in between", "low <i>")),
    "three numbers": ("multiclass", ("9", "10", "100")),
    "values": ("regression", ()),
}


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """Target's kind -> path of a nasty CSV with it."""
    folder, inputs = tmp_path_factory.mktemp("nasty"), build.columns()
    return {
        kind: build.write_csv(
            folder / f"{number}.csv", {**inputs, "the target?": build.labels(kind, inputs)}
        )
        for number, kind in enumerate(TARGETS)
    }


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_of_every_kind(nasty, kind):
    task, classes = TARGETS[kind]
    data = opened(nasty[kind], "the target?")
    assert (data.task, data.classes) == (task, classes)
    said = build.labels(kind, build.columns())
    if classes:
        assert [classes[k].rstrip(".0") for k in data.y] == [cell.rstrip(".0") for cell in said]
        assert data.positive == (classes[-1] if len(classes) == 2 else None)
    else:
        assert data.y.tolist() == [float(cell) for cell in said]


@pytest.fixture(scope="module")
def judged(nasty):
    sensitive = (SEX, AGE, build.NAMES["colour"])
    return opened(nasty["words"], "the target?", sensitive=sensitive)


def test_columns_are_judged_by_their_training_cells(judged):
    kinds = {column["name"]: column["kind"] for column in judged.columns}
    assert kinds == {
        "column 1": "row number",
        build.NAMES["amount"]: "numeric",
        CITY: "categorical",
        "name": "text",
        "id": "numeric",
        "seen": "date",
        "member": "categorical",
        "constant": "constant",
        "nothing": "empty",
        "stray": "numeric",
        "infinite": "numeric",
        "huge": "numeric",
        "code": "numeric",
        "split": "categorical",
        "rare": "categorical" if 1499 in judged.parts["train"] else "constant",
    }


UNDATED = ["2024-01-15 10:30 AM", "2024-01-15 24:00:00", "4711-55-99", "unknown"]


@pytest.mark.parametrize("cell", UNDATED)
@pytest.mark.parametrize("strays", [4, 40, 400])
def test_cells_that_are_no_dates_are_strays_or_make_a_column_of_text(write, cell, strays):
    days = pd.date_range("2020-01-01", periods=400).astype(str).tolist()
    column = np.random.default_rng(0).permutation([cell] * strays + days[strays:])
    data = opened(write(table(400, day=column)))
    (found,) = (c for c in data.columns if c["name"] == "day")
    if strays > 20:
        assert found["kind"] == ("constant" if strays == 400 else "text")
        return
    here = int((column[data.parts["train"]] == cell).sum())
    assert (found["kind"], found["missing"], found["stray"]) == ("date", here, True)
    assert f"stray cells ({here}) count as missing: {cell!r}" in found["why"]
    assert np.isfinite(preprocess.apply(preprocess.fit(data, {}), data.x)).all()


@pytest.mark.parametrize(
    "end", [" 10:30:00 UTC", " 10:30:00Z", "T10:30Z", " 10:30 UTC", " 10:30:00"]
)
def test_times_in_utc_are_dates(write, end):
    """A daily column: no row number, and the same moments however UTC is written."""
    days = pd.date_range("2020-01-01", periods=200)
    data = opened(write(table(day=[str(day)[:10] + end for day in days])))
    (found,) = (c for c in data.columns if c["name"] == "day")
    assert (found["kind"], found["missing"], found["why"]) == ("date", 0, "days since 1970")
    plan = preprocess.fit(data, {})
    (column,) = (c for c in plan["columns"] if c["name"] == "day")
    first = min(data.parts["train"]) + 18262 + 10.5 / 24  # days from 1970 to 2020
    assert column["low"] == pytest.approx(first, abs=1e-6)


def test_groups_are_named_as_in_the_file(judged):
    inputs = build.columns()
    assert judged.groups[SEX].tolist() == [cell or "(missing)" for cell in inputs[SEX]]
    colours = [cell.strip() for cell in inputs[COLOUR]]  # "NA" is a word among words
    assert judged.groups[build.NAMES["colour"]].tolist() == colours


def test_bands_are_limited_by_the_training_quartiles_that_differ(judged):
    age = np.array([float(cell) for cell in build.columns()[AGE]])
    first, second, third = np.quantile(age[judged.parts["train"]], [0.25, 0.5, 0.75])
    assert first == age.min() == 18  # a tie: the lowest quarter has no band of its own
    names = np.where(age < second, f"18 to < {second:g}", f"{second:g} to < {third:g}")
    names = np.where(age >= third, f">= {third:g}", names)
    assert judged.groups[AGE].tolist() == names.tolist()


def test_sensitive_columns_are_inputs_only_when_asked(nasty):
    sensitive = (SEX, AGE)
    without = opened(nasty["words"], "the target?", sensitive=sensitive)
    assert not set(sensitive) & set(without.x.columns)
    within = opened(nasty["words"], "the target?", sensitive=sensitive, include_sensitive=True)
    assert set(sensitive) <= set(within.x.columns)
    assert set(within.groups) == set(without.groups) == set(sensitive)


def same_encoding(first: Path, second: Path) -> None:
    one, two = (opened(path, "the target?", sensitive=(SEX,)) for path in (first, second))
    plan = preprocess.fit(one, {})
    encoded = [preprocess.apply(plan, data.x) for data in (one, two)]
    np.testing.assert_array_equal(*encoded)
    assert one.classes == two.classes
    np.testing.assert_array_equal(one.y, two.y)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("semicolon.csv", {"separator": ";"}),
        ("tab.tsv", {"separator": "\t"}),
        ("pipe.csv", {"separator": "|"}),
        ("windows.csv", {"newline": "\r\n", "bom": True}),
        ("packed.csv.gz", {"separator": ";", "bom": True}),
    ],
)
def test_the_same_table_in_another_form(nasty, tmp_path, name, form):
    inputs = build.columns()
    inputs["the target?"] = build.labels("words", inputs)
    same_encoding(nasty["words"], build.write_csv(tmp_path / name, inputs, **form))


def test_parquet_gives_what_csv_gives(tmp_path):
    frame = table(amount=np.arange(200) % 7 / 2, day=pd.Timestamp("2020-01-01"))
    frame["day"] += pd.to_timedelta(np.arange(200) % 11, unit="D")
    frame.loc[::9, "number"] = np.nan
    frame.loc[::8, "sex"] = None
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.set_index("word").to_parquet(tmp_path / "a.parquet")  # the index is a column too
    frame.to_parquet(tmp_path / "b.pq")
    plans = []
    for name in ("a.csv", "a.parquet", "b.pq"):
        data = opened(tmp_path / name, sensitive=("sex",))
        kinds = {column["name"]: column["kind"] for column in data.columns}
        plans.append((kinds, data.groups["sex"].tolist(), data.y.tolist()))
    assert plans[0] == plans[1] == plans[2]
    assert plans[0][0]["day"] == "date"


def test_parquet_types_of_other_systems(tmp_path):
    from datetime import date, timedelta
    from decimal import Decimal

    frame = table(
        price=[Decimal(k % 13) / 4 for k in range(200)],
        day=[date(2020, 1, 1) + timedelta(days=k % 50) for k in range(200)],
        tags=[[k, k] for k in range(200)],
        flag=pd.array([None if k % 9 == 0 else k % 2 == 0 for k in range(200)], dtype="boolean"),
        whole=pd.array([None if k % 5 == 0 else k % 30 for k in range(200)], dtype="Int64"),
        kind=pd.Categorical(np.resize(["a", "b"], 200)),
    )
    frame.to_parquet(tmp_path / "a.parquet")
    data = opened(tmp_path / "a.parquet", sensitive=("flag",))
    kinds = {column["name"]: column["kind"] for column in data.columns}
    assert kinds["price"] == kinds["whole"] == "numeric"
    assert kinds["day"] == "date"
    assert kinds["tags"] == "nested"
    assert kinds["kind"] == "categorical"
    assert set(data.groups["flag"]) == {"True", "False", "(missing)"}
    encoded = preprocess.apply(preprocess.fit(data, {}), data.x)
    assert np.isfinite(encoded).all()
    assert "bool" not in refused(tmp_path / "a.parquet", "tags").message


def test_decimal_commas_beside_semicolons(tmp_path):
    path = tmp_path / "german.csv"
    lines = [f"{k},25;Typ {k % 3};{'ja' if k % 2 else 'nein'}" for k in range(100)]
    path.write_text("\n".join(["Größe;Art;y", *lines]), encoding="utf-8")
    assert read_frame(path)["Größe"].tolist() == [k + 0.25 for k in range(100)]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["yes", "no", " yes"], "binary"),  # blanks make no third class
        (["NA", "None"], "binary"),  # words, not missing cells
        ([1.0, 2.0], "binary"),
        (range(20), "multiclass"),
        (range(21), "regression"),
        ([0.5, 1.5, 2.5], "regression"),
        (["a", "b", "c"], "multiclass"),
    ],
)
def test_the_task_is_inferred_and_said(write, values, task):
    data = opened(write(table(420, y=np.resize(list(values), 420))))
    assert data.task == task
    assert any(f"task inferred from 'y': {task}" in note for note in data.notes)


def test_multiclass_with_two_classes_is_allowed(write):
    data = opened(write(table()), task="multiclass")
    assert data.task == "multiclass"
    assert data.classes == ("no", "yes")


def test_a_positive_label_of_ones_own(write):
    assert opened(write(table()), positive="no").positive == "no"


# NPZ and pictures ---------------------------------------------------------------------------------


def test_npz_of_numbers_with_groups_and_split(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    split = np.resize(["training", "training", "dev", "test"], 60)
    group_site = np.resize(["north", "south"], 60)
    np.savez(tmp_path / "a.npz", x=x, y=y, split=split, group_site=group_site)
    data = opened(tmp_path / "a.npz", None)
    assert (data.kind, data.task, data.classes) == ("tabular", "multiclass", ("0", "1", "2"))
    assert data.groups["site"].tolist() == group_site.tolist()
    assert data.parts["val"].tolist() == np.flatnonzero(split == "dev").tolist()
    plan = preprocess.fit(data, {})
    frame, _ = read_inputs(tmp_path / "a.npz", plan)
    np.testing.assert_array_equal(preprocess.apply(plan, frame), preprocess.apply(plan, data.x))


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32"])
def test_npz_of_pictures(tmp_path, kind):
    grey = np.random.default_rng(0).integers(0, 256, (40, 8, 8))
    stored = (grey / 255).astype(kind) if kind == "float32" else grey.astype(kind)
    np.savez(tmp_path / "a.npz", images=stored, labels=np.arange(40) % 2)
    data = opened(tmp_path / "a.npz", None)
    assert data.kind == "image"
    np.testing.assert_array_equal(data.x[..., 0], grey)


def test_picture_folder_with_metadata(tmp_path):
    folder = build.write_pictures(tmp_path / "pictures")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    sites = np.resize(["north", "south"], len(names) - 2)
    lines = [
        f"{name},{site},{k}-x" for k, (name, site) in enumerate(zip(names, sites, strict=False))
    ]
    (folder / "metadata.csv").write_text("\n".join(["file_name,site,note", *lines]))
    data = opened(folder, None)
    assert data.x.shape == (28, 12, 12, 1)
    assert data.classes == ("dark", "light")
    assert data.groups["site"].tolist() == [*sites, "(missing)", "(missing)"]
    assert set(data.groups) == {"site"}
    assert any("note" in note for note in data.notes)
    assert (data.x[data.y == 1] >= 150).all()
    assert (data.x[data.y == 0] < 100).all()


def test_picture_folder_with_given_parts(tmp_path):
    for part in ("train", "validation", "test"):
        build.write_pictures(tmp_path / "p" / part, seed=len(part))
    data = opened(tmp_path / "p", None)
    assert {part: len(rows) for part, rows in data.parts.items()} == dict.fromkeys(
        ("train", "val", "test"), 28
    )


@pytest.mark.parametrize("second", ["val", "test"])
def test_picture_folder_with_two_parts(tmp_path, second):
    """The third part is dealt out of train, class by class; folders of parts are no classes."""
    for part in ("train", second):
        build.write_pictures(tmp_path / "p" / part, each=20, seed=len(part))
    data = opened(tmp_path / "p", None)
    assert data.classes == ("dark", "light")
    third = ({"val", "test"} - {second}).pop()
    assert {part: len(rows) for part, rows in data.parts.items()} == {
        "train": 34, second: 40, third: 6}  # fmt: skip
    assert sorted(np.concatenate([data.parts["train"], data.parts[third]])) == (
        np.flatnonzero(np.isin(np.arange(80), data.parts[second], invert=True)).tolist()
    )
    assert data.y[data.parts[third]].tolist().count(0) == 3
    assert any(f"no {third} rows" in note for note in data.notes)


def test_folders_of_parts_are_never_classes(tmp_path):
    """Loose pictures below test, one part alone, parts without train, a folder beside them."""
    whole = build.write_pictures(tmp_path / "loose" / "train")
    loose = whole.parent / "test"
    loose.mkdir()
    for path in (whole / "dark").iterdir():
        (loose / path.name).write_bytes(path.read_bytes())
    error = refused(whole.parent, None)
    assert (error.kind, "test/00.png" in str(error)) == ("bad_split", True)
    for names, received in ((["train"], "train"), (["val", "test"], "test, val"),
                            (["train", "val", "extra"], "extra, train, val")):  # fmt: skip
        folder = tmp_path / "-".join(names)
        for name in names:
            build.write_pictures(folder / name)
        error = refused(folder, None)
        assert (error.kind, error.received) == ("bad_split", f"folders {received}")


def test_pictures_of_all_sizes_and_modes(tmp_path):
    """One upright picture, red above and blue below, stored in many ways."""
    from PIL import Image

    folder = build.write_pictures(tmp_path / "p", each=20, size=30)
    rgb = np.zeros((60, 40, 3), dtype=np.uint8)
    rgb[:30, :, 0] = rgb[30:, :, 2] = 255
    picture = Image.fromarray(rgb)
    stored = {}
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    picture.rotate(90, expand=True).save(folder / "dark" / "turned.png", exif=exif)
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "dark" / "palette.png")
    picture.convert("RGBA").save(folder / "dark" / "alpha.png")
    picture.convert("CMYK").save(folder / "dark" / "cmyk.jpg", quality=100)
    clear = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    clear.save(folder / "dark" / "clear.png")
    deep = np.full((30, 30), 32768, dtype=np.uint16)
    Image.fromarray(deep).save(folder / "dark" / "deep.png")
    data = opened(folder, None)
    assert data.x.shape[1:] == (COMMON_SIZE, COMMON_SIZE, 3)
    paths = sorted(folder.rglob("*.*"))
    stored = {path.stem: image.astype(int) for path, image in zip(paths, data.x, strict=True)}
    for name in ("turned", "palette", "alpha", "cmyk"):
        assert abs(stored[name][5, :, :] - [255, 0, 0]).max() <= 6, name
        assert abs(stored[name][-5, :, :] - [0, 0, 255]).max() <= 6, name
    assert (stored["clear"] == 255).all()  # transparent is white
    assert (abs(stored["deep"] - 127) <= 1).all()  # 16 bits are scaled, not clipped


@pytest.mark.parametrize(
    ("dtype", "values", "white"),
    [
        (np.uint16, (0, 200, 65535), 65535),  # a dark picture is as dark as among others
        (np.int32, (0, 200, 65535), 65535),
        (np.float32, (0, 0.5, 1), 1),
        (np.float32, (0, 0.5, 200), 255),
        (np.int32, (0, 1, 70000), None),
        (np.int32, (0, 1, -1), None),
        (np.float32, (0, 1, 300), None),
        (np.float32, (0, 1, np.nan), None),
    ],
)
def test_deep_pictures_have_one_scale(tmp_path, dtype, values, white):
    """Each value fills a picture: what is white is of the mode, and of all pictures for floats."""
    from PIL import Image

    folder = tmp_path / "p"
    for k in range(24):
        path = folder / "ab"[k % 2] / f"{k:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), values[k % 3], dtype)).save(path)
    if white is None:
        assert refused(folder, None).kind == "bad_values"
        return
    order = sorted(range(24), key=lambda k: (k % 2, k))
    expected = [round(255 * values[k % 3] / white) for k in order]
    assert opened(folder, None).x[:, 0, 0, 0].tolist() == expected
    plan = {"kind": "image", "shape": [8, 8, 1], "scale": 1 / 255}
    assert read_inputs(folder, plan)[0][np.arange(24)][:, 0, 0, 0].tolist() == expected


def test_pictures_for_prediction_take_the_shape_of_training(tmp_path):
    folder = build.write_pictures(tmp_path / "p", size=20)
    plan = {"kind": "image", "shape": [10, 12, 3], "scale": 1 / 255}
    images = read_inputs(folder, plan)[0][np.arange(28)]
    assert images.shape == (28, 10, 12, 3)
    assert preprocess.apply(plan, images).dtype == np.float32


@pytest.mark.parametrize("settings", [{}, {"size": "24"}, {"size": 100}])
def test_training_and_prediction_decode_pictures_alike(tmp_path, settings):
    """Of unequal sizes, with and without --set size: the bytes that the model learns from are those
    it is asked about, decoded once from the original, also of a run that is taken up again."""
    from zoo.registry import models
    from zoo.train.preparing import prepare

    folder = build.write_pictures(tmp_path / "p", size=80)
    build.write_pictures(tmp_path / "q", size=130, seed=1)
    for path in (tmp_path / "q" / "dark").iterdir():
        path.rename(folder / "dark" / f"large {path.name}")
    session = prepare(models().get("cnn"), Request(str(folder)), settings=settings, seed=0,
                      deterministic=False)  # fmt: skip
    rows = np.arange(len(session.data.y))
    side = int(settings.get("size", COMMON_SIZE))
    assert session.config["shape"] == (side, side, 1)
    own = read_inputs(folder, session.plan)[0][rows]
    np.testing.assert_array_equal(session.data.take(rows), own)
    again = open_data(Request.parse(session.request.document()))
    np.testing.assert_array_equal(again.take(rows), own)


# Splits -------------------------------------------------------------------------------------------


def test_splits_are_whole_and_in_proportion(judged):
    rows = np.concatenate(list(judged.parts.values()))
    assert np.sort(rows).tolist() == list(range(1500))
    assert [len(judged.parts[part]) for part in ("train", "val", "test")] == [1050, 225, 225]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_splits_are_stratified_by_label_and_groups(write, part):
    rng = np.random.default_rng(0)
    frame = table(
        4000, rare=rng.choice(["a", "b"], 4000, p=[0.02, 0.98]), age=rng.integers(18, 80, 4000)
    )
    data = opened(write(frame), sensitive=("sex", "rare", "age"))
    share = {"train": 0.7, "val": 0.15, "test": 0.15}[part]
    inside = data.parts[part]
    for values in (data.y, *data.groups.values()):
        for value in np.unique(values):
            there = (values == value).sum()
            got = (values[inside] == value).sum()
            # each stratum (label x sex x rare x quarter of age) is off by less than one row
            assert abs(got - share * there) <= 32 / 2, (part, value)
    label = data.y == 1
    assert abs(label[inside].sum() - share * label.sum()) <= 1  # contiguous, so within rounding


def test_the_split_is_of_the_data_and_the_split_seed_alone(write):
    path = write(table())
    first = opened(path).parts
    again = opened(path).parts
    other = opened(path, split_seed=1).parts
    for part in first:
        np.testing.assert_array_equal(first[part], again[part])
    assert not np.array_equal(first["test"], other["test"])
    assert not hasattr(Request, "seed")  # --seed can't reach the split


def test_the_split_is_the_same_in_another_process(write):
    path = write(table(sex=np.resize(["f", "m", "é"], 200)))
    code = (
        "import sys, json\nfrom zoo.data.core import Request, open_data\n"
        "data = open_data(Request(sys.argv[1], target='y', sensitive=('sex', 'word')))\n"
        "print(json.dumps({k: v.tolist() for k, v in data.parts.items()}))"
    )
    here = opened(path, sensitive=("sex", "word")).parts
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {part: rows.tolist() for part, rows in here.items()}


def test_a_split_column_is_obeyed(write):
    said = np.resize(["Train", "train ", "TEST", "valid"], 200)
    data = opened(write(table(split=said)))
    assert data.parts["test"].tolist() == list(range(2, 200, 4))
    assert data.parts["val"].tolist() == list(range(3, 200, 4))
    assert "split" not in data.x.columns


def test_validation_is_carved_from_given_training_rows(write):
    said = np.where(np.arange(400) % 4 == 0, "test", "train")
    data = opened(write(table(400, fold=said)), split="fold")
    assert data.parts["test"].tolist() == list(range(0, 400, 4))
    assert len(data.parts["val"]) == 45  # 15 % of 300
    assert not set(data.parts["val"]) & set(data.parts["train"])


def test_another_column_called_split_is_an_input(write):
    data = opened(write(table(split=np.resize(["left", "right"], 200))))
    assert "split" in data.x.columns
    assert any("ordinary" in note for note in data.notes)


# Preprocessing ------------------------------------------------------------------------------------


@pytest.fixture
def halves():
    """A frame of which ``split`` sends the first rows to the training split."""
    inputs = build.columns(400)
    del inputs["split"]
    frame = pd.DataFrame({name.strip() or "row": cells for name, cells in inputs.items()})
    frame["y"] = build.labels("words", inputs)
    frame["split"] = np.repeat(["train", "val", "test"], [280, 20, 100])
    return frame


def test_the_plan_is_a_function_of_the_training_rows(halves, write):
    plans = []
    for changed in (False, True):
        if changed:
            late = halves["split"] != "train"
            for name in halves.columns.drop(["y", "split"]):
                halves.loc[late, name] = "something else"
        data = opened(write(halves))
        plans.append((data.columns, preprocess.fit(data, {})))
    assert plans[0] == plans[1]


def test_a_plan_survives_json(judged):
    plan = preprocess.fit(judged, {})
    again = json.loads(json.dumps(plan, allow_nan=False))
    one, two = (preprocess.apply(p, judged.x) for p in (plan, again))
    assert one.tobytes() == two.tobytes()


def test_the_encoding_is_finite_float32(judged):
    encoded = preprocess.apply(preprocess.fit(judged, {}), judged.x)
    assert encoded.dtype == np.float32
    assert np.isfinite(encoded).all()
    assert np.abs(encoded).max() <= 10


def slot(plan: dict, name: str) -> tuple[dict, slice]:
    (column,) = (column for column in plan["columns"] if column["name"] == name)
    return column, slice(column["start"], column["stop"])


def test_numbers_are_encoded_as_worked_by_hand(write):
    """Train 0, 1, 2, 3 (mean 1.5, deviation sqrt(1.25)): one edge, the median."""
    frame = pd.DataFrame(
        {"v": np.resize([0, 1, 2, 3], 80), "y": np.resize(["a", "b", "b", "a"], 80)}
    )
    frame["split"] = np.resize(np.repeat(["train", "val", "train", "test"], 4), 80)
    data = opened(write(frame))
    plan = preprocess.fit(data, {"bins": 4})
    column, _ = slot(plan, "v")
    assert (column["mean"], column["scale"]) == (1.5, 1.25**0.5)
    assert column["edges"] == [1.5]
    values = pd.DataFrame({"v": [0.0, 1.5, 2.25, 9.0, np.nan]})
    expected = [
        [-1.5 / 1.25**0.5, 0],
        [0, 0],
        [0.75 / 1.25**0.5, 0.5],
        [7.5 / 1.25**0.5, 1],
        [0, 0],
    ]
    np.testing.assert_allclose(preprocess.apply(plan, values), expected, rtol=1e-6)


def test_missing_and_unseen_cells(judged):
    plan = preprocess.fit(judged, {})
    row = judged.x.iloc[judged.parts["train"][:1]].copy()
    amount, cells = slot(plan, build.NAMES["amount"])
    assert amount["missing"]
    for gone in (np.nan, np.inf, -np.inf):
        found = preprocess.apply(plan, pd.concat([row, row.assign(**{amount["name"]: gone})]))
        assert found[1, cells].tolist() == [0.0] * (cells.stop - cells.start - 1) + [1.0]
        assert found[0, cells][-1] == 0
    _, cells = slot(plan, CITY)
    assert (preprocess.apply(plan, row.assign(**{CITY: "Atlantis"}))[0, cells] == 0).all()
    known = preprocess.apply(plan, row)[0, cells]
    assert sorted(known.tolist()) == [0, 0, 0, 0, 1]


def test_rare_categories_share_a_slot(write):
    words = [f"w{k % 50}" for k in range(800)] + [f"seldom{k // 2}" for k in range(400)]
    data = opened(write(table(1200, many=words)))
    plan = preprocess.fit(data, {})
    column, cells = slot(plan, "many")
    assert column["other"]
    assert cells.stop - cells.start == preprocess.MAX_CATEGORIES + 1
    encoded = preprocess.apply(plan, data.x.iloc[:1].assign(many="never seen"))[0, cells]
    assert encoded[-1] == encoded.sum() == 1


def test_categories_of_digits_stay_text_in_prediction(tmp_path, write):
    """Codes such as 01 among others: a file that holds digits alone must not turn them into 1."""
    data = opened(
        write(
            table(
                code=np.resize(["01", "02", "1", "A"], 200), flag=np.resize(["TRUE", "maybe"], 200)
            )
        )
    )
    plan = preprocess.fit(data, {})
    fresh = data.x.iloc[:40].assign(code=np.resize(["01", "1"], 40), flag="TRUE")
    fresh.to_csv(tmp_path / "new.csv", index=False)
    read, _ = read_inputs(tmp_path / "new.csv", plan)
    np.testing.assert_array_equal(preprocess.apply(plan, read), preprocess.apply(plan, fresh))
    _, cells = slot(plan, "code")
    assert (preprocess.apply(plan, read)[:, cells].sum(axis=1) == 1).all()


def test_order_and_excess_of_columns_do_not_matter(judged):
    plan = preprocess.fit(judged, {})
    shuffled = judged.x[judged.x.columns[::-1]].assign(more=1)
    assert preprocess.apply(plan, shuffled).tobytes() == preprocess.apply(plan, judged.x).tobytes()


def test_lacking_and_unfit_columns_are_named(judged):
    plan = preprocess.fit(judged, {})
    with pytest.raises(ZooError, match=f"lacks '{CITY}'") as caught:
        preprocess.apply(plan, judged.x.rename(columns={CITY: "citta"}))
    check_message(caught.value)
    assert "citta" in caught.value.hint
    with pytest.raises(ZooError, match="holds no numbers") as caught:
        preprocess.apply(plan, judged.x.assign(**{build.NAMES["amount"]: "lots"}))
    check_message(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        [0.1, 0.7, 1e300],
        [-1.7e308, 1.7e308, 0],
        [1e-300, 3e-300, 2e-300],
        [5e-324, 1e-323, 0],
        [1e9, 1e9 + 1, 1e9 + 2],
    ],
)
def test_scale_agrees_with_exact_arithmetic(values):
    mean, scale = preprocess._mean_and_scale(np.array(values, dtype=np.float64))
    exact = [Fraction(value) for value in values]
    middle = sum(exact) / len(exact)
    variance = sum((value - middle) ** 2 for value in exact) / len(exact)
    spread = max(abs(value) for value in exact)
    assert abs(Fraction(mean) - middle) <= spread * Fraction(1, 10**12)
    tolerance = Fraction(1, 10**5) if max(values) > 1e-320 else Fraction(2)
    assert abs(Fraction(scale) ** 2 - variance) <= variance * tolerance


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz", "a.csv.gz", "a.tsv"])
def test_empty_and_random_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert refused(path).kind == "empty_file"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert refused(path).kind == "unreadable_file"


@pytest.mark.parametrize("name", ["a.parquet", "a.npz", "a.csv.gz"])
def test_truncated_files(tmp_path, name):
    path, frame = tmp_path / name, table()
    if name.endswith("parquet"):
        frame.to_parquet(path)
    elif name.endswith("npz"):
        np.savez(path, x=np.zeros((50, 3)), y=np.arange(50) % 2)
    else:
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(path).kind == "unreadable_file"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"a,b,y\n", "empty_file"),
        (b"\n\n\n", "unreadable_file"),
        (b"only\n1\n2\n", "unreadable_file"),
        (b"a,y\n1,2\n1,2,3\n", "unreadable_file"),
        (b'a,y\n"1,2\n', "unreadable_file"),
        (b"a,a ,y\n1,2,3\n", "duplicate_column"),
        (b"caf\xe9,y\n1,2\n", "unreadable_file"),
        ("a,y\n1,2\n".encode("utf-16"), "unreadable_file"),
    ],
)
def test_malformed_csv(tmp_path, content, kind):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert refused(path).kind == kind


LINES = [f"{k},{k % 7},{'ab'[k % 2]}" for k in range(60)]


@pytest.mark.parametrize("large_file", [False, True])
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [f"row {k},{line}" for k, line in enumerate(lines)], 2),  # R's write.table
        (lambda lines: [f"row {k},{line},NA" for k, line in enumerate(lines)], 2),
        (lambda lines: [*lines[:40], "40,x,5,a", *lines[41:]], 42),
        (lambda lines: [*lines[:59], '59,"3\n4",a,b,c'], 62),
        (lambda lines: [lines[0] + ",surplus", *lines[1:]], 2),
        (lambda lines: [f"{line}," for line in lines], None),
        (lambda lines: [f"{line},,,  ," for line in lines], None),
        (lambda lines: [*lines[:40], lines[40] + ", ", *lines[41:]], None),
    ],
)
def test_rows_with_more_cells_than_the_header(tmp_path, monkeypatch, change, line, large_file):
    monkeypatch.setattr(large, "CHUNK", 25)
    monkeypatch.setattr(shards, "LARGE", 0 if large_file else 10**9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["n,m,y", *change(LINES)]) + "\n")
    if line is not None:
        error = refused(path)
        assert (error.kind, f"cells in line {line} than" in error.message) == (
            "unreadable_file",
            True,
        )
        return
    data = opened(path)
    assert list(data.x.columns) == ["n", "m"]
    assert data.x["m"].tolist() == [k % 7 for k in range(60)]
    assert data.classes == ("a", "b")


def test_files_for_folders_and_folders_for_files(tmp_path):
    (tmp_path / "a.csv").mkdir()
    assert "no pictures" in refused(tmp_path / "a.csv").message
    (tmp_path / "plain").write_text("hello")
    refused(tmp_path / "plain")
    assert refused(tmp_path / "gone.csv").kind == "missing_file"
    os.mkfifo(tmp_path / "pipe.csv")
    assert refused(tmp_path / "pipe.csv").kind == "unreadable_file"


@pytest.mark.parametrize(
    ("frame", "asked", "words"),
    [
        (table(y="one"), {}, "single class"),
        (table(y=2.5), {"task": "regression"}, "constant"),
        (table(y=np.where(np.arange(200) == 7, None, "a")), {}, "missing in 1 of 200"),
        (table(y=np.where(np.arange(200) == 7, np.nan, 0.5)), {}, "data row 8"),
        (table(y=np.arange(200) * 1e30), {}, "too large"),
        (table(y=np.where(np.arange(200) == 7, np.inf, np.arange(200))), {}, "infinite in 1 of 200 rows"),
        (table(1100, y=[f"label {k}" for k in range(1100)]), {}, "too many classes"),
        (table(1100, y=[*range(1099), "n/k"]), {}, "numbers but for 'n/k'"),
        (table(y=np.resize([1, 2, 3], 200)), {"task": "binary"}, "at most 2 classes"),
        (table(), {"task": "regression"}, "not numeric"),
        (table(), {"task": "forecast"}, "Unknown task"),
        (table(), {"positive": "Yes"}, "Did you mean yes"),
        (table(), {"target": "Y "}, "Did you mean y"),
        (table(), {"target": None}, "--target"),
        (table(), {"sensitive": ("gender",)}, "Unknown column 'gender'"),
        (table(), {"sensitive": ("y",)}, "can't be a sensitive"),
        (table(s=np.resize(["train", "test"], 200)), {"split": "s", "sensitive": ("s",)}, "sensitive"),
        (table(), {"split": "y"}, "can't say which rows"),
        (table(), {"split": "part"}, "Unknown column 'part'"),
        (table(sex=["x", *["f"] * 199]), {"sensitive": ("sex",)}, "single row: 'x'"),
        (table(sex=np.resize([f"g{k}" for k in range(MAX_GROUPS + 1)], 202)[:200].tolist()), {"sensitive": ("word",)}, None),
        (table(19), {}, "too few rows"),
        (table(part=np.resize(["train", "fold 2"], 200)), {"split": "part"}, "'fold 2'"),
        (table(part=np.resize(["train", None, "test"], 200)), {"split": "part"}, "'(missing)'"),
        (table(part="train"), {"split": "part"}, "leaves test without rows"),
        (table(part=np.resize(["test", "val"], 200)), {"split": "part"}, "leaves train"),
        (table(y=np.where(np.arange(200) < 3, "rare", "a"), part=np.where(np.arange(200) < 50, "test", "train")), {"split": "part"}, "no training rows: rare"),
        (pd.DataFrame({"c": ["x"] * 50, "n": [f"person {k}" for k in range(50)], "y": np.resize([0, 1], 50)}), {}, "c: always 'x'"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(write, frame, asked, words):
    path = write(frame)
    if words is None:
        assert len(opened(path, **asked).y) == 200
        return
    error = refused(path, **{"target": "y", **asked})
    assert words in str(error), str(error)


def test_the_number_of_classes_and_groups_is_bounded(write):
    frame = table(4 * (MAX_CLASSES + 1))
    ids = np.arange(len(frame)) % (MAX_CLASSES + 1)
    assert refused(write(frame.assign(y=ids)), task="multiclass").kind == "too_many_classes"
    site = [f"site {k % (MAX_GROUPS + 1)}" for k in range(len(frame))]
    assert refused(write(frame.assign(site=site)), sensitive=("site",)).kind == "too_many_groups"


def test_groups_of_one_row_can_be_merged(write):
    path = write(table(sex=["x", "z", *["f"] * 198]))
    data = opened(path, sensitive=("sex",), rare_groups="merge")
    assert dict(zip(*np.unique(data.groups["sex"], return_counts=True), strict=True)) == {
        "(other)": 2,
        "f": 198,
    }


def test_a_group_only_in_test_is_kept(write):
    part = np.where(np.arange(200) < 40, "test", "train")
    data = opened(
        write(table(sex=np.where(part == "test", "x", "f"), part=part)),
        split="part",
        sensitive=("sex",),
    )
    assert set(data.groups["sex"][data.parts["test"]]) == {"x"}
    assert set(data.groups["sex"][data.parts["train"]]) == {"f"}


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_are_refused_and_never_opened(tmp_path):
    trap = Trap(tmp_path / "sprung")
    np.savez(tmp_path / "a.npz", x=np.array([trap] * 30, dtype=object), y=np.arange(30) % 2)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(trap))
    for name in ("a.npz", "b.npz"):
        refused(tmp_path / name, None)
    assert not (tmp_path / "sprung").exists()


BAD_ARRAYS = {
    "labels too short": ({"x": np.zeros((30, 2)), "y": np.zeros(29)}, "don't fit"),
    "split too long": ({"x": np.zeros((30, 2)), "y": np.arange(30), "split": np.array(["train"] * 31)}, "don't fit"),
    "one-hot labels": ({"x": np.zeros((30, 2)), "y": np.zeros((30, 2))}, "don't fit"),
    "a single number": ({"x": np.array(3), "y": np.zeros(3)}, "don't fit"),
    "no inputs": ({"inputs": np.zeros((30, 2)), "y": np.zeros(30)}, "x"),
    "no labels": ({"x": np.zeros((30, 2))}, "labels or y"),
    "complex": ({"x": np.zeros((30, 2), complex), "y": np.arange(30) % 2}, "complex128"),
    "NaN pictures": ({"images": np.full((30, 4, 4), np.nan), "labels": np.arange(30) % 2}, "not finite"),
    "bright pictures": ({"images": np.full((30, 4, 4), 256), "labels": np.arange(30) % 2}, "256"),
    "no rows": ({"images": np.zeros((0, 4, 4)), "labels": np.zeros(0)}, "no pictures"),
    "five dimensions": ({"x": np.zeros((30, 2, 2, 2, 2)), "y": np.arange(30) % 2}, "no pictures"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_cannot_be_used(tmp_path, name):
    arrays, words = BAD_ARRAYS[name]
    np.savez(tmp_path / "a.npz", **arrays)
    assert words in str(refused(tmp_path / "a.npz", None))


def test_picture_folders_that_cannot_be_used(tmp_path):
    from PIL import Image

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pictures" in refused(empty, None).message
    flat = build.write_pictures(tmp_path / "flat")
    for path in (flat / "dark").iterdir():
        path.rename(flat / path.name)
    assert "14 pictures lie directly" in refused(flat, None).message
    assert "--target" in str(refused(flat, "class of"))
    single = build.write_pictures(tmp_path / "single", each=30)
    for path in (single / "light").iterdir():
        path.unlink()
    assert refused(single, None).kind == "single_class"
    broken = build.write_pictures(tmp_path / "broken")
    (broken / "dark" / "03.png").write_bytes(b"<html>")
    assert "03.png" in refused(broken, None).message
    whole = (broken / "dark" / "04.png").read_bytes()
    (broken / "dark" / "03.png").write_bytes(whole[:-40])
    assert "03.png" in refused(broken, None).message
    bomb = build.write_pictures(tmp_path / "bomb")
    Image.new("1", (8_000, 8_000)).save(bomb / "dark" / "bomb.png")
    assert "8,000 x 8,000" in str(refused(bomb, None))


def test_links_out_of_a_picture_folder_are_refused(tmp_path):
    folder = build.write_pictures(tmp_path / "p")
    elsewhere = build.write_pictures(tmp_path / "elsewhere")
    (folder / "dark" / "inside.png").symlink_to(folder / "dark" / "00.png")
    assert len(opened(folder, None).y) == 29
    for name, there in (("a.png", elsewhere / "dark" / "00.png"), ("b", elsewhere / "dark")):
        (folder / "dark" / name).symlink_to(there)
        assert refused(folder, None).kind == "outside_link"
        (folder / "dark" / name).unlink()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["name,site", "dark/00.png,x"], "'file_name'"),
        (["file_name,site", "dark/99.png,x"], "dark/99.png"),
        (["file_name,site", "dark/00.png,x", "dark/00.png,y"], "twice"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path, lines, words):
    folder = build.write_pictures(tmp_path / "p")
    (folder / "metadata.csv").write_text("\n".join(lines))
    assert words in str(refused(folder, None))


def test_changed_data_are_named(write):
    path = write(table())
    sha256 = opened(path).sha256
    path.write_text("something else")
    with pytest.raises(ZooError, match="has changed since") as caught:
        open_data(Request(str(path), target="y"), sha256=sha256)
    check_message(caught.value)
    assert caught.value.kind == "data_changed"


def test_files_that_are_not_read_do_not_change_a_folder(tmp_path):
    folder = build.write_pictures(tmp_path / "p")
    (folder / "metadata.csv").write_text("file_name,site\ndark/00.png,n\ndark/01.png,n\n")
    before = opened(folder, None)
    assert before.sha256 == sha256_file(folder)  # nothing but what is read: as it always was
    for name in (".DS_Store", "dark/notes.txt", "runs/a/run.json", ".cache/x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    after = open_data(Request(str(folder)), before.sha256)
    assert after.sha256 == before.sha256
    assert after.parts["test"].tolist() == before.parts["test"].tolist()
    (folder / ".cache" / "x.png").unlink()
    legacy = sha256_file(folder)  # of a run from before: its split hangs on it
    assert open_data(Request(str(folder)), legacy).sha256 == legacy
    for name in ("metadata.csv", "dark/00.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b"\n")
        with pytest.raises(ZooError, match="has changed since"):
            open_data(Request(str(folder)), before.sha256)
        (folder / name).write_bytes(content)
    assert open_data(Request(str(folder)), before.sha256).sha256 == before.sha256


# The whole way ------------------------------------------------------------------------------------


def run(*words: object) -> tuple[int, dict]:
    """A command in this process: exit code, and the JSON document it printed."""
    from zoo.cli import main

    out = io.StringIO()
    with pytest.raises(SystemExit) as stop, contextlib.redirect_stdout(out):
        main([*map(str, words), "--json"])
    return int(stop.value.code or 0), json.loads(out.getvalue())


@pytest.mark.parametrize("kind", ["words", "three words", "values"])
def test_a_strangers_table_through_every_command(nasty, tmp_path, kind):
    runs = ("--runs", tmp_path / "runs")
    sensitive = f'{SEX},"{AGE}","the ""colour"""'
    code, trained = run("train", "mlp", "--data", nasty[kind], "--target", "the target?",
                        "--sensitive", sensitive, "--epochs", 2, *runs)  # fmt: skip
    assert code == 0
    classes = TARGETS[kind][1]
    assert all(value is not None for value in trained["metrics"].values())
    code, compressed = run("compress", "latest", "int8", *runs)
    assert code == 0
    assert compressed["results"][0]["error"] is None
    code, fair = run("fairness", "latest", *runs)
    assert code == 0
    (result,) = fair["results"]
    assert set(result["attributes"]) == {SEX, AGE, build.NAMES["colour"]}
    counted = result["attributes"][SEX]["groups"]
    assert sum(group["n"] for group in counted) == 225
    inputs = build.columns(50, seed=3)
    predicted = []
    for number, table in enumerate((inputs, dict(reversed(inputs.items())))):
        source = build.write_csv(tmp_path / f"new{number}.csv", table)
        output = tmp_path / f"said{number}.csv"
        code, _ = run("predict", "latest", source, "--output", output, *runs)
        assert code == 0
        predicted.append(output.read_bytes())
    assert predicted[0] == predicted[1]
    header, *lines = csv.reader(io.StringIO(predicted[0].decode()))
    assert header == ["row", "prediction", *(f"p({name})" for name in classes)]
    assert len(lines) == 50
    if classes:
        sums = [sum(map(float, line[2:])) for line in lines]
        assert sums == pytest.approx([1] * 50)
    del inputs[CITY]
    code, answer = run("predict", "latest", build.write_csv(tmp_path / "less.csv", inputs), *runs)
    assert code == 2
    assert CITY in answer["error"]["message"]


def test_two_classes_as_multiclass_agree_with_binary():
    """The baseline's probabilities are those of the same regression, in one column or in two."""
    from zoo.tasks import get_task
    from zoo.train.baseline import linear_model

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=80) > 0).astype(np.int64)
    found = []
    for name in ("binary", "multiclass"):
        task = get_task(name)
        logits = linear_model(task, x, y)(x)
        assert logits.shape == (80, task.outputs(2))
        found.append(task.decode(logits)[1])
    np.testing.assert_allclose(*found, rtol=1e-12)


def test_bad_input_leaves_no_run(tmp_path, write):
    path = write(table(y="one"))
    runs = tmp_path / "runs"
    code, answer = run("train", "mlp", "--data", path, "--target", "y", "--runs", runs)
    assert code == 2
    assert answer["error"]["kind"] == "single_class"
    assert not runs.exists() or not list(runs.iterdir())


def test_semicolons_commas_and_missing_numbers_as_r_writes_them(tmp_path):
    """write.csv2: NA is missing among numbers; a column with other words is as it is written."""
    cells = ["1,5", "NA", "3,5", "-2,25", "", "7"]
    rows = [
        f"{cells[k % 6]};{'abc' if k == 3 else cells[k % 6]};{'ja,nein'[k % 2 :]}"
        for k in range(120)
    ]
    path = tmp_path / "r.csv"
    path.write_text("\n".join(["x;stray;y", *rows]), encoding="utf-8")
    frame = read_frame(path)
    assert frame["x"].dtype == np.float64
    expected = [1.5, np.nan, 3.5, -2.25, np.nan, 7.0]
    np.testing.assert_array_equal(frame["x"].to_numpy()[:6], expected)
    assert frame["stray"][3] == "abc"
    assert frame["stray"][0] == "1,5"
    assert frame["y"][0] == "ja,nein"


def test_a_line_may_be_long(tmp_path):
    """A single cell to the separators that it does not have."""
    path = tmp_path / "wide.csv"
    names = ",".join(f"gene{k}" for k in range(20_000))
    path.write_text("\n".join([names, *[",".join(["0.125"] * 20_000)] * 3]), encoding="utf-8")
    assert read_frame(path).shape == (3, 20_000)
