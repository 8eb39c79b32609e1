"""Weekly carbon dioxide at Mauna Loa, 1958 to 2001 (Keeling & Whorf 2004)."""

from __future__ import annotations

from zoo.data.shipped import read_csv
from zoo.data.table import Request, Table
from zoo.spec import DatasetSpec


def load(request: Request) -> Table:
    """2,284 weeks, 59 of them without a value (NaN)."""
    frame = read_csv(SPECS[0], parse_dates=["date"])
    return Table(
        kind="series",
        x=frame[["date"]],
        y=frame["co2_ppm"],
        sha256=SPECS[0].sha256,
        target="co2_ppm",
        task="forecasting",
        license=SPECS[0].license,
        source=SPECS[0].source,
    )


SPECS = [
    DatasetSpec(
        name="co2",
        kind="series",
        task="forecasting",
        load=load,
        rows=2284,
        classes=(),
        groups=("season",),
        features=1,
        license="public domain",
        source="Keeling & Whorf 2004, Scripps Institution of Oceanography",
        file="co2.csv.gz",
        bytes=9973,
        sha256="eddb024e502b49383a0a84eadb656af149923d439e2c4ffee6a1a003d3a1c25f",
        description="What will the next 26 weeks bring? (parts per million)",
    )
]
