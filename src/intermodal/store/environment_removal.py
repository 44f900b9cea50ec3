"""Statements that delete an environment; used by `intermodal.store.sql`."""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from intermodal.store import schema
from intermodal.store.interface import EnvironmentRemoved
from modal._wire.messages.app import AppState


def remove(connection: Connection, removed: EnvironmentRemoved) -> None:
    """Delete the environment with everything named in it. Its apps are kept as stopped ones, for their results."""
    apps = schema.apps
    of_it = apps.c.environment_id == removed.environment_id
    stopped = update(apps).where(of_it, apps.c.stopped_at.is_(None))
    connection.execute(stopped.values(state=AppState.STOPPED.value, stopped_at=removed.at))
    for table in schema.metadata.sorted_tables:
        if table is not apps and "environment_id" in table.c:
            connection.execute(delete(table).where(table.c.environment_id == removed.environment_id))
