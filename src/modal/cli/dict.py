"""`modal dict`: look into dicts and change them."""

from __future__ import annotations

import itertools
import json
from typing import Any, Optional

import click

from .._wire.messages.named import ObjectKind
from .confirm import confirm
from .errors import CliError
from .lazy import LazyGroup
from .named import ENV, JSON, YES, create, show_list
from .tables import print_table


@click.group("dict", cls=LazyGroup)
def dict_group() -> None:
    """Manage dicts."""


@dict_group.command("create")
@click.argument("name")
@ENV
def create_dict(name: str, env: Optional[str]) -> None:
    """Make a dict NAME, unless there is one."""
    create(ObjectKind.DICT, name, env)


@dict_group.command("list")
@JSON
@ENV
def list_dicts(as_json: bool, env: Optional[str]) -> None:
    """List the dicts."""
    show_list(ObjectKind.DICT, env, as_json)


@dict_group.command("clear")
@click.argument("name")
@YES
@ENV
def clear(name: str, yes: bool, env: Optional[str]) -> None:
    """Delete every entry of the dict NAME."""
    found = _lookup(name, env)
    confirm(f"Delete all entries of the dict {name!r}?", yes, "--yes")
    found.clear()
    click.echo(f"Cleared the dict {name!r}.")


@dict_group.command("delete")
@click.argument("name")
@YES
@ENV
def delete(name: str, yes: bool, env: Optional[str]) -> None:
    """Delete the dict NAME with its entries."""
    from .._objects.dict import Dict

    _lookup(name, env)
    confirm(f"Delete the dict {name!r} with all its entries?", yes, "--yes")
    Dict.delete(name, environment_name=env)
    click.echo(f"Deleted the dict {name!r}.")


@dict_group.command("get")
@click.argument("name")
@click.argument("key")
@ENV
def get(name: str, key: str, env: Optional[str]) -> None:
    """Print the value of KEY (a string) in the dict NAME."""
    found = _lookup(name, env)
    missing = object()
    value = found.get(key, missing)
    if value is missing:
        raise CliError(f"The dict {name!r} has no key {key!r}.")
    click.echo(str(value))


@dict_group.command("items")
@click.argument("name")
@click.argument("n", type=click.IntRange(min=0), default=20)
@click.option("-a", "--all", "every", is_flag=True, help="Print all entries.")
@click.option("-r", "--repr", "as_repr", is_flag=True, help="Print keys and values as Python writes them.")
@JSON
@ENV
def items(name: str, n: int, every: bool, as_repr: bool, as_json: bool, env: Optional[str]) -> None:
    """Print N entries of the dict NAME (default: 20), or all, in no order."""
    found = _lookup(name, env)
    stream = found.items()
    try:
        shown = list(stream if every else itertools.islice(stream, n + 1))
    finally:
        stream.close()
    if as_json and not as_repr:
        pairs = [{"key": key, "value": value} for key, value in (shown if every else shown[:n])]
        click.echo(json.dumps(pairs, indent=2, default=repr))
        return
    write: Any = repr if as_repr else str
    rows = [[write(key), write(value)] for key, value in (shown if every else shown[:n])]
    print_table(["Key", "Value"], rows, as_json)
    if not every and len(shown) > n and not as_json:
        click.echo(f"… and more: {found.len()} entries in all.")


def _lookup(name: str, env: Optional[str]) -> Any:
    from .._objects.dict import Dict

    return Dict.lookup(name, environment_name=env)
