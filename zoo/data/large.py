"""Large tables: read in chunks and converted once into :mod:`zoo.data.shards`.

Two passes over the file. The first finds each column's type, which is that of all its chunks
together: what reading the whole file at once would have given. The second writes the records.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from zoo.data.cells import is_number_type, label_text, nested_type
from zoo.data.shards import (
    NESTED,
    ROWS,
    VOCABULARY,
    StoredTable,
    cached,
    field,
    manifest,
    record_type,
)
from zoo.progress import counted

if TYPE_CHECKING:
    import pandas as pd

#: Rows of a chunk.
CHUNK = 20_000


@dataclass(frozen=True)
class Chunked:
    """A file that can be read in chunks, several times.

    ``survey()`` gives frames to find the types by. ``cells(kinds)`` gives the same rows again, when
    each column's kind is known: the type of its numbers, or "codes", "text", "date", "nested".
    """

    survey: Callable[[], Iterator[pd.DataFrame]]
    cells: Callable[[dict[str, str]], Iterator[pd.DataFrame]]


def stored_table(source: Chunked, sha256: str, key: list[Any]) -> StoredTable:
    """The table of a file, converted where the cache lacks it.

    ``key`` names the reader and what it was told. Raises what the reader raises, and
    :class:`zoo.errors.ZooError` where the cache can't be written.
    """
    folder = cached(key, sha256, lambda made: _convert(source, made))
    return StoredTable(folder, manifest(folder))


class _Column:
    """What the chunks of a column have in common."""

    def __init__(self) -> None:
        self.types: set[Any] = set()  # NumPy types of numbers, ("date", unit, zone), "text"
        self.nested: set[str] = set()
        self.missing = False
        self.numbers = 0  # distinct ones, chunk by chunk: an upper bound
        self.texts: set[Any] | None = set()  # None once there are too many to be codes

    def add(self, cells: pd.Series) -> None:
        import pandas as pd

        known = cells.dropna()
        self.missing |= len(known) < len(cells)
        if not len(known):
            return
        if is_number_type(known):
            # a nullable or categorical type, too, has a NumPy type for its known cells
            self.types.add(known.to_numpy().dtype)
            if self.texts is not None:
                self.numbers += known.nunique()
        elif pd.api.types.is_datetime64_any_dtype(known):
            self.types.add(("date", known.dt.unit, known.dt.tz and str(known.dt.tz)))
        elif found := nested_type(known):
            self.nested.add(found)
        else:
            self.types.add("text")
            if self.texts is not None:
                self.texts |= {label_text(cell) for cell in known.unique()}
        if self.texts is not None and len(self.texts) + self.numbers > VOCABULARY:
            self.texts = None

    def document(self) -> dict[str, Any]:
        """The column as the manifest describes it, its categories aside."""
        if self.nested:
            found = min(self.nested)
            return {"kind": "nested", "type": found if found in NESTED else "list"}
        only = next(iter(self.types)) if len(self.types) == 1 else None
        if isinstance(only, tuple):
            return {"kind": "date", "unit": only[1], "zone": only[2]}
        if self.types and all(isinstance(found, np.dtype) for found in self.types):
            common = np.result_type(*self.types)
            if self.missing and common.kind != "f":
                common = np.dtype(np.float64)
            return {"kind": "number", "dtype": common.str}
        return {"kind": "text" if self.texts is None else "codes"}


def _convert(source: Chunked, folder: Path) -> dict[str, Any]:
    """Write a table's files into ``folder``; its manifest."""
    found: dict[str, _Column] = {}
    rows = 0
    for frame in counted(source.survey(), "rows looked at", len):
        for name in frame.columns:
            if name not in found:
                found[name] = _Column()
                found[name].missing = rows > 0  # a key that earlier lines lack
            found[name].add(frame[name])
        for name in set(found) - set(frame.columns):
            found[name].missing = True
        rows += len(frame)
    columns = [{"name": name, **column.document()} for name, column in found.items()]
    found.clear()
    for k, column in enumerate(columns):
        if column["kind"] == "text":
            column["file"] = f"text-{k}.bin"
    _write(source, folder, columns, rows)
    return {"rows": rows, "columns": columns}


def _write(source: Chunked, folder: Path, columns: list[dict[str, Any]], rows: int) -> None:
    kinds = {column["name"]: column["dtype" if column["kind"] == "number" else "kind"]
             for column in columns}  # fmt: skip
    record = record_type(columns)
    codes: dict[str, dict[str, int]] = {c["name"]: {} for c in columns if c["kind"] == "codes"}
    files = {c["name"]: (folder / c["file"]).open("wb") for c in columns if c["kind"] == "text"}
    written = 0
    try:
        with (folder / ROWS).open("wb") as out:
            for frame in counted(source.cells(kinds), "rows converted", len, rows):
                records = np.zeros(len(frame), record)
                for column in columns:
                    name = column["name"]
                    if name not in frame.columns:
                        _absent(column, records)
                    elif column["kind"] == "codes":
                        records[field(name)] = _codes(frame[name], codes[name])
                    elif column["kind"] == "text":
                        _texts(frame[name], files[name], records, name)
                    elif column["kind"] == "date":
                        stamps = frame[name]
                        if column["zone"] is not None:
                            stamps = stamps.dt.tz_convert("UTC").dt.tz_localize(None)
                        values = stamps.to_numpy(f"M8[{column['unit']}]")
                        records[field(name)] = values.view(np.int64)
                    elif column["kind"] == "number":
                        records[field(name)] = _numbers(frame[name], column["dtype"])
                out.write(records.tobytes())
                written += len(frame)
    finally:
        for file in files.values():
            file.close()
    if written != rows:
        raise ValueError(f"{rows:,} rows, then {written:,}: the file changed while it was read")
    for column in columns:
        if column["kind"] == "codes":
            column["values"] = list(codes[column["name"]])


def _absent(column: dict[str, Any], records: np.ndarray) -> None:
    """Fill a column that a chunk lacks."""
    name, kind = column["name"], column["kind"]
    if kind == "number":
        records[field(name)] = np.nan
    elif kind == "date":
        records[field(name)] = np.iinfo(np.int64).min  # not a time
    elif kind == "codes":
        records[field(name)] = -1
    elif kind == "text":
        records[field(name, "length")] = -1


def _numbers(cells: pd.Series, dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return cells.to_numpy(dtype, na_value=np.nan)
    return cells.to_numpy(dtype)


def _codes(cells: pd.Series, known: dict[str, int]) -> np.ndarray:
    """int (n,) codes, -1 for missing cells; new texts are added to ``known`` in their order."""
    import pandas as pd

    found, distinct = pd.factorize(cells, use_na_sentinel=True)
    numbers = [known.setdefault(label_text(cell), len(known)) for cell in distinct]
    return np.array([*numbers, -1], dtype=np.int32)[found]


def _texts(cells: pd.Series, file: IO[bytes], records: np.ndarray, name: str) -> None:
    """Append the cells to a column's file and note where each one stands."""
    present = cells.notna().to_numpy()
    encoded = [
        label_text(c).encode() if there else b"" for c, there in zip(cells, present, strict=True)
    ]
    lengths = np.array([len(cell) for cell in encoded], dtype=np.int64)
    records[field(name)] = file.tell() + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    records[field(name, "length")] = np.where(present, lengths, -1)
    file.write(b"".join(encoded))


def chunks_of(records: Iterator[dict[str, Any]]) -> Iterator[pd.DataFrame]:
    """Records as frames of :data:`CHUNK` rows."""
    import pandas as pd

    while some := list(itertools.islice(records, CHUNK)):
        yield pd.DataFrame.from_records(some)
