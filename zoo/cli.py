"""The command ``zoo``: parses, calls :mod:`zoo.api`, prints.

Plain click at import time; TensorFlow, pydantic and rich only inside the commands that need them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from zoo.errors import ENFORCED, FAILURE, USAGE, Interrupted, ZooError, unknown, word

RUNS = "runs"


# Options and output -------------------------------------------------------------------------------


class _Group(click.Group):
    """Commands in the order they are written; a typo gets suggestions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise unknown("command", args[0], self.commands, hint=f"See: {ctx.command_path} --help")
        return super().resolve_command(ctx, args)


def _examples(*lines: str) -> str:
    """A command's epilog."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` and ``--debug``, on every command, and a stdout that is ours alone."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, debug: bool, **kwargs: Any) -> Any:
        meta = click.get_current_context().meta
        with contextlib.ExitStack() as kept:
            kept.enter_context(_stdout_to_stderr())
            meta["json"], meta["stdout"] = as_json, kept
            return function(*args, **kwargs)

    return command


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What libraries print, C++ ones included, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _emit(document: Any, text: str) -> None:
    """Print the document under ``--json``, else the text for humans: a command's last act."""
    meta = click.get_current_context().meta
    meta["stdout"].close()
    if meta["json"]:
        from zoo.jsontext import dumps

        click.echo(dumps(document))
    elif text:
        click.echo(text)


_runs = click.option(
    "--runs", "root", default=RUNS, show_default=True,
    type=click.Path(path_type=Path, file_okay=False), help="Folder that holds the runs.",
)  # fmt: skip
_variant = click.option(
    "--variant", default="base", show_default=True, metavar="NAME|all", help="Which variant."
)
_split = click.option(
    "--split", default="test", show_default=True, type=click.Choice(["train", "val", "test"]),
    help="Which split of the data.",
)  # fmt: skip
_min_cell = click.option(
    "--min-cell", default=10, show_default=True, type=click.IntRange(1),
    help="Groups with fewer rows are not shown.",
)  # fmt: skip
_no_exemplars = click.option(
    "--no-exemplars", is_flag=True, help="Keep rows, texts and pictures out of the report."
)


class Finite(click.FloatRange):
    """A range of numbers without NaN, which no comparison refuses."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def _output_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """A file to write: that it can be is checked before the work and not after."""
    if path is None:
        return None
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.absolute().parent}.", context, option)
    from zoo.run import check_output

    return check_output(path)


def _output(text: str) -> Callable[..., Any]:
    return click.option(
        "--output",
        type=click.Path(path_type=Path),
        callback=_output_file,
        help=text,
    )


def _given(but: Collection[str]) -> list[str]:
    """The options that stand on the command line, except some (by parameter name)."""
    context = click.get_current_context()
    return [
        param.opts[0]
        for param in context.command.params
        if isinstance(param, click.Option)
        and param.name is not None
        and param.name not in but
        and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


def _refuse(options: Sequence[str], why: str) -> None:
    """An option without effect is an error: silence would pass for obedience."""
    if options:
        raise click.UsageError(f"{', '.join(options)} can't be used here: {why}")


def _progress() -> Any:
    from zoo.progress import Progress, use

    return use(Progress())


def _number(value: Any, digits: int = 4) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no negative zero
    return f"{value:,}" if isinstance(value, int) else str(value)


def _counts(counts: Mapping[str, int]) -> str:
    """``name n, ...``, the first twenty; a name that could be read as several stands in quotes."""
    shown = [f"{word(name)} {_number(n)}" for name, n in list(counts.items())[:20]]
    return ", ".join(shown) + (f", ... ({len(counts):,} in all)" if len(counts) > 20 else "")


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1000:,.1f} kB"


def _time(ms: float | None) -> str:
    """Milliseconds, as microseconds where they are few."""
    if ms is None:
        return "-"
    return f"{ms:.3g} ms" if ms >= 0.1 else f"{1000 * ms:.3g} µs"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns aligned by spaces, numbers to the right; lines no wider than the terminal."""
    cells = [[str(c) for c in header], *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    right = [
        all(row[k][:1].isdigit() or row[k][:1] in "-+<" for row in cells[1:])
        for k in range(len(header))
    ]

    room = (
        shutil.get_terminal_size().columns if sys.__stdout__ and sys.__stdout__.isatty() else None
    )

    def line(row: Sequence[str]) -> str:
        parts = [
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ]
        text = "  ".join(parts).rstrip()
        return text if room is None or len(text) <= room else text[: room - 3] + "..."

    return "\n".join([line(cells[0]), line(["-" * w for w in widths]), *map(line, cells[1:])])


def _fail_on_errors(rows: Sequence[Mapping[str, Any]]) -> None:
    """Exit 1 when some result is an error row; the document was printed all the same."""
    failed = [row for row in rows if row.get("error")]
    if failed:
        for row in failed:
            click.echo(f"{row.get('variant') or row.get('name')}: {row['error']}", err=True)
        raise SystemExit(FAILURE)


# The group ----------------------------------------------------------------------------------------


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="glasszoo", prog_name="zoo")
def cli() -> None:
    """Train a Keras model, shrink it, and see what the shrinking did to its speed, its reasons and
    its fairness.

    \b
    zoo audit mlp --data adult        train, compress, measure, explain, compare: one page
    zoo train cnn                     a model of the zoo on its own data
    zoo train mlp --data loans.csv --target approved --sensitive sex
    """


