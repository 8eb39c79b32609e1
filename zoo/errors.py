"""The one exception users meet: what was expected, what was received, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FAILURE, USAGE, ENFORCED = 1, 2, 3  # exit codes: a failure, bad usage or input, a failed gate


class ZooError(Exception):
    """A problem with a message for humans.

    Args:
        message: what is wrong, one sentence.
        expected, received: the two sides of the mismatch, where there are two sides.
        hint: what to do next.
        kind: a stable word for scripts, such as ``unknown_model``.
        exit_code: 2 for bad usage or input (the default), 1 for a failure, 3 for a failed gate.
        settings: names of the settings it is about, so that whoever read them can say from where.
    """

    def __init__(
        self,
        message: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        hint: str | None = None,
        kind: str = "bad_input",
        exit_code: int = USAGE,
        settings: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.settings = tuple(settings)
        self.message, self.expected, self.received, self.hint = message, expected, received, hint
        self.kind, self.exit_code = kind, exit_code

    def document(self) -> dict:
        """The ``{error: ...}`` object that ``--json`` prints."""
        names = ("kind", "message", "expected", "received", "hint")
        return {"error": {name: getattr(self, name) for name in names}}

    @property
    def brief(self) -> str:
        """What is wrong and what was received, in one line: the ``error`` of a result row."""
        return f"{self.message} {self.received or ''}".strip()

    def __str__(self) -> str:
        rows = [clip(self.message)]
        for label in ("expected", "received", "hint"):
            text = getattr(self, label)
            if text:
                rows.append(f"  {label.capitalize()}: {clip(text)}")
        return "\n".join(rows)


#: The ``kind`` of a refusal that is no mistake: what was asked for is not for this model or its data.
NOT_APPLICABLE = "not_applicable"

#: Characters of one line of an error: four lines of them fit on one screen of 24 x 80.
LINE = 400


def clip(text: str, limit: int = LINE) -> str:
    """``text`` with its middle left out when it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (limit - head) :]}"


def word(name: str) -> str:
    """A name in a sentence: in quotes where its own commas, quotes or marks would blend in."""
    return repr(name) if not name or set(name) & set(",\"'?!") or name != name.strip() else name


def unknown(what: str, name: str, known: Iterable[str], hint: str | None = None) -> ZooError:
    """An error for a name that is not in ``known``, with the nearest ones as a suggestion."""
    known = sorted(set(known))
    plain = {item.casefold(): item for item in known}
    found = difflib.get_close_matches(name[:100].casefold(), plain, n=3, cutoff=0.5)
    close = [word(plain[item]) for item in found]
    suggestion = f"Did you mean {' or '.join(close)}?" if close else hint
    more = f", ... ({len(known)} in all)" if len(known) > 20 else ""
    shown = ", ".join(map(word, known[:20])) + more
    return ZooError(
        f"Unknown {what} {clip(repr(name), 80)}.",
        expected=f"one of: {shown or '(there are none)'}",
        received=clip(repr(name), 80),
        hint=suggestion,
        kind=f"unknown_{what.replace(' ', '_')}",
    )


class Interrupted(ZooError):  # noqa: N818 - what happened is no error
    """A signal ended the work early; the exit code is the shell's for that signal."""

    def __init__(self, signal_number: int, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, kind="interrupted", exit_code=128 + signal_number)
