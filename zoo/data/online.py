"""Data sets of public collections: fetched once, kept in the user's cache as a file like one's own.

``keras:NAME`` is fetched by keras.datasets, ``openml:ID`` (or a name) by scikit-learn and
``tfds:NAME`` by TensorFlow Datasets, each of which checks it against its collection's checksums and
takes what its own cache has. What becomes of it is read, split and grouped as any file of the user's.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.own import load_own
from zoo.data.shards import cache_folder, cached, manifest, whole
from zoo.data.table import Request, Table
from zoo.errors import FAILURE, ZooError, unknown
from zoo.run import hash_of, write_arrays

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Collection:
    """Where data sets come from: ``fetch(name, folder)`` writes one, and says what it wrote.

    That is ``{file, target, source, license}``: the file or folder's name, the column that is predicted
    unless another is asked for (None where the file's kind says it), and where it is from.
    """

    fetch: Callable[[str, Path], dict[str, Any]]
    example: str


_KEY = ["online"]


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
    if request.offline and not whole(kept(request.data)):
        raise ZooError(
            f"{request.data} is not in the cache, and --offline forbids to fetch it.",
            expected="a data set that was fetched before, or one that comes with the zoo",
            received=request.data,
            hint="The same without --offline; `zoo data list` shows what needs no network.",
            kind="offline",
        )
    folder = cached(_KEY, hash_of(request.data), lambda made: _fetched(request.data, made))
    known = manifest(folder)
    own = replace(
        request, data=str(folder / known["file"]), target=request.target or known["target"]
    )
    table = load_own(own, sha256)
    return replace(table, source=known["source"], license=known["license"])


def _fetched(data: str, folder: Path) -> dict[str, Any]:
    collection, _, name = data.partition(":")
    try:
        # Progress bars of the libraries go where ours do, and --json has stdout to itself.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return COLLECTIONS[collection].fetch(name, folder)
    except ZooError:
        raise
    except Exception as error:  # each library has classes of its own, beside those of the network
        raise ZooError(
            f"{data} could not be fetched.",
            expected=f"a data set of {collection}, such as {COLLECTIONS[collection].example}, and a network",
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

#: Name of a module of keras.datasets -> names of its classes, where its documentation has them.
KERAS_PICTURES: dict[str, tuple[str, ...]] = {
    "mnist": _DIGITS, "fashion_mnist": _CLOTHES, "cifar10": _THINGS, "cifar100": (),
}  # fmt: skip
KERAS_TEXTS: dict[str, tuple[str, ...]] = {"imdb": ("negative", "positive"), "reuters": ()}
KERAS_TABLES = ("california_housing", "boston_housing")
#: The numbers of Keras' texts: the first three are none of a word's, which are counted from there on.
_FIRST_WORD = 3


def _keras(name: str, folder: Path) -> dict[str, Any]:
    from zoo.backend import keras

    known = [*KERAS_PICTURES, *KERAS_TEXTS, *KERAS_TABLES]
    if name not in known:
        raise unknown("data set of keras.datasets", name, known)
    module = getattr(keras.datasets, name)
    (x, y), (x_test, y_test) = module.load_data()
    x, y = np.concatenate([x, x_test]), np.concatenate([y, y_test]).reshape(-1)
    split = np.repeat(["train", "test"], [len(x) - len(x_test), len(x_test)])
    said = {"source": f"keras.datasets.{name}", "license": ""}
    if name in KERAS_TEXTS:
        words = {index + _FIRST_WORD: word for word, index in module.get_word_index().items()}
        texts = [" ".join(words[i] for i in ids if i in words) for ids in x]
        labels = KERAS_TEXTS[name] or module.get_label_names()
        rows = {"text": texts, "label": [labels[k] for k in y], "split": split}
        return _written(_frame(rows), folder, "label", said)
    if name in KERAS_TABLES:
        return _arrays({"x": x, "y": y, "split": split}, folder, said)
    classes = KERAS_PICTURES[name]
    labels = np.array(classes)[y] if classes else y
    return _arrays({"images": x, "labels": labels, "split": split}, folder, said)


# --- OpenML


def _openml(name: str, folder: Path) -> dict[str, Any]:
    from sklearn.datasets import fetch_openml

    asked = {"data_id": int(name)} if name.isdecimal() else {"name": name}
    # Its parser by pandas reads classes that are numbers as such ("01" as 1), and then fails on them.
    found = fetch_openml(**asked, as_frame=True, parser="liac-arff")
    details, targets = found.details, found.target_names
    said = {
        "source": f"OpenML {details['id']}: {details['name']}, version {details['version']}",
        "license": details.get("licence") or "",
    }
    return _written(found.frame, folder, targets[0] if len(targets) == 1 else None, said)


# --- TensorFlow Datasets

#: Its splits -> ours; others are not read: what they hold is often without labels.
TFDS_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def _tfds(name: str, folder: Path) -> dict[str, Any]:
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

    builder = tfds.builder(name)
    builder.download_and_prepare()
    info = builder.info
    keys = info.supervised_keys or (None, None)
    source, target = (key if isinstance(key, str) else None for key in keys[:2])
    there = [part for part in TFDS_SPLITS if part in info.splits]
    if not there:
        raise ZooError(
            f"tfds:{name} has no split that can be used.",
            expected=", ".join(TFDS_SPLITS),
            received=", ".join(info.splits),
        )
    said = {
        "source": f"TensorFlow Datasets: {info.full_name}",
        "license": info.redistribution_info.license,
    }
    features = dict(info.features.items())
    scalars = {key: f for key, f in features.items() if key != source and not f.shape}
    pictures = source is not None and isinstance(features[source], tfds.features.Image)
    if isinstance(features.get(source), tfds.features.Text):
        scalars = {key: f for key, f in scalars.items() if key == target}
    if source is not None and not pictures and not features[source].shape:
        scalars = {source: features[source], **scalars}
    rows: dict[str, list[Any]] = {key: [] for key in [*scalars, "split"]}
    seen = _Pictures(folder, fixed=pictures and None not in features[source].shape)
    decoders = {source: tfds.decode.SkipDecoding()} if pictures and not seen.fixed else None
    for part in there:
        stored = builder.as_dataset(split=part, decoders=decoders, shuffle_files=False)
        for row in tfds.as_numpy(stored):
            for key, feature in scalars.items():
                rows[key].append(_cell(feature, row[key]))
            rows["split"].append(TFDS_SPLITS[part])
            if pictures:
                seen.add(row[source])
    if len(there) == 1:
        del rows["split"]
    if not pictures:
        return _written(_frame(rows), folder, target, said)
    if target not in rows:
        raise ZooError(
            f"The pictures of tfds:{name} have no label.",
            expected="a data set with supervised keys (picture, label)",
            received=f"features {', '.join(features)}",
        )
    return seen.written(rows, target, said)


class _Pictures:
    """Pictures as they come: arrays of one shape, or encoded files of any."""

    def __init__(self, folder: Path, fixed: bool) -> None:
        self.folder, self.fixed = folder, fixed
        self.arrays: list[np.ndarray] = []
        self.names: list[str] = []

    def add(self, picture: Any) -> None:
        if self.fixed:
            self.arrays.append(picture)
            return
        content = bytes(picture)
        ending = "png" if content.startswith(b"\x89PNG") else "jpg"
        self.names.append(f"{len(self.names):07d}.{ending}")
        (self.folder / self.names[-1]).write_bytes(content)

    def written(
        self, rows: dict[str, list[Any]], target: str, said: dict[str, Any]
    ) -> dict[str, Any]:
        if self.fixed:
            beside = {f"group_{key}": values for key, values in rows.items()
                      if key not in (target, "split")}  # fmt: skip
            parts = {"split": rows["split"]} if "split" in rows else {}
            arrays = {"images": np.stack(self.arrays), "labels": rows[target], **parts, **beside}
            return _arrays({key: np.asarray(a) for key, a in arrays.items()}, self.folder, said)
        _frame({"file_name": self.names, **rows}).to_csv(self.folder / "metadata.csv", index=False)
        return {"file": ".", "target": target, **said}


def _cell(feature: Any, value: Any) -> Any:
    """One number or text of a row of TensorFlow Datasets."""
    if hasattr(feature, "int2str"):  # a class
        return feature.int2str(int(value)) if value >= 0 else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()


# --- what is written


def _frame(columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)


def _written(
    frame: pd.DataFrame, folder: Path, target: str | None, said: dict[str, Any]
) -> dict[str, Any]:
    """A table as JSON lines, which keep what is a number and what a text, and are alike on all machines."""
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for row in _records(frame):
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return {"file": "data.jsonl", "target": target, **said}


def _records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as JSON takes them, missing cells as None."""
    columns = [str(name) for name in frame.columns]
    plain = [
        series.astype(object).where(series.notna(), None).tolist() for _, series in frame.items()
    ]
    for row in zip(*plain, strict=True):
        yield dict(zip(columns, row, strict=True))


def _arrays(arrays: dict[str, np.ndarray], folder: Path, said: dict[str, Any]) -> dict[str, Any]:
    write_arrays(folder / "data.npz", arrays)
    return {"file": "data.npz", "target": None, **said}


COLLECTIONS = {
    "keras": Collection(_keras, "keras:fashion_mnist"),
    "openml": Collection(_openml, "openml:31"),
    "tfds": Collection(_tfds, "tfds:penguins"),
}
