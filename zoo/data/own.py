"""The user's own data: CSV, JSON lines, Parquet, TFRecord, NPZ, image folders."""

from __future__ import annotations

import csv
import gzip
import itertools
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from zoo.data import large, shards, tfrecord
from zoo.data.large import Chunked, stored_table
from zoo.data.passages import cut
from zoo.data.preprocess import is_number_type, nested_type, text_columns
from zoo.data.splits import is_split_column
from zoo.data.table import LEAST_WORDS, Request, Table, check_unchanged, texts_of
from zoo.errors import ZooError, unknown
from zoo.run import sha256_file
from zoo.tasks import get_task

if TYPE_CHECKING:
    import pandas as pd

#: What is missing in a column of text. Among numbers pandas' own list holds, in which ``NA`` and
#: ``None`` are too: as words they may be Namibia, or a degree of illness.
MISSING_WORDS = ["", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "<NA>", "N/A", "n/a", "#N/A"]
SEPARATORS = ",;\t|"
#: Lines that the separator is found out from.
_HEAD = 20
#: Compressed files are taken to hold so many times their bytes.
PACKED = 4


def looks_like_path(text: str) -> bool:
    """Whether ``--data`` means a file or folder rather than a name."""
    return "/" in text or "\\" in text or Path(text).suffix != "" or Path(text).exists()


def load_own(request: Request, sha256: str | None = None) -> Table:
    """The table of a path. Raises :class:`ZooError` for what can't be read, and where ``sha256``
    is given and the content has another."""
    path = Path(request.data).expanduser()
    read = reader(path)
    with _reading(path, "data"):
        found = _sha256_of(path, sha256)
    check_unchanged(path, found, sha256)
    table = read(path, request, found)
    table.sha256 = found
    return table


def _sha256_of(path: Path, expected: str | None = None) -> str:
    """SHA-256 of what is read of a path: a file, or a folder's records, or its pictures and their
    metadata.

    Runs from before may have that of all files of a folder: where it is ``expected``, it is given.
    """
    if not path.is_dir():
        return sha256_file(path)
    from zoo.data.images import METADATA, pictures_in

    pictures = pictures_in(path)
    found = sha256_file(path, tfrecord.files_of(path) or [*pictures, path / METADATA])
    if expected not in (None, found) and pictures == pictures_in(path, hidden=True):
        return expected if sha256_file(path) == expected else found
    return found


def reader(path: Path) -> Callable[[Path, Request, str], Table]:
    """The function that reads a path, by its kind."""
    if not path.exists():
        raise ZooError(
            f"There is no file or folder {str(path)!r}.",
            expected="a CSV, JSON lines, Parquet, TFRecord or NPZ file, or a folder of pictures",
            received=str(path),
            hint="Check the path; `zoo data list` shows the data sets that have names.",
            kind="missing_file",
        )
    if path.is_dir():
        return read_records if tfrecord.files_of(path) else read_folder
    if not path.is_file():
        raise ZooError(
            f"{path} is neither a file nor a folder.",
            expected="a CSV, JSON lines, Parquet, TFRecord or NPZ file, or a folder of pictures",
            received="a device, pipe or socket",
            kind="unreadable_file",
        )
    if path.stat().st_size == 0:
        raise ZooError(
            f"{path} is empty.",
            expected="a CSV, JSON lines, Parquet, TFRecord or NPZ file with data",
            received="0 bytes",
            kind="empty_file",
        )
    name = path.name.lower()
    for endings, function in READERS.items():
        if name.endswith(endings):
            return function
    raise ZooError(
        f"{path} is of no kind that can be read.",
        expected=", ".join(ending for endings in READERS for ending in endings) + ", or a folder",
        received=path.suffix or "no suffix",
    )


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
def _reading(path: Path, what: str) -> Iterator[None]:
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
        with _reading(path, "TFRecord"):
            frame = _frame_of_records(tfrecord.rows(path))
    elif path.name.lower().endswith(READ_PARQUET):
        frame = _read_parquet(path)
    elif path.name.lower().endswith(READ_JSONL):
        with _reading(path, "JSON lines"):
            frame = _read_jsonl(path)
    else:
        with _reading(path, "CSV"):
            frame = _read_csv(path, text)
    _check_rows(frame, path)
    return frame


