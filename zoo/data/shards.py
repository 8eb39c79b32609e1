"""Tables on disk: rows that are read when they are asked for, through short-lived memory maps.

A table is converted once into a folder of the user's cache, named by the SHA-256 of its file:
``rows.bin`` holds one fixed-width record a row (numbers as they are, categories as codes, the place
of a text), ``text-K.bin`` the UTF-8 bytes of a text column, ``table.json`` the columns, the
categories, and size and SHA-256 of each file. The folder appears by rename; what is damaged is made
again.

A map is opened for at most :data:`WINDOW` bytes, read and closed, so that what a process holds does
not grow with the rows: pages of an open map count as its memory.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import FAILURE, USAGE, ZooError
from zoo.run import hash_of, locked, new_folder, sha256_file, write_atomic

if TYPE_CHECKING:
    import pandas as pd

#: Part of the key: a change of the format or of a reader makes all tables anew.
VERSION = 3
#: Files of at least so many bytes are converted; smaller ones are read whole.
LARGE = 32_000_000
#: Bytes of a file that are mapped at a time.
WINDOW = 32_000_000
#: Columns of text with at most so many distinct cells are kept as codes.
VOCABULARY = 100_000
MANIFEST = "table.json"
ROWS = "rows.bin"
#: Cells that are no single values: the type's name in the manifest, and such a cell.
NESTED: dict[str, Callable[[], Any]] = {
    "list": list, "tuple": tuple, "dict": dict, "set": set, "bytes": bytes,
}  # fmt: skip


class _File:
    """A file to read at any place: open as long as this is, so that a cleared cache does no harm."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


class Stored:
    """An array (n, ...) in a file: ``stored[rows]`` reads some rows, in the order asked for."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.folder, self.shape, self.dtype = path.parent, shape, np.dtype(dtype)
        self._row = self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        self._file = _File(path)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        ordered, place = rows[order], 0
        while place < len(rows):
            first = int(ordered[place])
            window = self._window(first)
            stop = int(np.searchsorted(ordered, first + len(window)))
            out[order[place:stop]] = window[ordered[place:stop] - first]
            place = stop
        return out

    def windows(self) -> Iterator[np.ndarray]:
        """All rows in order, some at a time; each array is to be dropped before the next."""
        start = 0
        while start < len(self):
            window = self._window(start)
            yield window
            start += len(window)

    def _window(self, start: int) -> np.ndarray:
        """The rows from ``start`` on that fit into :data:`WINDOW`, mapped."""
        count = min(max(1, WINDOW // self._row), len(self) - start)
        begin = start * self._row
        shift = begin % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._file.descriptor,
            count * self._row + shift,
            access=mmap.ACCESS_READ,
            offset=begin - shift,
        )
        size = count * self._row // self.dtype.itemsize
        flat = np.frombuffer(mapped, self.dtype, size, offset=shift)
        return flat.reshape(count, *self.shape[1:])


class StoredTable:
    """A converted table, in the part of a pandas frame's role that the loaders need.

    ``table[name]`` is a whole column, text as pandas categories; ``table.take(rows)`` a frame of some
    rows, with the types that reading the whole file would have given.
    """

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        self.folder = folder
        self.columns: list[str] = [column["name"] for column in document["columns"]]
        self._columns = {column["name"]: column for column in document["columns"]}
        self._rows = Stored(folder / ROWS, (document["rows"],), record_type(document["columns"]))
        self._texts = {
            column["name"]: _File(folder / column["file"])
            for column in document["columns"]
            if column["kind"] == "text"
        }

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), len(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def drop(self, columns: list[str]) -> StoredTable:
        """The same table without some columns."""
        rest = StoredTable.__new__(StoredTable)
        rest.__dict__.update(self.__dict__)
        rest.columns = [name for name in self.columns if name not in columns]
        return rest

    def __getitem__(self, name: str) -> pd.Series:
        """A whole column: 8 bytes a row for numbers, 1 to 4 for text with few values."""
        import pandas as pd

        column = self._columns[name]
        if column["kind"] == "codes":
            values = self._index(column)
            small = np.min_scalar_type(-max(len(values), 1))
            codes = self._field(field(name), small)
            return pd.Series(pd.Categorical.from_codes(codes, categories=values), name=name)
        parts = [field(name, part) for part in ("", "length")]
        there = [part for part in parts if part in (self._rows.dtype.names or ())]
        return self._cells(column, {part: self._field(part) for part in there}, len(self))

    def _field(self, name: str, dtype: Any = None) -> np.ndarray:
        """One field of all records."""
        out, place = np.empty(len(self), dtype or self._rows.dtype[name]), 0
        for window in self._rows.windows():
            out[place : place + len(window)] = window[name]
            place += len(window)
            del window
        return out

    def take(self, rows: np.ndarray) -> pd.DataFrame:
        """Some rows as a frame."""
        import pandas as pd

        found = self._rows[rows]
        return pd.DataFrame(
            {name: self._cells(self._columns[name], found, len(found)) for name in self.columns}
        )

    def texts(self, name: str) -> StoredTexts:
        """A column as texts, empty where they are missing."""
        return StoredTexts(self, name)

    def cells(self, name: str, rows: np.ndarray) -> pd.Series:
        """Some rows of one column."""
        return self._cells(self._columns[name], self._rows[rows], len(rows))

    def _index(self, column: dict[str, Any]) -> pd.Index:
        import pandas as pd

        if "index" not in column:
            column["index"] = pd.Index(column["values"], dtype=object)
        return column["index"]

    def _cells(self, column: dict[str, Any], found: Any, count: int) -> pd.Series:
        """The cells of a column in ``count`` records, or in their fields by name."""
        import pandas as pd

        name, kind = column["name"], column["kind"]
        if kind == "nested":
            return pd.Series([NESTED[column["type"]]()] * count, dtype=object, name=name)
        values = found[field(name)]
        if kind == "number":
            return pd.Series(values, name=name)
        if kind == "date":
            stamps = pd.Series(values.view(f"M8[{column['unit']}]"), name=name)
            if column["zone"] is None:
                return stamps
            return stamps.dt.tz_localize("UTC").dt.tz_convert(column["zone"])
        if kind == "codes":
            cells = self._index(column).take(values, allow_fill=True, fill_value=np.nan)
            return pd.Series(cells, name=name)
        descriptor = self._texts[name].descriptor
        lengths = found[field(name, "length")]
        return pd.Series(
            [
                os.pread(descriptor, int(length), int(start)).decode() if length >= 0 else None
                for start, length in zip(values, lengths, strict=True)
            ],
            dtype=object,
            name=name,
        )


class StoredTexts:
    """A column of texts: ``texts[rows]`` reads some of them, as an object array of str."""

    def __init__(self, table: StoredTable, name: str) -> None:
        self._table, self._name = table, name
        self.shape = (len(table),)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        cells = self._table.cells(self._name, rows)
        return cells.fillna("").astype(str).to_numpy(dtype=object)


def field(name: str, part: str = "") -> str:
    """The name of a column's field in the records, or of a further part of it."""
    return f"{part}:{name}"


