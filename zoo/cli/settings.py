"""Options that say what to train on and how, and files of settings."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zoo.cli.parts import absolute, names_in
from zoo.errors import ZooError


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
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
        sensitive = names_in(kwargs.pop("sensitive"))
        return function(
            *args,
            fields={**fields, "sensitive": sensitive, "split": kwargs.pop("split_column")},
            **kwargs,
        )

    return command  # fmt: skip


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
#: Options that are settings, too: what --set says of them holds against a file.
_SETTINGS = ("epochs", "batch_size", "preset", "weights")
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
        if param.name not in {*_NOT_IN_FILES, *_SETTINGS}  # --set may change these
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


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a training; the command gets ``training``, arguments of ``api.train``."""

    @click.option(
        "--data",
        "data_name",
        help="Data set's name, a path of your own, or keras:NAME, openml:ID, tfds:NAME.",
    )
    @data_options
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
    @click.option("--weights", metavar="NAME",
                  help="Start from published weights: imagenet, or a file of Keras' (pictures).")  # fmt: skip
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
        for name in _SETTINGS:
            value = kwargs.pop(name)
            if value is not None:
                settings[name] = value
                click.get_current_context().meta["places"].pop(name, None)
        names = ("seed", "name", "deterministic", "cpus", "execution", "checkpoint_every",
                 "strategy", "precision", "init_from")  # fmt: skip
        training = {name: kwargs.pop(name) for name in names}
        training["settings"] = settings
        track = kwargs.pop("track")
        training["track"] = names_in([] if track is None else [track])
        with _naming_the_file():
            return function(*args, training=training, **kwargs)

    return command  # fmt: skip


def request_of(model: str, name: str | None, fields: Mapping[str, Any]) -> Any:
    from zoo.data.table import Request
    from zoo.registry import models

    default = models().get(model).data
    return Request(data=default if name is None else absolute(name), **fields)
