"""Reading the files that come with the package, checked against their checksums."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, ZooError
from zoo.spec import DatasetSpec

if TYPE_CHECKING:
    import pandas as pd


@cache
def read_bytes(spec: DatasetSpec) -> bytes:
    """The shipped file of a data set, whole. Raises :class:`ZooError` when it was damaged."""
    import hashlib

    content = (files("zoo.data") / "files" / spec.file).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != spec.sha256:
        raise ZooError(
            f"The shipped file of data set {spec.name!r} is damaged.",
            expected=f"SHA-256 {spec.sha256}",
            received=f"SHA-256 {found}",
            hint="Install the package again.",
            kind="damaged_data",
            exit_code=FAILURE,
        )
    return content


def read_csv(spec: DatasetSpec, **options: Any) -> pd.DataFrame:
    """The shipped CSV as a frame; only an empty cell is missing."""
    import pandas as pd

    return pd.read_csv(
        io.BytesIO(read_bytes(spec)),
        compression="gzip",
        keep_default_na=False,
        na_values=[""],
        **options,
    )


def read_text(spec: DatasetSpec) -> str:
    """The shipped text, UTF-8."""
    import gzip

    return gzip.decompress(read_bytes(spec)).decode("utf-8")
