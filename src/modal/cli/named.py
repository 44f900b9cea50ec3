"""What the groups of named objects share: their options, making and listing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import click

from .._wire.messages.named import NAMED_GET, NAMED_LIST, NamedGet, NamedList, ObjectKind
from .env_option import env_option, environment_in_force
from .request import ask
from .tables import print_table, utc_time

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
ENV: Decorator = env_option
YES: Decorator = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
JSON: Decorator = click.option(
    "--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table."
)


def create(kind: ObjectKind, name: str, env: Optional[str]) -> None:
    """Make an object, and say whether it was there."""
    made = ask(NAMED_GET, NamedGet(kind, name, environment_in_force(env), True)).created
    click.echo(f"Made the {kind.value} {name!r}." if made else f"The {kind.value} {name!r} exists already.")


def show_list(kind: ObjectKind, env: Optional[str], as_json: bool) -> None:
    """List the objects of an environment."""
    found = ask(NAMED_LIST, NamedList(kind, environment_in_force(env))).objects
    rows = [[one.name, utc_time(one.created_at)] for one in found]
    print_table(["Name", "Created at"], rows, as_json)
