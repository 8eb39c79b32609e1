"""Measure the peak memory of ``zoo train`` on a CSV and on one of ten times its rows.

    python benchmarks/memory.py [--rows 200000] [--factor 10] [--out benchmarks/results/memory.json]

Each file has 12 columns of numbers (one with gaps), 6 of categories, a date, a sensitive attribute
and a label that depends on some of them. `zoo train mlp --epochs 1` runs on each in a process of its
own with an empty cache, so the conversion is measured too, and once more with the cache filled. The
peak is the most resident memory that the process ever had (``ru_maxrss``), pages of mapped files
included. `--execution graph` is fixed, so that both are the same training: a trial compiles with XLA as
well when a training promises to be long, which takes some 130 MB whatever the data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd

from zoo.environment import measured, memory_bytes
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "memory.json"
#: Rows that are made and written at a time: this process must stay smaller than those it measures.
CHUNK = 50_000
EPOCHS, EXECUTION = 1, "graph"


def chunk(seed: int, rows: int) -> pd.DataFrame:
    """``rows`` rows of the made-up table."""
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {}
    numbers = rng.normal(0, 1, (8, rows)).round(4)
    columns |= {f"x{k}": values for k, values in enumerate(numbers)}
    columns["amount"] = np.where(
        rng.random(rows) < 0.05, np.nan, rng.lognormal(3, 1, rows).round(2)
    )
    columns["age"] = rng.integers(18, 90, rows)
    columns["visits"] = rng.poisson(3, rows)
    columns["balance"] = rng.normal(0, 1000, rows).round(2)
    for name, values in (("plan", 3), ("channel", 5), ("state", 50), ("code", 200), ("grade", 7)):
        names = np.array([f"{name} {k}" for k in range(values)])
        columns[name] = names[rng.integers(0, values, rows)]
    columns["member"] = np.array(["yes", "no", ""])[rng.integers(0, 3, rows)]
    columns["since"] = (np.datetime64("2015-01-01") + rng.integers(0, 3000, rows)).astype(str)
    columns["sex"] = np.array(["female", "male"])[rng.integers(0, 2, rows)]
    logit = numbers[0] + numbers[1] * (columns["plan"] == "plan 0") - (columns["member"] == "no")
    drawn = rng.random(rows) < 1 / (1 + np.exp(-logit))
    columns["outcome"] = np.array(["stays", "leaves"])[drawn.astype(int)]
    return pd.DataFrame(columns)


def write(path: Path, rows: int) -> int:
    """A CSV of ``rows`` rows; its size in bytes."""
    for start in range(0, rows, CHUNK):
        frame = chunk(start, min(CHUNK, rows - start))
        frame.to_csv(path, mode="a", header=start == 0, index=False)
    return path.stat().st_size


def measure(data: Path, folder: Path) -> dict[str, object]:
    """One ``zoo train``: peak memory, times and what it reached."""
    words = ["train", "mlp", "--data", data, "--target", "outcome", "--sensitive", "sex",
             "--epochs", EPOCHS, "--execution", EXECUTION, "--runs", folder / "runs", "--json"]  # fmt: skip
    began = time.perf_counter()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo.cli", *map(str, words)],
            stdout=out,
            env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"zoo train ended with {process.returncode}")
    document = json.loads((folder / "out").read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_bytes": usage.ru_maxrss * unit,
        "seconds": round(time.perf_counter() - began, 1),
        "training_seconds": round(document["seconds"], 1),
        "samples_per_second": document["samples_per_second"],
        "roc_auc": document["metrics"]["roc_auc"],
        "baseline": document["baseline"]["name"],
        "baseline_roc_auc": document["baseline"]["metrics"]["roc_auc"],
    }


@click.command()
@click.option("--rows", default=200_000, show_default=True, type=click.IntRange(1000))
@click.option("--factor", default=10, show_default=True, type=click.IntRange(2))
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(rows: int, factor: int, out: Path) -> None:
    """Measure both sizes and write the figures."""
    found = []
    for count in (rows, rows * factor):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = write(folder / "table.csv", count)
            first = measure(folder / "table.csv", folder)
            again = measure(folder / "table.csv", folder)
        found.append({"rows": count, "csv_bytes": size, "first": first, "cached": again})
        peaks = " and ".join(f"{run['peak_bytes'] / 1e6:,.0f} MB" for run in (first, again))
        click.echo(f"{count:,} rows, {size / 1e6:,.0f} MB: peak {peaks}, {first['seconds']} s")
    ratios = {
        key: round(found[1][key]["peak_bytes"] / found[0][key]["peak_bytes"], 4)
        for key in ("first", "cached")
    }
    click.echo(f"peak with {factor} times the rows: {ratios}")
    document = {
        "model": "mlp",
        "epochs": EPOCHS,
        "execution": EXECUTION,
        "columns": chunk(0, 1).shape[1],
        "sizes": found,
        "factor": factor,
        "peak_ratio": ratios,
        "holds": max(ratios.values()) <= 1.1,
        "memory_bytes": memory_bytes(),
        **measured(),
    }
    write_atomic(out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
