"""Frames from a user's files: CSV, JSONL, Parquet and TFRecord, in memory or in chunks."""

from __future__ import annotations

import csv
import gzip
import itertools
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zoo.data import large, shards, tfrecord
from zoo.data.cells import is_number_type
from zoo.data.large import Chunked, stored_table
from zoo.errors import ZooError, unknown

if TYPE_CHECKING:
    import pandas as pd

#: What is missing in a column of text. Among numbers pandas' own list holds, in which ``NA`` and
#: ``None`` are too: as words they may be Namibia, or a degree of illness.
MISSING_WORDS = ["", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "<NA>", "N/A", "n/a", "#N/A"]
#: How cells are read that are to stay the text they are: TRUE "TRUE", 01 "01", and NA a word.
_AS_TEXT: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": MISSING_WORDS}
#: The rest of pandas' list, of what is missing among numbers.
MISSING_NUMBERS = {
    "NA",
    "None",
    "n.a.",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "1.#IND",
    "1.#QNAN",
    "#N/A N/A",
}
SEPARATORS = ",;\t|"
#: Lines that the separator is found out from.
_HEAD = 20
#: Compressed files are taken to hold so many times their bytes.
PACKED = 4
READ_PARQUET = (".parquet", ".pq")
READ_JSONL = (".jsonl", ".ndjson", ".jsonl.gz")

csv.field_size_limit(2**31 - 1)  # a line is one cell to the separators that it does not have


def unreadable(path: Path, what: str, error: Exception | str) -> ZooError:
    """One clear message for a file that is not what its name says."""
    if isinstance(error, UnicodeDecodeError):
        reason, hint = (
            f"byte 0x{error.object[error.start]:02X}, which is not UTF-8",
            ("Save the file as UTF-8; or is it the wrong file?"),
        )
    elif isinstance(error, (EOFError, zlib.error)):
        reason, hint = "compressed data that end too early or are damaged", "Copy the file again."
    elif isinstance(error, gzip.BadGzipFile):
        reason, hint = "a file that is not compressed by gzip", "Rename it, or compress it."
    elif isinstance(error, OSError) and error.strerror:
        reason, hint = error.strerror, "Check the file and its permissions."
    else:
        words = " ".join(str(error).split()) or "nothing that can be read"
        reason = words.removeprefix("Error tokenizing data. C error: ")[:200]
        hint = "Is it the right file, and whole?"
    return ZooError(
        f"{path} could not be read as {what}.",
        expected=what,
        received=reason,
        hint=hint,
        kind="unreadable_file",
    )


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever a library says about a file that it can't read, as one clear message."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        raise unreadable(path, what, error) from error


def read_frame(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """A CSV (separator and compression found out), JSON lines or Parquet file as a frame.

    Columns of numbers become numbers; all others, and those in ``text``, stay the text they are.
    Headers lose the blanks around them.
    """
    if is_records(path):
        with reading(path, "TFRecord"):
            frame = _frame_of_records(tfrecord.rows(path))
    elif path.name.lower().endswith(READ_PARQUET):
        frame = _read_parquet(path)
    elif path.name.lower().endswith(READ_JSONL):
        with reading(path, "JSON lines"):
            frame = _read_jsonl(path)
    else:
        with reading(path, "CSV"):
            frame = _read_csv(path, text)
    check_rows(frame, path)
    return frame


def check_rows(frame: Any, path: Path) -> None:
    if not len(frame):
        raise ZooError(
            f"{path} has no rows.",
            expected="a header line and rows below it" if path.suffix != ".parquet" else "rows",
            received=f"{len(frame.columns)} columns and 0 rows",
            kind="empty_file",
        )


def is_large(path: Path) -> bool:
    """Whether a file is converted and read in chunks, by its size; see :data:`shards.LARGE`."""
    packed = path.name.lower().endswith((".gz", *READ_PARQUET))
    size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    return size * (PACKED if packed else 1) >= shards.LARGE


def is_records(path: Path) -> bool:
    """Whether a path is a TFRecord file or a folder of them."""
    return path.is_dir() or path.name.lower().endswith(tfrecord.SUFFIXES)


def open_frame(path: Path, sha256: str, text: Collection[str] = ()) -> Any:
    """What :func:`read_frame` gives, or for a large file the same table on disk: a
    :class:`zoo.data.shards.StoredTable`. ``sha256`` is the file's."""
    if not is_large(path):
        return read_frame(path, text)
    name = path.name.lower()
    if is_records(path):
        source, kind = _record_chunks(path, "TFRecord", tfrecord.rows), "tfrecord"
    elif name.endswith(READ_PARQUET):
        source, kind = _parquet_chunks(path), "parquet"
    elif name.endswith(READ_JSONL):
        source, kind = _record_chunks(path, "JSON lines", _records), "jsonl"
    else:
        with reading(path, "CSV"):
            source, kind = _csv_chunks(path, text), "csv"
    frame = stored_table(source, sha256, [kind, sorted(text)])
    check_rows(frame, path)
    return frame


def _csv_options(path: Path, header: list[str], separator: str) -> dict[str, Any]:
    return {
        "sep": separator,
        "header": 0,
        "names": header,
        "index_col": False,
        "skipinitialspace": True,
        "encoding": "utf-8-sig",
        "compression": "gzip" if path.name.lower().endswith(".gz") else None,
        "low_memory": False,
    }


def _strictly(read: Callable[[], Any]) -> Any:
    """What ``read()`` gives. Raises pandas' error or warning about lines longer than they should be."""
    from pandas.errors import ParserWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)
        return read()


