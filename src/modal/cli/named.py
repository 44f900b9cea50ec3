"""What the groups of named objects share: options, and making, finding, listing and deleting objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import click

from .._wire.messages.named import (
    NAMED_DELETE,
    NAMED_GET,
    NAMED_LIST,
    NamedDelete,
    NamedGet,
    NamedInfo,
    NamedList,
    ObjectKind,
)
from ..exception import NotFoundError
from .confirm import confirm
from .env_option import env_option, environment_in_force
from .errors import CliError
from .request import ask
from .tables import print_table, utc_time

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
ENV: Decorator = env_option
YES: Decorator = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
JSON: Decorator = click.option(
    "--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table."
)
#: The class, what people call it, and what is in it.
_KINDS = {
    ObjectKind.DICT: ("Dict", "dict", "entries"),
    ObjectKind.QUEUE: ("Queue", "queue", "items"),
    ObjectKind.VOLUME: ("Volume", "volume", "files"),
    ObjectKind.NETWORK_FILE_SYSTEM: ("NetworkFileSystem", "network file system", "files"),
}


def add_named_commands(group: click.Group, kind: ObjectKind, argument: str = "name") -> None:
    """Give a group the commands `list` and `delete`; `argument` is what the latter calls the name."""
    _, word, content = _KINDS[kind]

    @group.command("list", help=f"List the {word}s.")
    @ENV
    @JSON
    def list_objects(env: Optional[str], as_json: bool) -> None:
        rows = [[one.name, utc_time(one.created_at)] for one in _objects(kind, environment_in_force(env))]
        print_table(["Name", "Created at"], rows, as_json)

    @group.command("delete", help=f"Delete the {word} {argument.upper()} with its {content}.")
    @click.argument(argument)
    @YES
    @ENV
    def delete(yes: bool, env: Optional[str], **arguments: str) -> None:
        name, environment = arguments[argument], environment_in_force(env)
        _require(kind, name, environment)  # asking about what is not there would be odd
        confirm(f"Delete the {word} {name!r} with all its {content}?", yes, "--yes")
        ask(NAMED_DELETE, NamedDelete(kind, name, environment))
        click.echo(f"Deleted the {word} {name!r}.")


def create(kind: ObjectKind, name: str, env: Optional[str]) -> None:
    """Make an object, and say whether it was there."""
    made = ask(NAMED_GET, NamedGet(kind, name, environment_in_force(env), True)).created
    word = _KINDS[kind][1]
    click.echo(f"Made the {word} {name!r}." if made else f"The {word} {name!r} exists already.")


def lookup(kind: ObjectKind, name: str, env: Optional[str], *, advises: bool = False) -> Any:
    """The object as programs have it.

    Args:
        advises: when there is none, say how to make it.

    Raises:
        CliError: there is none.
        NotFoundError: there is no such environment; with `advises`, there is none.
    """
    import modal

    try:
        return getattr(modal, _KINDS[kind][0]).lookup(name, environment_name=env)
    except NotFoundError:
        if not advises:
            _require(kind, name, environment_in_force(env))
        raise


def _require(kind: ObjectKind, name: str, environment: str) -> None:
    if name not in [one.name for one in _objects(kind, environment)]:
        raise CliError(f"There is no {_KINDS[kind][1]} {name!r} in the environment {environment!r}.")


def _objects(kind: ObjectKind, environment: str) -> list[NamedInfo]:
    return ask(NAMED_LIST, NamedList(kind, environment)).objects
