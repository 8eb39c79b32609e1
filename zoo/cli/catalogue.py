"""``zoo list``, ``info`` and ``data``: what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from zoo.cli.group import Group, cli
from zoo.cli.parts import (
    absolute,
    count_text,
    emit,
    examples,
    figure,
    pairs_text,
    progress_bar,
    shared,
    size_text,
    table,
)
from zoo.cli.settings import data_options


@cli.command("list", epilog=examples("zoo list", "zoo list 'm*' --json"))
@click.argument("pattern", required=False)
@shared
def list_command(pattern: str | None) -> None:
    """List the models, or those that match PATTERN."""
    from zoo import api

    rows = api.list_models(pattern)
    text = table(
        ("model", "family", "kinds", "task", "params", "data", "target", "source"),
        [
            (r["name"], r["family"], ", ".join(r["kinds"]), r["task"], figure(r["params"]),
             r["data"], _target(r), r["source"])
            for r in rows if "error" not in r
        ],
    )  # fmt: skip
    emit(rows, "\n".join([text, *_broken(rows)]))


def _target(row: Mapping[str, Any]) -> str:
    target = row["target"]
    return f"{target['metric']} {target['value']}" if target else "-"


def _broken(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for the plugins that could not be loaded."""
    return [f"{row['name']} could not be loaded: {row['error']}" for row in rows if "error" in row]


@cli.command(epilog=examples("zoo info mlp", "zoo info cnn --summary"))
@click.argument("model")
@click.option("--summary", is_flag=True, help="Build the model and show its layers.")
@shared
def info(model: str, summary: bool) -> None:
    """Show what is known about MODEL."""
    from zoo import api

    document = api.info(model, summary)
    lines = [f"{document['name']} {document['version']}  ({document['family']})"]
    for key in ("tasks", "kinds", "params", "data", "target", "published", "config", "training",
                "search", "source", "license", "skips"):  # fmt: skip
        value = document[key] or "none"
        if isinstance(value, dict):
            value = pairs_text(value) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        lines.append(f"  {key:9} {figure(value)}")
    text = "\n".join(lines)
    if summary:
        rows = [
            (la["name"], la["type"], "x".join(la["output"][1:]), figure(la["params"]))
            for la in document["layers"]
        ]
        text += "\n\n" + table(("layer", "type", "output", "params"), rows)
    emit(document, text)


@cli.group(cls=Group)
def data() -> None:
    """List the data sets, look into one, clear the cache."""


@data.command("list", epilog=examples("zoo data list"))
@shared
def data_list() -> None:
    """List the data sets that have names."""
    from zoo import api

    rows = api.list_data()
    text = table(
        ("data", "kind", "task", "rows", "groups", "size", "license", "what"),
        [
            (r["name"], r["kind"], r["task"], figure(r["rows"]), ", ".join(r["groups"]),
             size_text(r["bytes"]), r["license"], r["description"])
            for r in rows if "error" not in r
        ],
    )  # fmt: skip
    emit(rows, "\n".join([text, *_broken(rows)]))


@data.command(
    "info",
    epilog=examples("zoo data info adult", "zoo data info loans.csv --target approved"),
)
@click.argument("name")
@data_options
@shared
def data_info(name: str, fields: dict[str, Any]) -> None:
    """Show a data set, of the zoo or a collection, or what a file of your own would become."""
    progress_bar()  # for a file that is converted first
    from zoo import api
    from zoo.data.table import Request

    document = api.data_info(Request(data=absolute(name), **fields))
    lines = []
    for key in ("name", "kind", "task", "rows", "sizes", "classes", "positive", "group_counts",
                "license", "source", "sha256", "cache", "notes", "description"):  # fmt: skip
        value = document.get(key)
        if value in (None, [], {}):
            continue
        if key == "group_counts":
            value = "; ".join(f"{a}: {count_text(counts)}" for a, counts in value.items())
        elif key == "classes" and "class_counts" in document:
            value = count_text(dict(zip(value, document["class_counts"], strict=True)))
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {figure(v)}" for k, v in value.items())
        elif isinstance(value, list):
            value = "; ".join(map(str, value[:20]))
        lines.append(f"{key.replace('group_counts', 'groups'):12} {figure(value)}")
    text = "\n".join(lines)
    if document.get("columns"):
        text += "\n\ncolumns, as the training rows show them:\n" + table(
            ("column", "kind", "input", "distinct", "missing", "why"),
            [
                (c["name"], c["kind"], "yes" if c["used"] else "no", figure(c["distinct"]),
                 figure(c["missing"]), c["why"])
                for c in document["columns"]
            ],
        )  # fmt: skip
    emit(document, text)


@data.command("clear", epilog=examples("zoo data clear"))
@shared
def data_clear() -> None:
    """Remove what was fetched, and what large data were converted into; both are made again when needed."""
    from zoo import api

    done = api.data_clear()
    text = f"{done['removed']} data sets removed from {done['cache']}, {size_text(done['bytes'])}"
    emit(done, text)
