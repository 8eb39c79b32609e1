"""``zoo train`` and ``tune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from zoo.cli.group import cli
from zoo.cli.parts import (
    emit,
    examples,
    figure,
    given_options,
    pairs_text,
    progress_bar,
    refuse,
    runs_option,
    shared,
    table,
)
from zoo.cli.settings import request_of, training_options
from zoo.errors import ENFORCED, ZooError


@cli.command(
    epilog=examples(
        "zoo train cnn",
        "zoo train mlp --data loans.csv --target approved --sensitive sex",
        "zoo train lstm_forecast --data sales.csv --target sold --horizon 12",
        "zoo train mlp --set hidden=64,32 --set learning_rate=0.001 --seed 1",
        "zoo train --config experiment.toml --seed 2",
        "zoo train --resume latest",
    )
)
@click.argument("model", required=False)
@training_options
@runs_option
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--local-workers", type=click.IntRange(2, 64), metavar="N",
              help="Train in a cluster of N processes on this machine.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Resolve and check everything; write nothing.")
@click.option("--require-target", is_flag=True, help="Exit 3 when the model's target is missed.")
@shared
def train(
    model: str | None,
    data_name: str | None,
    fields: dict[str, Any],
    training: dict[str, Any],
    root: Path,
    resume: str | None,
    local_workers: int | None,
    dry_run: bool,
    require_target: bool,
) -> None:
    """Train MODEL into a new run, beside a linear baseline."""
    from zoo import api

    progress = progress_bar()
    if (model is None) == (resume is None):
        raise click.UsageError("Expected either a MODEL to train or --resume RUN.")
    if local_workers is not None:
        context = click.get_current_context()
        words = context.find_root().obj
        context.meta["stdout"].close()  # the chief prints, to where we would
        raise SystemExit(api.train_cluster(words, local_workers, progress))
    if resume is not None:
        refuse(
            given_options(
                but={
                    "resume",
                    "root",
                    "cpus",
                    "local_workers",
                    "require_target",
                    "as_json",
                    "debug",
                }
            ),
            "--resume takes everything but --cpus from the run.",
        )
        document = api.resume(resume, root, progress, training["cpus"])
    else:
        assert model is not None
        if require_target:
            _check_claim(model, data_name, fields["task"])
        document = api.train(
            model,
            request=request_of(model, data_name, fields),
            root=root,
            dry_run=dry_run,
            progress=progress,
            **training,
        )
    emit(document, _training_text(document))
    if require_target and not document.get("target", {}).get("hit", True):
        raise SystemExit(ENFORCED)


def _check_claim(model: str, data_name: str | None, task: str | None) -> None:
    """Raise where there is no target to require: before a training, and not after it."""
    from zoo.registry import models

    spec = models().get(model)
    other = data_name not in (None, spec.data) or task not in (None, spec.task)
    if spec.target is None or other:
        claim = f"{spec.target.metric} on {spec.data}" if spec.target else "nothing"
        raise ZooError(
            f"There is no target of {model} to require here.",
            expected=f"--require-target with what the model claims: {claim}",
            received=f"--data {data_name or spec.data}" + (f" --task {task}" if task else ""),
            hint="`zoo list` shows the targets.",
        )


def _training_text(document: Mapping[str, Any]) -> str:
    if "worker" in document:
        return f"worker {document['worker']} of {document['workers']}: done, the chief has the run"
    if "run" not in document:  # a dry run
        data = document["data"]
        columns = table(
            ("column", "kind", "input", "why"),
            [
                (c["name"], c["kind"], "yes" if c["used"] else "no", c["why"])
                for c in data["columns"]
            ],
        )
        lines = [
            f"{document['model']} on {data['name']}: {data['task']}",
            f"rows      {pairs_text(data['sizes'])}",
            f"config    {pairs_text(document['config'])}",
            f"training  {pairs_text(document['options'])}",
        ]
        return "\n".join(lines) + (f"\n\n{columns}" if data["columns"] else "")
    metrics, base = document["metrics"], document["baseline"]
    rows = [
        (name, figure(value), figure(base["metrics"].get(name))) for name, value in metrics.items()
    ]
    target = document["target"]
    if target["reached"] is None:
        verdict = f"target: {target.get('reason', 'not reached')}"
    else:
        verdict = (
            f"target: {target['metric']} {target['value']}, reached {target['reached']:.4f}: "
            f"{'hit' if target['hit'] else 'missed'}"
        )
    rate = document["steps_per_second"]
    speed = "" if rate is None else f", {rate:,.0f} steps/s ({document['execution']})"
    return (
        table(("test", document["model"], base["name"]), rows)
        + f"\n{verdict}\n{_advice(document.get('advice'))}{document['run']}  "
        f"{document['epochs']} epochs, {document['seconds']:.1f} s{speed}"
    )


def _advice(advice: Mapping[str, Any] | None) -> str:
    """Lines on the learning curve; none for a run from before there was advice."""
    if advice is None:
        return ""
    return f"learning curve: {advice['verdict']}: {advice['why']}\n" + "".join(
        f"  try: {change}\n" for change in advice["change"]
    )


@cli.command(
    epilog=examples(
        "zoo tune cnn --quick",
        "zoo tune mlp --trials 20 --epochs 5",
        "zoo tune mlp --trials 20 --objective accuracy:1,latency_ms:-0.01,worst_group:0.5",
    )
)
@click.argument("model")
@training_options
@runs_option
@click.option("--quick", is_flag=True, help="Range test of learning rates, and batch sizes.")
@click.option("--trials", type=click.IntRange(1), help="Search by so many trainings in all.")
@click.option("--objective", metavar="NAME|NAME:WEIGHT,...",
              help="Validation metric to search for, or a sum to be large; also latency_ms, "
              "worst_group, params.")  # fmt: skip
@click.option("--study", metavar="NAME", help="Study to begin or go on with; by model and data.")
@shared
def tune(
    model: str,
    data_name: str | None,
    fields: dict[str, Any],
    training: dict[str, Any],
    root: Path,
    quick: bool,
    trials: int | None,
    objective: str | None,
    study: str | None,
) -> None:
    """Find settings for MODEL by quick measurements or by trials."""
    from zoo import api

    if quick == (trials is not None):
        raise click.UsageError("Expected either --quick or --trials N.")
    given = given_options(but=())
    never = ["--name", "--track", "--init-from", "--checkpoint-every", "--strategy", "--precision"]
    refuse([o for o in never if o in given], "tuning makes no run of its own, on one device.")
    request, progress = request_of(model, data_name, fields), progress_bar()
    common = {name: training[name] for name in ("settings", "seed", "cpus")}
    if quick:
        own = ["--objective", "--study", "--deterministic", "--execution", "--runs"]
        refuse([o for o in own if o in given], "--quick measures alone.")
        document = api.tune_quick(model, request=request, progress=progress, **common)
        emit(document, _quick_text(document))
        return
    assert trials is not None
    document = api.tune(
        model,
        trials,
        request=request,
        objective=objective,
        study=study,
        deterministic=training["deterministic"],
        execution=training["execution"],
        root=root,
        progress=progress,
        **common,
    )
    emit(document, _tuned_text(document))


def _quick_text(document: Mapping[str, Any]) -> str:
    rate, size = document["learning_rate"], document["batch_size"]
    shown = range(0, len(rate["rates"]), max(1, len(rate["rates"]) // 12))
    low, high = min(rate["losses"]), max(rate["losses"])
    bars = [round(30 * (rate["losses"][k] - low) / ((high - low) or 1)) * "#" for k in shown]
    losses = [
        (f"{rate['rates'][k]:.1e}", figure(rate["losses"][k]), bar)
        for k, bar in zip(shown, bars, strict=True)
    ]
    sizes = [
        (figure(r["batch_size"]), f"{r['samples_per_second']:,.0f}", figure(r["steps_per_epoch"]))
        for r in size["sizes"]
    ]
    return (
        table(("learning rate", "loss", ""), losses)
        + f"\nlearning rate: {rate['recommended']:g} recommended, a tenth of where the loss was "
        f"lowest ({rate['lowest_at']:.2g}); the model's own is {rate['present']:g}\n\n"
        + table(("batch", "samples/s", "steps an epoch"), sizes)
        + f"\nbatch size: {size['recommended']} recommended, the smallest that is nearly as fast "
        f"as any; the model's own is {size['present']}\n"
        "The rate was tested at the model's own batch size: with another one, test again "
        "(--batch-size).\n"
        f"--set learning_rate={rate['recommended']:g}"
    )


def _tuned_text(document: Mapping[str, Any]) -> str:
    best, names = document["best"], list(document["trials"][0]["config"])
    rows = [
        (figure(t["number"]), t["state"], figure(t["value"]), figure(t["epochs"]),
         *(f"{t['config'].get(n):.3g}" if isinstance(t["config"].get(n), float)
           else str(t["config"].get(n)) for n in names))
        for t in document["trials"]
    ]  # fmt: skip
    wanted = " ".join(
        name if weight == 1 else f"{weight:+g} {name}"
        for name, weight in document["objective"]["weights"].items()
    )
    metrics = ", ".join(f"{k} {figure(v)}" for k, v in best["metrics"].items())
    return (
        table(("trial", "state", "value", "epochs", *names), rows)
        + f"\nobjective: {wanted}, on the validation rows\n"
        f"best: trial {best['trial']}, {figure(best['value'])} ({metrics})\n{best['command']}"
    )
