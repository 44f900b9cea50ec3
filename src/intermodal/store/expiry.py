"""Statements that delete what has expired; used by `intermodal.store.sql`."""

from __future__ import annotations

import json
from collections.abc import Collection

from sqlalchemy import Connection, delete, insert, or_, select

from intermodal.store import schema

_BATCH = 500  # ids in one IN (...) list


def expire_calls(connection: Connection, before: float) -> int:
    """Delete a batch of calls that finished before a time, and remember that they existed; returns how many."""
    calls = schema.calls
    query = select(calls.c.call_id, calls.c.finished_at).where(calls.c.finished_at < before).limit(_BATCH)
    gone = [dict(row) for row in connection.execute(query).mappings()]
    if gone:
        ids = [row["call_id"] for row in gone]
        for table in (schema.input_chunks, schema.output_chunks, calls):
            connection.execute(delete(table).where(table.c.call_id.in_(ids)))
        connection.execute(insert(schema.expired_calls), gone)
    return len(gone)


def expire_rest(connection: Connection, before: float, forget_before: float) -> None:
    """Delete old output, tokens and memories of calls, and apps that stopped before a time with all they had."""
    apps, logs, expired = schema.apps, schema.logs, schema.expired_calls
    connection.execute(delete(logs).where(logs.c.at < before))
    connection.execute(delete(expired).where(expired.c.finished_at < forget_before))
    connection.execute(delete(schema.schedules).where(schema.schedules.c.next_run.is_(None)))
    tokens = schema.tokens
    connection.execute(delete(tokens).where(or_(tokens.c.revoked_at < before, tokens.c.expires_at < before)))
    gone = list(connection.scalars(select(apps.c.app_id).where(apps.c.stopped_at < before)))
    for start in range(0, len(gone), _BATCH):
        some = gone[start : start + _BATCH]
        of_apps = (schema.functions, schema.bindings, schema.revisions, schema.app_versions, schema.schedules)
        for table in (*of_apps, schema.secrets, logs, apps):
            connection.execute(delete(table).where(table.c.app_id.in_(some)))


def drop_mounts(connection: Connection, keep: Collection[str]) -> list[str]:
    """Delete mounts that no function refers to, other than `keep`; returns their ids."""
    used = set(keep)
    for table in (schema.functions, schema.revisions):
        for spec in connection.scalars(select(table.c.spec)):
            used.update(json.loads(spec).get("mount_ids", ()))
    mounts = schema.mounts
    gone = [one for one in connection.scalars(select(mounts.c.mount_id)) if one not in used]
    for start in range(0, len(gone), _BATCH):
        connection.execute(delete(mounts).where(mounts.c.mount_id.in_(gone[start : start + _BATCH])))
    return gone


def drop_bindings(connection: Connection, function_ids: Collection[str]) -> None:
    """Delete bindings."""
    table, ids = schema.bindings, list(function_ids)
    for start in range(0, len(ids), _BATCH):
        connection.execute(delete(table).where(table.c.function_id.in_(ids[start : start + _BATCH])))


def digests(connection: Connection) -> set[str]:
    """Every blob that a mount, an input or an output refers to."""
    found: set[str] = set()
    for files in connection.scalars(select(schema.mounts.c.files)):
        found.update(entry["digest"] for entry in json.loads(files))
    for table in (schema.input_chunks, schema.output_chunks):
        for records in connection.scalars(select(table.c.records).where(table.c.records.contains('"blob"'))):
            found.update(record["blob"]["digest"] for record in json.loads(records) if record.get("blob"))
    return found
