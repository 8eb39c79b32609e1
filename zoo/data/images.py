"""Pictures: folders of them, arrays of them, and their common size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.core import Request, Table
from zoo.errors import ZooError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
#: Side length that pictures of unequal sizes are brought to.
COMMON_SIZE = 64
MAX_PIXELS = 50_000_000


def as_images(x: np.ndarray, path: Path) -> np.ndarray:
    """uint8 (n, height, width, channels) from (n, h, w[, c]) of uint8, or floats from 0 to 1."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3):
        raise ZooError(
            f"{path} holds no pictures.",
            expected="an array (n, height, width) or (n, height, width, 1 or 3)",
            received=str(x.shape),
        )
    if x.dtype == np.uint8:
        return x
    if (
        np.issubdtype(x.dtype, np.floating)
        and np.isfinite(x).all()
        and 0 <= x.min() <= x.max() <= 1
    ):
        return np.rint(x * 255).astype(np.uint8)
    raise ZooError(
        f"The pictures of {path} have values out of range.",
        expected="uint8, or floats from 0 to 1",
        received=f"{x.dtype} from {x.min()} to {x.max()}",
    )


def _open(path: Path) -> Any:
    from PIL import Image

    try:
        picture = Image.open(path)
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
        picture.load()
    except Exception as error:
        raise ZooError(
            f"{path} could not be read as a picture.",
            expected=f"a picture: {', '.join(SUFFIXES)}",
            received=" ".join(str(error).split())[:160],
            hint="Remove or replace the file.",
            kind="unreadable_file",
        ) from error
    return picture


def load_pictures(paths: list[Path]) -> np.ndarray:
    """uint8 (n, height, width, 1 or 3): grey where all are, of one size (the largest square that
    :data:`COMMON_SIZE` allows where they differ)."""
    pictures = [_open(path) for path in paths]
    grey = all(picture.mode in ("L", "1") for picture in pictures)
    sizes = {picture.size for picture in pictures}
    size = sizes.pop() if len(sizes) == 1 else (COMMON_SIZE, COMMON_SIZE)
    arrays = [
        np.asarray(picture.convert("L" if grey else "RGB").resize(size)) for picture in pictures
    ]
    stacked = np.stack(arrays)
    return stacked[..., None] if grey else stacked


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (n, h, w, c) -> uint8 (n, height, width, c), bilinear."""
    from PIL import Image

    def one(image: np.ndarray) -> np.ndarray:
        squeezed = image[..., 0] if image.shape[2] == 1 else image
        changed = Image.fromarray(squeezed).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(changed).reshape(height, width, image.shape[2])

    return np.stack([one(image) for image in images])


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def read_pictures(folder: Path) -> np.ndarray:
    """All pictures below a folder, by name: uint8 (n, h, w, c)."""
    paths = _pictures_in(folder)
    if not paths:
        raise ZooError(
            f"{folder} holds no pictures.", expected=", ".join(SUFFIXES), received="none"
        )
    return load_pictures(paths)


def read_image_folder(folder: Path, request: Request) -> Table:
    """``folder/CLASS/*.png``, or ``folder/train|val|test/CLASS/*.png``.

    An optional ``metadata.csv`` has a column ``file_name`` (relative to the folder) and further
    columns: groups, and perhaps ``split`` or the label (named by ``--target``).
    """
    from zoo.data.core import _ALIASES

    paths = _pictures_in(folder)
    if not paths:
        raise ZooError(
            f"{folder} holds no pictures.",
            expected="folders named after the classes, with pictures inside",
            received="no file that ends in " + ", ".join(SUFFIXES),
        )
    relative = [path.relative_to(folder) for path in paths]
    tops = {item.parts[0].lower() for item in relative}
    split: Any = None
    if all(len(item.parts) >= 3 for item in relative) and {"train", "test"} <= {
        _ALIASES.get(top, "") for top in tops
    }:
        split = np.array([item.parts[0] for item in relative])
        labels = np.array([item.parts[1] for item in relative])
    else:
        labels = np.array([item.parts[0] if len(item.parts) > 1 else "" for item in relative])
    metadata = _metadata(folder, [str(item) for item in relative], request)
    target = "class"
    if request.target is not None and request.target in metadata:
        target = request.target
        labels = metadata.pop(target)
    elif (labels == "").any():
        raise ZooError(
            f"{int((labels == '').sum())} pictures lie directly in {folder}.",
            expected="each picture in a folder named after its class",
            received=f"{relative[0]}",
            hint="Or give labels in metadata.csv and name the column with --target.",
        )
    for name in (request.split, "split"):
        if name is not None and name in metadata:
            split = metadata.pop(name)
            break
    return Table(
        kind="image",
        x=load_pictures(paths),
        y=labels,
        sha256="",
        target=target,
        groups=metadata,
        split=split,
        source=folder.name,
    )


def _metadata(folder: Path, names: list[str], request: Request) -> dict[str, Any]:
    """Columns of ``metadata.csv`` in the pictures' order; none where there is no such file."""
    from zoo.data.own import read_frame

    path = folder / "metadata.csv"
    if not path.exists():
        return {}
    frame = read_frame(path)
    if "file_name" not in frame.columns:
        raise ZooError(
            f"{path} does not say which picture a line is about.",
            expected="a column 'file_name', relative to the folder",
            received=", ".join(map(repr, frame.columns[:10])),
        )
    known = set(names)
    strange = sorted(set(frame["file_name"].astype(str)) - known)
    if strange:
        raise ZooError(
            f"{path} names {len(strange)} pictures that are not there.",
            expected="file names relative to the folder",
            received=strange[0],
        )
    if frame["file_name"].duplicated().any():
        raise ZooError(f"{path} names a picture twice.", expected="one line for each picture")
    ordered = frame.set_index("file_name").reindex(names)
    return {str(name): ordered[name].to_numpy() for name in ordered.columns}
