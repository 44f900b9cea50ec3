"""`modal environment`: what every name belongs to, so that names in one do not meet those in another."""

from __future__ import annotations

from typing import Optional

import click

from .._wire.messages.common import Empty
from .._wire.messages.environment import (
    ENVIRONMENT_CREATE,
    ENVIRONMENT_DELETE,
    ENVIRONMENT_GET,
    ENVIRONMENT_LIST,
    ENVIRONMENT_UPDATE,
    EnvironmentRef,
    EnvironmentUpdate,
)
from .confirm import confirm
from .lazy import LazyGroup
from .request import ask
from .tables import print_table

DEFAULT = "main"  #: the environment that exists always


@click.group("environment", cls=LazyGroup)
def environment_group() -> None:
    """Manage environments."""


@environment_group.command("list")
@click.option("--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table.")
def list_environments(as_json: bool) -> None:
    """List the environments of the server. The one in force is marked."""
    from ..config import config

    in_force = config.get("environment")
    found = ask(ENVIRONMENT_LIST, Empty()).environments
    if as_json:
        rows = [[one.name, one.web_suffix, "true" if one.name == in_force else "false"] for one in found]
        print_table(["Name", "Web suffix", "Active"], rows, True)
    else:
        rows = [["*" if one.name == in_force else "", one.name, one.web_suffix] for one in found]
        print_table(["", "Name", "Web suffix"], rows, False)


@environment_group.command("create")
@click.argument("name")
def create(name: str) -> None:
    """Create the environment NAME (at most 64 letters, digits, dashes, dots and underscores)."""
    ask(ENVIRONMENT_CREATE, EnvironmentRef(name))
    click.echo(f"Created the environment `{name}`.")


@environment_group.command("delete")
@click.argument("name")
@click.option("--confirm/--no-confirm", "is_confirmed", default=False, help="Delete without asking.")
def delete(name: str, is_confirmed: bool) -> None:
    """Delete the environment NAME with everything in it: its apps stop, its secrets are deleted."""
    ask(ENVIRONMENT_GET, EnvironmentRef(name))  # asking about one that is not there would be odd
    confirm(
        f"Delete the environment `{name}`, stop its apps and delete everything that has a name in it?",
        is_confirmed,
        "--confirm",
    )
    ask(ENVIRONMENT_DELETE, EnvironmentRef(name))
    click.echo(f"Deleted the environment `{name}`.")
    _warn_if_configured(name, DEFAULT)


@environment_group.command("update")
@click.argument("current_name")
@click.option("--set-name", help="New name.")
@click.option("--set-web-suffix", help='New suffix of the environment\'s web addresses; "" for none.')
def update(current_name: str, set_name: Optional[str], set_web_suffix: Optional[str]) -> None:
    """Rename the environment CURRENT_NAME, or change its web suffix. What is in it stays."""
    if set_name is None and set_web_suffix is None:
        raise click.UsageError("Give --set-name or --set-web-suffix.")
    updated = ask(ENVIRONMENT_UPDATE, EnvironmentUpdate(current_name, set_name, set_web_suffix))
    click.echo(f"The environment is now `{updated.name}`, with the web suffix `{updated.web_suffix}`.")
    if updated.name != current_name:
        _warn_if_configured(current_name, updated.name)


def _warn_if_configured(before: str, now: str) -> None:
    """Say so when what is configured is called otherwise now, or is gone."""
    from ..config import config

    if config.get("environment") == before:
        click.echo(f"Your configuration still names `{before}`: run `modal config set-environment {now}`.", err=True)
