"""The user's own data: CSV, JSON lines, Parquet, TFRecord, NPZ, image folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data import tfrecord
from zoo.data.cells import is_number_type, nested_type
from zoo.data.frames import (
    READ_JSONL,
    READ_PARQUET,
    find_column,
    open_frame,
    open_text,
    read_frame,
    reading,
)
from zoo.data.images import (
    METADATA,
    Pictures,
    as_images,
    pictures_in,
    read_image_folder,
    read_record_pictures,
)
from zoo.data.passages import cut
from zoo.data.preprocess import text_columns
from zoo.data.splits import is_split_column
from zoo.data.table import LEAST_WORDS, Request, Table, check_unchanged, texts_of
from zoo.errors import ZooError
from zoo.run import sha256_file
from zoo.tasks import get_task

if TYPE_CHECKING:
    import pandas as pd


def looks_like_path(text: str) -> bool:
    """Whether ``--data`` means a file or folder rather than a name."""
    return "/" in text or "\\" in text or Path(text).suffix != "" or Path(text).exists()


def load_own(request: Request, sha256: str | None = None) -> Table:
    """The table of a path. Raises :class:`ZooError` for what can't be read, and where ``sha256``
    is given and the content has another."""
    path = Path(request.data).expanduser()
    read = reader(path)
    with reading(path, "data"):
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
    with reading(path, "UTF-8 text"), open_text(path) as file:
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

    with reading(path, "NPZ without pickled arrays"):
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
    return read_image_folder(path, request, sha256)


def read_records(path: Path, request: Request, sha256: str) -> Table:
    """TFRecord files: pictures, or a table."""
    with reading(path, "TFRecord"):
        picture = tfrecord.picture_name(path)
        if picture is not None:
            return read_record_pictures(path, picture, request, sha256)
    return read_table(path, request, sha256)


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


def read_inputs(path: Path, plan: dict[str, Any], attribute: str | None = None) -> tuple[Any, Any]:
    """Inputs alone, for a model with this preprocessing, and an attribute's values (n,) beside them.

    Inputs are a frame, uint8 images (n, h, w, c), or texts: strings (n,).
    :func:`zoo.data.table.take_rows` takes some of them. Of an attribute that the file does not have, or
    None, the values are None.
    """
    function, kind = reader(path), plan["kind"]

    def beside(frame: Any) -> Any:
        return frame[attribute] if attribute in list(frame.columns) else None

    if kind == "tabular" and function in (read_table, read_records):
        frame = open_frame(path, _sha256_of(path), text_columns(plan))
        return frame, beside(frame)
    if kind == "text" and function in (read_table, read_records):
        frame = open_frame(path, _sha256_of(path), (plan["column"],))
        column = find_column(plan["column"], list(frame.columns), "the training data", path)
        return texts_of(frame, column), beside(frame)
    if kind == "text" and function is read_plain:
        return _lines(path), None
    if kind == "series" and function is read_table:
        from zoo.data.series import newest

        return newest(read_frame(path), plan), None
    if kind == "image" and function is read_folder:
        return Pictures(path, plan["shape"]), None
    if function is read_npz:
        with _npz(path) as stored:
            x, values = _find(stored, ("images", "x"), path), stored.get(f"group_{attribute}")
        if kind == "image":
            return as_images(x, path), values
        if kind == "tabular" and x.ndim == 2 and len(x):
            return _frame_of(x, path), values
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
