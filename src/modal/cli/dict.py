"""`modal dict`: look into dicts and change them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Optional

import click

from .._wire.messages.named import ObjectKind
from .confirm import confirm
from .errors import CliError
from .lazy import LazyGroup
from .named import ENV, JSON, YES, add_named_commands, create, lookup
from .request import pull
from .tables import print_table
from .values import Count, echo_json, echo_text, unpickled, written


@click.group("dict", cls=LazyGroup)
def dict_group() -> None:
    """Manage dicts."""


add_named_commands(dict_group, ObjectKind.DICT)


@dict_group.command("create")
@click.argument("name")
@ENV
def create_dict(name: str, env: Optional[str]) -> None:
    """Make a dict NAME, unless there is one."""
    create(ObjectKind.DICT, name, env)


@dict_group.command("clear")
@click.argument("name")
@YES
@ENV
def clear(name: str, yes: bool, env: Optional[str]) -> None:
    """Delete every entry of the dict NAME."""
    found = lookup(ObjectKind.DICT, name, env)
    confirm(f"Delete all entries of the dict {name!r}?", yes, "--yes")
    found.clear()
    click.echo(f"Cleared the dict {name!r}.")


@dict_group.command("get")
@click.argument("name")
@click.argument("key")
@ENV
def get(name: str, key: str, env: Optional[str]) -> None:
    """Print the value of KEY (a string) in the dict NAME."""
    found = lookup(ObjectKind.DICT, name, env)
    missing = object()
    value = found.get(key, missing)
    if value is missing:
        raise CliError(f"The dict {name!r} has no key {key!r}.")
    echo_text(str(value))


@dict_group.command("items")
@click.argument("name")
@click.argument("n", type=Count(min=0), default=20)
@click.option("-a", "--all", "every", is_flag=True, help="Print all entries.")
@click.option("-r", "--repr", "as_repr", is_flag=True, help="Print keys and values as Python writes them.")
@JSON
@ENV
def items(name: str, n: int, every: bool, as_repr: bool, as_json: bool, env: Optional[str]) -> None:
    """Print N entries of the dict NAME (default: 20), or all, in no order."""
    from .._objects.dict import EntryScan

    found = lookup(ObjectKind.DICT, name, env)
    with contextlib.closing(pull(EntryScan(found, keys=True, values=True))) as stream:
        entries = [_unpickled(*entry) for entry in (stream if every else itertools.islice(stream, n + 1))]
    shown = entries if every else entries[:n]
    if as_json and not as_repr:
        echo_json([{"key": key, "value": value} for key, value in shown])
        return
    write: Callable[[Any], str] = repr if as_repr else str
    print_table(["Key", "Value"], [[written(key, write), written(value, write)] for key, value in shown], as_json)
    if len(entries) > len(shown) and not as_json:
        click.echo(f"… and more: {found.len()} entries in all.")


def _unpickled(key: bytes, value: bytes) -> tuple[Any, Any]:
    from .._objects.dict import key_from
    from .._serialization import deserialize

    return unpickled(key, key_from), unpickled(value, deserialize)
