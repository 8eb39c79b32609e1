"""The group that all commands belong to."""

from __future__ import annotations

from typing import Any

import click

from zoo.errors import unknown


class Group(click.Group):
    """Commands in the order they are written; a typo gets suggestions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise unknown("command", args[0], self.commands, hint=f"See: {ctx.command_path} --help")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Group,
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
