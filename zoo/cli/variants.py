"""``zoo compress`` and ``export``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    min_cell_option,
    no_exemplars_option,
    output_option,
    progress_bar,
    refuse,
    runs_option,
    shared,
    size_text,
    table,
    time_text,
    variant_option,
)
from zoo.errors import ENFORCED


class _Compress(click.Command):
    """Its help lists the steps of the recipe table, read when it is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from zoo.compress.steps import STEPS

        with formatter.section("Recipes are step(+step)*, with the steps"):
            formatter.write_dl(
                [
                    (f"{s.name}:{s.argument}" if s.argument else s.name, s.help)
                    for s in STEPS.values()
                ]
            )
        super().format_epilog(ctx, formatter)


@cli.command(
    cls=_Compress,
    epilog=examples(
        "zoo compress latest int8 prune:0.8+int8",
        "zoo compress latest --sweep",
        "zoo compress latest --sweep --max-drop 0.01 --max-worst-group-drop 0.02",
        "zoo compress latest --sweep int8 qat+int8 --max-p90-ms 2 --prefer latency",
    ),
)
@click.argument("run")
@click.argument("recipes", nargs=-1, metavar="RECIPE...")
@click.option("--variant", default="base", show_default=True, help="Which variant to start from.")
@click.option("--sweep", is_flag=True,
              help="Try the RECIPEs, or else a grid of them; measure each, draw the Pareto fronts.")  # fmt: skip
@click.option("--max-drop", type=Finite(0), metavar="X",
              help="Take a variant that loses at most so much (0.01: a point of accuracy, or 1 % of "
              "an error). With --sweep, as the next ones.")  # fmt: skip
@click.option("--max-worst-group-drop", type=Finite(0), metavar="X",
              help="... of which no group loses more.")  # fmt: skip
@click.option("--max-bytes", type=click.IntRange(1), metavar="N", help="... that is no larger.")
@click.option("--max-p90-ms", type=Finite(0, min_open=True), metavar="X",
              help="... whose latency at p90 is no longer.")  # fmt: skip
@click.option("--prefer", default="size", show_default=True,
              type=click.Choice(["size", "gzip", "latency"]),
              help="Of those that meet all, take the one with the least of this.")  # fmt: skip
@click.option("--split", default="val", show_default=True, type=click.Choice(["val", "test"]),
              help="Rows to judge losses on; test rows are shown in any case.")  # fmt: skip
@click.option("--seconds", default=1.5, show_default=True, type=Finite(0.1, 3600),
              help="Least duration of each latency measurement.")  # fmt: skip
@min_cell_option
@no_exemplars_option
@runs_option
@shared
def compress(
    run: str, recipes: tuple[str, ...], variant: str, sweep: bool, prefer: str, split: str,
    seconds: float, min_cell: int, no_exemplars: bool, root: Path, **limits: float | None,
) -> None:  # fmt: skip
    """Make compressed variants of RUN.

    With --sweep and a --max-... the smallest (or fastest) variant that meets them all is taken, and
    every other one is told what it missed; exit code 3 where none meets them.
    """
    from zoo import api

    given = {name: value for name, value in limits.items() if value is not None}
    if sweep:
        chosen = {"--variant"} | (set() if given else {"--prefer"})
        refuse(
            sorted(chosen & set(given_options(but=()))),
            "a sweep starts from base." if given else "without a --max-... nothing is chosen.",
        )
        document = api.sweep(
            run, recipes, limits=given, prefer=prefer, split=split, seconds=seconds,
            min_cell=min_cell, private=no_exemplars, root=root, progress=progress_bar(),
        )  # fmt: skip
        emit(document, _sweep_text(document))
        fail_on_errors(document["results"])
        if given and document["chosen"] is None:
            raise SystemExit(ENFORCED)
        return
    own = {"variant", "root", "as_json", "debug"}
    refuse(given_options(but=own), "it goes with --sweep.")
    if not recipes:
        raise click.UsageError("Expected at least one RECIPE, or --sweep.")
    document = api.compress(run, recipes, variant=variant, root=root, progress=progress_bar())
    rows = []
    for r in document["results"]:
        name, value = next(iter(r["metrics"].items()), ("", None))
        zeros = [
            "-" if r[name] is None else f"{r[name]:.3f}" for name in ("sparsity", "sparsity_total")
        ]
        rows.append((r["variant"], size_text(r["bytes"]), size_text(r["bytes_gzip"]), *zeros,
                     f"{name} {figure(value)}", parity_text(r["parity"]),
                     r["error"] or ""))  # fmt: skip
    header = (
        "variant",
        "size",
        "gzip",
        "sparsity",
        "of all weights",
        "test",
        "off from Keras, at most",
        "error",
    )
    emit(document, table(header, rows))
    fail_on_errors(document["results"])


