"""The SQL of dicts and queues; used by `intermodal.store.sql`.

What is put and removed again before it is committed never reaches the database: a queue that is emptied as it is filled
costs almost nothing. That holds only for changes that are `fresh`: those of a commit of which nobody knows whether it
succeeded (before a restart, or when the database was lost) may be there, and are removed from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, null, select

from intermodal.store import schema
from intermodal.store.entries import DictWrite, EntryChange, NamedRecord, QueueWrite, StoredEntry, StoredItem
from intermodal.store.upsert import upsert, upsert_many

_BATCH = 500  # ids in one IN (...) list


class Pending:
    """The net effect of changes: what is deleted, then what is put.

    Args:
        fresh: nothing of them can be in the database.
    """

    def __init__(self, fresh: bool) -> None:
        self._fresh = fresh
        self.named: dict[str, NamedRecord] = {}
        self.cleared_dicts: set[str] = set()
        self.cleared_queues: set[str] = set()
        self.cleared_partitions: set[tuple[str, str]] = set()
        #: key -> row, or None when it is removed
        self.entries: dict[tuple[str, bytes], StoredEntry | None] = {}
        self.items: dict[tuple[str, str, int], StoredItem | None] = {}
        self._given_back: set[tuple[str, str, int]] = set()  # removed, and put again

    def add(self, change: EntryChange) -> None:
        """Take the next change."""
        if isinstance(change, DictWrite):
            self._add_dict(change)
        elif isinstance(change, QueueWrite):
            self._add_queue(change)
        else:
            self.named[change.object_id] = change
            if change.deleted:
                self._clear_dict(change.object_id)
                self._clear_queue(change.object_id)

    def _clear_dict(self, dict_id: str) -> None:
        self.entries = {at: row for at, row in self.entries.items() if at[0] != dict_id}
        self.cleared_dicts.add(dict_id)

    def _clear_queue(self, queue_id: str) -> None:
        self.items = {at: row for at, row in self.items.items() if at[0] != queue_id}
        self.cleared_queues.add(queue_id)

    def _add_dict(self, change: DictWrite) -> None:
        if change.cleared:
            self._clear_dict(change.dict_id)
        for key in change.removed:
            self.entries[change.dict_id, key] = None
        for entry in change.puts:
            self.entries[change.dict_id, entry.key] = entry

    def _add_queue(self, change: QueueWrite) -> None:
        queue_id = change.queue_id
        if change.cleared_all:
            self._clear_queue(queue_id)
        if change.cleared:
            gone = {(queue_id, partition) for partition in change.cleared}
            self.items = {at: row for at, row in self.items.items() if at[:2] not in gone}
            self.cleared_partitions |= gone
        for partition, number in change.removed:
            at = (queue_id, partition, number)
            # What is removed in the same breath was never stored, unless it was given back or is written again.
            if self.items.pop(at, None) is None or at in self._given_back or not self._fresh:
                self.items[at] = None
        for item in change.puts:
            at = (queue_id, item.partition, item.number)
            if at in self.items:
                self._given_back.add(at)
            self.items[at] = item


def write(connection: Connection, changes: Iterable[EntryChange], fresh: bool) -> None:
    """Apply changes, in order.

    Args:
        fresh: none of them can have been committed before.
    """
    pending = Pending(fresh)
    for change in changes:
        pending.add(change)
    _write_named(connection, list(pending.named.values()))
    _write_dicts(connection, pending)
    _write_queues(connection, pending)


def _write_named(connection: Connection, records: Sequence[NamedRecord]) -> None:
    table = schema.named
    gone = [record.object_id for record in records if record.deleted]
    kept = [{**vars(record)} for record in records if not record.deleted]
    for row in kept:
        del row["deleted"]
    _delete_in(connection, table, table.c.object_id, gone)
    if kept:
        connection.execute(upsert(table, connection.dialect.name), kept)


def _write_dicts(connection: Connection, pending: Pending) -> None:
    table = schema.dict_entries
    _delete_in(connection, table, table.c.dict_id, pending.cleared_dicts)
    gone = [
        {"in_dict": dict_id, "with_hash": hash_of(key)}
        for (dict_id, key), entry in pending.entries.items()
        if entry is None
    ]
    if gone:
        one = (table.c.dict_id == bindparam("in_dict")) & (table.c.key_hash == bindparam("with_hash"))
        connection.execute(delete(table).where(one), gone)
    put = [
        (dict_id, hash_of(key), key, entry.value, entry.expires_at, entry.blob_digest, entry.blob_size)
        for (dict_id, key), entry in pending.entries.items()
        if entry is not None
    ]
    upsert_many(connection, table, put)


def _write_queues(connection: Connection, pending: Pending) -> None:
    table = schema.queue_items
    _delete_in(connection, table, table.c.queue_id, pending.cleared_queues)
    if pending.cleared_partitions:
        one = (table.c.queue_id == bindparam("in_queue")) & (table.c.partition == bindparam("in_partition"))
        gone = [{"in_queue": queue, "in_partition": partition} for queue, partition in pending.cleared_partitions]
        connection.execute(delete(table).where(one), gone)
    removed = [
        {"in_queue": queue, "in_partition": partition, "numbered": number}
        for (queue, partition, number), item in pending.items.items()
        if item is None
    ]
    if removed:
        one = (
            (table.c.queue_id == bindparam("in_queue"))
            & (table.c.partition == bindparam("in_partition"))
            & (table.c.number == bindparam("numbered"))
        )
        connection.execute(delete(table).where(one), removed)
    put = [
        (queue_id, item.partition, item.number, item.value, item.expires_at)
        for (queue_id, _, _), item in pending.items.items()
        if item is not None
    ]
    upsert_many(connection, table, put)


def _delete_in(connection: Connection, table: Any, column: Any, ids: Iterable[str]) -> None:
    chosen = list(ids)
    for start in range(0, len(chosen), _BATCH):
        connection.execute(delete(table).where(column.in_(chosen[start : start + _BATCH])))


def named(connection: Connection) -> list[NamedRecord]:
    """Every named or ephemeral object."""
    return [NamedRecord(**row) for row in connection.execute(select(schema.named)).mappings()]


def dict_entries(connection: Connection, dict_id: str, inline: int) -> list[StoredEntry]:
    """The entries of a dict; values of more than `inline` bytes are left out."""
    table = schema.dict_entries
    value = case((func.length(table.c.value) <= inline, table.c.value), else_=null()).label("value")
    query = select(table.c.key, value, table.c.expires_at, table.c.blob_digest, table.c.blob_size)
    rows = connection.execute(query.where(table.c.dict_id == dict_id))
    return [StoredEntry(bytes(key), _bytes(value), *rest) for key, value, *rest in rows]


def dict_value(connection: Connection, dict_id: str, key: bytes) -> bytes | None:
    """The inline value of a key."""
    table = schema.dict_entries
    at = (table.c.dict_id == dict_id) & (table.c.key_hash == hash_of(key))
    return _bytes(connection.scalar(select(table.c.value).where(at)))


def queue_items(connection: Connection, queue_id: str, inline: int) -> list[StoredItem]:
    """The items of a queue, each partition in its order; values of more than `inline` bytes are left out."""
    table = schema.queue_items
    value = case((func.length(table.c.value) <= inline, table.c.value), else_=null()).label("value")
    query = select(table.c.partition, table.c.number, value, table.c.expires_at).where(table.c.queue_id == queue_id)
    rows = connection.execute(query.order_by(table.c.partition, table.c.number))
    return [StoredItem(partition, number, _bytes(value), at) for partition, number, value, at in rows]


def queue_values(connection: Connection, queue_id: str, partition: str, numbers: Sequence[int]) -> dict[int, bytes]:
    """The values of items by their numbers."""
    table = schema.queue_items
    found: dict[int, bytes] = {}
    for start in range(0, len(numbers), _BATCH):
        at = (table.c.queue_id == queue_id) & (table.c.partition == partition)
        query = select(table.c.number, table.c.value).where(at, table.c.number.in_(numbers[start : start + _BATCH]))
        found.update({number: bytes(value) for number, value in connection.execute(query)})
    return found


def expire(connection: Connection, now: float) -> None:
    """Delete entries of dicts that have expired. (Partitions expire as a whole: their queue knows when.)"""
    table = schema.dict_entries
    connection.execute(delete(table).where(table.c.expires_at < now))


def drop_orphans(connection: Connection) -> None:
    """Delete what belongs to objects that are gone: with their environment, before a crash."""
    known = select(schema.named.c.object_id)
    for column in (schema.dict_entries.c.dict_id, schema.queue_items.c.queue_id):
        connection.execute(delete(column.table).where(column.not_in(known)))


def digests(connection: Connection) -> set[str]:
    """Every blob that is a value of a dict."""
    column = schema.dict_entries.c.blob_digest
    return set(connection.scalars(select(column).where(column != "")))


def hash_of(key: bytes) -> bytes:
    """What a key is found by: keys may be longer than a database's index takes."""
    return hashlib.sha256(key).digest()


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