def record_type(columns: list[dict[str, Any]]) -> np.dtype:
    """The type of a row's record."""
    fields: list[tuple[str, str]] = []
    for column in columns:
        name, kind = field(column["name"]), column["kind"]
        if kind == "number":
            fields.append((name, column["dtype"]))
        elif kind == "date":
            fields.append((name, "<i8"))
        elif kind == "codes":
            fields.append((name, "<i4"))
        elif kind == "text":
            fields += [(name, "<i8"), (field(column["name"], "length"), "<i4")]
    return np.dtype(fields or [("nothing", "u1")])


def cache_root() -> Path:
    """The folder of converted data, in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "glasszoo" / "data"


def cache_folder(key: list[Any], sha256: str) -> Path:
    """Where the cache keeps what was made for a key of a source with this SHA-256."""
    return cache_root() / f"{sha256[:32]}-{hash_of([VERSION, *key])[:8]}"


def cached(key: list[Any], sha256: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """The cache's folder for a key, made by ``make(folder)`` where it is not there whole.

    ``make`` writes files and returns what the manifest is to say of them; ``sha256`` is of the source.
    Of two processes that want the same, one makes it and the other waits.
    """
    folder = cache_folder(key, sha256)
    root, name = folder.parent, folder.name
    if whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root, f".{name}.lock"):
            if whole(folder):
                return folder
            for left in [folder, *root.glob(f".tmp-{name}-*")]:  # damaged, or of a dead process
                shutil.rmtree(left, ignore_errors=True)
            with new_folder(folder) as made:
                document = make(made)
                files = {
                    item.name: [item.stat().st_size, sha256_file(item)]
                    for item in sorted(made.iterdir())
                }
                document = {**document, "files": files}
                content = json.dumps({**document, "check": hash_of(document)})
                write_atomic(made / MANIFEST, content)
    except OSError as error:
        raise ZooError(
            f"The data could not be converted into {root}: {error.strerror or error}.",
            expected="a folder that can be written to, with about the size of the data left",
            received=str(error.filename or "") or None,
            hint="Free some space (`zoo data clear` removes earlier conversions), or let "
            "XDG_CACHE_HOME name another folder.",
            kind="io_error",
            exit_code=USAGE if isinstance(error, PermissionError) else FAILURE,
        ) from error
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    """What a folder of the cache holds."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def whole(folder: Path) -> bool:
    """Whether a folder of the cache is there and every byte of it is what was written."""
    try:
        document = manifest(folder)
        check = document.pop("check")
        return check == hash_of(document) and all(
            (folder / name).stat().st_size == size and sha256_file(folder / name) == digest
            for name, (size, digest) in document["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def clear() -> tuple[int, int]:
    """Remove all conversions but those being made; how many there were, and their bytes.

    What a process has open stays readable to it.
    """
    root = cache_root()
    count = size = 0
    for item in sorted(root.iterdir()) if root.is_dir() else ():
        if not item.is_dir():
            continue
        name = item.name.removeprefix(".tmp-")[: len(f"{'':32}-{'':8}")]
        try:
            with locked(root, f".{name}.lock", wait=False):
                found = sum(file.stat().st_size for file in item.rglob("*") if file.is_file())
                shutil.rmtree(item)
        except BlockingIOError:
            continue
        count, size = count + 1, size + found
    return count, size