def _sweep_text(document: Mapping[str, Any]) -> str:
    """The table of a sweep, what each rejected variant missed, and the one that is taken."""
    from zoo.compress.sweep import LIMITS

    rows, rejected = [], []
    for r in document["results"]:
        worst, hurt = r.get("worst_group") or {}, r.get("hurt_most") or {}
        named = f"{hurt.get('attribute')}={hurt.get('group')}"
        lost = r.get("worst_group_drop")
        rows.append((
            r["variant"], figure(r.get("value")), _loss(r.get("drop")),
            figure(worst.get("value")), _loss(lost) + (f" {named}" if lost else ""),
            size_text(r.get("bytes")), size_text(r.get("bytes_gzip")),
            time_text(r.get("p90_ms")), _fronts(r["front"]),
            "taken" if r["variant"] == document["chosen"] else "",
        ))  # fmt: skip
        if r["missed"] and r["variant"] != "base":
            said = [
                f"{LIMITS[m['constraint']].words} "
                + (m["reason"] if m["received"] is None
                   else f"{m['received']:.6g} > {m['expected']:.6g}")
                for m in r["missed"]
            ]  # fmt: skip
            rejected.append(f"not {r['variant']}: {'; '.join(dict.fromkeys(said))}")
    header = ("variant", document["metric"], "loss", "worst group", "largest loss of a group",
              "size", "gzip", "p90", "front", "")  # fmt: skip
    lines = [table(header, rows), f"judged on the {document['split']} rows", *rejected]
    if document["chosen"]:
        r = next(row for row in document["results"] if row["variant"] == document["chosen"])
        test = r["test"]
        lines.append(
            f"taken: {r['variant']} (least {document['prefer']} of those that meet all); on the test "
            f"rows {test['metric']} {figure(test['value'])}, loss {_loss(test['drop'])}, largest "
            f"loss of a group {_loss(test['worst_group_drop'])}"
        )
    elif document["limits"]:
        lines.append("taken: none, no variant meets all constraints")
    return "\n".join([*lines, document["report"]])


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 4) + 0.0:+.4f}"


def _fronts(names: Collection[str]) -> str:
    """The planes in whose Pareto front a variant is: by loss, and by the worst group's."""
    shown = {"size": "size", "latency": "p90", "worst_group_size": "worst/size",
             "worst_group_latency": "worst/p90"}  # fmt: skip
    return " ".join(text for name, text in shown.items() if name in names)


@cli.command(
    epilog=examples(
        "zoo export latest --format saved_model",
        "zoo export latest --variant int8 --output model.tflite",
        "zoo export latest --format onnx --batch any",
    )
)
@click.argument("run")
@click.option("--format", default="litert", show_default=True, help="What to write.",
              type=click.Choice(["litert", "saved_model", "onnx"]))  # fmt: skip
@variant_option
@click.option("--batch", metavar="N|any", help="Rows a call [1 for litert, else any].")
@output_option("Where to [in the variant's folder].")
@runs_option
@shared
def export(
    run: str, format: str, variant: str, batch: str | None, output: Path | None, root: Path
) -> None:
    """Write RUN's model for another runtime, with its parity.

    LiteRT takes every variant; SavedModel and ONNX those with Keras weights of their own (base, and
    what was trained on).
    """
    from zoo import api

    document = api.export(
        run, format, variant=variant, batch=_rows_a_call(batch, format), output=output, root=root
    )
    rows = [
        (r["variant"], r["format"], "any" if r["batch"] is None else r["batch"], size_text(r["bytes"]),
         "-" if r["parity"] is None else f"{r['parity']['max_abs']:.1e}", r["path"] or r["error"])
        for r in document["results"]
    ]  # fmt: skip
    emit(document, table(("variant", "format", "batch", "size", "parity", "path"), rows))
    fail_on_errors(document["results"])


def _rows_a_call(text: str | None, format: str) -> int | None:
    if text is None:
        return 1 if format == "litert" else None
    if text != "any" and not (text.isdecimal() and 1 <= int(text) <= 65536):
        raise click.BadParameter(
            f"expected a whole number from 1 to 65536, or any; received {text!r}.",
            param_hint="--batch",
        )
    return None if text == "any" else int(text)


def parity_text(parity: Mapping[str, Any] | None) -> str:
    """How far the file's outputs are from the Keras model's at most, as a share of their spread."""
    if parity is None or parity["max_abs"] is None or not parity.get("spread"):
        return "-"
    return f"{parity['max_abs'] / parity['spread']:.1%} of spread"
