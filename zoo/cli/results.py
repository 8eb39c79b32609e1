"""``zoo runs``, ``compare``, ``eval``, ``predict`` and ``generate``: what runs say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo.cli.group import cli
from zoo.cli.parts import (
    Finite,
    emit,
    examples,
    fail_on_errors,
    figure,
    given_options,
    output_option,
    refuse,
    runs_option,
    shared,
    split_option,
    table,
    variant_option,
)


@cli.command(epilog=examples("zoo runs", "zoo runs --runs experiments --json"))
@runs_option
@shared
def runs(root: Path) -> None:
    """List the runs there are, oldest first."""
    from zoo import api

    rows = api.runs(root)
    shown = []
    for row in rows:
        if "error" in row:
            shown.append((row["name"], "-", "-", row["status"], "-", "-", "-"))
            continue
        name, value = next(iter(row["metrics"].items()), ("", None))
        shown.append((row["name"], row["model"], row["data"], row["status"],
                      f"{name} {figure(value)}", ", ".join(row["variants"]),
                      row["created"][:16].replace("T", " ")))  # fmt: skip
    header = ("run", "model", "data", "status", "test", "variants", "created")
    emit(
        rows,
        table(header, shown) if rows else f"There is no run in {root}. Make one: zoo train mlp",
    )
    fail_on_errors(rows)


@cli.command(
    epilog=examples("zoo compare loans-a loans-b", "zoo compare old latest --variant int8")
)
@click.argument("first")
@click.argument("second")
@click.option("--variant", default="base", show_default=True, help="Which variant of both.")
@runs_option
@shared
def compare(first: str, second: str, variant: str, root: Path) -> None:
    """Compare two runs, paired where the test rows are the same."""
    from zoo import api

    document = api.compare(first, second, root, variant)
    one, two = document["metrics"]
    rows = [
        (name, figure(one[name]), figure(two.get(name)),
         "-" if None in (one[name], two.get(name)) else f"{two[name] - one[name]:+.4f}")
        for name in one
    ]  # fmt: skip
    text = table(("test", *(Path(run).name for run in document["runs"]), "change"), rows)
    if document["reason"]:
        text += f"\nnot paired: {document['reason']}"
    else:
        for row in document["deltas"]:
            if row["attribute"] == "(all)" and row["delta"] is not None:
                text += (
                    f"\n{row['metric']}: {row['delta']:+.4f} "
                    f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}], n={row['n']:,}, paired"
                )
    emit(document, text)


@cli.command("eval", epilog=examples("zoo eval latest", "zoo eval latest --variant all --json"))
@click.argument("run")
@variant_option
@split_option
@runs_option
@shared
def evaluate(run: str, variant: str, split: str, root: Path) -> None:
    """Score RUN's artefacts, with 95 % intervals."""
    from zoo import api

    document = api.evaluate(run, variant, split, root)
    rows = [
        (r["variant"], name, figure(m["value"]), f"[{figure(m['ci_low'])}, {figure(m['ci_high'])}]",
         figure(r["n"]))
        for r in document["results"] for name, m in r["metrics"].items()
    ]  # fmt: skip
    emit(document, table(("variant", "metric", "value", "95 % interval", "n"), rows))


@cli.command(
    epilog=examples(
        "zoo predict latest --split val", "zoo predict latest new.csv --output answers.csv"
    )
)
@click.argument("run")
@click.argument("source", metavar="[INPUT]", required=False, type=click.Path(path_type=Path))
@variant_option
@split_option
@output_option("File for INPUT's predictions [INPUT-predictions.csv].")
@runs_option
@shared
def predict(
    run: str, source: Path | None, variant: str, split: str, output: Path | None, root: Path
) -> None:
    """Predict a split with RUN, or an INPUT of your own.

    INPUT is a table (CSV, JSON lines, Parquet, TFRecord), a plain text with one text a line, a folder
    of pictures or an NPZ file.
    """
    from zoo import api

    if source is not None:
        refuse(
            [o for o in given_options(but=()) if o == "--split"], "INPUT is no split of the data."
        )

    document = api.predict(
        run, source=source, variant=variant, split=split, output=output, root=root
    )
    rows = [
        (r["variant"], r["split"] or "own", figure(r["n"]), r["path"]) for r in document["results"]
    ]
    emit(document, table(("variant", "split", "n", "path"), rows))


@cli.command(
    epilog=examples(
        "zoo generate latest --prompt 'ROMEO.'",
        "zoo generate latest --prompt 'O, ' --temperature 0.8 --top-k 40 --seed 1 --variant int8",
    )
)
@click.argument("run")
@click.option("--prompt", default="", help="What the text begins with, or the line to restore.")
@click.option(
    "--max-tokens",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Tokens to make, at most.",
)
@click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    type=Finite(0, 100),
    help="0 takes the most probable token.",
)
@click.option(
    "--top-k",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Choose among so many tokens; 0 for all.",
)
@click.option(
    "--top-p",
    default=1.0,
    show_default=True,
    type=Finite(0, 1, min_open=True),
    help="Choose among the most probable tokens that have this share.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the choice.")
@click.option(
    "--beams",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Search with so many (seq2seq).",
)
@variant_option
@runs_option
@shared
def generate(run: str, root: Path, **options: Any) -> None:
    """Make texts with RUN, a language model."""
    from zoo import api

    document = api.generate(run, options.pop("prompt"), root=root, **options)
    several = len(document["results"]) > 1
    shown = []
    for row in document["results"]:
        text = "\n".join(row["outputs"])
        rate = figure(row["tokens_per_second"], 3)
        shown.append(
            (f"{row['variant']}:\n" if several else "")
            + f"{text}\n({row['tokens']:,} tokens, {rate} a second)"
        )
    emit(document, "\n\n".join(shown))
