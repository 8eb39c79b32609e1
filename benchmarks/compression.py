"""What each recipe costs and saves, with several seeds, and whether the claims about that hold.

    python benchmarks/compression.py [MODEL ...] [--seed N ...] [--recipe R ...] [--runs DIR] [--out FILE]
    python benchmarks/compression.py --check          # what the file says about the claims

Every seed trains, then is compressed and measured by one ``zoo compress --sweep``. Losses are paired:
a recipe's variant against ``base`` of the same seed, on the same test rows. Seeds and recipes that the
file holds already are kept, so it can be run in parts; with ``--runs`` the runs are kept, too, and
``--again`` measures them anew. Latencies count only where the machine was idle.
"""

from __future__ import annotations

import gzip
import json
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from runs import command, idle, trained
from zoo.compress.recipe import parse
from zoo.environment import measured
from zoo.registry import models
from zoo.run import Run, write_atomic

OUT = Path(__file__).parent / "results" / "compression.json"
FLAGSHIPS = ("mlp", "cnn", "resnet20", "lstm", "lstm_forecast", "bert_tiny", "gpt_tiny", "vae")
RECIPES = ("float16", "dynamic", "int8", "int16x8", "prune:0.5", "prune:0.8", "prune:0.8:all",
           "prune:0.8:global", "prune:2by4", "cluster:16", "qat", "qat+int8", "prune:0.8+int8",
           "prune:0.8+qat+int8", "prune:0.5+cluster:16+qat+int8")  # fmt: skip
SEEDS = (0, 1, 2, 3, 4)
#: Metrics of which a difference is counted in points; others as a share of base's.
COSTS = ("bytes", "bytes_gzip", "p90_ms")


def recipes_of(model: str, wanted: Sequence[str]) -> list[str]:
    """Those that the model's spec does not skip."""
    skips = models().get(model).skips
    return [r for r in wanted if not any(part.step.name in skips for part in parse(r))]


def measure(model: str, seed: int, recipes: Sequence[str], root: Path, seconds: float) -> dict:
    """recipe -> numbers of one seed, ``base`` among them."""
    run = trained(model, seed, root)
    swept = command("compress", run.name, *recipes, "--sweep", "--split", "test", "--seconds", str(seconds),
                "--runs", str(root))  # fmt: skip
    alone = idle()
    pruned = pruned_gzip(run, [r["variant"] for r in swept["results"] if not r["error"]])
    found: dict[str, dict] = {}
    base_p90 = next(r["p90_ms"] for r in swept["results"] if not r["recipe"]) if alone else None
    for row in swept["results"]:
        if row["error"]:
            found[row["recipe"] or "base"] = {"error": row["error"]}
            continue
        layers = row["layers"]
        found[row["recipe"] or "base"] = {
            "metric": row["metric"],
            "value": row["value"],
            "drop": row["drop"],
            "worst_group": (row["worst_group"] or {}).get("value"),
            "worst_group_drop": row["worst_group_drop"],
            "bytes": row["bytes"],
            "bytes_gzip": row["bytes_gzip"],
            "p90_ms": row["p90_ms"] if alone else None,
            "p90_base_ms": base_p90,
            "sparsity": row["sparsity"],
            "sparsities": [min(la["sparsity"] for la in layers), max(la["sparsity"] for la in layers)],
            "smallest_kernel": min(la["weights"] for la in layers),
            "pruned_gzip": pruned.get(row["variant"]),
            "seconds": row["seconds"],
        }  # fmt: skip
    return found


def pruned_gzip(run: Run, names: Sequence[str]) -> dict[str, int]:
    """Zipped bytes of the kernels that pruning takes, float32, of base and retrained variants."""
    from zoo.kernels import kernels
    from zoo.train.running import reopen

    session, sizes = reopen(run), {}
    for name in names:
        variant = run.variant(name)
        if (variant.path / "model.weights.h5").exists() and not variant.document()["model"]:
            model = session.load(variant.weights)
            content = b"".join(np.asarray(k.variable).tobytes() for k in kernels(model))
            sizes[name] = len(gzip.compress(content, 9, mtime=0))
    return sizes


def beside(base: Mapping[str, Any], made: Mapping[str, Any], name: str) -> float | None:
    """What a variant's cost is compared with: base's, of a latency that of the same sweep."""
    return made.get("p90_base_ms", base[name]) if name == "p90_ms" else base[name]