def _check_rows(frame: Any, path: Path) -> None:
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
        with _reading(path, "CSV"):
            source, kind = _csv_chunks(path, text), "csv"
    frame = stored_table(source, sha256, [kind, sorted(text)])
    _check_rows(frame, path)
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
    with _open_text(path) as file:
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


#: How cells are read that are to stay the text they are: TRUE "TRUE", 01 "01", and NA a word.
_AS_TEXT: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": MISSING_WORDS}


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
                _reading(path, "CSV"),
                pd.read_csv(
                    path, usecols=[name for name in header if name in columns], **options, **more
                ) as chunks,
            ):
                yield from chunks

    def whole() -> Iterator[pd.DataFrame]:
        done = 0
        with _reading(path, "CSV"):
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
        with _reading(path, what):
            yield from large.chunks_of(records(path))

    return Chunked(chunks, chunks)


def _parquet_chunks(path: Path) -> Chunked:
    def chunks(kinds: Any = None) -> Iterator[pd.DataFrame]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _reading(path, "Parquet"), pq.ParquetFile(path) as file:
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

    with _open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError(f"line {number}: {type(record).__name__}, not an object")
                yield {str(key).strip(): value for key, value in record.items()}


def _decimal_commas(cells: Any) -> Any:
    """Numbers such as 3,14, where all cells of a column are: the usual form beside ``;``."""
    import pandas as pd

    try:
        return pd.to_numeric(cells.str.replace(",", ".", regex=False))
    except ValueError:
        return cells


