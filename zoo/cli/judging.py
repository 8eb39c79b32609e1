"""``zoo benchmark``, ``explain``, ``fairness``, ``mitigate``, ``audit`` and ``report``; ``zoo doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    is_run,
    known_run,
    min_cell_option,
    names_in,
    no_exemplars_option,
    output_option,
    progress_bar,
    refuse,
    runs_option,
    shared,
    size_text,
    split_option,
    table,
    time_text,
    variant_option,
)
from zoo.cli.settings import request_of, training_options
from zoo.errors import ENFORCED, FAILURE


@cli.command(
    epilog=examples(
        "zoo benchmark latest --variant all",
        "zoo benchmark mlp --scenario SingleStream --seconds 10",
        "zoo benchmark quick --output results.json",
        "zoo benchmark quick --compare results.json --tolerance 0.3",
    )
)
@click.argument("names", nargs=-1, metavar="[RUN|MODEL|SUITE]...")
@variant_option
@click.option(
    "--scenario", multiple=True, type=click.Choice(["SingleStream", "Offline"]),
    help="LoadGen's scenarios; both otherwise.",
)  # fmt: skip
@click.option("--seconds", type=Finite(0.1, 3600), help="Least duration of a scenario [3].")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1),
              help="Threads of the interpreter.")  # fmt: skip
@output_option("Write the JSON document here too.")
@click.option("--compare", "earlier", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Set the results against those of an earlier --output; exit 3 if one got worse.")  # fmt: skip
@click.option("--tolerance", default=0.5, show_default=True, type=Finite(0),
              help="How much slower or larger --compare allows (0.5: by half).")  # fmt: skip
@runs_option
@shared
def benchmark(
    names: tuple[str, ...], variant: str, scenario: tuple[str, ...], seconds: float | None,
    threads: int, output: Path | None, earlier: Path | None, tolerance: float, root: Path,
) -> None:  # fmt: skip
    """Measure artefacts with MLPerf LoadGen.

    A RUN's variant is measured, or all variants of a MODEL's newest run (trained first where there
    is none), or the entries of a SUITE, each freshly trained. Without arguments: the suite quick.
    """
    from zoo import api
    from zoo.registry import models
    from zoo_bench.compare import compare, read_before
    from zoo_bench.suite import suite_names
    from zoo_bench.table import markdown

    suites = set(suite_names())
    trained = [n for n in names if n in models().specs and not is_run(n, root)]
    for name in names:
        if name not in suites and name not in trained:
            known_run(name, root, "run, model or suite", [*models().specs, *suites])
    if trained:
        refuse(
            [o for o in given_options(but=()) if o == "--variant"],
            "all variants of a MODEL's run count.",
        )
    if suites & set(names or ("quick",)):
        chosen = {"--variant", "--scenario", "--threads"} & set(given_options(but=()))
        refuse(sorted(chosen), "a SUITE says what is measured.")
    if earlier is None:
        refuse([o for o in given_options(but=()) if o == "--tolerance"], "it goes with --compare.")
    before = None if earlier is None else read_before(earlier)
    documents = []
    for name in names or ("quick",):
        arguments = {"seconds": seconds or 3.0, "root": root, "progress": progress_bar(),
                     "scenarios": scenario or None, "threads": threads}  # fmt: skip
        if name in suites:
            documents.append(
                api.benchmark_suite(name, root=root, seconds=seconds, progress=progress_bar())
            )
        elif name in trained:
            documents.append(api.benchmark_model(name, **arguments))
        else:
            documents.append(api.benchmark(name, variant=variant, **arguments))
    results = [row for document in documents for row in document["results"]]
    merged = documents[0] if len(documents) == 1 else {"run": None, "results": results}
    if output is not None:
        from zoo.run import write_atomic
        from zoo.schema import dump

        write_atomic(output, dump(merged))
    if before is None:
        emit(merged, markdown(results))
        fail_on_errors(results)
        return
    compared = compare(results, before, tolerance)
    judged = {row["passed"] for row in compared}
    passed = True in judged and False not in judged
    said = table(
        ("model", "variant", "scenario", "", "before", "now", "ratio", "within"),
        [(r["model"], r["variant"], r["scenario"], r["name"], figure(r["before"]), figure(r["after"]),
          figure(r["ratio"], 3), r["reason"] or ("yes" if r["passed"] else f"NO: more than {1 + tolerance:g}"))
         for r in compared],
    )  # fmt: skip
    emit({**merged, "compared": compared, "passed": passed}, f"{markdown(results)}\n{said}")
    fail_on_errors(results)
    if not passed:  # nor where nothing could be compared
        raise SystemExit(ENFORCED)


@cli.command(
    epilog=examples(
        "zoo explain latest", "zoo explain latest --variant int8 --method permutation --samples 50"
    )
)
@click.argument("run")
@variant_option
@click.option("--method", help="Instead of the one that the model's layers call for.")
@click.option("--samples", type=click.IntRange(2),
              help="Rows to explain [100; of language models 12].")  # fmt: skip
@click.option("--background", default=50, show_default=True, type=click.IntRange(1),
              help="Training rows that they are set against.")  # fmt: skip
@split_option
@runs_option
@shared
def explain(
    run: str,
    variant: str,
    method: str | None,
    samples: int | None,
    background: int,
    split: str,
    root: Path,
) -> None:
    """Attribute RUN's outputs to columns or patches (SHAP)."""
    from zoo import api

    document = api.explain(run, variant=variant, method=method, samples=samples, background=background,
        split=split, root=root, progress=progress_bar(),
    )  # fmt: skip
    parts = []
    for r in document["results"]:
        if r["error"]:
            continue  # said on stderr
        error = r["additivity_error"].get("max")
        parts.append(
            f"{r['variant']}: {r['method']} in {r['space']} space, {r['samples']} rows against "
            f"{r['background']}: {r['why_method']}\n"
            f"additivity error {'-' if error is None else f'{error:.1e}'} of the output's range, "
            f"{figure(r['samples_per_second'], 1)} rows/s"
        )
        rows = [(f["name"], figure(f["importance"])) for f in r["features"][:12]]
        parts.append(table(("feature", "mean |SHAP|"), rows))
        parts.append("")
    emit(document, "\n".join(parts).rstrip())
    fail_on_errors(document["results"])


