"""How rows replace each other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

_MANY = 64  # rows of one statement at most


@functools.cache
def upsert(table: Table, dialect_name: str) -> Executable:
    """Insert rows; one that has the key of an existing row replaces it."""
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    key = [column.name for column in table.primary_key.columns]
    statement = dialect.insert(table)
    others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    result: Executable = statement.on_conflict_do_update(index_elements=key, set_=others)
    return result


def upsert_many(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """As `upsert`, for many small rows with different keys: plain values in the order of the table's columns.

    Many rows are one statement: the interpreter's lock is free while it runs, and is not asked for once a row.
    """
    at = 0
    while at < len(rows):
        count = min(_MANY, 1 << ((len(rows) - at).bit_length() - 1))  # powers of two, so that there are few statements
        values = tuple(chain.from_iterable(rows[at : at + count]))
        connection.exec_driver_sql(_upsert_text(table, connection.dialect.name, count), values)
        at += count


@functools.cache
def _upsert_text(table: Table, dialect_name: str, count: int) -> str:
    mark = "%s" if dialect_name == "postgresql" else "?"
    names = [column.name for column in table.c]
    keys = [column.name for column in table.primary_key.columns]
    row = f"({', '.join([mark] * len(names))})"
    others = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in keys)
    return (
        f"""INSERT INTO {table.name} ({", ".join(f'"{name}"' for name in names)}) VALUES {", ".join([row] * count)} """
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {others}"
    )
