"""What does a teacher give? A small model taught by a large one, against the same model by itself.

    python benchmarks/distillation.py [--pair TEACHER:STUDENT ...] [--seed N ...] [--runs DIR] [--out FILE]

Of every seed the teacher is trained, and teaches the student (``zoo compress TEACHER distill:STUDENT``);
the student is also trained alone (``zoo train STUDENT``), with the same seed, so from the same random
start, on the same rows, by the same options. All three are judged on the test rows, by group too, and
timed as LiteRT files. Differences are paired by seed, with a 95 % t interval of their mean. Seeds that
the file holds are kept; with ``--runs`` the runs are, too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from paired import summary
from runs import command, idle, trained
from zoo.environment import measured
from zoo.registry import models
from zoo.run import Run, write_atomic

OUT = Path(__file__).parent / "results" / "distillation.json"
#: (teacher, student): alike in what they read.
PAIRS = (("bert_small", "bert_tiny"), ("resnet20", "cnn"))
SEEDS = (0, 1, 2, 3, 4)
KEPT = ("metric", "value", "bytes", "p90_ms")


def rows_of(run: Run, recipe: str, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's ``base`` and its variant of a recipe are and cost on the test rows."""
    swept = command("compress", run.name, recipe, "--sweep", "--split", "test", "--runs", str(root))
    alone = idle()
    found = []
    for row in swept["results"]:
        if row["error"]:
            raise SystemExit(f"{run.name}, {row['variant']}: {row['error']}")
        kept = {name: row[name] for name in KEPT}
        kept["p90_ms"] = row["p90_ms"] if alone else None
        found.append(kept | {"worst_group": (row["worst_group"] or {}).get("value")})
    base, made = found
    return base, made


def measure(teacher: str, student: str, seed: int, root: Path) -> dict[str, Any]:
    """One seed: the teacher, the student alone and the student it taught."""
    alone, _ = rows_of(trained(student, seed, root), "float16", root)
    large, taught = rows_of(trained(teacher, seed, root), f"distill:{student}", root)
    if large["metric"] != alone["metric"]:
        raise SystemExit(
            f"{teacher} is judged by {large['metric']}, {student} by {alone['metric']}"
        )
    return {"teacher": large, "alone": alone, "taught": taught, **measured()}


def gained(seeds: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float | None]:
    """Taught less alone, paired by seed: mean and 95 % t interval."""
    pairs = [(row["taught"][name], row["alone"][name]) for row in seeds.values()]
    return summary([taught - alone for taught, alone in pairs])


@click.command()
@click.option("--pair", "chosen", multiple=True, metavar="TEACHER:STUDENT",
              help=f"By default {' and '.join(':'.join(pair) for pair in PAIRS)}.")  # fmt: skip
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), help="By default 0 to 4.")
@click.option("--runs", "kept", type=click.Path(path_type=Path), help="Keep the runs here.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(chosen: tuple[str, ...], seeds: tuple[int, ...], kept: Path | None, out: Path) -> None:
    """Measure pairs and seeds, and say what the teacher gave."""
    rows = (
        {(r["teacher"], r["student"]): r for r in json.loads(out.read_text())}
        if out.exists()
        else {}
    )
    for teacher, student in [tuple(text.split(":")) for text in chosen] or PAIRS:
        versions = {name: models().get(name).version for name in (teacher, student)}
        row = rows.get((teacher, student), {})
        if row.get("versions") != versions:
            row = {"teacher": teacher, "student": student, "versions": versions, "seeds": {}}
        for seed in seeds or SEEDS:
            if str(seed) in row["seeds"]:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                row["seeds"][str(seed)] = measure(teacher, student, seed, kept or Path(scratch))
            row["gained"] = {name: gained(row["seeds"], name) for name in ("value", "worst_group")}
            rows[teacher, student] = row
            write_atomic(out, json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")
    for row in rows.values():
        for seed, found in row["seeds"].items():
            click.echo(f"{row['teacher']} -> {row['student']}, seed {seed}: " + ", ".join(
                f"{side} {found[side]['value']:.4f}" for side in ("teacher", "alone", "taught")))  # fmt: skip
        for name, d in row["gained"].items():
            ends = "" if d["ci_low"] is None else f" [{d['ci_low']:+.4f}, {d['ci_high']:+.4f}]"
            click.echo(f"{row['teacher']} -> {row['student']}, {name}: {d['mean']:+.4f}{ends}")


if __name__ == "__main__":
    main()
