"""The one way rows replace each other."""

from __future__ import annotations

import functools

from sqlalchemy import Executable, Table
from sqlalchemy.dialects import postgresql, sqlite


@functools.cache
def upsert(table: Table, dialect_name: str) -> Executable:
    """Insert rows; one that has the key of an existing row replaces it."""
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    key = [column.name for column in table.primary_key.columns]
    statement = dialect.insert(table)
    others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    result: Executable = statement.on_conflict_do_update(index_elements=key, set_=others)
    return result
