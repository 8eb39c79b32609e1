"""Data sets of public collections: fetched once, kept in the user's cache as a file like one's own.

``keras:NAME`` is fetched by keras.datasets, ``openml:ID`` (or a name) by scikit-learn and
``tfds:NAME`` by TensorFlow Datasets, each of which takes what its own cache has. What becomes of it
is read, split and grouped as any file of the user's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.own import load_own
from zoo.data.shards import cache_folder, cached, manifest, whole
from zoo.data.table import Request, Table
from zoo.errors import FAILURE, ZooError, clip, unknown
from zoo.run import hash_of
from zoo.tasks import get_task

if TYPE_CHECKING:
    import pandas as pd

#: Where the cache keeps them; the number is that of the files' form, to be raised with it.
_KEY = ["online", 1]
#: What the file system says, and no network.
_OWN_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


@dataclass(frozen=True)
class Fetched:
    """What a collection's data set became: a file, and how it is to be read.

    ``targets`` are the columns that can be predicted unless another is asked for, none where the file's
    kind says it; ``task`` goes with them. ``inputs`` are all inputs where other columns are only
    attributes, ``split`` is the column of the collection's own split.
    """

    file: str
    source: str
    license: str = ""
    targets: tuple[str, ...] = ()
    task: str | None = None
    inputs: tuple[str, ...] = ()
    split: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collection:
    """Where data sets come from: ``fetch(name, folder)`` writes one; ``names`` is what they match."""

    fetch: Callable[[str, Path], Fetched]
    names: str
    example: str


def collection_of(data: str) -> str | None:
    """The collection that ``--data`` names, None where it is no data set of one."""
    name, colon, _ = data.partition(":")
    return name if colon and name in COLLECTIONS else None


def kept(data: str) -> Path:
    """The folder of the cache for a data set of a collection."""
    return cache_folder(_KEY, hash_of(data))


def load_online(request: Request, sha256: str | None = None) -> Table:
    """The table of a data set of a collection, from the cache or fetched into it.

    Raises :class:`ZooError` where it is neither there nor to be had.
    """
    collection, _, name = request.data.partition(":")
    if not re.fullmatch(COLLECTIONS[collection].names, name, re.ASCII):
        raise ZooError(
            f"{clip(repr(request.data), 80)} can't be the name of a data set.",
            expected=f"such as {COLLECTIONS[collection].example}",
            received=clip(repr(name), 80),
        )
    folder = kept(request.data)
    if not whole(folder):
        if request.offline:
            raise ZooError(
                f"{request.data} is not in the cache, and --offline forbids to fetch it.",
                expected="a data set that was fetched before, or one that comes with the zoo",
                received=request.data,
                hint="The same without --offline; `zoo data list` shows what needs no network.",
                kind="offline",
            )
        cached(_KEY, hash_of(request.data), lambda made: vars(_fetched(request.data, made)))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in manifest(folder).items()
        if name in Fetched.__dataclass_fields__
    }
    known = Fetched(**fields)
    texts_alone = request.task is not None and get_task(request.task).unit is not None
    own = replace(
        request,
        data=str(folder / known.file),
        target=request.target
        or (known.targets[0] if len(known.targets) == 1 and not texts_alone else None),
        split=request.split or known.split,
    )
    try:
        table = load_own(own, sha256)
    except ZooError as error:
        raise _about(error, own.data, request.data) from error
    notes = [*table.notes, *known.notes]
    if table.kind == "tabular":
        left = [name for name in table.x.columns if name not in request.sensitive
                and _is_no_input(name, known)]  # fmt: skip
        if left:
            table.x = table.x.drop(columns=left)
            notes.append(f"no inputs: {', '.join(map(repr, left))}")
    usual = request.target is None or request.target in known.targets
    return replace(
        table,
        source=known.source,
        license=known.license,
        notes=notes,
        task=known.task if usual and not texts_alone else table.task,
    )


def _is_no_input(name: str, known: Fetched) -> bool:
    beside = bool(known.inputs) and name not in known.inputs
    return beside or name in (*known.targets, known.split, _SPLIT)


def _about(error: ZooError, path: str, data: str) -> ZooError:
    """The same error, about the data set rather than its file in the cache."""

    def said(text: str | None) -> str | None:
        return text and text.replace(path, data).replace(str(Path(path).parent), data)

    return ZooError(
        said(error.message) or "", expected=said(error.expected), received=said(error.received),
        hint=said(error.hint), kind=error.kind, exit_code=error.exit_code, settings=error.settings,
    )  # fmt: skip


def _fetched(data: str, folder: Path) -> Fetched:
    collection, _, name = data.partition(":")
    try:
        # Progress bars of the libraries go where ours do, and --json has stdout to itself.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return COLLECTIONS[collection].fetch(name, folder)
    except (ZooError, MemoryError):
        raise
    except Exception as error:  # each library has classes of its own, beside those of the network
        if isinstance(error, OSError) and error.errno in _OWN_ERRORS:
            raise
        raise ZooError(
            f"{data} could not be fetched and read.",
            expected=f"a network, and a data set that {collection} has, such as {COLLECTIONS[collection].example}",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            hint="Own data is given as a path: --data ./file.csv --target COLUMN",
            kind="download_failed",
            exit_code=FAILURE,
        ) from error


# --- keras.datasets

_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
            "Ankle boot")  # fmt: skip
_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: Name of a module of keras.datasets -> names of its classes; where its documentation has none, numbers.
KERAS_PICTURES: dict[str, tuple[str, ...]] = {
    "mnist": _DIGITS, "fashion_mnist": _CLOTHES, "cifar10": _THINGS,
    "cifar100": tuple(f"{k:02d}" for k in range(100)),
}  # fmt: skip
KERAS_TEXTS: dict[str, tuple[str, ...]] = {"imdb": ("negative", "positive"), "reuters": ()}
KERAS_TABLES = ("california_housing", "boston_housing")
#: The numbers of Keras' texts: the first three are none of a word's, which are counted from there on.
_FIRST_WORD = 3


def _keras(name: str, folder: Path) -> Fetched:
    from zoo.backend import keras

    known = [*KERAS_PICTURES, *KERAS_TEXTS, *KERAS_TABLES]
    if name not in known:
        raise unknown("data set of keras.datasets", name, known)
    module = getattr(keras.datasets, name)
    (x, y), (x_test, y_test) = module.load_data()
    x, y = np.concatenate([x, x_test]), np.concatenate([y, y_test]).reshape(-1)
    split = np.repeat(["train", "test"], [len(x) - len(x_test), len(x_test)])
    source = f"keras.datasets.{name}"
    if name in KERAS_TEXTS:
        import pandas as pd

        words = {index + _FIRST_WORD: word for word, index in module.get_word_index().items()}
        texts = [" ".join(words[i] for i in ids if i in words) for ids in x]
        labels = KERAS_TEXTS[name] or module.get_label_names()
        frame = pd.DataFrame({"text": texts, "label": [labels[k] for k in y], "split": split})
        task = "binary" if len(labels) == 2 else "multiclass"
        return Fetched(_lines(frame, folder), source, targets=("label",), task=task,
                       inputs=("text",), split="split")  # fmt: skip
    if name in KERAS_TABLES:
        return Fetched(_arrays(folder, x=x, y=y, split=split), source, task="regression")
    if x.ndim == 4 and keras.config.image_data_format() == "channels_first":
        x = np.moveaxis(x, 1, -1)
    labels = np.array(KERAS_PICTURES[name])[y]
    file = _arrays(folder, images=x, labels=labels, split=split)
    return Fetched(file, source, task="multiclass")


# --- OpenML


def _openml(name: str, folder: Path) -> Fetched:
    from sklearn.datasets import fetch_openml

    asked: dict[str, Any] = {"data_id": int(name)} if name.isdecimal() else {"name": name}
    asked |= {"as_frame": True, "target_column": None}
    # The parser by pandas reads classes that are numbers as such ("01" as 1), and then fails on them.
    found = fetch_openml(**asked, parser="liac-arff")
    frame, details = found.frame, found.details
    told = (details.get("default_target_attribute") or "").split(",")
    targets = tuple(name for name in told if name in frame.columns)
    notes: tuple[str, ...] = ()
    task = None
    if len(targets) == 1:
        unlabelled = frame[targets[0]].isna()
        if unlabelled.any():
            notes = (f"{int(unlabelled.sum())} rows without {targets[0]!r} were left out",)
            frame = frame[~unlabelled]
        classes = frame[targets[0]].nunique()
        named = frame[targets[0]].dtype.name in ("category", "object", "str", "string")
        task = ("binary" if classes == 2 else "multiclass") if named else "regression"
    return Fetched(
        _lines(frame, folder),
        f"OpenML {details['id']}: {details['name']}, version {details['version']}",
        details.get("licence") or "",
        targets=targets,
        task=task,
        notes=notes,
    )


# --- TensorFlow Datasets

#: Its splits -> ours; others are not read: what they hold is often without labels.
TFDS_SPLITS = {"train": "train", "validation": "val", "test": "test"}
#: A feature of more numbers than this is no row of columns.
MOST_COLUMNS = 4096
_RECORDS, _PICTURE, _SPLIT = "data.tfrecord", "image/encoded", "tfds split"
_RESERVED = (_PICTURE, "image")  # what has a meaning of its own in the file


def _tfds(name: str, folder: Path) -> Fetched:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ZooError(
            "Data sets of TensorFlow Datasets need its package.",
            expected="tensorflow_datasets",
            received="an installation without it",
            hint="pip install 'glasszoo[tfds]'",
            kind="missing_extra",
        ) from None

    try:
        builder = tfds.builder(name)
    except tfds.core.DatasetNotFoundError as error:
        plain = re.split("[/:]", name)[0]
        if plain in tfds.list_builders():  # the configuration or the version is what is not there
            raise
        raise unknown("data set of TensorFlow Datasets", plain, tfds.list_builders()) from error
    builder.download_and_prepare()
    info = builder.info
    there = [part for part in TFDS_SPLITS if part in info.splits]
    taken = _Taken(dict(_flat(info.features)), info.supervised_keys)
    for missing, wanted in ((not there, f"a split of {', '.join(TFDS_SPLITS)}"),
                            (not taken.inputs, "pictures, texts or numbers to learn from")):  # fmt: skip
        if missing:
            raise ZooError(
                f"tfds:{name} has nothing that can be learnt from.",
                expected=wanted,
                received=f"splits {', '.join(info.splits)}; features {', '.join(info.features)}",
                kind="no_inputs",
            )
    pictures = [key for key, one in info.features.items() if isinstance(one, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in pictures}
    unlabelled, parts = 0, set()
    from zoo.backend import tf

    with tf.io.TFRecordWriter(str(folder / _RECORDS)) as writer:
        for part in there:
            stored = builder.as_dataset(split=part, decoders=decoders, shuffle_files=False)
            for row in tfds.as_numpy(stored):
                cells = taken.cells(row)
                if taken.target is not None and cells.get(taken.target) is None:
                    unlabelled += 1
                    continue
                parts.add(part)
                cells[_SPLIT] = TFDS_SPLITS[part]
                writer.write(_example(cells))
    notes = [f"{unlabelled} rows without {taken.target!r} were left out"] if unlabelled else []
    if taken.left:
        notes.append(f"features that are no numbers, texts or classes: {', '.join(taken.left)}")
    return Fetched(
        _RECORDS,
        f"TensorFlow Datasets: {info.full_name}",
        info.redistribution_info.license,
        targets=() if taken.target is None else (taken.target,),
        task=taken.task,
        inputs=() if taken.text is None else (taken.text,),
        split=_SPLIT if len(parts) > 1 else None,
        notes=tuple(notes),
    )


def _flat(features: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Features of TensorFlow Datasets by their paths ``a/b``."""
    for name, feature in features.items():
        if hasattr(feature, "items"):
            yield from _flat(feature, f"{above}{name}/")
        else:
            yield f"{above}{name}", feature


