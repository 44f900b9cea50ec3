"""The store in SQLite (default) or PostgreSQL, through SQLAlchemy Core.

One writer thread commits everything that was written since its last commit in one transaction (group commit): the
event loop never waits for the disk, and a busy server commits a few hundred times a second. Reads have a thread too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, Table, create_engine, event, func, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from intermodal.store import entry_rows, environment_removal, expiry, resealing, rows, schema
from intermodal.store.entries import DictWrite, EntryChange, NamedRecord, QueueWrite, StoredEntry, StoredItem
from intermodal.store.front_journal import FrontJournal, KeptReply, shrink
from intermodal.store.interface import (
    RECENT,
    AppRecord,
    AppVersionRecord,
    CallRecord,
    Change,
    EnvironmentRemoved,
    FunctionRecord,
    Json,
    Loaded,
    MountRecord,
    OpenCall,
    OutputChunk,
    Put,
    RevisionRecord,
    StoreError,
)
from intermodal.store.migrate import upgrade as migrate
from intermodal.store.upsert import upsert
from modal._wire.messages.app import AppState, LogEntry

log = logging.getLogger(__name__)
Result = TypeVar("Result")
_BATCH = 500  # ids in one IN (...) list
_RETRY_EVERY = 0.5  # seconds between attempts to write while the database fails


class SqlStore:
    """`intermodal.store.interface.Store` in a SQL database.

    Args:
        url: an SQLAlchemy URL, ``sqlite:///…`` or ``postgresql+psycopg://…``.
        journal: directory of the files that `write_now` writes to.
        commit_interval: seconds the writer waits for more changes before it commits, while nobody waits for it.
        awaited_interval: the same once somebody does.
    """

    def __init__(self, url: str, journal: Path, commit_interval: float = 0.02, awaited_interval: float = 0.003) -> None:
        self._url = url
        self._journal = FrontJournal(journal)
        self._replies: list[KeptReply] = []  # of the server before this one
        self._interval = commit_interval
        self._awaited_interval = awaited_interval
        self._engine: Engine | None = None
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._reader = ThreadPoolExecutor(1, "store-reader")
        self._pending: list[Change] = []
        self._committed: asyncio.Future[None] | None = None  # of what is pending now
        self._due = asyncio.Event()  # it shall be committed now
        self._flusher: asyncio.Task[None] | None = None
        self._failure = ""
        self._closing = False

    async def open(self) -> None:
        def connect() -> Engine:
            engine = create_engine(self._url)
            if engine.dialect.name == "sqlite":
                event.listen(engine, "connect", _configure_sqlite)
            with engine.begin() as connection:
                migrate(connection)
                entry_rows.drop_orphans(connection)
            return engine

        self._engine = await self._run(self._writer, connect)
        try:
            self._replies = await self._run(self._writer, self._replay)
        except OSError as error:
            raise StoreError(f"The journal cannot be read: {error.strerror}.") from error

    def _replay(self) -> list[KeptReply]:
        """Commit what the journal holds above its last mark; some of it may have been. Raises OSError."""
        replay = self._journal.open(time.time())
        for changes in replay.changes:
            self._commit(changes, fresh=False)
        self._journal.committed(self._journal.last, time.time())
        self._shrink(self._journal.take_wasteful())
        return replay.replies

    @staticmethod
    def _shrink(files: Sequence[Path]) -> None:
        for path in files:
            with contextlib.suppress(OSError):  # then it stays as it is until it is too old
                shrink(path)

    async def close(self) -> None:
        self._closing = True
        if self._flusher is not None:
            self._due.set()
            await self._flusher
        if self._engine is not None:
            await self._run(self._writer, self._engine.dispose)
            self._engine = None
        self._journal.close()
        self._writer.shutdown()
        self._reader.shutdown()

    def write(self, changes: Sequence[Change]) -> Awaitable[None]:
        return _Commit(self, self._add(changes))

    def _add(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        self._pending.extend(changes)
        committed = self._committed or self._expect_commit()
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return committed

    def write_now(self, changes: Sequence[EntryChange], reply: KeptReply | None = None) -> None:
        try:
            self._journal.append(changes, reply, time.time())
        except OSError as error:
            raise StoreError(f"The journal cannot be written: {error.strerror}.") from error
        self._add(changes)

    def _expect_commit(self) -> asyncio.Future[None]:
        if self._committed is None:
            self._committed = asyncio.get_running_loop().create_future()
            # Whoever does not wait learns of a failure from `healthy`.
            self._committed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._committed

    def hurry(self) -> None:
        """Somebody waits for what is pending."""
        asyncio.get_running_loop().call_later(self._awaited_interval, self._due.set)

    async def _flush(self) -> None:
        while self._committed is not None:
            pause = _RETRY_EVERY if self._failure else self._interval
            due = asyncio.get_running_loop().call_later(0.0 if self._closing else pause, self._due.set)
            await self._due.wait()
            self._due.clear()
            due.cancel()
            batch, self._pending = self._pending, []
            number = self._journal.last
            committed, self._committed = self._committed, None
            # A commit that failed may have succeeded: the connection was lost before the answer came.
            work = functools.partial(self._commit, batch, fresh=not self._failure)
            try:
                dropped = await self._run(self._writer, work)
            except StoreError as error:
                if str(error) != self._failure:
                    log.error("%s Trying again.", error)
                self._failure = str(error)
                committed.set_exception(error)
                if self._closing:
                    log.error("%d changes could not be stored and are lost.", len(batch))
                    return
                self._pending[:0] = batch
                self._expect_commit()
            else:
                if self._failure:
                    log.info("the database can be written again")
                self._failure = ""
                self._journal.committed(number, time.time())
                if dropped:
                    committed.set_exception(StoreError(dropped))
                else:
                    committed.set_result(None)
                if wasteful := self._journal.take_wasteful():
                    await self._run(self._writer, functools.partial(self._shrink, wasteful))

    def _commit(self, batch: Sequence[Change], fresh: bool) -> str:
        """Write everything, or nothing when the database fails; returns why something can never be written.

        Args:
            fresh: none of it can have been committed before.
        """
        try:
            self._put_all(batch, fresh)
        except OperationalError:
            raise  # the disk, a lock, the connection: worth trying again
        except Exception as error:
            if len(batch) == 1:
                log.exception("a change of %s cannot be stored and is dropped", type(batch[0]).__name__)
                return f"This cannot be stored: {error}."
            return next(filter(None, [self._commit([change], fresh) for change in batch]), "")
        return ""

    def _put_all(self, batch: Sequence[Change], fresh: bool) -> None:
        assert self._engine is not None
        with self._engine.begin() as connection:
            added: list[Put | EntryChange] = []
            for change in batch:
                if isinstance(change, EnvironmentRemoved):
                    _put_records(connection, added, fresh)
                    added = []
                    environment_removal.remove(connection, change)
                else:
                    added.append(change)
            _put_records(connection, added, fresh)

    def healthy(self) -> str:
        return self._failure

    async def load(self) -> Loaded:
        replies, self._replies = self._replies, []  # whoever loads them remembers them
        return replace(await self._read(_load), replies=replies)

    async def function(self, function_id: str) -> FunctionRecord | None:
        table = schema.functions
        found = await self._all(select(table).where(table.c.function_id == function_id), rows.function_of)
        return found[0] if found else None

    async def mount(self, mount_id: str) -> MountRecord | None:
        table = schema.mounts
        found = await self._all(select(table).where(table.c.mount_id == mount_id), rows.mount_of)
        return found[0] if found else None

    async def call(self, call_id: str) -> CallRecord | None:
        found = await self._all(select(schema.calls).where(schema.calls.c.call_id == call_id), rows.call_of)
        return found[0] if found else None

    async def call_by_key(self, key: str) -> CallRecord | None:
        if not key:
            return None
        found = await self._all(select(schema.calls).where(schema.calls.c.key == key), rows.call_of)
        return found[0] if found else None

    async def app(self, app_id: str) -> AppRecord | None:
        found = await self._all(select(schema.apps).where(schema.apps.c.app_id == app_id), rows.app_of)
        return found[0] if found else None

    async def stopped_apps(self, limit: int) -> list[AppRecord]:
        table = schema.apps
        query = select(table).where(table.c.stopped_at.is_not(None), table.c.state == AppState.STOPPED.value)
        return await self._all(query.order_by(table.c.stopped_at.desc()).limit(limit), rows.app_of)

    async def app_versions(self, app_id: str) -> list[AppVersionRecord]:
        table = schema.app_versions
        query = select(table).where(table.c.app_id == app_id).order_by(table.c.version)
        return await self._all(query, rows.app_version_of)

    async def version_of_draft(self, draft_id: str) -> AppVersionRecord | None:
        table = schema.app_versions
        found = await self._all(select(table).where(table.c.draft_id == draft_id), rows.app_version_of)
        return found[0] if found and draft_id else None

    async def revisions(self, revision_ids: Sequence[str]) -> dict[str, RevisionRecord]:
        table = schema.revisions
        found: list[RevisionRecord] = []
        for start in range(0, len(revision_ids), _BATCH):
            some = revision_ids[start : start + _BATCH]
            found += await self._all(select(table).where(table.c.revision_id.in_(some)), rows.revision_of)
        return {one.revision_id: one for one in found}

    async def children(self, input_ids: Sequence[str]) -> list[CallRecord]:
        table = schema.calls
        found: list[CallRecord] = []
        for start in range(0, len(input_ids), _BATCH):
            # The second condition is that of the index.
            parents = [table.c.parent_input_id.in_(input_ids[start : start + _BATCH]), table.c.parent_input_id != ""]
            found += await self._all(select(table).where(*parents), rows.call_of)
        return sorted(found, key=lambda call: (call.created_at, call.call_id))

    async def output_records(self, call_id: str, limit: int) -> list[Json]:
        table = schema.output_chunks
        query = select(table.c.records).where(table.c.call_id == call_id).order_by(table.c.id).limit(limit)
        chunks = await self._all(query, lambda row: json.loads(row["records"]))
        return [record for chunk in chunks for record in chunk]

    async def outputs(self, call_id: str) -> list[OutputChunk]:
        table = schema.output_chunks
        query = select(table).where(table.c.call_id == call_id).order_by(table.c.id)
        return await self._all(query, rows.output_chunk_of)

    async def dict_entries(self, dict_id: str, inline: int) -> list[StoredEntry]:
        return await self._read(lambda connection: entry_rows.dict_entries(connection, dict_id, inline))

    async def dict_value(self, dict_id: str, key: bytes) -> bytes | None:
        return await self._read(lambda connection: entry_rows.dict_value(connection, dict_id, key))

    async def queue_items(self, queue_id: str, inline: int) -> list[StoredItem]:
        return await self._read(lambda connection: entry_rows.queue_items(connection, queue_id, inline))

    async def queue_values(self, queue_id: str, partition: str, numbers: Sequence[int]) -> dict[int, bytes]:
        return await self._read(lambda connection: entry_rows.queue_values(connection, queue_id, partition, numbers))

    async def expire_entries(self, now: float) -> None:
        await self._change(lambda connection: entry_rows.expire(connection, now))

    async def logs(self, app_id: str, after: int, limit: int) -> list[LogEntry]:
        table = schema.logs
        query = select(table).where(table.c.app_id == app_id, table.c.seq > after).order_by(table.c.seq).limit(limit)
        return await self._all(query, rows.log_of)

    async def expire(self, before: float, forget_before: float) -> int:
        deleted = 0
        # A transaction a batch: other writes wait for one of them at most.
        while count := await self._change(lambda connection: expiry.expire_calls(connection, before)):
            deleted += count
        await self._change(lambda connection: expiry.expire_rest(connection, before, forget_before))
        return deleted

    async def has_expired(self, call_id: str) -> bool:
        table = schema.expired_calls
        return bool(await self._all(select(table).where(table.c.call_id == call_id), dict))

    async def reseal(self, convert: Callable[[str, bytes], bytes]) -> int:
        await self.write([])  # what was written before is resealed too
        return await self._change(lambda connection: resealing.reseal(connection, convert))

    async def drop_mounts(self, keep: Collection[str]) -> list[str]:
        await self.write([])  # functions on their way may refer to one
        return await self._change(lambda connection: expiry.drop_mounts(connection, keep))

    async def drop_bindings(self, function_ids: Collection[str]) -> None:
        await self.write([])  # one of them may be on its way
        await self._change(lambda connection: expiry.drop_bindings(connection, function_ids))

    async def digests(self) -> set[str]:
        return await self._read(lambda connection: expiry.digests(connection) | entry_rows.digests(connection))

    async def _change(self, work: Callable[[Connection], Result]) -> Result:
        def transaction() -> Result:
            assert self._engine is not None
            with self._engine.begin() as connection:
                return work(connection)

        return await self._run(self._writer, transaction)

    async def _all(self, query: Select[Any], convert: Callable[[Any], Result]) -> list[Result]:
        return await self._read(lambda connection: [convert(row) for row in connection.execute(query).mappings()])

    async def _read(self, work: Callable[[Connection], Result]) -> Result:
        # A read sees what was written before it.
        if self._committed is not None:
            await _Commit(self, self._committed)
        elif self._flusher is not None and not self._flusher.done():
            await asyncio.shield(self._flusher)

        def transaction() -> Result:
            assert self._engine is not None
            with self._engine.connect() as connection:
                return work(connection)

        return await self._run(self._reader, transaction)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise StoreError(f"The database failed: {cause}.") from error


class _Commit:
    """What `write` gives: whoever awaits it waits for the commit, which comes sooner for that."""

    __slots__ = ("_done", "_store")

    def __init__(self, store: SqlStore, done: asyncio.Future[None]) -> None:
        self._store = store
        self._done = done

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done.done():
            self._store.hurry()
        return asyncio.shield(self._done).__await__()


def _configure_sqlite(connection: Any, _record: object) -> None:
    # WAL with synchronous=NORMAL loses nothing when the process dies; only a power cut can undo the last commits.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _put_records(connection: Connection, records: Sequence[Put | EntryChange], fresh: bool) -> None:
    grouped: dict[Table, list[dict[str, Any]]] = {}
    entries: list[EntryChange] = []
    for record in records:
        if isinstance(record, (DictWrite, QueueWrite, NamedRecord)):
            entries.append(record)
            continue
        table, new = rows.rows_of(record)
        grouped.setdefault(table, []).extend(new)
    for table, new in grouped.items():
        _put(connection, table, new)
    if entries:
        entry_rows.write(connection, entries, fresh)


def _put(connection: Connection, table: Table, new: list[dict[str, Any]]) -> None:
    """Insert rows; one that has the key of an existing row replaces it. The last of several with one key wins."""
    if "id" in table.c:  # chunks are only ever added
        connection.execute(table.insert(), new)
        return
    key = [column.name for column in table.primary_key.columns]
    unique = {tuple(row[name] for name in key): row for row in new}
    connection.execute(upsert(table, connection.dialect.name), list(unique.values()))


def _load(connection: Connection) -> Loaded:
    def every(query: Select[Any], convert: Callable[[Any], Result]) -> list[Result]:
        return [convert(row) for row in connection.execute(query).mappings()]

    live = select(schema.apps.c.app_id).where(schema.apps.c.stopped_at.is_(None))
    open_ids = select(schema.calls.c.call_id).where(schema.calls.c.finished_at.is_(None))
    chunks_in, chunks_out, schedules = schema.input_chunks, schema.output_chunks, schema.schedules
    inputs = every(select(chunks_in).where(chunks_in.c.call_id.in_(open_ids)).order_by("id"), rows.input_chunk_of)
    outputs = every(select(chunks_out).where(chunks_out.c.call_id.in_(open_ids)).order_by("id"), rows.output_chunk_of)
    last_log = (
        select(schema.logs.c.app_id, func.max(schema.logs.c.seq))
        .where(schema.logs.c.app_id.in_(live))
        .group_by(schema.logs.c.app_id)
    )
    calls = {
        call.call_id: OpenCall(call, [], [])
        for call in every(select(schema.calls).where(schema.calls.c.finished_at.is_(None)), rows.call_of)
    }
    for input_chunk in inputs:
        calls[input_chunk.call_id].inputs.append(input_chunk)
    for output_chunk in outputs:
        calls[output_chunk.call_id].outputs.append(output_chunk)
    ended = schema.calls.c.finished_at
    latest = connection.scalar(select(func.max(ended))) or 0.0
    recent = select(schema.calls.c.key).where(ended > latest - RECENT, schema.calls.c.key != "")
    return Loaded(
        environments=every(select(schema.environments), rows.environment_of),
        apps=every(select(schema.apps).where(schema.apps.c.stopped_at.is_(None)), rows.app_of),
        functions=every(select(schema.functions).where(schema.functions.c.app_id.in_(live)), rows.function_of),
        bindings=every(select(schema.bindings).where(schema.bindings.c.app_id.in_(live)), rows.binding_of),
        secrets=every(select(schema.secrets).where(schema.secrets.c.app_id.in_(live)), rows.secret_of),
        tokens=every(select(schema.tokens), rows.token_of),
        named_secrets=every(select(schema.named_secrets), rows.named_secret_of),
        calls=list(calls.values()),
        schedules=every(
            select(schedules).where(schedules.c.app_id.in_(live), schedules.c.next_run.is_not(None)), rows.schedule_of
        ),
        last_log=dict(connection.execute(last_log).tuples().all()),
        recent_keys=list(connection.scalars(recent)),
        named=entry_rows.named(connection),
    )
