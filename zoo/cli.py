"""The command ``zoo``: parses, calls :mod:`zoo.api`, prints.

Plain click at import time; TensorFlow, pydantic and rich only inside the commands that need them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zoo.errors import ENFORCED, FAILURE, USAGE, ZooError

RUNS = "runs"


# Options and output -------------------------------------------------------------------------------


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` and ``--debug``, on every command."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, debug: bool, **kwargs: Any) -> Any:
        context = click.get_current_context()
        context.meta["json"], context.meta["debug"] = as_json, debug
        return function(*args, **kwargs)

    return command


_runs = click.option(
    "--runs", "root", default=RUNS, show_default=True, type=click.Path(path_type=Path),
    help="Folder that holds the runs.",
)  # fmt: skip
_variant = click.option(
    "--variant", default="base", show_default=True, help="Variant's name, or all."
)
_split = click.option(
    "--split", default="test", show_default=True, type=click.Choice(["train", "val", "test"])
)


def _emit(document: Any, text: str) -> None:
    """Print the document under ``--json``, else the text for humans."""
    if click.get_current_context().meta.get("json"):
        from zoo.jsontext import dumps

        click.echo(dumps(document))
    elif text:
        click.echo(text)


def _progress() -> Any:
    from zoo.progress import Progress

    return Progress()


@contextlib.contextmanager
def _clean_stdout() -> Iterator[None]:
    """Nothing but our own document reaches stdout: what libraries print goes to stderr."""
    if not (click.get_current_context().meta.get("json")):
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with _clean_stdout():
        return function(*args, **kwargs)


def _number(value: Any, digits: int = 4) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1000:,.1f} kB"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns aligned by spaces; numbers to the right."""
    cells = [[str(c) for c in header], *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    right = [
        all(row[k][:1].isdigit() or row[k][:1] in "-+<" for row in cells[1:])
        for k in range(len(header))
    ]

    def line(row: Sequence[str]) -> str:
        parts = [
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(cells[0]), line(["-" * w for w in widths]), *map(line, cells[1:])])


def _fail_on_errors(rows: Sequence[Mapping[str, Any]]) -> None:
    """Exit 1 when some result is an error row; the document was printed all the same."""
    failed = [row for row in rows if row.get("error")]
    if failed:
        for row in failed:
            click.echo(f"{row.get('variant') or row.get('name')}: {row['error']}", err=True)
        raise SystemExit(FAILURE)


# The group ----------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="glasszoo", prog_name="zoo")
def cli() -> None:
    """Train a Keras model, shrink it, and see what the shrinking did to its speed, its reasons and
    its fairness.

    \b
    zoo audit mlp --data adult        train, compress, measure, explain, compare: one page
    zoo train cnn                     a model of the zoo on its own data
    zoo train mlp --data loans.csv --target approved --sensitive sex
    """


@cli.command("list")
@click.argument("pattern", required=False)
@_shared
def list_command(pattern: str | None) -> None:
    """List the models, those that match PATTERN (such as 'resnet*')."""
    from zoo import api

    rows = api.list_models(pattern)
    text = _table(
        ("model", "family", "task", "params", "data", "target", "source"),
        [
            (r["name"], r["family"], r["task"], _number(r["params"]), r["data"],
             f"{r['target']['metric']} {r['target']['value']}", r["source"][:60])
            for r in rows if "error" not in r
        ],
    )  # fmt: skip
    broken = [f"{r['name']}: could not be loaded: {r['error']}" for r in rows if "error" in r]
    _emit(rows, "\n".join([text, *broken]))


@cli.command()
@click.argument("model")
@click.option("--summary", is_flag=True, help="Build the model and show its layers.")
@_shared
def info(model: str, summary: bool) -> None:
    """Show what is known about MODEL."""
    from zoo import api

    document = _call(api.info, model, summary)
    lines = [f"{document['name']} {document['version']}  ({document['family']})"]
    for key in ("tasks", "kinds", "params", "data", "target", "config", "training", "source",
                "license", "skips"):  # fmt: skip
        value = document[key]
        if isinstance(value, dict):
            value = ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        lines.append(f"  {key:9} {_number(value)}")
    text = "\n".join(lines)
    if summary:
        rows = [
            (la["name"], la["type"], "x".join(la["output"][1:]), _number(la["params"]))
            for la in document["layers"]
        ]
        text += "\n\n" + _table(("layer", "type", "output", "params"), rows)
    _emit(document, text)


