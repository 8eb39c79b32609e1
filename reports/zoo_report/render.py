"""Documents in, one HTML page and one Markdown card out. Pure: no clock, no file but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from zoo_report.bundle import Bundle, Rendered
from zoo_report.sections.base import Cell, Table
from zoo_report.text import letter
from zoo_report.view import View

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$])")
_LEADING = re.compile(r"^(\s*)([-+=]|\d+[.)])(?=\s|$|[-+=])")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()


def escape_markdown(value: Any) -> str:
    """Text as literal Markdown: no markup, no HTML, no cell or line break, no autolink."""
    if isinstance(value, Markdown):
        return value
    text = str(value).replace("&", "&amp;")
    text = _SPECIAL.sub(r"\\\1", text)
    text = text.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\|", "&#124;")
    text = text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("!\\[", "\\!\\[")
    text = _LEADING.sub(r"\1\\\2", text)
    return " ".join(text.split("\n"))


def code(value: Any) -> Markdown:
    """A line of code that no backtick inside can end."""
    text = str(value).replace("\n", " ")
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if "`" in text else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}")


def markdown_table(table: Table) -> Markdown:
    """A caption and a pipe table; a missing number carries the number of its reason below."""
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    lines.append("| " + " | ".join(map(escape_markdown, table.columns)) + " |")
    rules = ("---:" if k in table.numeric else "---" for k in range(len(table.columns)))
    lines.append("| " + " | ".join(rules) + " |")
    lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in table.rows]
    return Markdown("\n".join(lines))


def _markdown_cell(cell: Cell) -> str:
    parts = [cell.text, f"({letter(cell.note)})" if cell.note else "", cell.small, cell.extra]
    return escape_markdown(" ".join(part for part in parts if part))


@cache
def _style() -> str:
    return files("zoo_report").joinpath("static/report.css").read_text(encoding="utf-8").strip()


@cache
def _environments() -> tuple[Environment, Environment]:
    shared: dict[str, Any] = {
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
        "keep_trailing_newline": True,
    }
    loader = PackageLoader("zoo_report", "templates")
    html = Environment(loader=loader, autoescape=True, **shared)
    html.filters |= {"ticks": _code_in_html, "letter": letter}
    # The card is escaped by default as the page is: each value passes through `finalize`.
    markdown = Environment(loader=loader, autoescape=False, finalize=escape_markdown, **shared)
    markdown.filters |= {
        "code": code,
        "letter": letter,
        "table": markdown_table,
        "ticks": _code_in_markdown,
        "verbatim": Markdown,  # inside a fence; it starts with a word, so it can't end the fence
    }
    return html, markdown


def _code_in_html(text: str) -> Markup:
    """Text with `commands` in backticks shown as code; all of it escaped."""
    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else Markup("{}").format(part)
        for index, part in enumerate(parts)
    )


def _code_in_markdown(text: str) -> Markdown:
    parts = re.split(r"`([^`]*)`", text)
    return Markdown(
        "".join(code(p) if index % 2 else escape_markdown(p) for index, p in enumerate(parts))
    )


def render(bundle: Bundle) -> Rendered:
    """The report of a run.

    The page stands alone: one inline style, allowed by its hash, and data-URI pictures; no script,
    nothing loaded. The same bundle gives the same bytes.
    """
    view = View(bundle)
    html, markdown = _environments()
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return Rendered(
        html=html.get_template("report.html.j2").render(
            view=view, style=Markup(style), digest=digest
        ),
        markdown=markdown.get_template("card.md.j2").render(view=view),
    )