def _open_text(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _header(path: Path) -> tuple[list[str], str]:
    """The names in the header line, and the separator: the one that gives the first lines equally
    many cells, and most of them."""
    found = []
    for separator in SEPARATORS:
        with _open_text(path) as file:
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

    with _reading(path, "Parquet"):
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


def read_table(path: Path, request: Request, sha256: str) -> Table:
    """A CSV, JSON lines, Parquet or TFRecord file with a target column."""
    frame = open_frame(path, sha256)
    cache = getattr(frame, "folder", None)
    columns = list(frame.columns)
    if request.target is None and _unit(request) is not None:
        return _texts_alone(frame, path, request)
    if len(columns) < 2:
        raise ZooError(
            f"{path} has a single column.",
            expected="at least two columns, separated by ',', ';', tab or '|'",
            received=repr(columns[0][:80]),
            kind="unreadable_file",
        )
    if request.target is None:
        raise ZooError(
            f"Which column of {path} is to be predicted?",
            expected="--target COLUMN",
            received=f"columns: {', '.join(map(repr, columns[:20]))}",
            hint=f"zoo train mlp --data {path} --target {columns[-1]!r}",
            kind="missing_target",
        )
    target = find_column(request.target, columns, "--target", path)
    if target in request.sensitive:
        raise ZooError(
            f"{target!r} is the target and can't be a sensitive attribute as well.",
            expected="other columns for --sensitive",
            received=", ".join(request.sensitive),
        )
    notes: list[str] = []
    split = _split_column(frame, request, target, path, notes)
    if split in request.sensitive:
        raise ZooError(
            f"{split!r} says which rows train and test and can't be a sensitive attribute as well.",
            expected="other columns for --sensitive",
            received=", ".join(request.sensitive),
        )
    for name in (target, *request.sensitive):
        if name in columns:
            _check_single_values(frame[name], path)
    inputs = frame.drop(columns=[target, *([split] if split else [])])
    return Table(
        kind="tabular",
        x=inputs,
        y=frame[target],
        sha256="",
        target=target,
        split=None if split is None else frame[split].to_numpy(),
        source=path.name,
        notes=notes,
        cache=cache,
    )


def _unit(request: Request) -> str | None:
    """What the rows of plain texts are for the task that is asked for, if that takes texts alone."""
    return None if request.task is None else get_task(request.task).unit


def _texts_alone(frame: Any, path: Path, request: Request) -> Table:
    """The column of longest texts of a table, each cell a row, for tasks that need no labels."""
    notes: list[str] = []
    split = _split_column(frame, request, "", path, notes)
    beside = [
        find_column(name, list(frame.columns), "--sensitive", path) for name in request.sensitive
    ]
    length = {
        name: frame[name].dropna().astype(str).str.split().str.len().mean()
        for name in frame.columns
        if name not in (split, *beside) and not is_number_type(frame[name])
    }
    column = max(length, key=lambda name: length[name], default=None)
    if column is None or not length[column] >= LEAST_WORDS:
        raise ZooError(
            f"{path} has no column of texts.",
            expected=f"a column whose cells have at least {LEAST_WORDS} words on average",
            received=", ".join(map(repr, frame.columns))[:300],
            kind="no_inputs",
        )
    others = [name for name in frame.columns if name not in (column, split, *beside)]
    if others:
        notes.append(f"not used beside the texts: {', '.join(map(repr, others))}")
    return Table(
        kind="tabular",
        x=frame.drop(columns=[*others, *([split] if split else [])]),
        y=None,
        sha256="",
        target=column,
        split=None if split is None else frame[split].to_numpy(),
        source=path.name,
        notes=notes,
        cache=getattr(frame, "folder", None),
    )


def _plain(path: Path) -> str:
    with _reading(path, "UTF-8 text"), _open_text(path) as file:
        content = file.read().replace("\r\n", "\n")
        if "\x00" in content:
            raise ValueError("bytes that are no text")
    return content


def read_plain(path: Path, request: Request, sha256: str) -> Table:
    """A plain text, as rows of the unit that the task asks for: passages unless it says otherwise."""
    content = _plain(path)
    task = request.task or "causal_lm"
    if _unit(replace(request, task=task)) is None:
        raise ZooError(
            f"{path} is plain text, without the labels that the task {task} needs.",
            expected="a CSV or JSON lines file with texts and labels, or a language model",
            received=path.name,
            hint=f"zoo train gpt_tiny --data {path}",
            kind="kind_mismatch",
        )
    found = cut(
        {path.name: content}, get_task(task).unit or "", [request.split_seed, int(sha256[:15], 16)]
    )
    return Table(
        kind="text",
        x=found.texts,
        y=None,
        sha256="",
        target="next token",
        task=task,
        split=found.split,
        source=path.name,
    )


def _split_column(
    frame: Any, request: Request, target: str, path: Path, notes: list[str]
) -> str | None:
    """The column asked for, or one called "split" that says train and test."""
    if request.split is not None:
        split = find_column(request.split, list(frame.columns), "--split", path)
        if split == target:
            raise ZooError(
                f"{target!r} is the target and can't say which rows train and test as well.",
                expected="another column for --split",
                received=split,
            )
        return split
    for name in frame.columns:
        if name.lower() == "split" and name != target:
            if is_split_column(frame[name]):
                notes.append(f"the column {name!r} says which rows train, validate and test")
                return name
            notes.append(
                f"the column {name!r} is an ordinary one: it says other things than train and test"
            )
    return None


def _check_single_values(series: Any, path: Path) -> None:
    if nested := nested_type(series):
        raise ZooError(
            f"The column {series.name!r} of {path} can't be a target or an attribute.",
            expected="one number or text in each cell",
            received=f"cells that are a {nested}",
        )


def _find(stored: Any, names: tuple[str, ...], path: Path) -> np.ndarray:
    for name in names:
        if name in stored.files:
            return stored[name]
    raise ZooError(
        f"{path} lacks an array.",
        expected=f"an array called {' or '.join(names)}",
        received=", ".join(stored.files)[:200] or "no arrays",
        kind="missing_array",
    )


@contextmanager
def _npz(path: Path) -> Iterator[Any]:
    """An open NPZ file; pickled arrays are refused, never unpickled."""
    import zipfile

    with _reading(path, "NPZ without pickled arrays"):
        if not zipfile.is_zipfile(path):
            raise ValueError("a file that is no whole NPZ archive")
        with np.load(path, allow_pickle=False) as stored:
            yield stored


def read_npz(path: Path, request: Request, sha256: str) -> Table:
    """Arrays ``images`` or ``x``, ``labels`` or ``y``, perhaps ``split`` and ``group_NAME``."""
    names = ("labels", "y") if request.target is None else (request.target,)
    with _npz(path) as stored:
        x, y = _find(stored, ("images", "x"), path), _find(stored, names, path)
        beside = {
            key: stored[key] for key in stored.files if key == "split" or key.startswith("group_")
        }
    wrong = {
        key: values.shape
        for key, values in {"labels": y, **beside}.items()
        if values.shape != (len(x) if x.ndim else 0,)
    }
    if wrong or x.ndim < 2:
        raise ZooError(
            f"The arrays of {path} don't fit together.",
            expected="inputs (n, ...), and labels, split and groups of shape (n,)",
            received=f"inputs {x.shape}, "
            + ", ".join(f"{key} {shape}" for key, shape in wrong.items()),
            kind="bad_shape",
        )
    split = beside.pop("split", None)
    groups = {key.removeprefix("group_"): values for key, values in beside.items()}
    known = {"y": y, "sha256": "", "target": names[0], "groups": groups, "split": split,
             "source": path.name}  # fmt: skip
    if x.ndim == 2:
        return Table("tabular", _frame_of(x, path), **known)
    from zoo.data.images import as_images

    return Table("image", as_images(x, path), **known)


def _frame_of(x: np.ndarray, path: Path) -> pd.DataFrame:
    """(n, columns) as a frame with columns f0, f1, ..."""
    import pandas as pd

    if x.dtype.kind not in "biufUS":
        raise ZooError(
            f"The inputs of {path} are of no type that can be used.",
            expected="numbers, booleans or text",
            received=str(x.dtype),
        )
    return pd.DataFrame(x, columns=[f"f{k}" for k in range(x.shape[1])])


def read_folder(path: Path, request: Request, sha256: str) -> Table:
    """A folder of class folders of pictures."""
    from zoo.data.images import read_image_folder

    return read_image_folder(path, request, sha256)


def read_records(path: Path, request: Request, sha256: str) -> Table:
    """TFRecord files: pictures, or a table."""
    with _reading(path, "TFRecord"):
        picture = tfrecord.picture_name(path)
        if picture is not None:
            return tfrecord.read_pictures(path, picture, request, sha256)
    return read_table(path, request, sha256)


READ_PARQUET = (".parquet", ".pq")
READ_JSONL = (".jsonl", ".ndjson", ".jsonl.gz")
READERS: dict[tuple[str, ...], Callable[[Path, Request, str], Table]] = {
    (".csv", ".tsv", ".csv.gz", ".tsv.gz"): read_table,
    READ_PARQUET: read_table,
    READ_JSONL: read_table,
    tfrecord.SUFFIXES: read_records,
    (".npz",): read_npz,
    (".txt", ".txt.gz", ".text"): read_plain,
}


def _lines(path: Path) -> np.ndarray:
    """The lines of a plain text that are not blank, each a text: strings (n,)."""
    lines = [line for line in _plain(path).split("\n") if line.strip()]
    if not lines:
        raise ZooError(
            f"{path} holds no text.",
            expected="one text a line",
            received="blank lines",
            kind="empty_file",
        )
    return np.array(lines, dtype=str)


def read_inputs(path: Path, plan: dict[str, Any]) -> Any:
    """Inputs alone, for a model with this preprocessing: a frame, uint8 images (n, h, w, c), or
    texts: strings (n,). :func:`zoo.data.table.take_rows` takes some of them."""
    from zoo.data.images import Pictures, as_images

    function, kind = reader(path), plan["kind"]
    if kind == "tabular" and function in (read_table, read_records):
        return open_frame(path, _sha256_of(path), text_columns(plan))
    if kind == "text" and function in (read_table, read_records):
        frame = open_frame(path, _sha256_of(path), (plan["column"],))
        column = find_column(plan["column"], list(frame.columns), "the training data", path)
        return texts_of(frame, column)
    if kind == "text" and function is read_plain:
        return _lines(path)
    if kind == "series" and function is read_table:
        from zoo.data.series import newest

        return newest(read_frame(path), plan)
    if kind == "image" and function is read_folder:
        return Pictures(path, plan["shape"])
    if function is read_npz:
        with _npz(path) as stored:
            x = _find(stored, ("images", "x"), path)
        if kind == "image":
            return as_images(x, path)
        if kind == "tabular" and x.ndim == 2 and len(x):
            return _frame_of(x, path)
    raise ZooError(
        f"{path} can't be the input of a model for {kind} data.",
        expected={
            "tabular": "a CSV or Parquet file, or an NPZ file with an array x (n, columns)",
            "image": "a folder of pictures or an NPZ file with an array images",
            "series": f"a CSV, JSON lines or Parquet file with a column {plan.get('column')!r} and "
            "one of dates",
            "text": f"a CSV, JSON lines or Parquet file with a column {plan.get('column')!r}, or a "
            "plain text with one text a line",
        }[kind],
        received=path.suffix or "a folder",
        kind="kind_mismatch",
    )
