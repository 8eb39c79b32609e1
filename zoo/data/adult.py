"""UCI Adult, the census income data of 1994 (Becker & Kohavi 1996)."""

from __future__ import annotations

import itertools

from zoo.data.shipped import read_csv
from zoo.data.table import Request, Table
from zoo.spec import DatasetSpec

#: Limits of the age bands, years: the usual ones of labour statistics.
AGE_BANDS = (25, 35, 45, 55, 65)


def load(request: Request) -> Table:
    """48,842 people; sex, race and age bands are groups; ``fnlwgt`` is a sampling weight."""
    import numpy as np

    frame = read_csv(SPECS[0])
    names = [f"under {AGE_BANDS[0]}"]
    names += [f"{low}-{high - 1}" for low, high in itertools.pairwise(AGE_BANDS)]
    names += [f"{AGE_BANDS[-1]} and over"]
    bands = np.array(names)[np.searchsorted(AGE_BANDS, frame["age"], side="right")]
    return Table(
        kind="tabular",
        x=frame.drop(columns=["income", "split", "sex", "race", "fnlwgt"]),
        y=frame["income"],
        sha256=SPECS[0].sha256,
        target="income",
        task="binary",
        groups={
            "sex": frame["sex"].to_numpy(),
            "race": frame["race"].to_numpy(),
            "age": bands,
        },
        split=frame["split"].to_numpy(),
        license=SPECS[0].license,
        source=SPECS[0].source,
        notes=["fnlwgt is the survey's sampling weight, no property of a person: not an input"],
    )


SPECS = [
    DatasetSpec(
        name="adult",
        kind="tabular",
        task="binary",
        load=load,
        rows=48842,
        classes=("<=50K", ">50K"),
        groups=("sex", "race", "age"),
        features=11,
        license="CC BY 4.0",
        source="Becker & Kohavi 1996, UCI Machine Learning Repository, doi:10.24432/C5XW20",
        file="adult.csv.gz",
        bytes=600173,
        sha256="7cbc928f063e7dcf58990246873ed4e652a4fe233e7e0ab1378b3361d1314560",
        description="Does a person earn more than 50,000 dollars a year?",
    )
]
