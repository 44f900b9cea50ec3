"""RPC: dicts. What they hold is in memory, except for large values; every change is in the store before its reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from intermodal.blobs.interface import BlobStore
from intermodal.control.blob_service import check_digest
from intermodal.control.loaded import RESIDENT, Loaded, drop_when_stored
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.control.rpc_replies import kept_reply
from intermodal.store.entries import DictWrite, StoredEntry
from intermodal.store.interface import Store
from modal._wire.messages.blob import BlobRef
from modal._wire.messages.common import Empty
from modal._wire.messages.dict import (
    DICT_CLEAR,
    DICT_CONTAINS,
    DICT_GET,
    DICT_LEN,
    DICT_POP,
    DICT_PUT,
    DICT_SCAN,
    KEY_LIMIT,
    VALUE_LIMIT,
    DictEntry,
    DictFound,
    DictLength,
    DictPart,
    DictPop,
    DictPut,
    DictRef,
    DictScan,
    DictValue,
)
from modal._wire.messages.named import ObjectKind
from modal.exception import InvalidError, NotFoundError, RequestSizeError

_TTL = 30 * 24 * 3600.0  # seconds an entry lives from when it was last put
_PART_ENTRIES, _PART_BYTES = 1000, 1024 * 1024  # of a scan

_Entries = dict[bytes, StoredEntry]  #: a dict in memory


class DictService:
    """Serves dicts.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, store: Store, named: NamedService, blobs: BlobStore, now: Callable[[], float]) -> None:
        self._store = store
        self._named = named
        self._blobs = blobs
        self._now = now
        self._loaded = Loaded(ObjectKind.DICT, named, self._read, now)
        named.holders[ObjectKind.DICT] = self
        named.make_beginning = lambda dict_id, entries, body: DictWrite(dict_id, puts=self._cut(entries, body))

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(DICT_GET, self.get)
        dispatcher.register(DICT_CONTAINS, self.contains)
        dispatcher.register(DICT_PUT, self.put)
        dispatcher.register(DICT_POP, self.pop)
        dispatcher.register(DICT_CLEAR, self.clear)
        dispatcher.register(DICT_LEN, self.len)
        dispatcher.register(DICT_SCAN, self.scan)

    # -- requests ----------------------------------------------------------------------------------------------

    def get(self, ctx: Context, request: DictRef, body: bytes) -> Any:
        found = self._loaded.find_for(ctx, request.dict_id)
        if found is None:
            return self._loaded.again(request.dict_id, self.get, ctx, request, body)
        entry = self._live(found, body)
        if entry is None:
            return DictValue(False)
        if entry.value is not None:
            return DictValue(True), entry.value
        if entry.blob_digest:
            return DictValue(True, _blob_of(entry))
        return self._get_stored(request.dict_id, body)

    async def _get_stored(self, dict_id: str, key: bytes) -> tuple[DictValue, bytes]:
        current = await self._with_value(dict_id, key)
        if current is None:
            return DictValue(False), b""
        entry, value = current
        return DictValue(True, _blob_of(entry)), value

    async def _with_value(self, dict_id: str, key: bytes) -> tuple[StoredEntry, bytes] | None:
        """The entry of a key and its inline value, wherever that is. Raises `NotFoundError`: the dict was deleted."""
        while True:
            entry = self._live(await self._loaded.load(dict_id), key)
            if entry is None:
                return None
            if entry.value is not None or entry.blob_digest:
                return entry, entry.value or b""
            value = await self._store.dict_value(dict_id, key)
            if value is not None:
                return entry, value
            # Removed meanwhile, or replaced by what is no inline value.
            if self._live(await self._loaded.load(dict_id), key) is entry:
                return None  # lost by the store: looking again would not end

    def contains(self, ctx: Context, request: DictRef, body: bytes) -> Any:
        found = self._loaded.find_for(ctx, request.dict_id)
        if found is None:
            return self._loaded.again(request.dict_id, self.contains, ctx, request, body)
        return DictFound(self._live(found, body) is not None)

    def len(self, ctx: Context, request: DictRef, body: bytes) -> Any:
        found = self._loaded.find_for(ctx, request.dict_id)
        if found is None:
            return self._loaded.again(request.dict_id, self.len, ctx, request, body)
        return DictLength(len(found))

    def put(self, ctx: Context, request: DictPut, body: bytes) -> Any:
        found = self._loaded.find_for(ctx, request.dict_id)
        if found is None:
            return self._loaded.again(request.dict_id, self.put, ctx, request, body)
        entries = self._cut(request.entries, body)
        if request.if_absent:
            entries = [entry for entry in entries if self._live(found, entry.key) is None]
        self._store.write_now([DictWrite(request.dict_id, puts=entries)], kept_reply(ctx, Empty()))
        large = []
        for entry in entries:
            found[entry.key] = entry
            if entry.value is not None and len(entry.value) > RESIDENT:
                large.append(entry)
        if large:
            drop_when_stored(self._store, large)
        return Empty()

    def pop(self, ctx: Context, request: DictPop, body: bytes) -> Any:
        found = self._loaded.find_for(ctx, request.dict_id)
        if found is None:
            return self._loaded.again(request.dict_id, self.pop, ctx, request, body)
        entry = self._live(found, body)
        if request.value and entry is not None and entry.value is None and not entry.blob_digest:
            return self._pop_stored(ctx, request, found, entry)
        return self._pop(ctx, request, found, entry, entry.value if entry is not None else None)

    async def _pop_stored(self, ctx: Context, request: DictPop, found: _Entries, entry: StoredEntry) -> Any:
        value = await self._store.dict_value(request.dict_id, entry.key)
        if not self._loaded.is_current(request.dict_id, found) or self._live(found, entry.key) is not entry:
            # Somebody else was quicker.
            return await self._loaded.again(request.dict_id, self.pop, ctx, request, entry.key)
        return self._pop(ctx, request, found, entry, value)

    def _pop(
        self, ctx: Context, request: DictPop, found: _Entries, entry: StoredEntry | None, value: bytes | None
    ) -> tuple[DictValue, bytes]:
        if entry is None:
            return DictValue(False), b""
        reply, body = (DictValue(True, _blob_of(entry)), value or b"") if request.value else (DictValue(True), b"")
        change = DictWrite(request.dict_id, removed=[entry.key])
        self._store.write_now([change], kept_reply(ctx, reply, body))
        del found[entry.key]
        return reply, body

    def clear(self, ctx: Context, request: DictRef, body: bytes) -> Any:
        found = self._loaded.find_for(ctx, request.dict_id)
        if found is None:
            return self._loaded.again(request.dict_id, self.clear, ctx, request, body)
        self._store.write_now([DictWrite(request.dict_id, cleared=True)], kept_reply(ctx, Empty()))
        found.clear()
        return Empty()

    async def scan(self, ctx: Context, request: DictScan, body: bytes, stream: ServerStream[Any, Any]) -> None:
        self._named.require_object(ctx, ObjectKind.DICT, request.dict_id)
        found = await self._loaded.load(request.dict_id)
        part: list[DictEntry] = []
        data: list[bytes] = []
        size = 0
        for key in list(found):
            if request.values:
                current = await self._with_value(request.dict_id, key)
                if current is None:
                    continue
                blob, value = _blob_of(current[0]), current[1]
            elif self._live(found, key) is not None:
                blob, value = None, b""
            else:
                continue
            part.append(DictEntry(len(key) if request.keys else 0, len(value), blob))
            data += [key, value] if request.keys else [value]
            size += len(key) + len(value)
            if len(part) >= _PART_ENTRIES or size >= _PART_BYTES:
                await stream.send(DictPart(part), b"".join(data))
                part, data, size = [], [], 0
        if part:
            await stream.send(DictPart(part), b"".join(data))

    # -- life --------------------------------------------------------------------------------------------------

    def created(self, object_id: str) -> None:
        return  # it is read when it is first used

    def deleted(self, object_id: str) -> None:
        self._loaded.forget(object_id)

    async def expire(self) -> None:
        """Delete entries that are too old; let go of dicts that nobody uses. Raises StoreError."""
        now = self._now()
        await self._store.expire_entries(now)
        for found in self._loaded:
            for key in [key for key, entry in found.items() if entry.expires_at <= now]:
                del found[key]
        self._loaded.forget_idle()

    async def _read(self, dict_id: str) -> _Entries:
        return {entry.key: entry for entry in await self._store.dict_entries(dict_id, RESIDENT)}

    def _live(self, found: _Entries, key: bytes) -> StoredEntry | None:
        entry = found.get(key)
        return entry if entry is not None and entry.expires_at > self._now() else None

    def _cut(self, records: Sequence[DictEntry], body: bytes) -> list[StoredEntry]:
        """The entries of a put. Raises `InvalidError`, `RequestSizeError`, and `NotFoundError` for a missing blob."""
        expires_at = self._now() + _TTL
        entries, at = [], 0
        for record in records:
            if not 0 < record.key <= KEY_LIMIT or record.value < 0 or (record.blob is not None and record.value):
                raise InvalidError("A dict's key or value has an impossible size.")
            key = body[at : at + record.key]
            value = body[at + record.key : at + record.key + record.value] if record.blob is None else None
            at += record.key + record.value
            digest, size = "", 0
            if record.blob is not None:
                digest, size = record.blob.digest, record.blob.size
                check_digest(digest)
                if not 0 <= size <= VALUE_LIMIT:
                    raise RequestSizeError(
                        f"A dict's value may have {VALUE_LIMIT >> 20} MiB; this one has {size} bytes."
                    )
                if not self._blobs.has(digest):
                    raise NotFoundError("The value was not uploaded.")
            entries.append(StoredEntry(key, value, expires_at, digest, size))
        if at != len(body):
            raise InvalidError("A dict's keys and values do not add up to what was sent.")
        return entries


def _blob_of(entry: StoredEntry) -> BlobRef | None:
    return BlobRef(entry.blob_digest, entry.blob_size) if entry.blob_digest else None
