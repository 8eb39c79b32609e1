"""The command ``zoo``: parses, calls :mod:`zoo.api`, prints.

Plain click at import time; TensorFlow, pydantic and rich only inside the commands that need them. The
modules of commands are imported in the order of the help.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import click

# isort: off
from zoo.cli import catalogue, training, results, variants, judging  # noqa: F401

# isort: on
from zoo.cli.group import cli
from zoo.errors import FAILURE, USAGE, Interrupted, ZooError

__all__ = ["cli", "main"]


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
