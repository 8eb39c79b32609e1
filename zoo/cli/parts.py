"""What commands share: options, ``--json``, tables and numbers for humans, names of runs and data."""

from __future__ import annotations

import contextlib
import csv
import functools
import math
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from zoo.errors import FAILURE, ZooError, unknown, word

RUNS = "runs"


def examples(*lines: str) -> str:
    """A command's epilog."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
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


def emit(document: Any, text: str) -> None:
    """Print the document under ``--json``, else the text for humans: a command's last act."""
    meta = click.get_current_context().meta
    meta["stdout"].close()
    if meta["json"]:
        from zoo.jsontext import dumps

        click.echo(dumps(document))
    elif text:
        click.echo(text)


runs_option = click.option(
    "--runs", "root", default=RUNS, show_default=True,
    type=click.Path(path_type=Path, file_okay=False), help="Folder that holds the runs.",
)  # fmt: skip


variant_option = click.option(
    "--variant", default="base", show_default=True, metavar="NAME|all", help="Which variant."
)


split_option = click.option(
    "--split", default="test", show_default=True, type=click.Choice(["train", "val", "test"]),
    help="Which split of the data.",
)  # fmt: skip


min_cell_option = click.option(
    "--min-cell", default=10, show_default=True, type=click.IntRange(1),
    help="Groups, shares and classes of fewer rows are not shown.",
)  # fmt: skip


no_exemplars_option = click.option(
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


def output_option(text: str) -> Callable[..., Any]:
    return click.option(
        "--output",
        type=click.Path(path_type=Path),
        callback=_output_file,
        help=text,
    )


def given_options(but: Collection[str]) -> list[str]:
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


def refuse(options: Sequence[str], why: str) -> None:
    """An option without effect is an error: silence would pass for obedience."""
    if options:
        raise click.UsageError(f"{', '.join(options)} can't be used here: {why}")


def progress_bar() -> Any:
    from zoo.progress import Progress, use

    return use(Progress())


def figure(value: Any, digits: int = 4) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if 0 < abs(value) < 10 ** (1 - digits):
            return f"{value:.3g}"
        return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no negative zero
    return f"{value:,}" if isinstance(value, int) else str(value)


def count_text(counts: Mapping[str, int]) -> str:
    """``name n, ...``, the first twenty; a name that could be read as several stands in quotes."""
    shown = [f"{word(name)} {figure(n)}" for name, n in list(counts.items())[:20]]
    return ", ".join(shown) + (f", ... ({len(counts):,} in all)" if len(counts) > 20 else "")


def size_text(value: int | None) -> str:
    return "-" if value is None else f"{value / 1000:,.1f} kB"


def time_text(ms: float | None) -> str:
    """Milliseconds, as microseconds where they are few."""
    if ms is None:
        return "-"
    return f"{ms:.3g} ms" if ms >= 0.1 else f"{1000 * ms:.3g} µs"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
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


def pairs_text(values: Mapping[str, Any]) -> str:
    """``key=value, ...``"""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def fail_on_errors(rows: Sequence[Mapping[str, Any]]) -> None:
    """Exit 1 when some result is an error row; the document was printed all the same."""
    failed = [row for row in rows if row.get("error")]
    if failed:
        for row in failed:
            click.echo(f"{row.get('variant') or row.get('name')}: {row['error']}", err=True)
        raise SystemExit(FAILURE)


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas; one that holds a comma stands in double quotes, as in a CSV."""

    names: dict[str, None] = {}
    for text in texts:
        found = [
            name.strip() for cells in csv.reader([text], skipinitialspace=True) for name in cells
        ]
        if not any(found):
            raise click.BadParameter(f"expected names separated by commas, received {text!r}.")
        names.update(dict.fromkeys(name for name in found if name))
    return tuple(names)


def absolute(name: str) -> str:
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


def is_run(text: str, root: Path) -> bool:
    return (root / text / "run.json").exists()


def known_run(text: str, root: Path, what: str, others: Iterable[str]) -> None:
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
