"""A command group that imports a command's module only when that command is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Optional

import click

from .errors import CliError, near_matches


@dataclass(frozen=True)
class LazyCommand:
    """Where a command is defined and what the list of commands says about it."""

    help: str
    module: str
    attribute: str


class LazyGroup(click.Group):
    """A group whose commands are given by `entries`; unknown names get near matches."""

    def __init__(self, *args: Any, entries: Optional[dict[str, LazyCommand]] = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            _refuse_without_command(self, ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        found: Any = getattr(importlib.import_module(entry.module), entry.attribute)
        command: click.Command = found if isinstance(found, click.Command) else found(cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[Optional[str], Optional[click.Command], list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            hint = near_matches(args[0], self.list_commands(ctx))
            raise CliError(f"`{ctx.command_path}` has no command `{args[0]}`. {hint}".rstrip(), 2)
        name, command, rest = super().resolve_command(ctx, args)
        # Here as well, since not every group is a LazyGroup. Shell completion parses without running anything.
        if isinstance(command, click.Group) and not rest and not ctx.resilient_parsing:
            _refuse_without_command(command, click.Context(command, parent=ctx, info_name=name))
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = [(name, entry.help) for name, entry in self.entries.items()]
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(100)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _refuse_without_command(group: click.Group, ctx: click.Context) -> None:
    """Print the help of a group that needs a command, and exit with 2. (click before 8.2 exits with 0.)"""
    if group.no_args_is_help:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)