@cli.command(
    epilog=examples("zoo fairness latest", "zoo fairness latest --variant all --sensitive sex,age")
)
@click.argument("run")
@variant_option
@click.option("--sensitive", multiple=True,
              help="Attributes to judge by: a,b; all otherwise. Repeatable.")  # fmt: skip
@min_cell_option
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100),
              help="Bootstrap resamples of the intervals.")  # fmt: skip
@split_option
@runs_option
@shared
def fairness(
    run: str, variant: str, sensitive: tuple[str, ...], min_cell: int, resamples: int, split: str,
    root: Path,
) -> None:  # fmt: skip
    """Judge RUN by group: metrics, disparities, intervals."""
    from zoo import api

    document = api.fairness(run, variant=variant, split=split, attributes=names_in(sensitive),
        resamples=resamples, min_cell=min_cell, root=root, progress=progress_bar(),
    )  # fmt: skip
    parts = []
    for r in document["results"]:
        for attribute, found in r["attributes"].items():
            names = list(found["groups"][0]["metrics"])[:1] + [
                n for n in ("selection_rate", "true_positive_rate", "false_positive_rate")
                if n in found["groups"][0]["metrics"]
            ]  # fmt: skip
            rows = [
                (g["group"], figure(g["n"]), *(_interval(g["metrics"][n]) for n in names))
                for g in found["groups"]
            ]
            parts.append(f"{r['variant']}, {attribute}, {r['split']} split")
            parts.append(table(("group", "n", *names), rows))
            parts += [
                f"{name}: {_interval(value)}"
                for name, value in found["disparities"].items()
                if isinstance(value, dict) and value.get("value") is not None
            ]
            parts.append("")
        parts += [f"warning: {text}" for text in r["warnings"]]
    emit(document, "\n".join(parts).rstrip())
    fail_on_errors(document["results"])


def _interval(value: Mapping[str, Any]) -> str:
    shown = value["value"]
    if shown is None or isinstance(shown, str) or value.get("ci_low") is None:
        return figure(shown, 3)
    return f"{shown:.3f} [{value['ci_low']:.3f}, {value['ci_high']:.3f}]"