@cli.group()
def data() -> None:
    """Data sets: list them, or look into one."""


@data.command("list")
@_shared
def data_list() -> None:
    """List the data sets that have names."""
    from zoo import api

    rows = api.list_data()
    text = _table(
        ("data", "kind", "task", "rows", "groups", "size", "license", "what"),
        [
            (r["name"], r["kind"], r["task"], _number(r["rows"]), ", ".join(r["groups"]),
             _bytes(r["bytes"]), r["license"], r["description"])
            for r in rows if "error" not in r
        ],
    )  # fmt: skip
    _emit(rows, text)


def _data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what data is meant; the command gets one ``request``."""

    @click.option("--target", help="Column to predict (own data).")
    @click.option(
        "--task", help="Task, instead of the inferred one: binary, multiclass, regression."
    )
    @click.option("--sensitive", default="", help="Attributes to judge fairness by: a,b.")
    @click.option("--positive", help="Label of the positive class; the last one otherwise.")
    @click.option("--include-sensitive", is_flag=True, help="Use the sensitive columns as inputs.")
    @click.option("--split", "split_column", help="Column that says train, val or test.")
    @click.option("--split-seed", default=0, show_default=True, help="Seed of the split.")
    @click.option(
        "--rare-groups",
        default="error",
        show_default=True,
        type=click.Choice(["error", "merge"]),
        help="What to do with groups of a single row.",
    )
    @click.option("--offline", is_flag=True, help="Refuse anything that needs a network.")
    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        names = ("target", "task", "positive", "include_sensitive", "split_seed", "rare_groups",
                 "offline")  # fmt: skip
        fields = {name: kwargs.pop(name) for name in names}
        sensitive = tuple(s.strip() for s in kwargs.pop("sensitive").split(",") if s.strip())
        return function(
            *args,
            fields={**fields, "sensitive": sensitive, "split": kwargs.pop("split_column")},
            **kwargs,
        )

    return command  # fmt: skip


@data.command("info")
@click.argument("name")
@_data_options
@_shared
def data_info(name: str, fields: dict[str, Any]) -> None:
    """Show a data set, or what would be made of a file of your own."""
    from zoo import api
    from zoo.data.core import Request

    document = _call(api.data_info, Request(data=_absolute(name), **fields))
    lines = []
    for key in ("name", "kind", "task", "rows", "sizes", "classes", "group_counts", "license",
                "source", "sha256", "notes", "description"):  # fmt: skip
        value = document.get(key)
        if value in (None, [], {}):
            continue
        if key == "group_counts":
            value = "; ".join(
                f"{a}: " + ", ".join(f"{g} {_number(n)}" for g, n in counts.items())
                for a, counts in value.items()
            )
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {_number(v)}" for k, v in value.items())
        elif isinstance(value, list):
            value = "; ".join(map(str, value[:20]))
        lines.append(f"{key.replace('group_counts', 'groups'):12} {_number(value)}")
    text = "\n".join(lines)
    if document.get("columns"):
        text += "\n\n" + _table(
            ("column", "kind", "input", "distinct", "missing", "why"),
            [
                (c["name"], c["kind"], "yes" if c["used"] else "no", _number(c["distinct"]),
                 _number(c["missing"]), c["why"])
                for c in document["columns"]
            ],
        )  # fmt: skip
    _emit(document, text)


def _absolute(name: str) -> str:
    """A path of the user's as an absolute one, so that the run finds it from anywhere."""
    from zoo.registry import datasets

    if name in datasets().specs or not Path(name).expanduser().exists():
        return name
    return str(Path(name).expanduser().resolve())


# Training -----------------------------------------------------------------------------------------


def _settings(pairs: Sequence[str], file: Path | None) -> dict[str, Any]:
    """``--set`` over ``--config``."""
    settings: dict[str, Any] = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".toml":
                import tomllib

                settings = tomllib.loads(text)
            else:
                settings = json.loads(text)
            if not isinstance(settings, dict):
                raise ValueError("it is no table of keys and values")
        except (OSError, ValueError) as error:
            raise ZooError(
                f"{file} could not be read as settings.",
                expected="a JSON or TOML file with keys and values",
                received=str(error)[:200],
            ) from error
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ZooError(
                f"--set {pair} is no setting.", expected="--set key=value", received=repr(pair)
            )
        settings[key.strip()] = value.strip()
    return settings


