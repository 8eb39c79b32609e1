"""What the cells of a column are: numbers, names, nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

MISSING = "(missing)"
OTHER = "(other)"
#: Columns are judged, and preprocessing is fitted, on at most so many training rows, a seeded draw of
#: them: a quantile of 250,000 rows is off by 0.1 % of the rows.
FIT_ROWS = 250_000


def label_text(value: Any) -> str:
    """A label as text: whole floats without their point, the rest as they are."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def codes_and_texts(values: Any) -> tuple[np.ndarray, list[str]]:
    """int64 (n,) codes into the texts of the distinct values, in order of appearance.

    The last text is :data:`MISSING`, whether it occurs or not. Two values may share a text (``1``
    and ``1.0``, or text with blanks around it), so a text may occur under two codes.
    """
    import pandas as pd

    codes, distinct = pd.factorize(pd.Series(values), use_na_sentinel=True)
    return codes % (len(distinct) + 1), [*map(label_text, distinct), MISSING]


def texts(values: Any) -> np.ndarray:
    """Each value as its label's text: object (n,) of str, :data:`MISSING` where there is none."""
    codes, names = codes_and_texts(values)
    return np.array(names, dtype=object)[codes]


def is_number_type(series: Any) -> bool:
    """Whether a series holds numbers by its type; booleans are labels."""
    import pandas as pd

    return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)


def nested_type(series: Any) -> str | None:
    """The type's name of cells that are no single values, such as lists; None where there are none."""
    if series.dtype != object:
        return None
    types = {type(cell) for cell in series}
    found = [t for t in types if issubclass(t, (list, tuple, dict, set, bytes, np.ndarray))]
    return "list" if np.ndarray in found else min((t.__name__ for t in found), default=None)


def fit_rows(train: np.ndarray) -> np.ndarray:
    """Those of the training rows that preprocessing is fitted on: all up to :data:`FIT_ROWS`."""
    if len(train) <= FIT_ROWS:
        return train
    drawn = np.random.default_rng(len(train)).choice(len(train), FIT_ROWS, replace=False)
    return train[np.sort(drawn)]
