"""The user's own data: CSV, Parquet, NPZ, image folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.core import Request, Table, is_split_column
from zoo.errors import ZooError, unknown
from zoo.run import sha256_file

if TYPE_CHECKING:
    import pandas as pd


def looks_like_path(text: str) -> bool:
    """Whether ``--data`` means a file or folder rather than a name."""
    return "/" in text or "\\" in text or Path(text).suffix != "" or Path(text).exists()


def load_own(request: Request) -> Table:
    """The table of a path. Raises :class:`ZooError` for what can't be read."""
    path = Path(request.data).expanduser()
    table = reader(path)(path, request)
    table.sha256 = sha256_file(path)
    return table


def reader(path: Path) -> Callable[[Path, Request], Table]:
    """The function that reads a path, by its kind."""
    if not path.exists():
        raise ZooError(
            f"There is no file or folder {str(path)!r}.",
            expected="a CSV, Parquet or NPZ file, or a folder of pictures",
            received=str(path),
            hint="Check the path; `zoo data list` shows the data sets that have names.",
            kind="missing_file",
        )
    if path.is_dir():
        return read_folder
    if path.stat().st_size == 0:
        raise ZooError(
            f"{path} is empty.",
            expected="a CSV, Parquet or NPZ file with data",
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
    reason = " ".join(str(error).split())[:200]
    return ZooError(
        f"{path} could not be read as {what}.",
        expected=what,
        received=reason,
        hint="Is it the right file, whole, and in UTF-8?",
        kind="unreadable_file",
    )


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV (separator and compression found out) or Parquet file as a frame."""
    import pandas as pd

    if path.name.lower().endswith(READ_PARQUET):
        try:
            return pd.read_parquet(path)
        except Exception as error:
            raise unreadable(path, "Parquet", error) from error
    import gzip

    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8-sig")
        if "\x00" in text:
            raise ValueError("it holds NUL bytes, so it is no text")
        header = text.split("\n", 1)[0]
        try:
            separator = csv.Sniffer().sniff(header, delimiters=",;\t|").delimiter
        except csv.Error:
            separator = ","
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, skipinitialspace=True, low_memory=False
        )
    except ZooError:
        raise
    except Exception as error:
        raise unreadable(path, "CSV", error) from error
    if frame.columns.size < 2:
        raise ZooError(
            f"{path} has a single column.",
            expected="a header line and at least two columns, separated by ',', ';', tab or '|'",
            received=f"a first line {header[:60]!r}",
            kind="unreadable_file",
        )
    frame.columns = [str(name).strip() for name in frame.columns]
    if not frame.columns.is_unique:
        doubled = frame.columns[frame.columns.duplicated()][0]
        raise ZooError(f"{path} has two columns called {doubled!r}.", expected="distinct headers")
    return _parse_dates(frame)


def _parse_dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn text columns that hold ISO dates throughout into dates."""
    import pandas as pd

    for name in frame.columns:
        if pd.api.types.is_string_dtype(frame[name]):
            known = frame[name].dropna().astype(str)
            if len(known) and known.str.fullmatch(r"\d{4}-\d{2}-\d{2}([ T].*)?").all():
                frame[name] = pd.to_datetime(frame[name], errors="coerce")
    return frame


def read_table(path: Path, request: Request) -> Table:
    """A CSV or Parquet file with a target column."""
    frame = read_frame(path)
    columns = list(frame.columns)
    if request.target is None:
        raise ZooError(
            f"Which column of {path} is to be predicted?",
            expected="--target COLUMN",
            received=f"columns: {', '.join(map(repr, columns[:20]))}",
            hint=f"zoo train mlp --data {path} --target {columns[-1]!r}",
            kind="missing_target",
        )
    for option, names in (("target", (request.target,)), ("split", (request.split,))):
        for name in names:
            if name is not None and name not in columns:
                raise unknown("column", name, columns, hint=f"--{option} names a column of {path}.")
    if request.target in request.sensitive:
        raise ZooError(
            f"{request.target!r} is the target and can't be a sensitive attribute as well.",
            expected="other columns for --sensitive",
            received=", ".join(request.sensitive),
        )
    split = request.split
    notes = []
    if split is None:
        found = [n for n in columns if n.lower() == "split" and n != request.target]
        if found and is_split_column(frame[found[0]]):
            split = found[0]
            notes.append(f"the column {split!r} says which rows train, validate and test")
    inputs = frame.drop(columns=[request.target, *([split] if split else [])])
    return Table(
        kind="tabular",
        x=inputs,
        y=frame[request.target],
        sha256="",
        target=request.target,
        split=None if split is None else frame[split].to_numpy(),
        source=path.name,
        notes=notes,
    )


def _find(stored: Any, names: tuple[str, ...], path: Path) -> np.ndarray:
    for name in names:
        if name in stored.files:
            return stored[name]
    raise ZooError(
        f"{path} lacks an array.",
        expected=f"an array called {' or '.join(names)}",
        received=", ".join(stored.files)[:200] or "no arrays",
    )


def read_npz(path: Path, request: Request) -> Table:
    """Arrays ``images`` or ``x``, ``labels`` or ``y``, perhaps ``split`` and ``group_NAME``."""
    import pandas as pd

    try:
        with np.load(path, allow_pickle=False) as stored:
            x = _find(stored, ("images", "x"), path)
            names = ("labels", "y") if request.target is None else (request.target,)
            y = _find(stored, names, path)
            split = stored["split"] if "split" in stored.files else None
            groups = {
                key.removeprefix("group_"): stored[key]
                for key in stored.files
                if key.startswith("group_")
            }
    except ZooError:
        raise
    except Exception as error:
        raise unreadable(path, "NPZ without pickled arrays", error) from error
    if y.ndim != 1 or any(len(a) != len(x) for a in (y, *groups.values())):
        raise ZooError(
            f"The arrays of {path} don't fit together.",
            expected=f"labels and groups of shape ({len(x)},)",
            received=f"labels {y.shape}, "
            + ", ".join(f"{name} {values.shape}" for name, values in groups.items()),
        )
    if x.ndim == 2:
        frame = pd.DataFrame(x, columns=[f"f{k}" for k in range(x.shape[1])])
        return Table("tabular", frame, y, "", names[0], groups=groups, split=split)
    from zoo.data.images import as_images

    return Table("image", as_images(x, path), y, "", names[0], groups=groups, split=split)


def read_folder(path: Path, request: Request) -> Table:
    """A folder of class folders of pictures."""
    from zoo.data.images import read_image_folder

    return read_image_folder(path, request)


READ_PARQUET = (".parquet", ".pq")
READERS: dict[tuple[str, ...], Callable[[Path, Request], Table]] = {
    (".csv", ".tsv", ".csv.gz", ".tsv.gz"): read_table,
    READ_PARQUET: read_table,
    (".npz",): read_npz,
}


def read_inputs(path: Path, kind: str) -> Any:
    """Inputs alone, for prediction: a frame, or uint8 images (n, h, w, c)."""
    function = reader(path)
    if kind == "tabular" and function is read_table:
        return read_frame(path)
    if kind == "image":
        from zoo.data.images import as_images, read_pictures

        if path.is_dir():
            return read_pictures(path)
        if function is read_npz:
            with np.load(path, allow_pickle=False) as stored:
                return as_images(_find(stored, ("images", "x"), path), path)
    raise ZooError(
        f"{path} can't be the input of a model for {kind} data.",
        expected={
            "tabular": "a CSV or Parquet file",
            "image": "a folder of pictures or an NPZ file",
        }[kind],
        received=path.suffix or "a folder",
        kind="kind_mismatch",
    )