def _training(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a training; the command gets ``training``, arguments of ``api.train``."""

    @click.option("--data", "data_name", help="Data set's name, or a path of your own.")
    @_data_options
    @click.option("--epochs", type=int, help="Passes over the training rows.")
    @click.option("--batch-size", type=int, help="Rows a step.")
    @click.option("--seed", default=0, show_default=True, help="Seed of weights and order.")
    @click.option("--set", "pairs", multiple=True, help="key=value of the model or its training.")
    @click.option("--config", "file", type=click.Path(path_type=Path), help="File of such keys.")
    @click.option("--name", help="The run's name; made up otherwise.")
    @click.option("--deterministic", is_flag=True, help="Bit-identical results, slower.")
    @click.option(
        "--strategy",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "single"]),
        help="Devices to train on.",
    )
    @click.option("--cpus", type=click.IntRange(1), help="Use at most so many cores.")
    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("strategy")  # one device is what both choices mean on one machine
        settings = _settings(kwargs.pop("pairs"), kwargs.pop("file"))
        for name in ("epochs", "batch_size"):
            value = kwargs.pop(name)
            if value is not None:
                settings[name] = value
        training = {name: kwargs.pop(name) for name in ("seed", "name", "deterministic", "cpus")}
        training["settings"] = settings
        return function(*args, training=training, **kwargs)

    return command  # fmt: skip


def _request(model: str, name: str | None, fields: Mapping[str, Any]) -> Any:
    from zoo.data.core import Request
    from zoo.registry import models

    return Request(data=_absolute(name or models().get(model).data), **fields)


@cli.command()
@click.argument("model", required=False)
@_training
@_runs
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--dry-run", is_flag=True, help="Resolve and check everything; write nothing.")
@click.option("--require-target", is_flag=True, help="Exit 3 when the model's target is missed.")
@_shared
def train(
    model: str | None,
    data_name: str | None,
    fields: dict[str, Any],
    training: dict[str, Any],
    root: Path,
    resume: str | None,
    dry_run: bool,
    require_target: bool,
) -> None:
    """Train MODEL into a new run, with a linear baseline beside it."""
    from zoo import api

    progress = _progress()
    if (model is None) == (resume is None):
        raise click.UsageError("Expected either a MODEL to train or --resume RUN.")
    if resume is not None:
        document = _call(api.resume, resume, root, progress)
    else:
        assert model is not None
        document = _call(
            lambda: api.train(
                model,
                request=_request(model, data_name, fields),
                root=root,
                dry_run=dry_run,
                progress=progress,
                **training,
            )
        )
    _emit(document, _training_text(document))
    if require_target and not document.get("target", {}).get("hit", True):
        raise SystemExit(ENFORCED)


def _training_text(document: Mapping[str, Any]) -> str:
    if "run" not in document:  # a dry run
        data = document["data"]
        columns = _table(
            ("column", "kind", "input", "why"),
            [
                (c["name"], c["kind"], "yes" if c["used"] else "no", c["why"])
                for c in data["columns"]
            ],
        )
        return (
            f"{document['model']} on {data['name']}: {data['task']}, {data['sizes']} rows\n"
            f"config {document['config']}\noptions {document['options']}\n"
            + (columns if data["columns"] else "")
        )
    metrics, base = document["metrics"], document["baseline"]
    rows = [
        (name, _number(value), _number(base["metrics"].get(name)))
        for name, value in metrics.items()
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
        _table(("test", document["model"], base["name"]), rows)
        + f"\n{verdict}\n{document['run']}  {document['epochs']} epochs, "
        f"{document['seconds']:.1f} s{speed}"
    )


# Runs ---------------------------------------------------------------------------------------------


@cli.command()
@_runs
@_shared
def runs(root: Path) -> None:
    """List the runs there are."""
    from zoo import api

    rows = _call(api.runs, root)
    shown = []
    for row in rows:
        name, value = next(iter(row["metrics"].items()), ("", None))
        shown.append((row["run"], row["model"], row["data"], row["status"],
                      f"{name} {_number(value)}", ", ".join(row["variants"]),
                      row["created"][:16].replace("T", " ")))  # fmt: skip
    header = ("run", "model", "data", "status", "test", "variants", "created")
    _emit(
        rows,
        _table(header, shown) if rows else f"There is no run in {root}. Make one: zoo train mlp",
    )


@cli.command()
@click.argument("first")
@click.argument("second")
@_variant
@_runs
@_shared
def compare(first: str, second: str, variant: str, root: Path) -> None:
    """Compare two runs, paired where they were tested on the same rows."""
    from zoo import api

    document = _call(api.compare, first, second, root, variant)
    one, two = document["metrics"]
    rows = [
        (name, _number(one[name]), _number(two.get(name)),
         "-" if None in (one[name], two.get(name)) else f"{two[name] - one[name]:+.4f}")
        for name in one
    ]  # fmt: skip
    text = _table(("test", *(Path(run).name for run in document["runs"]), "change"), rows)
    if document["reason"]:
        text += f"\nnot paired: {document['reason']}"
    else:
        for row in document["deltas"]:
            if row["attribute"] == "(all)" and row["delta"] is not None:
                text += (
                    f"\n{row['metric']}: {row['delta']:+.4f} "
                    f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}], n={row['n']:,}, paired"
                )
    _emit(document, text)


@cli.command("eval")
@click.argument("run")
@_variant
@_split
@_runs
@_shared
def evaluate(run: str, variant: str, split: str, root: Path) -> None:
    """Metrics of RUN's artefacts with 95 % intervals."""
    from zoo import api

    document = _call(api.evaluate, run, variant, split, root)
    rows = [
        (r["variant"], name, _number(m["value"]), f"[{_number(m['ci_low'])}, {_number(m['ci_high'])}]",
         _number(r["n"]))
        for r in document["results"] for name, m in r["metrics"].items()
    ]  # fmt: skip
    _emit(document, _table(("variant", "metric", "value", "95 % interval", "n"), rows))


@cli.command()
@click.argument("run")
@click.argument("source", metavar="[INPUT]", required=False, type=click.Path(path_type=Path))
@_variant
@_split
@click.option("--output", type=click.Path(path_type=Path), help="File for INPUT's predictions.")
@_runs
@_shared
def predict(
    run: str, source: Path | None, variant: str, split: str, output: Path | None, root: Path
) -> None:
    """Predict a split with RUN, or INPUT: a CSV or Parquet file, pictures, an NPZ file."""
    from zoo import api

    document = _call(
        api.predict, run, source=source, variant=variant, split=split, output=output, root=root
    )
    rows = [
        (r["variant"], r["split"] or "own", _number(r["n"]), r["path"]) for r in document["results"]
    ]
    _emit(document, _table(("variant", "split", "n", "path"), rows))


# Variants -----------------------------------------------------------------------------------------


@cli.command(epilog="Recipes: step(+step)*, with the steps prune:SPARSITY, float16, dynamic, int8.")
@click.argument("run")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
@_variant
@_runs
@_shared
def compress(run: str, recipes: tuple[str, ...], variant: str, root: Path) -> None:
    """Make compressed variants of RUN."""
    from zoo import api

    document = _call(api.compress, run, recipes, variant=variant, root=root, progress=_progress())
    rows = []
    for r in document["results"]:
        name, value = next(iter(r["metrics"].items()), ("", None))
        parity = (r["parity"] or {}).get("max_abs")
        sparsity = "-" if r["sparsity"] is None else f"{r['sparsity']:.3f}"
        rows.append((r["variant"], _bytes(r["bytes"]), _bytes(r["bytes_gzip"]), sparsity,
                     f"{name} {_number(value)}", "-" if parity is None else f"{parity:.1e}",
                     r["error"] or ""))  # fmt: skip
    header = ("variant", "size", "gzip", "sparsity", "test", "parity", "error")
    _emit(document, _table(header, rows))
    _fail_on_errors(document["results"])


@cli.command()
@click.argument("names", nargs=-1, metavar="[RUN|MODEL|SUITE]...")
@_variant
@click.option(
    "--scenario", multiple=True, type=click.Choice(["SingleStream", "Offline"]),
    help="LoadGen's scenarios; both otherwise.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), help="Least duration of a scenario [3]."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--output", type=click.Path(path_type=Path), help="Write the JSON document here too.")
@_runs
@_shared
def benchmark(
    names: tuple[str, ...], variant: str, scenario: tuple[str, ...], seconds: float | None,
    threads: int, output: Path | None, root: Path,
) -> None:  # fmt: skip
    """Measure artefacts with MLPerf LoadGen. Without arguments: train and measure a quick suite."""
    from zoo import api
    from zoo.registry import models
    from zoo_bench.suite import suite_names
    from zoo_bench.table import markdown

    documents = []
    for name in names or ("quick",):
        if name in suite_names():
            document = _call(
                api.benchmark_suite, name, root=root, seconds=seconds, progress=_progress()
            )
        else:
            arguments = {"scenarios": scenario or None, "seconds": seconds or 3.0,
                         "threads": threads, "root": root, "progress": _progress()}  # fmt: skip
            if name in models().specs and not (root / name / "run.json").exists():
                document = _call(api.benchmark_model, name, **arguments)
            else:
                document = _call(api.benchmark, name, variant=variant, **arguments)
        documents.append(document)
    results = [row for document in documents for row in document["results"]]
    merged = documents[0] if len(documents) == 1 else {"run": None, "results": results}
    if output is not None:
        from zoo.run import write_atomic
        from zoo.schema import dump

        write_atomic(output, dump(merged))
    _emit(merged, markdown(results))
    _fail_on_errors(results)


@cli.command()
@click.argument("run")
@_variant
@click.option("--method", help="Instead of the one that the model's layers call for.")
@click.option("--samples", default=100, show_default=True, type=click.IntRange(2))
@click.option("--background", default=50, show_default=True, type=click.IntRange(1))
@_split
@_runs
@_shared
def explain(
    run: str,
    variant: str,
    method: str | None,
    samples: int,
    background: int,
    split: str,
    root: Path,
) -> None:
    """Attribute RUN's outputs to the columns or patches they came from (SHAP)."""
    from zoo import api

    document = _call(
        api.explain, run, variant=variant, method=method, samples=samples, background=background,
        split=split, root=root, progress=_progress(),
    )  # fmt: skip
    parts = []
    for r in document["results"]:
        parts.append(
            f"{r['variant']}: {r['method']} in {r['space']} space, {r['samples']} rows against "
            f"{r['background']}: {r['why_method']}\n"
            f"additivity error {r['additivity_error']['max']:.1e} of the output's range, "
            f"{r['samples_per_second']:.1f} rows/s"
        )
        rows = [(f["name"], _number(f["importance"])) for f in r["features"][:12]]
        parts.append(_table(("feature", "mean |SHAP|"), rows))
    _emit(document, "\n".join(parts))


@cli.command()
@click.argument("run")
@_variant
@click.option("--sensitive", default="", help="Attributes to judge by: a,b; all otherwise.")
@click.option("--min-cell", default=10, show_default=True, type=click.IntRange(1))
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100))
@_split
@_runs
@_shared
def fairness(
    run: str, variant: str, sensitive: str, min_cell: int, resamples: int, split: str, root: Path
) -> None:
    """Metrics of RUN by group with intervals, and the disparities between groups."""
    from zoo import api

    attributes = [s.strip() for s in sensitive.split(",") if s.strip()]
    document = _call(
        api.fairness, run, variant=variant, split=split, attributes=attributes,
        resamples=resamples, min_cell=min_cell, root=root, progress=_progress(),
    )  # fmt: skip
    parts = []
    for r in document["results"]:
        for attribute, found in r["attributes"].items():
            names = list(found["groups"][0]["metrics"])[:1] + [
                n for n in ("selection_rate", "true_positive_rate", "false_positive_rate")
                if n in found["groups"][0]["metrics"]
            ]  # fmt: skip
            rows = [
                (g["group"], _number(g["n"]), *(_interval(g["metrics"][n]) for n in names))
                for g in found["groups"]
            ]
            parts.append(f"{r['variant']}, {attribute}, {r['split']} split")
            parts.append(_table(("group", "n", *names), rows))
            parts += [
                f"{name}: {_interval(value)}"
                for name, value in found["disparities"].items()
                if isinstance(value, dict) and value.get("value") is not None
            ]
            parts.append("")
        parts += [f"warning: {text}" for text in r["warnings"]]
    _emit(document, "\n".join(parts).rstrip())


