"""Does a file sorted by its label train as well as the same rows shuffled?

    python benchmarks/sorted_labels.py [--seeds 5] [--out benchmarks/results/sorted_labels.json]

UCI Adult is written as a CSV in two orders: shuffled, and sorted by income. `zoo train mlp` runs on
both with several seeds, each of the order of samples and of the split. The two files have different
SHA-256 and so different splits: what is compared are means over seeds, with the 95 % interval of
their difference (Welch). They agree where the interval holds 0 and the difference is below
:data:`MARGIN`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from zoo.data.core import Request, load_table
from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "sorted_labels.json"
METRICS = ("accuracy", "roc_auc")
#: A larger difference of means would matter to somebody.
MARGIN = 0.005
EPOCHS = 5


def write_both(folder: Path) -> dict[str, Path]:
    """The two files: order -> path."""
    _, table = load_table(Request("adult"))
    frame = table.x.assign(income=np.asarray(table.y))
    shuffled = frame.sample(frac=1, random_state=0)
    orders = {"shuffled": shuffled, "sorted": shuffled.sort_values("income", kind="stable")}
    paths = {name: folder / f"{name}.csv" for name in orders}
    for name, rows in orders.items():
        rows.to_csv(paths[name], index=False)
    return paths


def train(path: Path, seed: int, folder: Path) -> dict[str, float]:
    """Test metrics of one training."""
    words = ["train", "mlp", "--data", path, "--target", "income", "--epochs", EPOCHS,
             "--seed", seed, "--split-seed", seed, "--runs", folder, "--json"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "zoo.cli", *map(str, words)], stdout=subprocess.PIPE, check=True
    )
    metrics = json.loads(done.stdout)["metrics"]
    return {name: metrics[name] for name in METRICS}


def compared(one: list[float], two: list[float]) -> dict[str, object]:
    """Mean of ``two`` less that of ``one``, with Welch's interval."""
    from scipy import stats

    difference = statistics.mean(two) - statistics.mean(one)
    low, high = stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
    return {
        "shuffled": one,
        "sorted": two,
        "difference": difference,
        "ci_low": float(low),
        "ci_high": float(high),
        "holds": bool(low <= 0 <= high and abs(difference) < MARGIN),
    }


@click.command()
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(seeds: int, out: Path) -> None:
    """Train on both orders with several seeds and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_both(folder)
        found = {
            order: [train(path, seed, folder / "runs") for seed in range(seeds)]
            for order, path in paths.items()
        }
    metrics = {
        metric: compared(
            [run[metric] for run in found["shuffled"]], [run[metric] for run in found["sorted"]]
        )
        for metric in METRICS
    }
    for metric, row in metrics.items():
        click.echo(
            f"{metric}: sorted - shuffled {row['difference']:+.4f} "
            f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]: "
            f"{'as well' if row['holds'] else 'NOT as well'}"
        )
    document = {
        "model": "mlp",
        "data": "adult",
        "epochs": EPOCHS,
        "seeds": list(range(seeds)),
        "margin": MARGIN,
        "metrics": metrics,
        "holds": all(row["holds"] for row in metrics.values()),
        **measured(),
    }
    write_atomic(out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
