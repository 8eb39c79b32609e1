"""Does pre-training help? BERT with hidden tokens first, then on the task, against the task alone.

    python benchmarks/pretraining.py [--seed N ...] [--pretrain-epochs N] [--set KEY=VALUE ...]
                                     [--out benchmarks/results/pretraining.json]

Of every seed: ``bert_tiny_mlm`` is trained on the training rows' texts without their labels, and
``bert_tiny`` is fine-tuned from it (``--init-from``); the same net is trained from its random start
with the same settings (``scratch``), and once more with as many epochs as pre-training and
fine-tuning take together (``longer``): equal compute, by the median seconds of an epoch of each. All
keep the epoch that is best on the validation rows; ``longer`` ends after :data:`PATIENCE` epochs
without a better one. Differences are paired by seed, with a 95 % t interval of their mean.

The file is written after every seed, and seeds that it holds are kept. Processes on cores of their
own may share it, each with its own ``--seed``.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from paired import t_interval
from runs import command
from zoo.environment import measured
from zoo.registry import models
from zoo.run import Run, locked, write_atomic

OUT = Path(__file__).parent / "results" / "pretraining.json"
METRICS = ("accuracy", "roc_auc", "log_loss")
SEEDS = (0, 1, 2, 3, 4)
MODELS = ("bert_tiny_mlm", "bert_tiny")
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


def measure(seed: int, pretrain_epochs: int, settings: tuple[str, ...]) -> dict[str, Any]:
    """The three trainings of one seed: side -> what it reached."""
    words = [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        start = train("bert_tiny_mlm", seed, folder, *words, "--name", "start",
                      "--epochs", str(pretrain_epochs))  # fmt: skip
        pretrained = train("bert_tiny", seed, folder, *words, "--name", "pretrained",
                           "--init-from", "start")  # fmt: skip
        scratch = train("bert_tiny", seed, folder, *words, "--name", "scratch")
        took = {name: epoch_seconds(Run(Path(folder) / name))
                for name in ("start", "pretrained", "scratch")}  # fmt: skip
        both = pretrain_epochs * took["start"] + pretrained["epochs"] * took["pretrained"]
        budget = math.ceil(both / took["scratch"])
        longer = train("bert_tiny", seed, folder, *words, "--name", "longer", "--epochs",
                       str(budget), "--set", f"patience={PATIENCE}")  # fmt: skip
    sides = {"pretrained": pretrained, "scratch": scratch, "longer": longer}
    return {
        "seed": seed,
        "pretraining": {"epochs": start["epochs"], "seconds": start["seconds"],
                        "metrics": start["metrics"]},
        "epoch_seconds": took,
        "budget_epochs": budget,
        **{side: {"epochs": found["epochs"], "seconds": found["seconds"],
                  **{name: found["metrics"][name] for name in METRICS}}
           for side, found in sides.items()},
        **measured(),
    }  # fmt: skip


def difference(rows: list[dict[str, Any]], metric: str, other: str) -> dict[str, float | None]:
    """Pre-trained less another side, paired by seed: mean and 95 % t interval."""
    mean, *ends = t_interval([row["pretrained"][metric] - row[other][metric] for row in rows])
    low, high = (None if math.isnan(end) else end for end in ends)
    return {"mean": mean, "ci_low": low, "ci_high": high}


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
@click.option("--pretrain-epochs", type=click.IntRange(1), help="By default the model's own.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of all trainings; a setting that both models have.",
)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    seeds: tuple[int, ...], pretrain_epochs: int | None, settings: tuple[str, ...], out: Path
) -> None:
    """Measure seeds, and say what pre-training gives."""
    specs = [models().get(name) for name in MODELS]
    epochs = pretrain_epochs or specs[0].train["epochs"]
    about = {
        "data": "sentiment",
        "pretrain_epochs": epochs,
        "set": list(settings),
        "models": [{"name": s.name, "version": s.version, "train": dict(s.train)} for s in specs],
    }
    about = json.loads(json.dumps(about))  # as the file holds it
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds or SEEDS:
        if seed in held(out, about):
            continue
        row = measure(seed, epochs, settings)
        click.echo(
            f"seed {seed}: "
            + ", ".join(
                f"{side} {row[side]['accuracy']:.4f} ({row[side]['seconds']:.0f} s)"
                for side in ("pretrained", "scratch", "longer")
            )
        )
        with locked(out.parent, f".{out.name}.lock"):
            rows = held(out, about) | {seed: row}
            found = [rows[key] for key in sorted(rows)]
            document = {
                **about,
                "rows": found,
                "differences": {
                    other: {metric: difference(found, metric, other) for metric in METRICS}
                    for other in ("scratch", "longer")
                },
            }
            write_atomic(out, json.dumps(document, indent=1) + "\n")
    for other, metrics in json.loads(out.read_text())["differences"].items():
        click.echo(f"pretrained - {other}: " + ", ".join(
            f"{metric} {d['mean']:+.4f}"
            + ("" if d["ci_low"] is None else f" [{d['ci_low']:+.4f}, {d['ci_high']:+.4f}]")
            for metric, d in metrics.items()))  # fmt: skip


if __name__ == "__main__":
    main()