def _interval(value: Mapping[str, Any]) -> str:
    shown = value["value"]
    if shown is None or isinstance(shown, str) or value.get("ci_low") is None:
        return _number(shown, 3)
    return f"{shown:.3f} [{value['ci_low']:.3f}, {value['ci_high']:.3f}]"


@cli.command()
@click.argument("subject", metavar="RUN|MODEL")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@_training
@click.option("--gate", "gates", multiple=True, help="NAME<=VALUE; exit 3 when one fails.")
@click.option("--seconds", default=1.5, show_default=True, type=click.FloatRange(0.1, 3600),
              help="Least duration of a LoadGen scenario.")  # fmt: skip
@click.option(
    "--no-exemplars", is_flag=True, help="Keep rows, texts and pictures out of the report."
)
@click.option("--min-cell", default=10, show_default=True, type=click.IntRange(1))
@_runs
@_shared
def audit(
    subject: str, recipes: tuple[str, ...], data_name: str | None, fields: dict[str, Any],
    training: dict[str, Any], gates: tuple[str, ...], seconds: float, no_exemplars: bool,
    min_cell: int, root: Path,
) -> None:  # fmt: skip
    """Compress, measure, explain and compare RUN, or a MODEL trained first; write one page."""
    from zoo import api
    from zoo.gates import parse_gates
    from zoo.registry import models

    progress = _progress()
    parse_gates(gates)

    def work() -> Any:
        text = subject
        if subject in models().specs and not (root / subject / "run.json").exists():
            _check_recipes(recipes)
            request = _request(subject, data_name, fields)
            text = api.train(subject, request=request, root=root, progress=progress, **training)[
                "run"
            ]
        return api.audit(
            text, recipes or api.DEFAULT_RECIPES, gates=gates, seconds=seconds,
            private=no_exemplars, min_cell=min_cell, root=root, progress=progress,
        )  # fmt: skip

    document = _call(work)
    rows = []
    for r in document["variants"]:
        name, value = next(iter(r["metrics"].items()), ("", None))
        p90 = r.get("latency_ms", {}).get("p90")
        rows.append((r["variant"], f"{name} {_number(value)}", _bytes(r["bytes"]),
                     _bytes(r["bytes_gzip"]), "-" if p90 is None else f"{p90:.4g} ms",
                     r.get("error") or ""))  # fmt: skip
    text = _table(("variant", "test", "size", "gzip", "p90", "error"), rows)
    for gate in document["gates"]:
        text += (
            f"\ngate {gate['name']} {gate['expected']}: {gate['variant']} "
            f"{_number(gate['received'])} {'passed' if gate['passed'] else 'FAILED'}"
        )
    _emit(document, f"{text}\n{document['report']}")
    _fail_on_errors(document["variants"])
    if not document["passed"]:
        raise SystemExit(ENFORCED)