class _Mitigate(click.Command):
    """Its help lists the mitigations and constraints of their tables, read when it is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from zoo.compress.steps import STEPS
        from zoo.decision import CONSTRAINTS

        with formatter.section("Methods"):
            formatter.write_dl([(s.name, s.help) for s in STEPS.values() if s.mitigates])
        with formatter.section("Constraints, and the disparities that are shown for them"):
            formatter.write_dl(list(CONSTRAINTS.items()))
        super().format_epilog(ctx, formatter)


@cli.command(
    cls=_Mitigate,
    epilog=examples(
        "zoo mitigate latest --sensitive sex",
        "zoo mitigate latest threshold --sensitive sex --constraint equalized_odds",
        "zoo compress latest int8 --variant reweigh-sex",
    ),
)
@click.argument("run")
@click.argument("methods", nargs=-1, metavar="[METHOD]...")
@click.option("--sensitive", metavar="ATTRIBUTE",
              help="Whose groups are to be treated alike [the run's first].")  # fmt: skip
@click.option("--constraint", metavar="NAME", help="What is to be alike [the first below].")
@click.option("--variant", default="base", show_default=True, help="Which variant to start from.")
@min_cell_option
@runs_option
@shared
def mitigate(
    run: str, methods: tuple[str, ...], sensitive: str | None, constraint: str | None,
    variant: str, min_cell: int, root: Path,
) -> None:  # fmt: skip
    """Make variants of RUN that treat groups alike.

    One that decides by thresholds keeps the model, and its predictions need the group. Without a METHOD:
    all that apply. Shown is the constraint's disparity; with several classes none of which is the
    positive one, the difference of accuracy.
    """
    from zoo import api

    document = api.mitigate(
        run, methods, sensitive=sensitive, constraint=constraint, variant=variant,
        min_cell=min_cell, root=root, progress=progress_bar(),
    )  # fmt: skip
    rows, metric = [], ""
    for r in document["results"]:
        name, value = next(iter(r["metrics"].items()), ("", None))
        gap = r["disparity"] or {}
        metric = gap.get("metric", metric)
        rows.append((r["variant"], f"{name} {figure(value)}", _measured(gap.get("before")),
                     _measured(gap.get("after")), "yes" if r["needs_groups"] else "no",
                     "yes" if r["randomized"] else "no", r["error"] or ""))  # fmt: skip
    header = ("variant", "test", f"{metric}, before", "after", "needs groups", "draws", "error")
    emit(document, f"{document['attribute']}:\n{table(header, rows)}")
    fail_on_errors(document["results"])


def _measured(found: Mapping[str, Any] | None) -> str:
    if found is None or found.get("value") is None:
        return "-"
    return f"{figure(found['value'])} [{figure(found['ci_low'])}, {figure(found['ci_high'])}]"


@cli.command(
    epilog=examples(
        "zoo audit mlp --data loans.csv --target approved --sensitive sex",
        "zoo audit latest int8 prune:0.8+int8 --gate 'worst_group_drop<=0.02'",
    )
)
@click.argument("subject", metavar="RUN|MODEL")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@training_options
@click.option("--gate", "gates", multiple=True, metavar="NAME<=VALUE",
              help="Limit that every variant must keep (or NAME>=VALUE); exit 3 if one fails.")  # fmt: skip
@click.option("--seconds", default=1.5, show_default=True, type=Finite(0.1, 3600),
              help="Least duration of a LoadGen scenario.")  # fmt: skip
@no_exemplars_option
@min_cell_option
@runs_option
@shared
def audit(
    subject: str, recipes: tuple[str, ...], data_name: str | None, fields: dict[str, Any],
    training: dict[str, Any], gates: tuple[str, ...], seconds: float, no_exemplars: bool,
    min_cell: int, root: Path,
) -> None:  # fmt: skip
    """Compress, measure, explain, compare; write one page.

    RUN is audited as it is. A MODEL is trained first, with the options of `zoo train`.
    """
    from zoo import api
    from zoo.compress.recipe import applies, parse
    from zoo.gates import parse_gates
    from zoo.registry import models

    progress = progress_bar()
    parse_gates(gates)
    text = subject
    if subject in models().specs and not is_run(subject, root):
        for recipe in recipes:  # neither a typo nor what does not apply must cost a training
            applies(parse(recipe), models().get(subject))
        request = request_of(subject, data_name, fields)
        text = api.train(subject, request=request, root=root, progress=progress, **training)["run"]
    else:
        known_run(subject, root, "run or model", models().specs)
        own = {"gates", "seconds", "no_exemplars", "min_cell", "root", "as_json", "debug"}
        refuse(given_options(but=own), f"{subject} is trained already.")
    document = api.audit(
        text, recipes or None, gates=gates, seconds=seconds,
        private=no_exemplars, min_cell=min_cell, root=root, progress=progress,
    )  # fmt: skip
    rows = []
    compared = {row["metric"] for row in document["deltas"]}
    for r in document["variants"]:
        # the first metric that was compared with base too, so that its change stands beside it
        found = sorted(r["metrics"].items(), key=lambda item: item[0] not in compared)
        name, value = next(iter(found), ("", None))
        rows.append((r["variant"], f"{name} {figure(value)}",
                     *_changes(document["deltas"], r["variant"], name), size_text(r["bytes"]),
                     size_text(r["bytes_gzip"]), time_text(r.get("latency_ms", {}).get("p90")),
                     _speed(r), r.get("error") or ""))  # fmt: skip
    header = (
        "variant",
        "test",
        "change [95 %]",
        "measurable changes in groups",
        "size",
        "gzip",
        "p90",
        "speed [range]",
        "error",
    )
    text = table(header, rows)
    for gate in document["gates"]:
        text += (
            f"\ngate {gate['name']} {gate['expected']}: {gate['variant']} "
            f"{figure(gate['received'])} {'passed' if gate['passed'] else 'FAILED'}"
        )
        if gate["reason"]:
            text += f" ({gate['reason']})"
    emit(document, f"{text}\n{document['report']}")
    fail_on_errors(document["variants"])
    if not document["passed"]:
        raise SystemExit(ENFORCED)


def _changes(deltas: Sequence[Mapping[str, Any]], variant: str, metric: str) -> tuple[str, str]:
    """A variant's change of a metric against base over all rows; how many changes of any metric in
    groups are measurable (adjusted p below 0.05, as in the report), and the surest of them."""
    own = [row for row in deltas if row["variant"] == variant and row["delta"] is not None]
    whole = [row for row in own if row["attribute"] == "(all)" and row["metric"] == metric]
    groups = [row for row in own if row["attribute"] != "(all)" and row["p_adjusted"] is not None]
    found = [row for row in groups if row["p_adjusted"] < 0.05]
    told = f"{len(found) or 'none'} of {len(groups)}" if groups else "-"
    if found:
        first = min(found, key=lambda row: row["p_adjusted"])
        told += f": {first['metric']} {first['attribute']}={first['group']} {first['delta']:+.4f}"
    return _delta(whole[0]) if whole else "-", told


def _speed(row: Mapping[str, Any]) -> str:
    """How many times faster than base, side by side, with its interval."""
    speed = row.get("speed") or {}
    if speed.get("ratio") is None:
        return f"{row['runtime']}: not like for like" if speed.get("reason") else "-"
    return f"{speed['ratio']:.2f}x [{speed['ci_low']:.2f}, {speed['ci_high']:.2f}]"


def _delta(row: Mapping[str, Any]) -> str:
    value = f"{round(row['delta'], 4) + 0.0:+.4f}"
    if row["ci_low"] is None:
        return value
    return f"{value} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"


@cli.command(epilog=examples("zoo report latest", "zoo report latest --no-exemplars"))
@click.argument("run")
@no_exemplars_option
@runs_option
@shared
def report(run: str, no_exemplars: bool, root: Path) -> None:
    """Write RUN's report and model card from its documents."""
    from zoo import api

    document = api.report(run, private=no_exemplars, root=root)
    emit(document, f"{document['html']}\n{document['markdown']}")


@cli.command(epilog=examples("zoo doctor", "zoo doctor --json"))
@shared
def doctor() -> None:
    """Show what the installation stands on, and problems."""
    from zoo import api

    document = api.doctor()
    lines = [f"{name:30} {version}" for name, version in document["packages"].items()]
    for key, value in document["devices"].items():
        shown = (", ".join(value) or "none") if isinstance(value, list) else value
        lines.append(f"{key:30} {shown}")
    lines += [f"{'memory':30} {document['memory_gb']} GB"]
    lines += [f"problem: {text}" for text in document["problems"]] or ["no problems found"]
    emit(document, "\n".join(lines))
    if document["problems"]:
        raise SystemExit(FAILURE)