@cli.command("list", epilog=_examples("zoo list", "zoo list 'm*' --json"))
@click.argument("pattern", required=False)
@_shared
def list_command(pattern: str | None) -> None:
    """List the models, or those that match PATTERN."""
    from zoo import api

    rows = api.list_models(pattern)
    text = _table(
        ("model", "family", "kinds", "task", "params", "data", "target", "source"),
        [
            (r["name"], r["family"], ", ".join(r["kinds"]), r["task"], _number(r["params"]),
             r["data"], _target(r), r["source"])
            for r in rows if "error" not in r
        ],
    )  # fmt: skip
    _emit(rows, "\n".join([text, *_broken(rows)]))


def _target(row: Mapping[str, Any]) -> str:
    target = row["target"]
    return f"{target['metric']} {target['value']}" if target else "-"


def _broken(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for the plugins that could not be loaded."""
    return [f"{row['name']} could not be loaded: {row['error']}" for row in rows if "error" in row]


@cli.command(epilog=_examples("zoo info mlp", "zoo info cnn --summary"))
@click.argument("model")
@click.option("--summary", is_flag=True, help="Build the model and show its layers.")
@_shared
def info(model: str, summary: bool) -> None:
    """Show what is known about MODEL."""
    from zoo import api

    document = api.info(model, summary)
    lines = [f"{document['name']} {document['version']}  ({document['family']})"]
    for key in ("tasks", "kinds", "params", "data", "target", "published", "config", "training",
                "search", "source", "license", "skips"):  # fmt: skip
        value = document[key] or "none"
        if isinstance(value, dict):
            value = _pairs(value) or "none"
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


@cli.group(cls=_Group)
def data() -> None:
    """List the data sets, look into one, clear the cache."""


@data.command("list", epilog=_examples("zoo data list"))
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
    _emit(rows, "\n".join([text, *_broken(rows)]))


def _data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what data is meant; the command gets one ``request``."""

    @click.option("--target", help="Column to predict (own data).")
    @click.option(
        "--task",
        help="Task, instead of the inferred one: binary, multiclass, regression, forecasting.",
    )
    @click.option(
        "--sensitive",
        multiple=True,
        help="Attributes to judge fairness by: a,b; '\"a, b\",c' where a name has a comma. Repeatable.",
    )
    @click.option("--positive", help="Label of the positive class; the last one otherwise.")
    @click.option("--include-sensitive", is_flag=True, help="Use the sensitive columns as inputs.")
    @click.option("--split", "split_column", help="Column that says train, val or test.")
    @click.option("--split-seed", default=0, show_default=True, type=click.IntRange(0),
                  help="Seed of the split.")  # fmt: skip
    @click.option(
        "--rare-groups",
        default="error",
        show_default=True,
        type=click.Choice(["error", "merge"]),
        help="What to do with groups of a single row.",
    )
    @click.option("--horizon", type=click.IntRange(1, 10_000), metavar="N",
                  help="Steps ahead to forecast (task forecasting; 26 otherwise).")  # fmt: skip
    @click.option("--offline", is_flag=True, help="Refuse anything that needs a network.")
    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        names = ("target", "task", "positive", "include_sensitive", "split_seed", "rare_groups",
                 "horizon", "offline")  # fmt: skip
        fields = {name: kwargs.pop(name) for name in names}
        sensitive = _names(kwargs.pop("sensitive"))
        return function(
            *args,
            fields={**fields, "sensitive": sensitive, "split": kwargs.pop("split_column")},
            **kwargs,
        )

    return command  # fmt: skip


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas; one that holds a comma stands in double quotes, as in a CSV."""
    import csv

    names: dict[str, None] = {}
    for text in texts:
        found = [
            name.strip() for cells in csv.reader([text], skipinitialspace=True) for name in cells
        ]
        if not any(found):
            raise click.BadParameter(f"expected names separated by commas, received {text!r}.")
        names.update(dict.fromkeys(name for name in found if name))
    return tuple(names)


@data.command(
    "info",
    epilog=_examples("zoo data info adult", "zoo data info loans.csv --target approved"),
)
@click.argument("name")
@_data_options
@_shared
def data_info(name: str, fields: dict[str, Any]) -> None:
    """Show a data set, or what a file of your own would become."""
    _progress()  # for a file that is converted first
    from zoo import api
    from zoo.data.core import Request

    document = api.data_info(Request(data=_absolute(name), **fields))
    lines = []
    for key in ("name", "kind", "task", "rows", "sizes", "classes", "positive", "group_counts",
                "license", "source", "sha256", "cache", "notes", "description"):  # fmt: skip
        value = document.get(key)
        if value in (None, [], {}):
            continue
        if key == "group_counts":
            value = "; ".join(f"{a}: {_counts(counts)}" for a, counts in value.items())
        elif key == "classes" and "class_counts" in document:
            value = _counts(dict(zip(value, document["class_counts"], strict=True)))
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {_number(v)}" for k, v in value.items())
        elif isinstance(value, list):
            value = "; ".join(map(str, value[:20]))
        lines.append(f"{key.replace('group_counts', 'groups'):12} {_number(value)}")
    text = "\n".join(lines)
    if document.get("columns"):
        text += "\n\ncolumns, as the training rows show them:\n" + _table(
            ("column", "kind", "input", "distinct", "missing", "why"),
            [
                (c["name"], c["kind"], "yes" if c["used"] else "no", _number(c["distinct"]),
                 _number(c["missing"]), c["why"])
                for c in document["columns"]
            ],
        )  # fmt: skip
    _emit(document, text)


@data.command("clear", epilog=_examples("zoo data clear"))
@_shared
def data_clear() -> None:
    """Remove what large data were converted into; it is made again when it is needed."""
    from zoo import api

    done = api.data_clear()
    text = f"{done['removed']} conversions removed from {done['cache']}, {_bytes(done['bytes'])}"
    _emit(done, text)


def _absolute(name: str) -> str:
    """A path of the user's as an absolute one, so that the run finds it from anywhere."""
    from zoo.registry import datasets

    if name in datasets().specs:
        return name
    if not name.strip():  # as a path it would mean the folder one happens to be in
        raise unknown("data set", name, datasets().specs)
    try:
        path = Path(name).expanduser()
        return str(path.resolve()) if path.exists() else name
    except (OSError, RuntimeError) as error:  # longer than a path can be, or no such home
        raise unknown("data set", name, datasets().specs) from error


# Training -----------------------------------------------------------------------------------------


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``--set`` over the settings of ``--config``."""
    meta = click.get_current_context().meta
    settings: dict[str, Any] = dict(meta.get("settings", {}))
    places = meta.setdefault("places", {})
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ZooError(
                f"--set {pair} is no setting.", expected="--set key=value", received=repr(pair)
            )
        settings[key.strip()] = value.strip()
        places.pop(key.strip(), None)
    return settings


#: Options that a file of settings can't hold.
_NOT_IN_FILES = {"file", "pairs", "as_json", "debug", "resume", "local_workers"}


def _config(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Read ``--config``: options of the command become their defaults, the rest are settings."""
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            import tomllib

            values = tomllib.loads(text)
        else:
            values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is no table of keys and values")
        settings = dict(values.pop("set", {}))
    except (OSError, TypeError, ValueError) as error:
        raise ZooError(
            f"{path} could not be read as settings.",
            expected="a JSON or TOML file with keys and values",
            received=str(error)[:200],
        ) from error
    context.meta["places"] = {key: _place(path, text, key) for key in {**values, **settings}}
    params = {
        (param.opts[0] if isinstance(param, click.Option) else str(param.name)): param
        for param in context.command.params
        if param.name not in {*_NOT_IN_FILES, "epochs", "batch_size"}  # --set may change these
    }
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        param = params.get(f"--{key.replace('_', '-')}") or params.get(key)
        if param is None or param.name is None:
            settings[key] = value
        else:
            several = isinstance(param, click.Option) and param.multiple
            value = [value] if several and isinstance(value, str) else value
            _check_option(context, param, value, context.meta["places"][key])
            defaults[param.name] = value
    context.default_map = {**(context.default_map or {}), **defaults}
    context.meta["settings"] = settings


def _place(path: Path, text: str, key: str) -> str:
    """Where a key stands in a file of settings: the file, and the line where only one can be it."""
    start = re.compile(rf"""[\s{{,]*["']?{re.escape(key)}["']?\s*[:=]""")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if start.match(line)]
    return f"{path}, line {lines[0]}" if len(lines) == 1 else str(path)


