"""Does pre-training help? BERT with hidden tokens first, then on the task, against the task alone.

    python benchmarks/pretraining.py [--seed N ...] [--out benchmarks/results/pretraining.json]

Of every seed: ``bert_tiny_mlm`` is trained on the training rows' texts without their labels, and
``bert_tiny`` is fine-tuned from it (``--init-from``); the same net is trained from its random start
with the same settings (``scratch``), and twice with as many epochs as pre-training and fine-tuning
take together: up to equal compute, by the median seconds of an epoch of each. ``longer`` stretches the whole
schedule over them; ``longer_same_warmup`` warms up in as many steps as ``scratch`` and stretches the
decay alone, since a net that overfits in its third epoch should not still be warming up then. All keep
the epoch that is best on the validation rows; the longer ones end after :data:`PATIENCE` epochs without
a better one. Differences are paired by seed, with a 95 % t interval of their mean.

The file is written after every part; what it holds is kept, and longer trainings that a seed lacks are
added (``created`` is when the last one was). Processes on cores of their own may share it, each with its
own ``--seed``.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from paired import summary
from runs import command
from zoo.environment import measured
from zoo.registry import models
from zoo.run import Run, locked, write_atomic

OUT = Path(__file__).parent / "results" / "pretraining.json"
METRICS = ("accuracy", "roc_auc", "log_loss")
SEEDS = (0, 1, 2, 3, 4)
MODELS = ("bert_tiny_mlm", "bert_tiny")
SIDES = ("pretrained", "scratch", "longer", "longer_same_warmup")
#: Epochs without a better validation loss after which the longer training ends. Its best epoch is one
#: of the first four; from then on the training loss alone falls.
PATIENCE = 5


def train(model: str, seed: int, folder: str, *words: str) -> dict[str, Any]:
    """The document of one ``zoo train``."""
    return command("train", model, "--seed", str(seed), *words, "--runs", folder)


def epoch_seconds(run: Run) -> float:
    """The median time of an epoch; without the first, which compiles, where there is another."""
    rows = run.read_log()
    return statistics.median(row["seconds"] for row in rows[1:] or rows)


def reached(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of a training."""
    return {"epochs": document["epochs"], "seconds": document["seconds"],
            **{name: document["metrics"][name] for name in METRICS}}  # fmt: skip


def without_longer(seed: int) -> dict[str, Any]:
    """The row of a seed without its longer trainings, and how many epochs they may take."""
    with tempfile.TemporaryDirectory() as folder:
        start = train("bert_tiny_mlm", seed, folder, "--name", "start")
        pretrained = train("bert_tiny", seed, folder, "--name", "pretrained",
                           "--init-from", "start")  # fmt: skip
        scratch = train("bert_tiny", seed, folder, "--name", "scratch")
        took = {name: epoch_seconds(Run(Path(folder) / name))
                for name in ("start", "pretrained", "scratch")}  # fmt: skip
    both = start["epochs"] * took["start"] + pretrained["epochs"] * took["pretrained"]
    return {
        "seed": seed,
        "pretraining": {"epochs": start["epochs"], "seconds": start["seconds"],
                        "metrics": start["metrics"]},
        "epoch_seconds": took,
        "budget_epochs": math.ceil(both / took["scratch"]),
        "pretrained": reached(pretrained),
        "scratch": reached(scratch),
        **measured(),
    }  # fmt: skip


def longer(seed: int, epochs: int, *words: str) -> dict[str, Any]:
    """The same net from its random start, for up to so many epochs."""
    with tempfile.TemporaryDirectory() as folder:
        return reached(train("bert_tiny", seed, folder, "--epochs", str(epochs),
                             "--set", f"patience={PATIENCE}", *words))  # fmt: skip


def longer_ones(row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each of the longer trainings that a row lacks, and what it reached."""
    options, epochs = models().get("bert_tiny").train, row["budget_epochs"]
    share = options["warmup"] * options["epochs"] / epochs  # of all steps: as many as scratch's
    for side, words in (("longer", ()), ("longer_same_warmup", ("--set", f"warmup={share}"))):
        if side not in row:
            yield side, longer(row["seed"], epochs, *words)


def difference(rows: list[dict[str, Any]], metric: str, other: str) -> dict[str, float | None]:
    """Pre-trained less another side, paired by seed: mean and 95 % t interval."""
    return summary([row["pretrained"][metric] - row[other][metric] for row in rows])


def differences(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """other side -> metric -> difference, over the seeds that have the side."""
    found = {}
    for other in SIDES[1:]:
        has = [row for row in rows if other in row]
        if has:
            found[other] = {metric: difference(has, metric, other) for metric in METRICS}
    return found


def held(out: Path, about: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """seed -> row of the file's seeds. Raises ``UsageError`` where other settings made them."""
    if not out.exists():
        return {}
    old = json.loads(out.read_text())
    other = [key for key, value in about.items() if old.get(key) != value]
    if other:
        raise click.UsageError(f"{out} was made with other {', '.join(other)}: take another --out.")
    return {row["seed"]: row for row in old["rows"]}


@click.command()
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), help="By default 0 to 4.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(seeds: tuple[int, ...], out: Path) -> None:
    """Measure seeds, and say what pre-training gives."""
    specs = [models().get(name) for name in MODELS]
    about = {
        "data": "sentiment",
        "models": [{"name": s.name, "version": s.version, "train": dict(s.train)} for s in specs],
    }
    about = json.loads(json.dumps(about))  # as the file holds it
    out.parent.mkdir(parents=True, exist_ok=True)

    def keep(row: dict[str, Any]) -> None:
        with locked(out.parent, f".{out.name}.lock"):
            rows = held(out, about) | {row["seed"]: row}
            found = [rows[key] for key in sorted(rows)]
            document = {**about, "rows": found, "differences": differences(found)}
            write_atomic(out, json.dumps(document, indent=1) + "\n")

    for seed in seeds or SEEDS:
        row = held(out, about).get(seed)
        if row is None:
            row = without_longer(seed)
            keep(row)
        for side, found in longer_ones(row):
            row |= {side: found, **measured()}
            keep(row)
        click.echo(f"seed {seed}: " + ", ".join(
            f"{side} {row[side]['accuracy']:.4f} ({row[side]['seconds']:.0f} s)"
            for side in SIDES))  # fmt: skip
    for other, metrics in json.loads(out.read_text())["differences"].items():
        click.echo(f"pretrained - {other}: " + ", ".join(
            f"{metric} {d['mean']:+.4f}"
            + ("" if d["ci_low"] is None else f" [{d['ci_low']:+.4f}, {d['ci_high']:+.4f}]")
            for metric, d in metrics.items()))  # fmt: skip


if __name__ == "__main__":
    main()
