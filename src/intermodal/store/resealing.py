"""Replaces what secrets are sealed with; used by `intermodal.store.sql`."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select, update

from intermodal.store import schema


def reseal(connection: Connection, convert: Callable[[str, bytes], bytes]) -> int:
    """Convert the sealed bytes of every secret, also of apps that have stopped; returns how many there are."""
    count = 0
    for table in (schema.secrets, schema.named_secrets):
        for secret_id, sealed in connection.execute(select(table.c.secret_id, table.c.sealed)).all():
            converted = (
                update(table).where(table.c.secret_id == secret_id).values(sealed=convert(secret_id, bytes(sealed)))
            )
            connection.execute(converted)
            count += 1
    return count
