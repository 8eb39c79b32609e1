"""What treating groups alike costs: each mitigation against the model as it was trained, over seeds.

    python benchmarks/mitigation.py [--seed N ...] [--runs DIR] [--out FILE]

Of every seed, ``mlp`` is trained on Adult, and every mitigation is made for its attribute ``sex``, those
that decide by thresholds once for each constraint. Kept are accuracy and the disparity that the constraint
is about, on the test rows, before and after. Seeds that the file holds are kept.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from runs import command, trained
from zoo.decision import CONSTRAINTS
from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "mitigation.json"
MODEL, ATTRIBUTE, METRIC, SEEDS = "mlp", "sex", "accuracy", (0, 1, 2, 3, 4)


def measure(seed: int, root: Path) -> list[dict[str, Any]]:
    """One row a method and constraint; of one that trains anew, what it does to each disparity."""
    run = trained(MODEL, seed, root)
    before = run.variant("base").document()["metrics"][METRIC]
    rows = []
    for constraint, disparity in CONSTRAINTS.items():
        found = command("mitigate", run.name, "--sensitive", ATTRIBUTE, "--constraint", constraint,
                        "--runs", str(root))  # fmt: skip
        for row in found["results"]:
            if row["error"]:
                raise SystemExit(f"{run.name}, {row['variant']}: {row['error']}")
            sides = {side: row["disparity"][side]["value"] for side in ("before", "after")}
            rows.append({
                "method": row["recipe"].split(":")[0],
                "disparity": disparity,
                "needs_groups": row["needs_groups"],
                **{f"disparity_{side}": value for side, value in sides.items()},
                f"{METRIC}_before": before,
                f"{METRIC}_after": row["metrics"][METRIC],
            })  # fmt: skip
    return rows


@click.command()
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), help="By default 0 to 4.")
@click.option("--runs", "kept", type=click.Path(path_type=Path), help="Keep the runs here.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(seeds: tuple[int, ...], kept: Path | None, out: Path) -> None:
    """Measure seeds, and say what each mitigation did."""
    rows: dict[str, Any] = json.loads(out.read_text())["seeds"] if out.exists() else {}
    for seed in seeds or SEEDS:
        if str(seed) not in rows:
            with tempfile.TemporaryDirectory() as scratch:
                rows[str(seed)] = measure(seed, kept or Path(scratch))
            document = {
                "model": MODEL, "data": "adult", "attribute": ATTRIBUTE, "seeds": rows, **measured()
            }  # fmt: skip
            write_atomic(out, json.dumps(document, indent=1) + "\n")
    for rows_of in zip(*rows.values(), strict=True):
        mean = {name: statistics.mean(row[name] for row in rows_of)
                for name, value in rows_of[0].items() if isinstance(value, float)}  # fmt: skip
        click.echo(f"{rows_of[0]['method']}, {rows_of[0]['disparity']}: "
                   + ", ".join(f"{name} {value:.4f}" for name, value in mean.items()))  # fmt: skip


if __name__ == "__main__":
    main()