def _check_surplus(path: Path, header: list[str], separator: str) -> None:
    """Raise where a line has cells beyond those that the header line names, and they are not empty."""
    with open_text(path) as file:
        lines = csv.reader(file, delimiter=separator, skipinitialspace=True)
        for cells in lines:
            if any(cell.strip() for cell in cells[len(header) :]):
                raise ZooError(
                    f"{path} has more cells in line {lines.line_num:,} than names in its header line.",
                    expected=f"{len(header)} cells: {', '.join(map(repr, header))}"[:200],
                    received=f"{len(cells)} cells: {', '.join(map(repr, cells))}"[:200],
                    hint="Name every column (R's write.table does with col.names=NA), and put cells "
                    f"that hold {separator!r} in quotes.",
                    kind="unreadable_file",
                )


def _stripped(cells: Any) -> Any:
    cells = cells.str.strip()
    return cells.mask(cells == "")


def _csv_chunks(path: Path, text: Collection[str]) -> Chunked:
    """A CSV file in chunks, with the types that :func:`_read_csv` gives."""
    import pandas as pd
    from pandas.errors import ParserError, ParserWarning

    header, separator = _header(path)
    options = {**_csv_options(path, header, separator), "chunksize": large.CHUNK}
    commas: set[str] = set()  # columns with decimal commas in some chunk

    def read(columns: Collection[str], **more: Any) -> Iterator[pd.DataFrame]:
        if columns:
            with (
                reading(path, "CSV"),
                pd.read_csv(
                    path, usecols=[name for name in header if name in columns], **options, **more
                ) as chunks,
            ):
                yield from chunks

    def whole() -> Iterator[pd.DataFrame]:
        done = 0
        with reading(path, "CSV"):
            try:
                with pd.read_csv(path, **options) as chunks:
                    while (chunk := _strictly(lambda: next(chunks, None))) is not None:
                        yield chunk
                        done += 1
            except (ParserError, ParserWarning):
                _check_surplus(path, header, separator)
                yield from itertools.islice(read(header), done, None)  # passes over empty cells

    def survey() -> Iterator[pd.DataFrame]:
        again = header if separator == ";" else [name for name in header if name in text]
        words = read(again, **_AS_TEXT)
        for frame in whole():
            cells = next(words) if again else frame
            for name in again:
                if name in text:
                    frame[name] = _stripped(cells[name])
                elif not is_number_type(frame[name]):
                    frame[name] = _decimal_commas(_stripped(cells[name]))
                    if is_number_type(frame[name]):
                        commas.add(name)
            yield frame

    def cells(kinds: dict[str, str]) -> Iterator[pd.DataFrame]:
        words = [n for n in header if kinds[n] in ("codes", "text") or n in commas]
        plain = {name: kind for name, kind in kinds.items() if name not in words}
        numbers = read(plain, dtype=plain)
        for again in read(words or header[:1], **_AS_TEXT):
            columns = dict(next(numbers)) if plain else {}
            for name in words:
                columns[name] = _stripped(again[name])
                if kinds[name] not in ("codes", "text"):
                    points = columns[name].str.replace(",", ".", regex=False)
                    columns[name] = pd.to_numeric(points, errors="coerce")
            yield pd.DataFrame(columns)

    return Chunked(survey, cells)


def _record_chunks(
    path: Path, what: str, records: Callable[[Path], Iterator[dict[str, Any]]]
) -> Chunked:
    def chunks(kinds: Any = None) -> Iterator[pd.DataFrame]:
        with reading(path, what):
            yield from large.chunks_of(records(path))

    return Chunked(chunks, chunks)


