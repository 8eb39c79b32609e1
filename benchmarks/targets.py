"""Check the models' targets: a default ``zoo train`` with several seeds, each in its own process.

    python benchmarks/targets.py [MODEL ...] [--seeds 5] [--runs DIR] [--out benchmarks/results/targets.json]

Each model's row holds the seeds' test metrics and the baseline's, their mean and standard deviation,
and whether the mean less two standard deviations reaches the target. Rows of models that are not
named are kept. With ``--runs`` the runs are kept as ``MODEL-SEED``, and those that are there already,
of ``compression.py`` for one, are not trained again.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

import click

from paired import t_interval
from runs import trained
from zoo.environment import measured
from zoo.metrics import METRICS
from zoo.registry import models
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "targets.json"


def over_baseline(runs: list[dict], name: str) -> dict[str, float]:
    """The model's metric less the baseline's, paired by seed: mean and 95 % t interval."""
    found = [run["metrics"][name] - run["baseline"]["metrics"][name] for run in runs]
    return dict(zip(("mean", "ci_low", "ci_high"), t_interval(found), strict=True))


def measure(model: str, seeds: int, kept: Path | None) -> dict:
    """One row of the results."""
    with tempfile.TemporaryDirectory() as folder:
        found = [trained(model, seed, kept or Path(folder)) for seed in range(seeds)]
        runs = [run.document()["result"] for run in found]
    spec = models().get(model)
    names = list(runs[0]["metrics"])
    summary = {
        name: {
            "values": [run["metrics"][name] for run in runs],
            "mean": statistics.mean(run["metrics"][name] for run in runs),
            "sd": statistics.stdev(run["metrics"][name] for run in runs),
            "baseline": runs[0]["baseline"]["metrics"][name],
            "over_baseline": over_baseline(runs, name),
        }
        for name in names
    }
    reached = summary[spec.target.metric]
    direction = METRICS[spec.target.metric].direction
    return {
        "model": model,
        "version": spec.version,
        "data": spec.data,
        "target": {"metric": spec.target.metric, "value": spec.target.value},
        "holds": direction * (reached["mean"] - spec.target.value) >= 2 * reached["sd"],
        "seeds": list(range(seeds)),
        "seconds": [round(run["seconds"], 1) for run in runs],
        "baseline": runs[0]["baseline"]["name"],
        "metrics": summary,
        **measured(),
    }


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--runs", "kept", type=click.Path(path_type=Path), help="Keep the runs here.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(names: tuple[str, ...], seeds: int, kept: Path | None, out: Path) -> None:
    """Train models with several seeds and write what they reached."""
    rows = {row["model"]: row for row in json.loads(out.read_text())} if out.exists() else {}
    for name in names or sorted(s.name for s in models().specs.values() if s.target):
        row = rows[name] = measure(name, seeds, kept)
        metric = row["target"]["metric"]
        found = row["metrics"][metric]
        click.echo(
            f"{name}: {metric} {found['mean']:.4f} +- {found['sd']:.4f}, target "
            f"{row['target']['value']}: {'holds' if row['holds'] else 'does NOT hold'}"
        )
        write_atomic(out, json.dumps([rows[name] for name in sorted(rows)], indent=1) + "\n")


if __name__ == "__main__":
    main()
