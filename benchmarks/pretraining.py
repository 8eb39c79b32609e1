"""Does pre-training help? BERT with hidden tokens first, then on the task, against the task alone.

    python benchmarks/pretraining.py [--seed N ...] [--pretrain-epochs N] [--set KEY=VALUE ...]
                                     [--out benchmarks/results/pretraining.json]

Of every seed: ``bert_tiny_mlm`` is trained on the training rows' texts without their labels, and
``bert_tiny`` is fine-tuned from it (``--init-from``); the same net is trained from its random start
with the same settings (``scratch``), and once more for as many epochs as take the seconds of
pre-training and fine-tuning together (``longer``): equal compute. All keep the epoch that is best on
the validation rows. Differences are paired by seed, with a 95 % t interval of their mean.

The file is written after every seed, and seeds that it holds with the same settings are kept, so that
several processes may measure a seed each.
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
from zoo.run import Run, write_atomic

OUT = Path(__file__).parent / "results" / "pretraining.json"
METRICS = ("accuracy", "roc_auc", "log_loss")
SEEDS = (0, 1, 2, 3, 4)


def train(model: str, seed: int, folder: str, *words: str) -> dict[str, Any]:
    """The document of one ``zoo train``."""
    return command("train", model, "--seed", str(seed), *words, "--runs", folder)


def measure(seed: int, pretrain_epochs: int, settings: tuple[str, ...]) -> dict[str, Any]:
    """The three trainings of one seed: side -> what it reached."""
    words = [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        start = train("bert_tiny_mlm", seed, folder, *words, "--name", "start",
                      "--epochs", str(pretrain_epochs))  # fmt: skip
        pretrained = train("bert_tiny", seed, folder, *words, "--name", "pretrained",
                           "--init-from", "start")  # fmt: skip
        scratch = train("bert_tiny", seed, folder, *words, "--name", "scratch")
        log = Run(Path(folder) / "scratch").read_log()
        epoch = statistics.median(row["seconds"] for row in log[1:])  # without compilation
        epochs = math.ceil((start["seconds"] + pretrained["seconds"]) / epoch)
        longer = train("bert_tiny", seed, folder, *words, "--name", "longer",
                       "--epochs", str(epochs))  # fmt: skip
    sides = {"pretrained": pretrained, "scratch": scratch, "longer": longer}
    return {
        "seed": seed,
        "pretraining": {"epochs": start["epochs"], "seconds": start["seconds"],
                        "metrics": start["metrics"]},
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
    """seed -> row, of the file's seeds that were measured with these settings."""
    old = json.loads(out.read_text()) if out.exists() else {}
    same = all(old.get(key) == value for key, value in about.items())
    return {row["seed"]: row for row in old["rows"]} if same and old else {}


@click.command()
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), help="By default 0 to 4.")
@click.option("--pretrain-epochs", type=click.IntRange(1), help="By default the model's own.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Of all trainings.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(
    seeds: tuple[int, ...], pretrain_epochs: int | None, settings: tuple[str, ...], out: Path
) -> None:
    """Measure seeds, and say what pre-training gives."""
    epochs = pretrain_epochs or models().get("bert_tiny_mlm").train["epochs"]
    about = {"data": "sentiment", "pretrain_epochs": epochs, "set": list(settings)}
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