@dataclass
class _Taken:
    """Which features of a data set become cells, and what they are for."""

    features: dict[str, Any]
    keys: Any
    columns: dict[str, str] = field(default_factory=dict)  # path -> the column's name, or its start
    picture: str | None = None
    text: str | None = None
    target: str | None = None
    task: str | None = None
    left: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        import tensorflow_datasets as tfds

        kinds = tfds.features
        source, target = (
            key if isinstance(key, str) else None for key in (self.keys or (None, None))[:2]
        )
        pictures = [path for path, one in self.features.items()
                    if isinstance(one, kinds.Image) and "/" not in path]  # fmt: skip
        self.picture = next(
            (path for path in (source, "image") if path in pictures),
            pictures[0] if len(pictures) == 1 else None,
        )
        for path, one in self.features.items():
            if path == self.picture:
                continue
            shape = getattr(one, "shape", None)
            some = (
                isinstance(shape, tuple) and len(shape) == 1 and 0 < (shape[0] or 0) <= MOST_COLUMNS
            )
            if shape == () or (some and np.issubdtype(one.np_dtype, np.number)):
                self.columns[path] = f"{path}_" if path in _RESERVED else path
            else:
                self.left.append(path)
        classes = [
            path for path in self.columns if isinstance(self.features[path], kinds.ClassLabel)
        ]
        if target is None and len(classes) == 1:
            target = classes[0]
        if target in self.columns and target != source and self.features[target].shape == ():
            self.target = self.columns[target]
            if target in classes:
                self.task = "binary" if self.features[target].num_classes == 2 else "multiclass"
        if isinstance(self.features.get(source or ""), kinds.Text):
            self.text = self.columns[source or ""]

    @property
    def inputs(self) -> list[str]:
        """What can be learnt from."""
        columns = [name for name in self.columns.values() if name != self.target]
        return [_PICTURE] if self.picture else columns

    def cells(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row's cells: bytes, texts and numbers; missing ones are not there."""
        found: dict[str, Any] = {}
        for path, name in self.columns.items():
            feature, value = self.features[path], _reached(row, path)
            if hasattr(feature, "int2str"):  # a class
                found[name] = feature.int2str(int(value)) if value >= 0 else None
            elif np.ndim(value):
                found |= {f"{name}_{k}": number for k, number in enumerate(value.tolist())}
            else:
                found[name] = value if isinstance(value, bytes) else value.item()
        if self.picture is not None:
            found[_PICTURE] = bytes(row[self.picture])
        return {name: value for name, value in found.items() if value not in (None, b"", "")}


def _reached(row: Any, path: str) -> Any:
    for key in path.split("/"):
        row = row[key]
    return row


def _example(cells: Mapping[str, Any]) -> bytes:
    """A record of a TFRecord file."""
    from zoo.backend import tf

    def feature(value: Any) -> Any:
        if isinstance(value, (bytes, str)):
            content = value.encode() if isinstance(value, str) else value
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))

    features = tf.train.Features(feature={name: feature(value) for name, value in cells.items()})
    return tf.train.Example(features=features).SerializeToString(deterministic=True)


# --- what is written


def _lines(frame: pd.DataFrame, folder: Path) -> str:
    """A table as JSON lines, which keep what is a number and what a text, and are alike on all machines."""
    columns = [str(name) for name in frame.columns]
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for start in range(0, len(frame), 10_000):
            some = frame.iloc[start : start + 10_000]
            plain = [
                one.astype(object).where(one.notna(), None).tolist() for _, one in some.items()
            ]
            for row in zip(*plain, strict=True):
                cells = dict(zip(columns, row, strict=True))
                file.write(json.dumps(cells, ensure_ascii=False, default=str) + "\n")
    return "data.jsonl"


def _arrays(folder: Path, **arrays: np.ndarray) -> str:
    """Arrays, not compressed: what comes of that differs between versions of the library."""
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return "data.npz"


COLLECTIONS = {
    "keras": Collection(_keras, r"[a-z0-9_]{1,60}", "keras:fashion_mnist"),
    "openml": Collection(_openml, r"[A-Za-z0-9_.()+-]{1,120}", "openml:31"),
    "tfds": Collection(
        _tfds, r"[a-z0-9_]{1,80}(/[A-Za-z0-9_.+-]{1,80})?(:\d+\.\d+\.\d+)?", "tfds:penguins"
    ),
}