def _parquet_chunks(path: Path) -> Chunked:
    def chunks(kinds: Any = None) -> Iterator[pd.DataFrame]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with reading(path, "Parquet"), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=large.CHUNK):
                yield _tidy(pa.Table.from_batches([batch]).to_pandas(), path)

    return Chunked(chunks, chunks)


def _read_csv(path: Path, text: Collection[str]) -> pd.DataFrame:
    import pandas as pd
    from pandas.errors import ParserError, ParserWarning

    header, separator = _header(path)
    options = _csv_options(path, header, separator)
    try:
        frame = _strictly(lambda: pd.read_csv(path, **options))
    except (ParserError, ParserWarning):
        _check_surplus(path, header, separator)
        frame = pd.read_csv(path, usecols=header, **options)  # passes over empty cells
    numbers = [n for n in header if is_number_type(frame[n]) and frame[n].notna().any()]
    again = [name for name in header if name in text or name not in numbers]
    if not again:
        return frame
    words = pd.read_csv(path, usecols=again, **options, **_AS_TEXT)
    columns = {name: frame[name] for name in header}
    for name in again:
        columns[name] = _stripped(words[name])
        if separator == ";" and name not in text:
            columns[name] = _decimal_commas(columns[name])
    return pd.DataFrame(columns)


def _read_jsonl(path: Path) -> pd.DataFrame:
    """One JSON object a line; a key that a line lacks is missing there, and so is null."""
    return _frame_of_records(_records(path))


def _frame_of_records(records: Iterator[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame.from_records(list(records))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file."""
    import json

    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError(f"line {number}: {type(record).__name__}, not an object")
                yield {str(key).strip(): value for key, value in record.items()}


def _decimal_commas(cells: Any) -> Any:
    """Numbers such as 3,14, where all cells of a column are: the usual form beside ``;``."""
    import pandas as pd

    points = cells.mask(cells.isin(MISSING_NUMBERS)).str.replace(",", ".", regex=False)
    try:
        numbers = pd.to_numeric(points)
    except ValueError:
        return cells
    return numbers if numbers.notna().any() or points.equals(cells) else cells


def open_text(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _header(path: Path) -> tuple[list[str], str]:
    """The names in the header line, and the separator: the one that gives the first lines equally
    many cells, and most of them."""
    found = []
    for separator in SEPARATORS:
        with open_text(path) as file:
            if "\x00" in file.read(4096):
                raise ValueError("bytes that are no text")
            file.seek(0)
            lines = filter(None, csv.reader(file, delimiter=separator, skipinitialspace=True))
            rows = list(itertools.islice(lines, _HEAD))
        if rows:
            widths = {len(row) for row in rows}
            found.append((len(widths) == 1 and widths != {1}, len(rows[0]), rows, separator))
    if not found:
        raise ValueError("blank lines alone")
    _, _, rows, separator = max(found, key=lambda row: row[:2])
    names = [name.strip() or f"column {k}" for k, name in enumerate(rows[0], start=1)]
    doubled = [name for k, name in enumerate(names) if name in names[:k]]
    if doubled:
        raise ZooError(
            f"{path} has two columns called {doubled[0]!r}.",
            expected="distinct names in the header line",
            received=", ".join(map(repr, names))[:300],
            hint="Rename one of them.",
            kind="duplicate_column",
        )
    if any(cell.strip() for row in rows for cell in row[len(names) :]):
        _check_surplus(path, names, separator)
    return names, separator


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    with reading(path, "Parquet"):
        return _tidy(pd.read_parquet(path), path)


def _tidy(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A frame of a Parquet file with columns for its index, stripped names and plain types."""
    import pandas as pd

    if frame.index.names != [None]:
        frame = frame.reset_index()
    frame.columns = [str(name).strip() for name in frame.columns]
    if not frame.columns.is_unique:
        doubled = frame.columns[frame.columns.duplicated()][0]
        raise ZooError(f"{path} has two columns called {doubled!r}.", expected="distinct names")
    for name in frame.columns:
        kind = pd.api.types.infer_dtype(frame[name], skipna=True)
        if kind == "decimal":
            frame[name] = pd.to_numeric(frame[name])
        elif kind == "date":
            frame[name] = pd.to_datetime(frame[name], errors="coerce")
    return frame


def find_column(name: str, columns: Collection[str], option: str, path: Path) -> str:
    """The column an option means, blanks around its name aside. Raises for an unknown one."""
    if name.strip() not in columns:
        raise unknown("column", name, columns, hint=f"{option} names a column of {path}.")
    return name.strip()