def _check_recipes(recipes: Sequence[str]) -> None:
    """A typo in a recipe must not cost a training."""
    from zoo.compress.recipe import parse

    for recipe in recipes:
        parse(recipe)


@cli.command()
@click.argument("run")
@click.option(
    "--no-exemplars", is_flag=True, help="Keep rows, texts and pictures out of the report."
)
@_runs
@_shared
def report(run: str, no_exemplars: bool, root: Path) -> None:
    """Write RUN's report (HTML) and model card (Markdown) again from its documents."""
    from zoo import api

    document = _call(api.report, run, private=no_exemplars, root=root)
    _emit(document, f"{document['html']}\n{document['markdown']}")


@cli.command()
@_shared
def doctor() -> None:
    """Show what the installation stands on, and what is wrong with it."""
    from zoo import api

    document = _call(api.doctor)
    lines = [f"{name:30} {version}" for name, version in document["packages"].items()]
    lines += [f"{key:30} {value}" for key, value in document["devices"].items()]
    lines += [f"{'memory':30} {document['memory_gb']} GB"]
    lines += [f"problem: {text}" for text in document["problems"]] or ["no problems found"]
    _emit(document, "\n".join(lines))
    if document["problems"]:
        raise SystemExit(FAILURE)


# Entry --------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every way out has the exit code that the README promises."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=words, prog_name="zoo", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.UsageError as error:
        hint = f"{error.ctx.command_path} --help" if error.ctx is not None else "zoo --help"
        _complain(ZooError(error.format_message(), hint=f"See: {hint}", kind="usage"), words, USAGE)
    except ZooError as error:
        if "--debug" in words:
            raise
        _complain(error, words, error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(FAILURE)
    except Exception as error:
        if "--debug" in words:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        problem = ZooError(
            "Something went wrong that should not have.",
            received=reason,
            hint="Run it again with --debug to see where, and report it.",
            kind="internal",
        )
        _complain(problem, words, FAILURE)


def _complain(error: ZooError, words: Sequence[str], code: int) -> None:
    if "--json" in words:
        click.echo(json.dumps(error.document(), indent=1))
    click.echo(f"Error: {error}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