def summary(seeds: Mapping[str, dict]) -> list[dict]:
    """One row a recipe: means over its seeds, and what it loses against base, paired."""
    rows = []
    for recipe in dict.fromkeys(recipe for found in seeds.values() for recipe in found):
        pairs = [(f["base"], f[recipe]) for f in seeds.values() if "value" in f.get(recipe, {})]
        if not pairs:
            reasons = (f[recipe]["error"] for f in seeds.values() if recipe in f)
            rows.append({"recipe": recipe, "seeds": 0, "error": next(reasons)})
            continue
        row: dict[str, Any] = {
            "recipe": recipe,
            "seeds": len(pairs),
            "metric": pairs[0][1]["metric"],
        }
        for name in ("value", "worst_group", "drop", "worst_group_drop"):
            values = [made[name] for _, made in pairs if made[name] is not None]
            row[name] = round(statistics.mean(values), 5) if values else None
            row[f"{name}_sd"] = round(statistics.stdev(values), 5) if len(values) > 1 else None
        for name in (*COSTS, "pruned_gzip"):
            ratios = [made[name] / against for base, made in pairs
                      if made[name] and (against := beside(base, made, name))]  # fmt: skip
            row[f"{name}_ratio"] = round(statistics.mean(ratios), 4) if ratios else None
        row |= {name: round(statistics.mean(made[name] for _, made in pairs)) for name in COSTS[:2]}
        row["sparsities"] = [
            min(made["sparsities"][0] for _, made in pairs),
            max(made["sparsities"][1] for _, made in pairs),
        ]
        row["smallest_kernel"] = pairs[0][1]["smallest_kernel"]
        rows.append(row)
    return rows


Rows = Mapping[str, dict]


@dataclass(frozen=True)
class Claim:
    """A claim about a recipe on some models: ``number(rows of the model)`` and its limit.

    ``sign`` is +1 where the number must be at most ``limit``, -1 where at least. ``number`` gives
    None where the claim says nothing about the model.
    """

    text: str
    models: tuple[str, ...]
    recipes: tuple[str, ...]
    number: Callable[[Rows], float | None]
    limit: float
    sign: int = 1

    def judge(self, rows: Rows) -> tuple[str, float | None]:
        """holds, does not hold, not measured, or no case of it."""
        if any(rows.get(recipe, {}).get("value") is None for recipe in self.recipes):
            return "not measured", None
        number = self.number(rows)
        if number is None:
            return "no case of it", None
        return (
            "holds" if self.sign * number <= self.sign * self.limit else "does not hold"
        ), number


def _points(recipe: str) -> Callable[[Rows], float]:
    return lambda rows: 100 * rows[recipe]["drop"]


def _times(recipe: str) -> Callable[[Rows], float]:
    return lambda rows: 1 / rows[recipe]["pruned_gzip_ratio"]


def _inexact(recipe: str) -> Callable[[Rows], float]:
    """How far any layer is from its sparsity, in weights of the smallest kernel."""
    aim = float(re.sub(r"^prune:", "", recipe))
    return lambda rows: (
        max(abs(s - aim) for s in rows[recipe]["sparsities"]) * rows[recipe]["smallest_kernel"]
    )


def _qat_over_int8(rows: Rows) -> float | None:
    plain = rows["int8"]["drop"]
    return 100 * (rows["qat+int8"]["drop"] - plain) if 100 * plain > 0.5 else None


def _large_int8(rows: Rows) -> float | None:
    return rows["int8"]["bytes_ratio"] if rows["base"]["bytes"] > 1_000_000 else None


