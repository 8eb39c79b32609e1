"""Pictures: folders of them, arrays of them, and their common size."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import tfrecord
from zoo.data.large import chunks_of
from zoo.data.shards import ROWS, Stored, cached
from zoo.data.splits import split_part
from zoo.data.table import Request, Table
from zoo.errors import ZooError
from zoo.progress import counted

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
#: Side length that pictures of unequal sizes, or of more than :data:`MAX_SIDE`, are brought to.
COMMON_SIZE = 64
MAX_SIDE = 512
MAX_PIXELS = 50_000_000
#: Bytes of decoded pictures that are held in memory.
HELD = 128_000_000
#: The file beside the pictures that says more about them.
METADATA = "metadata.csv"
#: A column of metadata.csv with more values than this is no attribute unless it is asked for.
MAX_DECLARED = 20


def as_images(x: np.ndarray, path: Path) -> np.ndarray:
    """uint8 (n, height, width, channels) from (n, h, w[, c]): whole numbers from 0 to 255, or
    floats from 0 to 1."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or x.size == 0:
        raise ZooError(
            f"{path} holds no pictures.",
            expected="an array (n, height, width) or (n, height, width, 1 or 3)",
            received=str(x.shape),
            kind="bad_shape",
        )
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind in "iuf":
        low, high = x.min(), x.max()  # NaN where some value is
        if x.dtype.kind in "iu" and low >= 0 and high <= 255:
            return x.astype(np.uint8)
        if x.dtype.kind == "f" and low >= 0 and high <= 1:
            return np.rint(x * 255).astype(np.uint8)
        received = f"{x.dtype} from {low} to {high}"
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            received = f"{x.dtype} with {int((~np.isfinite(x)).sum()):,} values that are not finite"
    else:
        received = str(x.dtype)
    raise ZooError(
        f"The pictures of {path} have values out of range.",
        expected="whole numbers from 0 to 255, or floats from 0 to 1",
        received=received,
        kind="bad_values",
    )


@dataclass(frozen=True)
class Content:
    """A picture that is no file of its own: what it is called, and its bytes."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@contextmanager
def _picture(path: Path | Content) -> Iterator[Any]:
    """An open picture, its header read and its size within bounds; one error for all troubles."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's on size, which is checked here, and on metadata
            with Image.open(path if isinstance(path, Path) else BytesIO(path.content)) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(
                        f"{picture.width:,} x {picture.height:,} pixels"
                    )
                yield picture
    except ZooError:
        raise
    except Exception as error:
        if isinstance(error, UnidentifiedImageError):
            reason = "something else, by its content"
        else:
            reason = " ".join(str(error).split())[:160] or "damaged data"
        raise ZooError(
            f"{path} could not be read as a picture.",
            expected=f"a picture of at most {MAX_PIXELS:,} pixels: {', '.join(SUFFIXES)}",
            received=reason,
            hint="Remove or replace the file.",
            kind="unreadable_file",
        ) from error


#: Modes of pictures without colour; those of 16 or 32 bits hold more than eight bits of grey.
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


def _facts(path: Path | Content) -> tuple[tuple[int, int], bool]:
    """Size as shown (width, height), and whether the picture is grey; from the header alone."""
    with _picture(path) as picture:
        width, height = picture.size
        if picture.getexif().get(_ORIENTATION) in _SIDEWAYS:
            width, height = height, width
        return (width, height), picture.mode in _GREY


def _white_of(pictures: Callable[[], Iterable[Path | Content]]) -> Callable[[], float]:
    """What white is in pictures of floats, once it is asked for: 1 where none goes beyond, else 255."""

    @functools.cache
    def white() -> float:
        for path in pictures():
            with _picture(path) as picture:
                if picture.mode == "F" and np.asarray(picture).max(initial=0) > 1:
                    return 255.0
        return 1.0

    return white


