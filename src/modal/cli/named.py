"""What the groups of named objects share: creating, listing and deleting them."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Optional

import click

from .. import _sync
from .._wire.messages.named import NAMED_GET, NAMED_LIST, NamedGet, NamedList, ObjectKind
from .env_option import env_option, environment_in_force
from .tables import print_table

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
ENV: Decorator = env_option
YES: Decorator = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
JSON: Decorator = click.option(
    "--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table."
)


def create(kind: ObjectKind, name: str, env: Optional[str]) -> None:
    """Make an object, and say whether it was there."""

    async def make() -> bool:
        reply, _ = await (await _rpc()).unary(NAMED_GET, NamedGet(kind, name, environment_in_force(env), True))
        return bool(reply.created)

    made = _sync.run(make())
    click.echo(f"Made the {kind.value} {name!r}." if made else f"The {kind.value} {name!r} exists already.")


def show_list(kind: ObjectKind, env: Optional[str], as_json: bool) -> None:
    """List the objects of an environment."""

    async def ask() -> list[Any]:
        reply, _ = await (await _rpc()).unary(NAMED_LIST, NamedList(kind, environment_in_force(env)))
        return list(reply.objects)

    found = _sync.run(ask())
    rows = [[one.name, datetime.datetime.fromtimestamp(one.created_at).strftime("%Y-%m-%d %H:%M:%S")] for one in found]
    print_table(["Name", "Created at"], rows, as_json)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless `yes`; a no ends the command."""
    if not yes:
        click.confirm(question, abort=True)


async def _rpc() -> Any:
    from .._objects.client import default_client

    return await default_client()._rpc()