_PRUNED, _ROUNDED = ("resnet20", "lstm", "bert_tiny"), ("cnn", "resnet20", "bert_tiny")
CLAIMS = (
    Claim("prune:0.5 costs at most 0.5 points", _PRUNED, ("prune:0.5",), _points("prune:0.5"), 0.5),
    Claim("prune:0.8 costs at most 1.5 points", _PRUNED, ("prune:0.8",), _points("prune:0.8"), 1.5),
    *(Claim(f"each layer's sparsity is exact under {r} (off by at most one weight)", FLAGSHIPS, (r,),
            _inexact(r), 1.0) for r in ("prune:0.5", "prune:0.8")),
    Claim("prune:0.5 zips the pruned tensors 1.6 times smaller", FLAGSHIPS, ("prune:0.5",),
          _times("prune:0.5"), 1.6, -1),
    Claim("prune:0.8 zips the pruned tensors 3.5 times smaller", FLAGSHIPS, ("prune:0.8",),
          _times("prune:0.8"), 3.5, -1),
    Claim("qat+int8 costs at most 0.5 points", _ROUNDED, ("qat+int8",), _points("qat+int8"), 0.5),
    Claim("qat+int8 is as good as int8 where that costs over 0.5 points", _ROUNDED,
          ("int8", "qat+int8"), _qat_over_int8, 0.0),
    Claim("trained (qat) and exported (qat+int8) accuracy agree within 0.5 points", _ROUNDED,
          ("qat", "qat+int8"), lambda r: 100 * abs(r["qat+int8"]["drop"] - r["qat"]["drop"]), 0.5),
    Claim("int8 is at most 0.28 of a float file above 1 MB",
          ("cnn", "resnet20", "bert_tiny", "gpt_tiny"), ("base", "int8"), _large_int8, 0.28),
)  # fmt: skip


def check(rows: Sequence[dict]) -> list[tuple[str, str, int, str, float | None]]:
    """(claim, model, seeds, verdict, number) of every claim and model."""
    measured = {row["model"]: row for row in rows}
    said = []
    for claim in CLAIMS:
        for model in claim.models:
            row = measured.get(model)
            found = {r["recipe"]: r for r in row["recipes"]} if row else {}
            verdict, number = claim.judge(found)
            seeds = min((found[r]["seeds"] for r in claim.recipes if r in found), default=0)
            said.append((claim.text, model, seeds, verdict, number))
    return said


def report(rows: Sequence[dict]) -> None:
    """Print the measured numbers and what they say about the claims."""
    for row in rows:
        for line in row["recipes"]:
            click.echo(f"{row['model']}  " + "  ".join(f"{k} {v}" for k, v in line.items()))
    for text, model, seeds, verdict, number in check(rows):
        shown = "" if number is None else f" ({number:.3g}, {seeds} seeds)"
        click.echo(f"{verdict:14} {model:14} {text}{shown}")


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--seed", "chosen", multiple=True, type=int, help="Seeds; 0 to 4 otherwise.")
@click.option("--recipe", "recipes", multiple=True, help="Recipes; all of them otherwise.")
@click.option("--runs", "kept", type=click.Path(path_type=Path), help="Keep the runs here.")
@click.option("--again", is_flag=True, help="Measure what the file holds once more.")
@click.option("--seconds", default=1.5, show_default=True, help="Of each latency measurement.")
@click.option(
    "--check", "only", is_flag=True, help="Print what the file says, and measure nothing."
)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    names: tuple[str, ...], chosen: tuple[int, ...], recipes: tuple[str, ...], kept: Path | None,
    again: bool, seconds: float, only: bool, out: Path,
) -> None:  # fmt: skip
    """Train models with several seeds, compress them by every recipe, and check the claims."""
    rows = {row["model"]: row for row in json.loads(out.read_text())} if out.exists() else {}
    known = models().specs
    for name in () if only else names or [n for n in FLAGSHIPS if n in known and known[n].target]:
        version = known[name].version
        row = rows.get(name, {})
        if row.get("version") != version:
            row = {"model": name, "version": version, "seeds": {}}
        for seed in chosen or SEEDS:
            before = {} if again else row["seeds"].get(str(seed), {})
            wanted = [r for r in recipes_of(name, recipes or RECIPES) if r not in before]
            if wanted:
                with tempfile.TemporaryDirectory() as scratch:
                    found = measure(name, seed, wanted, kept or Path(scratch), seconds)
                row["seeds"][str(seed)] = {**row["seeds"].get(str(seed), {}), **found, **before}
            row |= {"recipes": summary(row["seeds"]), **measured()}
            rows[name] = row
            text = json.dumps([rows[k] for k in sorted(rows)], indent=1)
            write_atomic(out, text + "\n")
    report([rows[k] for k in sorted(rows)])


if __name__ == "__main__":
    main()
