"""Lists: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Optional

import click


def utc_time(at: Optional[float]) -> str:
    """A time as schedules have it: in UTC. `at` is in seconds since the epoch; None gives ""."""
    from datetime import datetime, timezone

    if at is None:
        return ""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], as_json: bool) -> None:
    """Print `rows`, each with one cell a column, to stdout. A table has control characters as Python writes them.

    Args:
        as_json: print a JSON list of objects instead, with the columns' names in snake case as keys.
    """
    if as_json:
        keys = [column.lower().replace(" ", "_") for column in columns]
        click.echo(json.dumps([dict(zip(keys, row)) for row in rows], indent=2))
        return
    table = [columns, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(cell) for cell in cells) for cells in zip(*table)]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def printable(text: str) -> str:
    r"""`text` with control characters, surrogates and the like escaped as `repr` does: a newline becomes ``\n``."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
