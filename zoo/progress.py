"""Progress on stderr: a bar with ETA on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

Part = TypeVar("Part")

TITLE = 20  # characters of a bar's title


class Progress:
    """Says what goes on. ``quiet`` says nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._task: Any = None

    def say(self, text: str) -> None:
        """One line."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def start(self, title: str, total: int | None, done: int = 0) -> None:
        """Begin a bar of ``total`` units, None where nobody knows (terminal only)."""
        if not self.terminal:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),  # what room the texts leave: 80 columns must do
            MofNCompleteColumn(),
            TextColumn("{task.fields[live]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            expand=True,
        )
        self._bar.start()
        shown = title if len(title) <= TITLE else f"{title[: TITLE - 1]}…"
        self._task = self._bar.add_task(shown, total=total, completed=done, live="")

    def advance(self, done: int, live: str = "") -> None:
        """The bar stands at ``done`` units."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, live=live)

    def stop(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


QUIET = Progress(quiet=True)
_CURRENT: ContextVar[Progress] = ContextVar("progress", default=QUIET)


def use(progress: Progress) -> Progress:
    """Let :func:`counted` say what it does on ``progress``, from here on in this context."""
    _CURRENT.set(progress)
    return progress


def counted(
    parts: Iterable[Part], title: str, size: Callable[[Part], int], total: int | None = None
) -> Iterator[Part]:
    """The same parts; a bar counts what they hold, such as the rows of a file that is converted.

    For work so far below a command that nobody hands it a :class:`Progress`.
    """
    progress, done = _CURRENT.get(), 0
    progress.start(title, total)
    try:
        for part in parts:
            yield part
            done += size(part)
            progress.advance(done)
    finally:
        progress.stop()
    progress.say(f"data: {done:,} {title}")
