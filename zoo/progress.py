"""Progress on stderr: a bar with ETA on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import sys
from typing import Any


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

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a bar of ``total`` units (terminal only)."""
        if not self.terminal:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[live]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(title, total=total, completed=done, live="")

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
