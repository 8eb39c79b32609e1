"""TFRecord files of ``tf.train.Example``: tables of single values, or pictures with labels.

Each feature with one value is a cell of the column of that name: an int64, a float, or bytes that
are UTF-8 text; a record that lacks it has a missing cell there. A feature ``image/encoded`` or
``image`` holds a picture (PNG, JPEG and so on); the label is then :data:`LABELS`' first that is
there, unless ``--target`` names another, and ``--sensitive`` names further features. The fields'
names are those of TensorFlow's own converters (tensorflow/models, TFDS).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICTURES = ("image/encoded", "image")
LABELS = ("label", "image/class/text", "image/class/label")
SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz")


def files_of(path: Path) -> list[Path]:
    """The record files of a path: itself, or a folder's shards (``NAME.tfrecord-00000-of-00010``
    too) by name."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.iterdir() if ".tfrecord" in p.name and p.is_file())


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The features of each record, by name: one value, or a list of several.

    Bytes stay bytes. Raises ``ValueError`` where a checksum or a record is wrong.
    """
    from google.protobuf.message import DecodeError  # TensorFlow's dependency

    from zoo.backend import tf

    for file in files_of(path):
        packed = "GZIP" if file.name.lower().endswith(".gz") else ""
        options = tf.io.TFRecordOptions(packed)
        try:
            # Not tf.data: it would compute, and the CPU could not be divided any more.
            for record in tf.compat.v1.io.tf_record_iterator(str(file), options):
                features = tf.train.Example.FromString(record).features.feature
                yield {name.strip(): _value(features[name]) for name in sorted(features)}
        except (tf.errors.OpError, DecodeError) as error:
            raise ValueError(f"{file.name}: {error}") from error


def _value(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    values = [] if kind is None else list(getattr(feature, kind).value)
    return values[0] if len(values) == 1 else values or None


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The records as rows of a table, bytes as text, pictures left out."""
    for record in records(path):
        yield {name: _text(value) for name, value in record.items() if name not in PICTURES}


def _text(value: Any) -> Any:
    """Bytes as text where they are UTF-8; others (a mask, a thumbnail) are no cell to learn from."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def picture_name(path: Path) -> str | None:
    """The feature that holds the pictures, None where the records are a table's rows."""
    first = next(records(path), {})
    found = [name for name in PICTURES if isinstance(first.get(name), bytes)]
    return found[0] if found else None
