"""`modal queue`: look into queues and change them."""

from __future__ import annotations

import contextlib
import itertools
from typing import Optional

import click

from .._wire.messages.named import ObjectKind
from .confirm import confirm
from .errors import CliError
from .lazy import LazyGroup
from .named import ENV, YES, add_named_commands, create, lookup
from .request import pull
from .tables import printable
from .values import Count, echo_text, unpickled, written

_PARTITION = click.option("-p", "--partition", help="Partition of the queue; the default one if not given.")


@click.group("queue", cls=LazyGroup)
def queue_group() -> None:
    """Manage queues."""


add_named_commands(queue_group, ObjectKind.QUEUE)


@queue_group.command("create")
@click.argument("name")
@ENV
def create_queue(name: str, env: Optional[str]) -> None:
    """Make a queue NAME, unless there is one."""
    create(ObjectKind.QUEUE, name, env)


@queue_group.command("clear")
@click.argument("name")
@_PARTITION
@click.option("-a", "--all", "every", is_flag=True, help="Clear all partitions.")
@YES
@ENV
def clear(name: str, partition: Optional[str], every: bool, yes: bool, env: Optional[str]) -> None:
    """Delete the items of a partition of the queue NAME, or of all."""
    if partition is not None and every:
        raise CliError("Give --partition or --all, not both.", 2)
    found = lookup(ObjectKind.QUEUE, name, env)
    what = "all partitions" if every else f"the partition {partition!r}" if partition else "the default partition"
    confirm(f"Delete the items in {what} of the queue {name!r}?", yes, "--yes")
    found.clear(partition=partition, all=every)
    click.echo(f"Cleared {what} of the queue {name!r}.")


@queue_group.command("peek")
@click.argument("name")
@click.argument("n", type=Count(min=1), default=1)
@_PARTITION
@ENV
def peek(name: str, n: int, partition: Optional[str], env: Optional[str]) -> None:
    """Print the next N items of the queue NAME (default: 1) and leave them there."""
    from .._objects.queue import ItemScan, partition_name
    from .._serialization import deserialize

    scan = ItemScan(lookup(ObjectKind.QUEUE, name, env), partition_name(partition), wait=0.0)
    with contextlib.closing(pull(scan)) as stream:
        for item in itertools.islice(stream, n):
            echo_text(printable(written(unpickled(item, deserialize), str)))  # one line an item


@queue_group.command("len")
@click.argument("name")
@_PARTITION
@click.option("-t", "--total", is_flag=True, help="Count the items of all partitions.")
@ENV
def length(name: str, partition: Optional[str], total: bool, env: Optional[str]) -> None:
    """Print how many items the queue NAME has."""
    if partition is not None and total:
        raise CliError("Give --partition or --total, not both.", 2)
    click.echo(lookup(ObjectKind.QUEUE, name, env).len(partition=partition, total=total))
