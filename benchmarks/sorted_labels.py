"""Does a file sorted by its label train as well as the same rows shuffled?

    python benchmarks/sorted_labels.py [--seeds 10] [--out benchmarks/results/sorted_labels.json]

UCI Adult is written as a CSV in two orders: shuffled, and sorted by income. A column says which rows
are for training, validation and test, drawn anew for every seed and the same in both files (`--split`):
a split of the command's own depends on the file, and test rows of other persons differ by more than
any training does. `zoo train mlp` runs on both with each seed. Differences are paired by seed, with
the 95 % t interval of their mean. They agree where the whole interval is within
:data:`MARGIN` of 0.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
import numpy as np

from paired import t_interval
from runs import command
from zoo.data.core import load_table
from zoo.data.table import Request
from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "sorted_labels.json"
METRICS = ("accuracy", "roc_auc")
#: A larger difference of means would matter to somebody.
MARGIN = 0.002
EPOCHS = 5
SHARES = (0.7, 0.15, 0.15)


def write_both(folder: Path, seed: int) -> dict[str, Path]:
    """The two files of a seed: order -> path."""
    _, table = load_table(Request("adult"))
    frame = table.x.assign(income=np.asarray(table.y))
    parts = np.random.default_rng(seed).choice(["train", "val", "test"], len(frame), p=SHARES)
    shuffled = frame.assign(part=parts).sample(frac=1, random_state=seed)
    orders = {"shuffled": shuffled, "sorted": shuffled.sort_values("income", kind="stable")}
    paths = {name: folder / f"{name}-{seed}.csv" for name in orders}
    for name, rows in orders.items():
        rows.to_csv(paths[name], index=False)
    return paths


def train(path: Path, seed: int, folder: Path) -> dict[str, float]:
    """Test metrics of one training."""
    words = ["train", "mlp", "--data", path, "--target", "income", "--split", "part",
             "--epochs", EPOCHS, "--seed", seed, "--runs", folder]  # fmt: skip
    metrics = command(*map(str, words))["metrics"]
    return {name: metrics[name] for name in METRICS}


def compared(one: list[float], two: list[float]) -> dict[str, object]:
    """Mean difference of ``two`` less ``one``, paired, with its t interval."""
    mean, low, high = t_interval([b - a for a, b in zip(one, two, strict=True)])
    return {
        "shuffled": one,
        "sorted": two,
        "difference": mean,
        "ci_low": low,
        "ci_high": high,
        "holds": max(abs(low), abs(high)) < MARGIN,
    }


@click.command()
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(2))
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(seeds: int, out: Path) -> None:
    """Train on both orders with several seeds and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {"shuffled": [], "sorted": []}
        for seed in range(seeds):
            for order, path in write_both(folder, seed).items():
                found[order].append(train(path, seed, folder / "runs"))
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
