"""What each recipe costs and saves, with several seeds: every seed trains, then compresses.

    python benchmarks/compression.py [MODEL ...] [--seed N ...] [--recipe R ...] [--out FILE]

Differences are paired: a recipe's variant against ``base`` of the same seed, on the same test rows.
Seeds and recipes that the file holds already are kept, so it can be run in parts.
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

from zoo.environment import cpu_model, versions
from zoo.predictions import Predictions
from zoo.registry import models
from zoo.run import now, write_atomic

OUT = Path(__file__).parent / "results" / "compression.json"
RECIPES = ("float16", "dynamic", "int8", "int16x8", "prune:0.5", "prune:0.8", "prune:0.8:all",
           "prune:0.8:global", "prune:2by4", "cluster:16", "qat+int8", "prune:0.8+int8",
           "prune:0.8+qat+int8", "prune:0.5+cluster:16+qat+int8")  # fmt: skip
#: Groups smaller than this are left out of the worst group: their accuracy says little.
SMALLEST_GROUP = 30


def zoo(*words: str) -> dict:
    """The document of one command."""
    command = [sys.executable, "-m", "zoo.cli", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    document = json.loads(done.stdout)
    if "error" in document:
        raise SystemExit(document["error"]["message"])
    return document


def worst_group(folder: Path) -> float | None:
    """The least accuracy of any group of :data:`SMALLEST_GROUP` rows or more on the test split."""
    said = Predictions.load(folder / "predictions.npz")
    hits = said.y_true == said.y_pred
    found = [
        float(hits[groups == name].mean())
        for groups in said.groups.values()
        for name in np.unique(groups)
        if (groups == name).sum() >= SMALLEST_GROUP
    ]
    return min(found, default=None)


def measure(model: str, seed: int, recipes: tuple[str, ...]) -> dict[str, dict]:
    """recipe -> numbers of one seed, ``base`` among them."""
    with tempfile.TemporaryDirectory() as folder:
        run = zoo("train", model, "--seed", str(seed), "--runs", folder)["run"]
        zoo("compress", run, *recipes)
        found = {}
        for path in sorted(Path(run).glob("*/variant.json")):
            row = json.loads(path.read_text())
            found[row["recipe"] or "base"] = {
                "accuracy": row["metrics"]["accuracy"],
                "worst_group": worst_group(path.parent),
                "bytes": row["bytes"],
                "bytes_gzip": row["bytes_gzip"],
                "sparsity": row["sparsity"],
                "seconds": row["seconds"],
            }
        return found


def summary(seeds: dict[str, dict]) -> list[dict]:
    """One row a recipe: means, and paired differences from base, in points."""
    rows = []
    for recipe in dict.fromkeys(recipe for found in seeds.values() for recipe in found):
        pairs = [(found["base"], found[recipe]) for found in seeds.values() if recipe in found]
        row: dict = {"recipe": recipe, "seeds": len(pairs)}
        for name in ("accuracy", "worst_group"):
            if all(made[name] is not None for _, made in pairs):
                drops = [100 * (made[name] - base[name]) for base, made in pairs]
                row[name] = round(statistics.mean(made[name] for _, made in pairs), 4)
                row[f"{name}_points"] = round(statistics.mean(drops), 2)
                row[f"{name}_points_sd"] = (
                    round(statistics.stdev(drops), 2) if len(drops) > 1 else None
                )
        for name in ("bytes", "bytes_gzip"):
            row[f"{name}_ratio"] = round(
                statistics.mean(made[name] / base[name] for base, made in pairs), 3
            )
        rows.append(row)
    return rows


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--seed", "chosen", multiple=True, type=int, help="Seeds; 0, 1 and 2 otherwise.")
@click.option("--recipe", "recipes", multiple=True, help="Recipes; all of them otherwise.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    names: tuple[str, ...], chosen: tuple[int, ...], recipes: tuple[str, ...], out: Path
) -> None:
    """Train models with several seeds, compress them by every recipe and write the differences."""
    rows = {row["model"]: row for row in json.loads(out.read_text())} if out.exists() else {}
    for name in names or ("cnn", "mlp"):
        version = models().get(name).version
        row = rows.get(name, {})
        if row.get("version") != version:
            row = {"model": name, "version": version, "seeds": {}}
        for seed in chosen or (0, 1, 2):
            known = row["seeds"].get(str(seed), {})
            wanted = tuple(r for r in recipes or RECIPES if r not in known)
            if wanted:
                row["seeds"][str(seed)] = measure(name, seed, wanted) | known
            row |= {"recipes": summary(row["seeds"]), "device": cpu_model(), "versions": versions(),
                    "created": now()}  # fmt: skip
            rows[name] = row
            text = json.dumps([rows[k] for k in sorted(rows)], indent=1)
            write_atomic(out, text + "\n")
        for line in row["recipes"]:
            click.echo(f"{name}  " + "  ".join(f"{k} {v}" for k, v in line.items()))


if __name__ == "__main__":
    main()