def _check_option(context: click.Context, param: click.Parameter, value: Any, place: str) -> None:
    """Raise where a file gives an option a value that the command line would refuse."""
    try:
        if isinstance(value, dict) or (isinstance(value, list) and not param.multiple):
            raise TypeError("it takes a single value")
        param.process_value(context, value)
    except (TypeError, ValueError, click.UsageError) as error:
        said = error.message if isinstance(error, click.UsageError) else str(error)
        raise ZooError(
            f"{place}: {param.name} can't be {value!r}.",
            expected=f"a value that {param.opts[0]} takes: {said}",
            received=repr(value),
            hint=f"Correct the file. See: {context.command_path} --help",
        ) from error


@contextlib.contextmanager
def _naming_the_file() -> Iterator[None]:
    """Errors about settings say where in the file of ``--config`` they stand."""
    try:
        yield
    except ZooError as error:
        places = click.get_current_context().meta.get("places", {})
        found = dict.fromkeys(places[name] for name in error.settings if name in places)
        if found:
            error.message = f"{'; '.join(found)}: {error.message}"
        raise


def _training(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a training; the command gets ``training``, arguments of ``api.train``."""

    @click.option("--data", "data_name", help="Data set's name, or a path of your own.")
    @_data_options
    @click.option("--epochs", type=int, help="Passes over the training rows.")
    @click.option("--batch-size", type=int, help="Rows a step.")
    @click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1),
                  help="Seed of weights and order.")  # fmt: skip
    @click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE",
                  help="Setting of the model or its training, as `zoo info` shows them.")  # fmt: skip
    @click.option("--config", "file", type=click.Path(path_type=Path), is_eager=True,
                  expose_value=False, callback=_config,
                  help="JSON or TOML file of such settings, and of options of this command.")  # fmt: skip
    @click.option("--init-from", metavar="RUN",
                  help="Start from that run's weights, where layers agree in name and shapes.")  # fmt: skip
    @click.option("--preset", metavar="NAME",
                  help="Start from a published backbone: keras_nlp's name of it, or its folder.")  # fmt: skip
    @click.option("--name", help="The run's name; made up otherwise.")
    @click.option("--deterministic", is_flag=True, help="Bit-identical results, slower.")
    @click.option(
        "--strategy",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Devices to train on: auto, single, mirrored (all GPUs), mirrored:N, multiworker "
        "(TF_CONFIG, Slurm, Kubernetes), tpu.",
    )
    @click.option(
        "--execution",
        default="auto",
        show_default=True,
        metavar="MODE",
        help="auto (measured), graph, graph:N, xla or xla:N, with N steps a call.",
    )
    @click.option(
        "--precision",
        default="auto",
        show_default=True,
        metavar="POLICY",
        help="auto (what the devices gain by), float32, mixed_float16 or mixed_bfloat16.",
    )
    @click.option("--checkpoint-every", default=0, metavar="STEPS", type=click.IntRange(0),
                  help="Write a checkpoint each so many steps, besides after each epoch.")  # fmt: skip
    @click.option("--track", metavar="NAMES",
                  help="Log every epoch to these as well: tensorboard,mlflow.")  # fmt: skip
    @click.option("--cpus", type=click.IntRange(1), help="Use at most so many cores.")
    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        settings = _settings(kwargs.pop("pairs"))
        for name in ("epochs", "batch_size", "preset"):
            value = kwargs.pop(name)
            if value is not None:
                settings[name] = value
                click.get_current_context().meta["places"].pop(name, None)
        names = ("seed", "name", "deterministic", "cpus", "execution", "checkpoint_every",
                 "strategy", "precision", "init_from")  # fmt: skip
        training = {name: kwargs.pop(name) for name in names}
        training["settings"] = settings
        track = kwargs.pop("track")
        training["track"] = _names([] if track is None else [track])
        with _naming_the_file():
            return function(*args, training=training, **kwargs)

    return command  # fmt: skip


def _request(model: str, name: str | None, fields: Mapping[str, Any]) -> Any:
    from zoo.data.core import Request
    from zoo.registry import models

    default = models().get(model).data
    return Request(data=default if name is None else _absolute(name), **fields)


@cli.command(
    epilog=_examples(
        "zoo train cnn",
        "zoo train mlp --data loans.csv --target approved --sensitive sex",
        "zoo train lstm_forecast --data sales.csv --target sold --horizon 12",
        "zoo train mlp --set hidden=64,32 --set learning_rate=0.001 --seed 1",
        "zoo train --config experiment.toml --seed 2",
        "zoo train --resume latest",
    )
)
@click.argument("model", required=False)
@_training
@_runs
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--local-workers", type=click.IntRange(2, 64), metavar="N",
              help="Train in a cluster of N processes on this machine.")  # fmt: skip
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
    local_workers: int | None,
    dry_run: bool,
    require_target: bool,
) -> None:
    """Train MODEL into a new run, beside a linear baseline."""
    from zoo import api

    progress = _progress()
    if (model is None) == (resume is None):
        raise click.UsageError("Expected either a MODEL to train or --resume RUN.")
    if local_workers is not None:
        context = click.get_current_context()
        words = context.find_root().obj
        context.meta["stdout"].close()  # the chief prints, to where we would
        raise SystemExit(api.train_cluster(words, local_workers, progress))
    if resume is not None:
        _refuse(
            _given(but={"resume", "root", "local_workers", "require_target", "as_json", "debug"}),
            "--resume takes everything from the run.",
        )
        document = api.resume(resume, root, progress)
    else:
        assert model is not None
        if require_target:
            _check_claim(model, data_name)
        document = api.train(
            model,
            request=_request(model, data_name, fields),
            root=root,
            dry_run=dry_run,
            progress=progress,
            **training,
        )
    _emit(document, _training_text(document))
    if require_target and not document.get("target", {}).get("hit", True):
        raise SystemExit(ENFORCED)


def _check_claim(model: str, data_name: str | None) -> None:
    """Raise where there is no target to require: before a training, and not after it."""
    from zoo.registry import models

    spec = models().get(model)
    if spec.target is None or data_name not in (None, spec.data):
        claim = f"{spec.target.metric} on {spec.data}" if spec.target else "nothing"
        raise ZooError(
            f"There is no target of {model} to require here.",
            expected=f"--require-target with what the model claims: {claim}",
            received=f"--data {data_name or spec.data}",
            hint="`zoo list` shows the targets.",
        )


def _pairs(values: Mapping[str, Any]) -> str:
    """``key=value, ...``"""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _training_text(document: Mapping[str, Any]) -> str:
    if "worker" in document:
        return f"worker {document['worker']} of {document['workers']}: done, the chief has the run"
    if "run" not in document:  # a dry run
        data = document["data"]
        columns = _table(
            ("column", "kind", "input", "why"),
            [
                (c["name"], c["kind"], "yes" if c["used"] else "no", c["why"])
                for c in data["columns"]
            ],
        )
        lines = [
            f"{document['model']} on {data['name']}: {data['task']}",
            f"rows      {_pairs(data['sizes'])}",
            f"config    {_pairs(document['config'])}",
            f"training  {_pairs(document['options'])}",
        ]
        return "\n".join(lines) + (f"\n\n{columns}" if data["columns"] else "")
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
    epilog=_examples(
        "zoo tune cnn --quick",
        "zoo tune mlp --trials 20 --epochs 5",
        "zoo tune mlp --trials 20 --objective accuracy:1,latency_ms:-0.01,worst_group:0.5",
    )
)
@click.argument("model")
@_training
@_runs
@click.option("--quick", is_flag=True, help="Range test of learning rates, and batch sizes.")
@click.option("--trials", type=click.IntRange(1), help="Search by so many trainings in all.")
@click.option("--objective", metavar="NAME|NAME:WEIGHT,...",
              help="Validation metric to search for, or a sum to be large; also latency_ms, "
              "worst_group, params.")  # fmt: skip
@click.option("--study", metavar="NAME", help="Study to begin or go on with; by model and data.")
@_shared
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
    given = _given(but=())
    never = ["--name", "--track", "--init-from", "--checkpoint-every", "--strategy", "--precision"]
    _refuse([o for o in never if o in given], "tuning makes no run of its own, on one device.")
    request, progress = _request(model, data_name, fields), _progress()
    shared = {name: training[name] for name in ("settings", "seed", "cpus")}
    if quick:
        own = ["--objective", "--study", "--deterministic", "--execution", "--runs"]
        _refuse([o for o in own if o in given], "--quick measures alone.")
        document = api.tune_quick(model, request=request, progress=progress, **shared)
        _emit(document, _quick_text(document))
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
        **shared,
    )
    _emit(document, _tuned_text(document))


def _quick_text(document: Mapping[str, Any]) -> str:
    rate, size = document["learning_rate"], document["batch_size"]
    shown = range(0, len(rate["rates"]), max(1, len(rate["rates"]) // 12))
    low, high = min(rate["losses"]), max(rate["losses"])
    bars = [round(30 * (rate["losses"][k] - low) / ((high - low) or 1)) * "#" for k in shown]
    losses = [
        (f"{rate['rates'][k]:.1e}", _number(rate["losses"][k]), bar)
        for k, bar in zip(shown, bars, strict=True)
    ]
    sizes = [
        (_number(r["batch_size"]), f"{r['samples_per_second']:,.0f}", _number(r["steps_per_epoch"]))
        for r in size["sizes"]
    ]
    return (
        _table(("learning rate", "loss", ""), losses)
        + f"\nlearning rate: {rate['recommended']:g} recommended, a tenth of where the loss was "
        f"lowest ({rate['lowest_at']:.2g}); the model's own is {rate['present']:g}\n\n"
        + _table(("batch", "samples/s", "steps an epoch"), sizes)
        + f"\nbatch size: {size['recommended']} recommended, the smallest that is nearly as fast "
        f"as any; the model's own is {size['present']}\n"
        "The rate was tested at the model's own batch size: with another one, test again "
        "(--batch-size).\n"
        f"--set learning_rate={rate['recommended']:g}"
    )


def _tuned_text(document: Mapping[str, Any]) -> str:
    best, names = document["best"], list(document["trials"][0]["config"])
    rows = [
        (_number(t["number"]), t["state"], _number(t["value"]), _number(t["epochs"]),
         *(f"{t['config'].get(n):.3g}" if isinstance(t["config"].get(n), float)
           else str(t["config"].get(n)) for n in names))
        for t in document["trials"]
    ]  # fmt: skip
    wanted = " ".join(
        name if weight == 1 else f"{weight:+g} {name}"
        for name, weight in document["objective"]["weights"].items()
    )
    metrics = ", ".join(f"{k} {_number(v)}" for k, v in best["metrics"].items())
    return (
        _table(("trial", "state", "value", "epochs", *names), rows)
        + f"\nobjective: {wanted}, on the validation rows\n"
        f"best: trial {best['trial']}, {_number(best['value'])} ({metrics})\n{best['command']}"
    )


# Runs ---------------------------------------------------------------------------------------------


@cli.command(epilog=_examples("zoo runs", "zoo runs --runs experiments --json"))
@_runs
@_shared
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
                      f"{name} {_number(value)}", ", ".join(row["variants"]),
                      row["created"][:16].replace("T", " ")))  # fmt: skip
    header = ("run", "model", "data", "status", "test", "variants", "created")
    _emit(
        rows,
        _table(header, shown) if rows else f"There is no run in {root}. Make one: zoo train mlp",
    )
    _fail_on_errors(rows)


@cli.command(
    epilog=_examples("zoo compare loans-a loans-b", "zoo compare old latest --variant int8")
)
@click.argument("first")
@click.argument("second")
@click.option("--variant", default="base", show_default=True, help="Which variant of both.")
@_runs
@_shared
def compare(first: str, second: str, variant: str, root: Path) -> None:
    """Compare two runs, paired where the test rows are the same."""
    from zoo import api

    document = api.compare(first, second, root, variant)
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


@cli.command("eval", epilog=_examples("zoo eval latest", "zoo eval latest --variant all --json"))
@click.argument("run")
@_variant
@_split
@_runs
@_shared
def evaluate(run: str, variant: str, split: str, root: Path) -> None:
    """Score RUN's artefacts, with 95 % intervals."""
    from zoo import api

    document = api.evaluate(run, variant, split, root)
    rows = [
        (r["variant"], name, _number(m["value"]), f"[{_number(m['ci_low'])}, {_number(m['ci_high'])}]",
         _number(r["n"]))
        for r in document["results"] for name, m in r["metrics"].items()
    ]  # fmt: skip
    _emit(document, _table(("variant", "metric", "value", "95 % interval", "n"), rows))


@cli.command(
    epilog=_examples(
        "zoo predict latest --split val", "zoo predict latest new.csv --output answers.csv"
    )
)
@click.argument("run")
@click.argument("source", metavar="[INPUT]", required=False, type=click.Path(path_type=Path))
@_variant
@_split
@_output("File for INPUT's predictions [INPUT-predictions.csv].")
@_runs
@_shared
def predict(
    run: str, source: Path | None, variant: str, split: str, output: Path | None, root: Path
) -> None:
    """Predict a split with RUN, or an INPUT of your own.

    INPUT is a table (CSV, JSON lines, Parquet, TFRecord), a plain text with one text a line, a folder
    of pictures or an NPZ file.
    """
    from zoo import api

    if source is not None:
        _refuse([o for o in _given(but=()) if o == "--split"], "INPUT is no split of the data.")

    document = api.predict(
        run, source=source, variant=variant, split=split, output=output, root=root
    )
    rows = [
        (r["variant"], r["split"] or "own", _number(r["n"]), r["path"]) for r in document["results"]
    ]
    _emit(document, _table(("variant", "split", "n", "path"), rows))


@cli.command(
    epilog=_examples(
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
@_variant
@_runs
@_shared
def generate(run: str, root: Path, **options: Any) -> None:
    """Make texts with RUN, a language model."""
    from zoo import api

    document = api.generate(run, options.pop("prompt"), root=root, **options)
    several = len(document["results"]) > 1
    shown = []
    for row in document["results"]:
        text = "\n".join(row["outputs"])
        rate = _number(row["tokens_per_second"], 3)
        shown.append(
            (f"{row['variant']}:\n" if several else "")
            + f"{text}\n({row['tokens']:,} tokens, {rate} a second)"
        )
    _emit(document, "\n\n".join(shown))


# Variants -----------------------------------------------------------------------------------------


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
    epilog=_examples(
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
@_min_cell
@_runs
@_shared
def compress(
    run: str, recipes: tuple[str, ...], variant: str, sweep: bool, prefer: str, split: str,
    seconds: float, min_cell: int, root: Path, **limits: float | None,
) -> None:  # fmt: skip
    """Make compressed variants of RUN.

    With --sweep and a --max-... the smallest (or fastest) variant that meets them all is taken, and
    every other one is told what it missed; exit code 3 where none meets them.
    """
    from zoo import api

    given = {name: value for name, value in limits.items() if value is not None}
    if sweep:
        chosen = {"--variant"} | (set() if given else {"--prefer"})
        _refuse(
            sorted(chosen & set(_given(but=()))),
            "a sweep starts from base." if given else "without a --max-... nothing is chosen.",
        )
        document = api.sweep(
            run, recipes, limits=given, prefer=prefer, split=split, seconds=seconds,
            min_cell=min_cell, root=root, progress=_progress(),
        )  # fmt: skip
        _emit(document, _sweep_text(document))
        _fail_on_errors(document["results"])
        if given and document["chosen"] is None:
            raise SystemExit(ENFORCED)
        return
    own = {"variant", "root", "as_json", "debug"}
    _refuse(_given(but=own), "it goes with --sweep.")
    if not recipes:
        raise click.UsageError("Expected at least one RECIPE, or --sweep.")
    document = api.compress(run, recipes, variant=variant, root=root, progress=_progress())
    rows = []
    for r in document["results"]:
        name, value = next(iter(r["metrics"].items()), ("", None))
        sparsity = "-" if r["sparsity"] is None else f"{r['sparsity']:.3f}"
        rows.append((r["variant"], _bytes(r["bytes"]), _bytes(r["bytes_gzip"]), sparsity,
                     f"{name} {_number(value)}", _parity(r["parity"]),
                     r["error"] or ""))  # fmt: skip
    header = ("variant", "size", "gzip", "sparsity", "test", "off from Keras", "error")
    _emit(document, _table(header, rows))
    _fail_on_errors(document["results"])


def _sweep_text(document: Mapping[str, Any]) -> str:
    """The table of a sweep, what each rejected variant missed, and the one that is taken."""
    from zoo.compress.sweep import LIMITS

    rows, rejected = [], []
    for r in document["results"]:
        worst, hurt = r.get("worst_group") or {}, r.get("hurt_most") or {}
        named = f"{hurt.get('attribute')}={hurt.get('group')}"
        lost = r.get("worst_group_drop")
        rows.append((
            r["variant"], _number(r.get("value")), _loss(r.get("drop")),
            _number(worst.get("value")), _loss(lost) + (f" {named}" if lost else ""),
            _bytes(r.get("bytes")), _bytes(r.get("bytes_gzip")),
            _time(r.get("p90_ms")), _fronts(r["front"]),
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
    lines = [_table(header, rows), f"judged on the {document['split']} rows", *rejected]
    if document["chosen"]:
        r = next(row for row in document["results"] if row["variant"] == document["chosen"])
        test = r["test"]
        lines.append(
            f"taken: {r['variant']} (least {document['prefer']} of those that meet all); on the test "
            f"rows {test['metric']} {_number(test['value'])}, loss {_loss(test['drop'])}, largest "
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
    epilog=_examples(
        "zoo export latest --format saved_model",
        "zoo export latest --variant int8 --output model.tflite",
        "zoo export latest --format onnx --batch any",
    )
)
@click.argument("run")
@click.option("--format", default="litert", show_default=True, help="What to write.",
              type=click.Choice(["litert", "saved_model", "onnx"]))  # fmt: skip
@_variant
@click.option("--batch", metavar="N|any", help="Rows a call [1 for litert, else any].")
@_output("Where to [in the variant's folder].")
@_runs
@_shared
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
        (r["variant"], r["format"], "any" if r["batch"] is None else r["batch"], _bytes(r["bytes"]),
         "-" if r["parity"] is None else f"{r['parity']['max_abs']:.1e}", r["path"] or r["error"])
        for r in document["results"]
    ]  # fmt: skip
    _emit(document, _table(("variant", "format", "batch", "size", "parity", "path"), rows))
    _fail_on_errors(document["results"])


def _rows_a_call(text: str | None, format: str) -> int | None:
    if text is None:
        return 1 if format == "litert" else None
    if text != "any" and not (text.isdecimal() and 1 <= int(text) <= 65536):
        raise click.BadParameter(
            f"expected a whole number from 1 to 65536, or any; received {text!r}.",
            param_hint="--batch",
        )
    return None if text == "any" else int(text)


@cli.command(
    epilog=_examples(
        "zoo benchmark latest --variant all",
        "zoo benchmark mlp --scenario SingleStream --seconds 10",
        "zoo benchmark quick --output results.json",
    )
)
@click.argument("names", nargs=-1, metavar="[RUN|MODEL|SUITE]...")
@_variant
@click.option(
    "--scenario", multiple=True, type=click.Choice(["SingleStream", "Offline"]),
    help="LoadGen's scenarios; both otherwise.",
)  # fmt: skip
@click.option("--seconds", type=Finite(0.1, 3600), help="Least duration of a scenario [3].")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1),
              help="Threads of the interpreter.")  # fmt: skip
@_output("Write the JSON document here too.")
@_runs
@_shared
def benchmark(
    names: tuple[str, ...], variant: str, scenario: tuple[str, ...], seconds: float | None,
    threads: int, output: Path | None, root: Path,
) -> None:  # fmt: skip
    """Measure artefacts with MLPerf LoadGen.

    A RUN's variant is measured, or all variants of a MODEL's newest run (trained first where there
    is none), or the entries of a SUITE, each freshly trained. Without arguments: the suite quick.
    """
    from zoo import api
    from zoo.registry import models
    from zoo_bench.suite import suite_names
    from zoo_bench.table import markdown

    suites = set(suite_names())
    trained = [n for n in names if n in models().specs and not _is_run(n, root)]
    for name in names:
        if name not in suites and name not in trained:
            _known_run(name, root, "run, model or suite", [*models().specs, *suites])
    if trained:
        _refuse(
            [o for o in _given(but=()) if o == "--variant"], "all variants of a MODEL's run count."
        )
    if suites & set(names or ("quick",)):
        chosen = {"--variant", "--scenario", "--threads"} & set(_given(but=()))
        _refuse(sorted(chosen), "a SUITE says what is measured.")
    documents = []
    for name in names or ("quick",):
        arguments = {"seconds": seconds or 3.0, "root": root, "progress": _progress(),
                     "scenarios": scenario or None, "threads": threads}  # fmt: skip
        if name in suites:
            documents.append(
                api.benchmark_suite(name, root=root, seconds=seconds, progress=_progress())
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
    _emit(merged, markdown(results))
    _fail_on_errors(results)


@cli.command(
    epilog=_examples(
        "zoo explain latest", "zoo explain latest --variant int8 --method permutation --samples 50"
    )
)
@click.argument("run")
@_variant
@click.option("--method", help="Instead of the one that the model's layers call for.")
@click.option("--samples", type=click.IntRange(2),
              help="Rows to explain [100; of language models 12].")  # fmt: skip
@click.option("--background", default=50, show_default=True, type=click.IntRange(1),
              help="Training rows that they are set against.")  # fmt: skip
@_split
@_runs
@_shared
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
        split=split, root=root, progress=_progress(),
    )  # fmt: skip
    parts = []
    for r in document["results"]:
        error = r["additivity_error"].get("max")
        parts.append(
            f"{r['variant']}: {r['method']} in {r['space']} space, {r['samples']} rows against "
            f"{r['background']}: {r['why_method']}\n"
            f"additivity error {'-' if error is None else f'{error:.1e}'} of the output's range, "
            f"{_number(r['samples_per_second'], 1)} rows/s"
        )
        rows = [(f["name"], _number(f["importance"])) for f in r["features"][:12]]
        parts.append(_table(("feature", "mean |SHAP|"), rows))
        parts.append("")
    _emit(document, "\n".join(parts).rstrip())
    _fail_on_errors(document["results"])


@cli.command(
    epilog=_examples("zoo fairness latest", "zoo fairness latest --variant all --sensitive sex,age")
)
@click.argument("run")
@_variant
@click.option("--sensitive", multiple=True,
              help="Attributes to judge by: a,b; all otherwise. Repeatable.")  # fmt: skip
@_min_cell
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100),
              help="Bootstrap resamples of the intervals.")  # fmt: skip
@_split
@_runs
@_shared
def fairness(
    run: str, variant: str, sensitive: tuple[str, ...], min_cell: int, resamples: int, split: str,
    root: Path,
) -> None:  # fmt: skip
    """Judge RUN by group: metrics, disparities, intervals."""
    from zoo import api

    document = api.fairness(run, variant=variant, split=split, attributes=_names(sensitive),
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


@cli.command(
    epilog=_examples(
        "zoo audit mlp --data loans.csv --target approved --sensitive sex",
        "zoo audit latest int8 prune:0.8+int8 --gate 'worst_group_drop<=0.02'",
    )
)
@click.argument("subject", metavar="RUN|MODEL")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@_training
@click.option("--gate", "gates", multiple=True, metavar="NAME<=VALUE",
              help="Limit that every variant must keep (or NAME>=VALUE); exit 3 if one fails.")  # fmt: skip
@click.option("--seconds", default=1.5, show_default=True, type=Finite(0.1, 3600),
              help="Least duration of a LoadGen scenario.")  # fmt: skip
@_no_exemplars
@_min_cell
@_runs
@_shared
def audit(
    subject: str, recipes: tuple[str, ...], data_name: str | None, fields: dict[str, Any],
    training: dict[str, Any], gates: tuple[str, ...], seconds: float, no_exemplars: bool,
    min_cell: int, root: Path,
) -> None:  # fmt: skip
    """Compress, measure, explain, compare; write one page.

    RUN is audited as it is. A MODEL is trained first, with the options of `zoo train`.
    """
    from zoo import api
    from zoo.gates import parse_gates
    from zoo.registry import models

    progress = _progress()
    parse_gates(gates)
    _check_recipes(recipes)
    text = subject
    if subject in models().specs and not _is_run(subject, root):
        request = _request(subject, data_name, fields)
        text = api.train(subject, request=request, root=root, progress=progress, **training)["run"]
    else:
        _known_run(subject, root, "run or model", models().specs)
        own = {"gates", "seconds", "no_exemplars", "min_cell", "root", "as_json", "debug"}
        _refuse(_given(but=own), f"{subject} is trained already.")
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
        rows.append((r["variant"], f"{name} {_number(value)}",
                     *_changes(document["deltas"], r["variant"], name), _bytes(r["bytes"]),
                     _bytes(r["bytes_gzip"]), _time(r.get("latency_ms", {}).get("p90")),
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
    text = _table(header, rows)
    for gate in document["gates"]:
        text += (
            f"\ngate {gate['name']} {gate['expected']}: {gate['variant']} "
            f"{_number(gate['received'])} {'passed' if gate['passed'] else 'FAILED'}"
        )
        if gate["reason"]:
            text += f" ({gate['reason']})"
    _emit(document, f"{text}\n{document['report']}")
    _fail_on_errors(document["variants"])
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


def _parity(parity: Mapping[str, Any] | None) -> str:
    """How far the file's outputs are from the Keras model's at most, as a share of their spread."""
    if parity is None or not parity.get("spread"):
        return "-"
    return f"{parity['max_abs'] / parity['spread']:.1%} of spread"


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


def _is_run(text: str, root: Path) -> bool:
    return (root / text / "run.json").exists()


def _known_run(text: str, root: Path, what: str, others: Iterable[str]) -> None:
    """Raise for what is neither a run nor one of ``others``, with suggestions from both."""
    from zoo.run import find_run, list_runs

    try:
        find_run(text, root)
    except ZooError as error:
        if Path(text).name != text:  # a path: its own error says more
            raise
        names = [*(run.name for run in list_runs(root)), *others]
        problem = unknown(what, text, names, hint=error.hint)
        problem.kind = error.kind
        raise problem from error


def _check_recipes(recipes: Sequence[str]) -> None:
    """A typo in a recipe must not cost a training."""
    from zoo.compress.recipe import parse

    for recipe in recipes:
        parse(recipe)


@cli.command(epilog=_examples("zoo report latest", "zoo report latest --no-exemplars"))
@click.argument("run")
@_no_exemplars
@_runs
@_shared
def report(run: str, no_exemplars: bool, root: Path) -> None:
    """Write RUN's report and model card from its documents."""
    from zoo import api

    document = api.report(run, private=no_exemplars, root=root)
    _emit(document, f"{document['html']}\n{document['markdown']}")


@cli.command(epilog=_examples("zoo doctor", "zoo doctor --json"))
@_shared
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
    _emit(document, "\n".join(lines))
    if document["problems"]:
        raise SystemExit(FAILURE)


# Entry --------------------------------------------------------------------------------------------


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception: what is half-written is cleaned up on the way out."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


#: OSErrors that are the machine's and not ours: no space, no permission, a read-only disk.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def _as_zoo_error(error: BaseException) -> ZooError:
    """Any exception as what a user should read."""
    if isinstance(error, ZooError):
        return error
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "zoo"
        return ZooError(error.format_message(), hint=f"See: {path} --help", kind="usage")
    if isinstance(error, (click.exceptions.Abort, KeyboardInterrupt)):
        cause = error.__cause__ if isinstance(error, click.exceptions.Abort) else error
        number = signal.SIGTERM if isinstance(cause, _Terminated) else signal.SIGINT
        return Interrupted(number, f"Stopped by {number.name}.")
    if isinstance(error, OSError) and error.errno in _DISK:
        from zoo.run import guard_disk

        return guard_disk(error)
    return ZooError(
        "Something went wrong that should not have.",
        received=" ".join(f"{type(error).__name__}: {error}".split()),
        hint="Run it again with --debug to see where, and report it.",
        kind="internal",
        exit_code=FAILURE,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every way out has the exit code that the README promises."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _terminable():
            code = cli.main(args=words, prog_name="zoo", standalone_mode=False, obj=words)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USAGE)
    except BrokenPipeError:  # `zoo list | head`: nobody reads on, and Python's exit would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(FAILURE)
    except (Exception, KeyboardInterrupt) as error:
        problem = _as_zoo_error(error)
        if "--debug" in words:
            traceback.print_exc()
        if "--json" in words:
            click.echo(json.dumps(problem.document(), indent=1))
        click.echo(f"Error: {problem}", err=True)
        sys.exit(problem.exit_code)


if __name__ == "__main__":
    main()