def _pixels(
    path: Path | Content, size: tuple[int, int], grey: bool, white: Callable[[], float]
) -> np.ndarray:
    """uint8 (height, width) or (height, width, 3): upright, on white where it is transparent.

    Grey of 16 or 32 bits is from 0 to 65535, of floats from 0 to ``white()``. Raises where it is not.
    """
    from PIL import Image, ImageOps

    with _picture(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith(("I", "F")):
            # PIL's own conversion would clip all above 255 to white.
            values = np.asarray(upright, dtype=np.float64)
            full = white() if upright.mode == "F" else 65535.0
            low, high = values.min(), values.max()  # NaN where some value is
            if not (low >= 0 and high <= full):
                raise ZooError(
                    f"{path} has values out of range.",
                    expected="floats from 0 to 1, or from 0 to 255, alike in all pictures"
                    if upright.mode == "F"
                    else "whole numbers from 0 to 65535",
                    received=f"{low:g} to {high:g}",
                    hint="Bring the pictures to 8 bits first.",
                    kind="bad_values",
                )
            upright = Image.fromarray(np.rint(values / full * 255).astype(np.uint8))
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            behind = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(behind, upright)
        upright = upright.convert("L" if grey else "RGB")
        if upright.size != size:
            upright = upright.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(upright)


def load_pictures(
    pictures: Callable[[], Iterable[Path | Content]],
    sha256: str,
    notes: list[str],
    side: int | None = None,
) -> np.ndarray | Stored:
    """uint8 (n, height, width, 1 or 3): grey where all are.

    ``pictures()`` gives them one after the other, as often as it is called. They become squares of
    ``side``; without it they keep their size where it is one and has no side above
    :data:`MAX_SIDE`, else they become squares of :data:`COMMON_SIZE`. One picture at a time is held in full. More than :data:`HELD` bytes of them
    are decoded into the cache, under ``sha256``, that of the folder or file.
    """
    count, sizes, grey, white = 0, set(), True, _white_of(pictures)
    for picture in pictures():
        size, is_grey = _facts(picture)
        count, grey = count + 1, grey and is_grey
        sizes.add(size)
    if side is not None:
        size = (side, side)
    elif len(sizes) > 1 or max(size) > MAX_SIDE:
        size = (COMMON_SIZE, COMMON_SIZE)
        why = "sizes differ" if len(sizes) > 1 else f"sides are above {MAX_SIDE}"
        notes.append(f"pictures became {COMMON_SIZE} x {COMMON_SIZE}: their {why}")
    shape = (count, size[1], size[0], 1 if grey else 3)
    if np.prod(shape, dtype=np.int64) > HELD:
        return _decoded(pictures, shape, sha256, white)
    out = np.empty(shape, dtype=np.uint8)
    for k, path in enumerate(pictures()):
        out[k] = _pixels(path, size, grey, white).reshape(shape[1:])
    return out


def _decoded(
    pictures: Callable[[], Iterable[Path | Content]],
    shape: tuple[int, ...],
    sha256: str,
    white: Callable[[], float],
) -> Stored:
    """Pictures of a shape (n, height, width, channels), decoded into the cache."""

    def decode(folder: Path) -> dict[str, Any]:
        with (folder / ROWS).open("wb") as out:
            for path in counted(pictures(), "pictures decoded", lambda picture: 1, shape[0]):
                out.write(_pixels(path, (shape[2], shape[1]), shape[3] == 1, white).tobytes())
        return {}

    folder = cached(["pictures", list(shape)], sha256, decode)
    return Stored(folder / ROWS, shape, np.uint8)


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (n, h, w, c) -> uint8 (n, height, width, c), bilinear."""
    from PIL import Image

    out = np.empty((len(images), height, width, images.shape[3]), dtype=np.uint8)
    for k, image in enumerate(images):
        squeezed = image[..., 0] if image.shape[2] == 1 else image
        changed = Image.fromarray(squeezed).resize((width, height), Image.Resampling.BILINEAR)
        out[k] = np.asarray(changed).reshape(out.shape[1:])
    return out


def pictures_in(folder: Path, hidden: bool = False) -> list[Path]:
    """Pictures below a folder, sorted by name, those in hidden folders only with ``hidden``.

    Raises for a link that leads out of the folder.
    """
    home = folder.resolve()
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        for name in [*folders, *files]:
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise ZooError(
                    f"{path} is a link that leads out of the folder.",
                    expected="pictures inside the folder",
                    received=str(path.resolve()),
                    hint="Copy what it points to into the folder, or remove the link.",
                    kind="outside_link",
                )
        found += [
            Path(parent, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(path for path in found if path.is_file())


def picture_names(folder: Path) -> list[str]:
    """The pictures below a folder as paths relative to it, in the order of :class:`Pictures`."""
    return [path.relative_to(folder).as_posix() for path in pictures_in(folder)]


class Pictures:
    """Pictures below a folder, by name: ``pictures[rows]`` decodes some, brought to (height, width,
    1 or 3): uint8 (m, ...)."""

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self._paths, self._shape = pictures_in(folder), tuple(shape)
        if not self._paths:
            raise ZooError(
                f"{folder} holds no pictures.",
                expected="files that end in " + ", ".join(SUFFIXES),
                received="none",
            )
        self._white = _white_of(lambda: self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        height, width, channels = self._shape
        out = np.empty((len(rows), *self._shape), dtype=np.uint8)
        for k, row in enumerate(rows):
            pixels = _pixels(self._paths[row], (width, height), channels == 1, self._white)
            out[k] = pixels.reshape(self._shape)
        return out


def read_image_folder(folder: Path, request: Request, sha256: str) -> Table:
    """``folder/CLASS/*.png``, or ``folder/train|val|test/CLASS/*.png``, val or test of which may lack.

    An optional ``metadata.csv`` has a column ``file_name`` (relative to the folder) and further
    columns: groups, and perhaps ``split`` (or the one of ``--split``) or the label (named by
    ``--target``).
    """
    paths = pictures_in(folder)
    if not paths:
        raise ZooError(
            f"{folder} holds no pictures.",
            expected="folders named after the classes, with pictures inside",
            received="no file that ends in " + ", ".join(SUFFIXES),
        )
    relative = [path.relative_to(folder) for path in paths]
    target, own = "class", request.target in (None, "class")
    parted = _are_parts(folder, relative, own)
    split: Any = np.array([item.parts[0] for item in relative]) if parted else None
    labels = np.array(
        [item.parts[parted] if len(item.parts) > 1 + parted else "" for item in relative]
    )
    metadata = _metadata(folder, [item.as_posix() for item in relative])
    notes: list[str] = []
    if not own:
        assert request.target is not None
        target = _known(request.target, metadata, "--target", folder)
        labels = metadata.pop(target)
    elif (labels == "").any():
        loose = relative[int((labels == "").argmax())]
        raise ZooError(
            f"{int((labels == '').sum())} pictures lie directly in {folder}.",
            expected="each picture in a folder named after its class",
            received=f"{loose}",
            hint="Or give labels in metadata.csv and name the column with --target.",
        )
    if request.split is not None:
        split = metadata.pop(_known(request.split, metadata, "--split", folder))
    elif "split" in metadata:
        split = metadata.pop("split")
    x = load_pictures(lambda: paths, sha256, notes, request.size)
    return Table(
        kind="image",
        x=x,
        cache=getattr(x, "folder", None),
        y=labels,
        sha256="",
        target=target,
        groups=_declared(metadata, request, notes),
        split=split,
        source=folder.name,
        notes=notes,
    )


def _are_parts(folder: Path, relative: Sequence[Path], labelled: bool) -> bool:
    """Whether the folder's own folders are parts of a split, with class folders inside.

    Raises where they are and can't be used; ``labelled`` says that folders are to name the classes.
    """
    names = sorted({item.parts[0] for item in relative if len(item.parts) > 1})
    parts = {split_part(name) for name in names}
    loose = [item for item in relative if len(item.parts) < 3]
    if not labelled:
        return not loose and {"train", "test"} <= parts
    said = parts - {None}
    if not said or (None in parts and not (len(said) > 1 and "train" in said)):
        return False
    strange = [name for name in names if split_part(name) is None]
    if strange or loose or len(said) < 2 or "train" not in said:
        lies = f"{loose[0]}, in no class's folder" if loose else "folders " + ", ".join(names[:8])
        raise ZooError(
            f"The pictures of {folder} can't be used as parts of a split.",
            expected="train/CLASS/*.png and one of val and test alike, or both, and nothing else",
            received=lies,
            hint="Name the classes by folders, remove pictures without labels (`zoo predict` takes "
            "them), or give class folders alone to have them split.",
            kind="bad_split",
        )
    return True


def _known(name: str, metadata: dict[str, Any], option: str, folder: Path) -> str:
    from zoo.data.frames import find_column

    return find_column(name, metadata, option, folder / METADATA)


def _declared(metadata: dict[str, Any], request: Request, notes: list[str]) -> dict[str, Any]:
    """The columns that are attributes: those asked for, else those with few values."""
    import pandas as pd

    from zoo.data.cells import is_number_type

    if request.sensitive:
        return metadata
    chosen = {
        name: values
        for name, values in metadata.items()
        if is_number_type(pd.Series(values)) or pd.Series(values).nunique() <= MAX_DECLARED
    }
    left = [name for name in metadata if name not in chosen]
    if left:
        notes.append(
            f"metadata.csv: {', '.join(left)} have more than {MAX_DECLARED} values and are no "
            "attributes; --sensitive chooses others"
        )
    return chosen


def _metadata(folder: Path, names: list[str]) -> dict[str, Any]:
    """Columns of ``metadata.csv`` in the pictures' order; none where there is no such file."""
    from zoo.data.frames import read_frame

    path = folder / METADATA
    if not path.exists():
        return {}
    frame = read_frame(path, text=("file_name",))
    if "file_name" not in frame.columns:
        raise ZooError(
            f"{path} does not say which picture a line is about.",
            expected="a column 'file_name', relative to the folder",
            received=", ".join(map(repr, frame.columns[:10])),
        )
    listed = frame["file_name"].astype(str)
    strange = sorted(set(listed) - set(names))
    if strange:
        raise ZooError(
            f"{path} names {len(strange)} pictures that are not there.",
            expected="file names relative to the folder",
            received=strange[0],
        )
    if listed.duplicated().any():
        raise ZooError(
            f"{path} names a picture twice.",
            expected="one line for each picture",
            received=listed[listed.duplicated()].iloc[0],
        )
    ordered = frame.set_index(listed).drop(columns="file_name").reindex(names)
    return {str(name): ordered[name].to_numpy() for name in ordered.columns}


def read_record_pictures(path: Path, picture: str, request: Request, sha256: str) -> Table:
    """Pictures in TFRecords, their labels, and the attributes that ``--sensitive`` asks for."""
    import pandas as pd

    frame = pd.concat(list(chunks_of(tfrecord.rows(path))), ignore_index=True)
    there = [name for name in tfrecord.LABELS if name in frame.columns]
    target = request.target or (there[0] if there else "label")
    asked = {"--target": [target], "--sensitive": list(request.sensitive)}
    if request.split is not None or "split" in frame.columns:
        asked["--split"] = [request.split or "split"]
    for option, names in asked.items():
        for name in names:
            if name not in frame.columns:
                raise ZooError(
                    f"The records of {path} have no feature {name!r}.",
                    expected=f"a feature with one value in each record, named by {option}",
                    received=", ".join(map(repr, frame.columns[:20])) or "pictures alone",
                    kind="unknown_column",
                )

    def pictures() -> Iterator[Content]:
        for number, record in enumerate(tfrecord.records(path), start=1):
            yield Content(f"record {number} of {path}", record.get(picture) or b"")

    notes: list[str] = []
    x = load_pictures(pictures, sha256, notes, request.size)
    return Table(
        kind="image",
        x=x,
        y=frame[target],
        sha256=sha256,
        target=target,
        groups={name: frame[name] for name in request.sensitive},
        split=frame[asked["--split"][0]].to_numpy() if "--split" in asked else None,
        source=path.name,
        notes=notes,
        cache=getattr(x, "folder", None),
    )
