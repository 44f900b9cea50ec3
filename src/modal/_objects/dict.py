"""`modal.Dict`: a dictionary that functions share."""

from __future__ import annotations

import builtins
import io
import pickle
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from .._renamed import renamed_parameter
from .._serialization import TAG, TAG_SIZE, deserialize, serialize
from .._signals import is_from_handler
from .._sync import BlockingContext, blocking, generator_in_caller, in_caller, on_loop, undone
from .._wire.messages.dict import (
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
    DictPart,
    DictPop,
    DictPut,
    DictRef,
    DictScan,
    DictValue,
)
from .._wire.messages.named import ObjectKind
from ..exception import DeserializationError, Error, InvalidError, NotFoundError, RequestSizeError
from .client import current_environment
from .named import Named
from .pulled import Pulled

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.messages.blob import BlobRef
    from .client import Client

_BATCH_BYTES = 8 * 1024 * 1024  # of entries put together
_BATCH_ENTRIES = 5_000
_QUICK_BYTES = 256 * 1024  # of entries put together without the loop


class Dict(Named):
    """A dictionary that functions share.

    Keys and values may be whatever can be pickled. Two keys are the same if they pickle to the same bytes: so 1 and
    1.0 are two keys. Entries expire 30 days after they were last put. Every change is safe before its call returns.

    d = modal.Dict.from_name("my-dict", create_if_missing=True)
    d["key"] = "value"
    assert d["key"] == "value"
    """

    _kind = ObjectKind.DICT
    _data: Optional[builtins.dict[Any, Any]] = None  #: what it begins with, when it is made

    @classmethod
    def ephemeral(
        cls,
        data: Optional[builtins.dict[Any, Any]] = None,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        _heartbeat_sleep: float = 300.0,
    ) -> BlockingContext[Dict]:
        """Make a dictionary that lives as long as the context, for `with` and `async with`.

        Args:
            data: what it begins with.
            client: the connection to use; default: that of the configuration.
            environment_name: the environment; default: that of the configuration.
            _heartbeat_sleep: no effect: the connection itself tells that this client is alive.
        """
        return BlockingContext(_ephemeral(_checked(data), client, environment_name))

    @staticmethod
    @renamed_parameter("label", "name")
    def from_name(
        name: str,
        data: Optional[builtins.dict[Any, Any]] = None,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> Dict:
        """Refer to a dictionary by its name; it is looked up when it is first used.

        Args:
            name: its name.
            data: what it begins with, when it is made.
            namespace: no effect.
            environment_name: the environment; default: that of the configuration.
            create_if_missing: make it when there is none.
        """
        found = Dict._named(name, environment_name, create_if_missing)
        found._data = _checked(data)
        return found

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def lookup(
        name: str,
        data: Optional[builtins.dict[Any, Any]] = None,
        namespace: Any = None,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> Dict:
        """Find a dictionary by its name, now. Arguments as of `from_name`.

        Raises:
            NotFoundError: there is none.
        """
        return await Dict._lookup(Dict.from_name(name, data, None, environment_name, create_if_missing), client)

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def delete(name: str, *, client: Optional[Client] = None, environment_name: Optional[str] = None) -> None:
        """Delete a dictionary and all its entries.

        Raises:
            NotFoundError: there is none of this name.
        """
        await Dict._delete(name, client, environment_name)

    async def _find(self, rpc: RpcClient) -> str:
        if not self._data or not self._create_if_missing:
            return await super()._find(rpc)
        from .._wire.messages.named import NAMED_FIND, NAMED_GET, NamedGet

        request = NamedGet(self._kind, self._name, current_environment(self._environment))
        try:
            found, _ = await rpc.unary(NAMED_FIND, request)
        except NotFoundError:
            # It is made together with what it begins with, as far as that fits in a request.
            batches = _batches(rpc, _pickled(self._data))
            entries, body = await batches.__anext__()
            found, _ = await rpc.unary(NAMED_GET, replace(request, create_if_missing=True, entries=entries), body)
            if found.created:
                async for entries, body in batches:
                    await rpc.unary(DICT_PUT, DictPut(found.object_id, entries), body)
            await batches.aclose()
        return found.object_id

    # -- entries

    @in_caller
    async def clear(self) -> None:
        """Remove all entries."""
        await self._ask(DICT_CLEAR, DictRef)

    @in_caller
    async def get(self, key: Any, default: Optional[Any] = None) -> Any:
        """Return the value of a key, or `default` if there is none.

        Raises:
            SerializationError: the key cannot be pickled.
            DeserializationError: the value cannot be unpickled here.
        """
        reply, body = await self._ask(DICT_GET, DictRef, _key_of(key))
        return await self._value(reply, body) if reply.found else default

    async def _value(self, reply: DictValue, body: bytes) -> Any:
        """The value of a reply; in the caller."""
        if reply.blob is not None:
            body = await on_loop(self._fetch(reply.blob))
        return deserialize(body)

    async def _fetch(self, blob: BlobRef) -> bytes:
        from .._calls.payload import fetch

        rpc, _ = await self._bind()
        return await fetch(rpc, blob, b"")

    @in_caller
    async def contains(self, key: Any) -> bool:
        """Return whether there is such a key."""
        reply, _ = await self._ask(DICT_CONTAINS, DictRef, _key_of(key))
        return reply.found

    @in_caller
    async def len(self) -> int:
        """Return the number of entries, expired ones that are not yet deleted included."""
        reply, _ = await self._ask(DICT_LEN, DictRef)
        return reply.entries

    @in_caller
    async def update(self, /, **kwargs: Any) -> None:
        """Set several entries at once; the names of the arguments are the keys."""
        await self._set(_pickled(kwargs))

    @in_caller
    async def put(self, key: Any, value: Any) -> None:
        """Set an entry.

        Raises:
            SerializationError: the key or the value cannot be pickled.
            RequestSizeError: the key has more than 1 MiB pickled, or the value more than 100 MiB.
        """
        await self._set([(_key_of(key), _value_of(value))])

    async def _set(self, entries: list[tuple[bytes, bytes]]) -> None:
        """Put entries, at once where they are small; in the caller."""
        body = b"".join([part for entry in entries for part in entry])
        if not 0 < len(body) <= _QUICK_BYTES or len(entries) > _BATCH_ENTRIES:
            await on_loop(self._put(entries))
            return
        records = [DictEntry(len(key), len(value)) for key, value in entries]
        await self._ask(DICT_PUT, lambda dict_id: DictPut(dict_id, records), body)

    async def _put(self, entries: list[tuple[bytes, bytes]]) -> None:
        rpc, dict_id = await self._bind()
        await _put(rpc, dict_id, entries)

    @in_caller
    async def pop(self, key: Any) -> Any:
        """Remove an entry and return its value. Of several that pop one key at a time, one gets it.

        Raises:
            KeyError: there is no such key.
            DeserializationError: the value cannot be unpickled here; the entry stays.
        """
        data = _key_of(key)
        rpc = self._rpc or (await on_loop(self._bind()))[0]
        call = rpc.new_key(DICT_POP)
        try:
            reply, body = await self._ask(DICT_POP, DictPop, data, key=call)
            value = await self._value(reply, body) if reply.found else _MISSING
        except BaseException as error:
            # It could not be unpickled, or the caller was interrupted and does not get it.
            if isinstance(error, DeserializationError) or not isinstance(error, Error) or is_from_handler(error):
                await on_loop(undone(self._undo_pop(data, call)))
            if isinstance(error, DeserializationError):
                raise DeserializationError(f"{error} The entry is still in the Dict.") from error.__cause__
            raise
        if value is _MISSING:
            raise KeyError(key)
        return value

    async def _undo_pop(self, key: bytes, call: str) -> None:
        """A pop with this idempotency key was sent, and nobody gets its value."""
        rpc, dict_id = await self._bind()
        reply, body = await rpc.unary(DICT_POP, DictPop(dict_id), key, key=call)  # answered as the first one was
        if reply.found:
            await self._put_back(key, reply, body)

    async def _put_back(self, key: bytes, reply: DictValue, body: bytes) -> None:
        """Put what was popped, unless somebody has put something else there."""
        rpc, dict_id = await self._bind()
        entry = DictEntry(len(key), len(body), reply.blob)
        await rpc.unary(DICT_PUT, DictPut(dict_id, [entry], if_absent=True), key + body)

    @in_caller
    async def _remove(self, key: Any) -> bool:
        """Remove an entry; its value is not sent. Returns whether there was one."""
        reply, _ = await self._ask(DICT_POP, lambda dict_id: DictPop(dict_id, value=False), _key_of(key))
        return reply.found

    @generator_in_caller()
    async def keys(self) -> AsyncGenerator[Any, None]:
        """Iterate over the keys, in no order, with `for` or `async for`."""
        scan = EntryScan(self, keys=True, values=False)
        try:
            while part := await on_loop(scan.next()):
                for key, _ in part:
                    yield key_from(key)
        finally:
            await on_loop(scan.close())

    @generator_in_caller()
    async def values(self) -> AsyncGenerator[Any, None]:
        """Iterate over the values, in no order, with `for` or `async for`."""
        scan = EntryScan(self, keys=False, values=True)
        try:
            while part := await on_loop(scan.next()):
                for _, value in part:
                    yield deserialize(value)
        finally:
            await on_loop(scan.close())

    @generator_in_caller()
    async def items(self) -> AsyncGenerator[tuple[Any, Any], None]:
        """Iterate over the entries as (key, value), in no order, with `for` or `async for`."""
        scan = EntryScan(self, keys=True, values=True)
        try:
            while part := await on_loop(scan.next()):
                for key, value in part:
                    yield key_from(key), deserialize(value)
        finally:
            await on_loop(scan.close())

    # -- operators: they block; in async code use the methods

    def __getitem__(self, key: Any) -> Any:
        """The value of a key. Raises KeyError."""
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: Any) -> None:
        if not self._remove(key):
            raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        return self.contains(key)

    # What Python would make of __getitem__ and of a missing __len__ is of no use:

    def __iter__(self) -> NoReturn:
        raise TypeError("A modal.Dict cannot be iterated over by itself; use .keys(), .values() or .items().")

    def __len__(self) -> NoReturn:
        raise TypeError("len() does not take a modal.Dict, whose length only the server knows; use .len().")

    def __bool__(self) -> bool:
        return True


_MISSING = object()


class EntryScan(Pulled["list[tuple[bytes, bytes]]"]):
    """The entries of a dict, part by part."""

    def __init__(self, obj: Dict, *, keys: bool, values: bool) -> None:
        super().__init__(obj, DICT_SCAN, lambda dict_id: DictScan(dict_id, keys, values), [])

    async def _part(self, message: DictPart, body: bytes) -> list[tuple[bytes, bytes]]:
        return [await self._cut(entry, body, at) for entry, at in _placed(message.entries)]

    async def _cut(self, entry: DictEntry, body: bytes, at: int) -> tuple[bytes, bytes]:
        from .._calls.payload import fetch

        key, value = body[at : at + entry.key], body[at + entry.key : at + entry.key + entry.value]
        return key, value if entry.blob is None else await fetch(self._rpc, entry.blob, b"")


def _placed(entries: Iterable[DictEntry]) -> list[tuple[DictEntry, int]]:
    """Entries with where they begin in the body."""
    placed, at = [], 0
    for entry in entries:
        placed.append((entry, at))
        at += entry.key + entry.value
    return placed


@asynccontextmanager
async def _ephemeral(
    data: Optional[dict[Any, Any]], client: Optional[Client], environment_name: Optional[str]
) -> AsyncIterator[Dict]:
    entries = _pickled(data or {})
    async with Dict._ephemeral(client, environment_name) as made:
        await made._put(entries)
        yield made


def _checked(data: Any) -> Optional[dict[Any, Any]]:
    """What a dictionary shall begin with. Raises InvalidError."""
    if data is not None and not isinstance(data, dict):
        raise InvalidError(f"The data that a Dict begins with is a dictionary, not {type(data).__name__}.")
    return data


def _pickled(data: dict[Any, Any]) -> list[tuple[bytes, bytes]]:
    return [(_key_of(key), _value_of(value)) for key, value in data.items()]


async def _put(rpc: RpcClient, dict_id: str, entries: list[tuple[bytes, bytes]]) -> None:
    async for batch, body in _batches(rpc, entries):
        await rpc.unary(DICT_PUT, DictPut(dict_id, batch), body)


async def _batches(
    rpc: RpcClient, entries: list[tuple[bytes, bytes]]
) -> AsyncGenerator[tuple[list[DictEntry], bytes], None]:
    """Entries as they travel, in batches that fit in a request; a large value is uploaded first."""
    from .._wire.messages.call import INLINE_LIMIT

    batch: list[DictEntry] = []
    bodies: list[bytes] = []
    size = 0
    for key, value in entries:
        if len(value) > INLINE_LIMIT:
            from .._upload import upload_bytes

            batch.append(DictEntry(len(key), 0, await upload_bytes(rpc, value)))
            value = b""
        else:
            batch.append(DictEntry(len(key), len(value)))
        bodies += (key, value)
        size += len(key) + len(value)
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_ENTRIES:
            yield batch, b"".join(bodies)
            batch, bodies, size = [], [], 0
    if batch:
        yield batch, b"".join(bodies)


def _key_of(key: Any) -> bytes:
    """The bytes of a key. Without back references, so that equal keys that were made differently are equal bytes."""
    kind = type(key)
    if kind is str and len(key) < _SHORT:
        return _short_text(key)
    if kind is int and -_SMALL < key < _SMALL:
        return pickle.dumps(key, _KEY_PROTOCOL)
    file = io.BytesIO()
    pickler = pickle.Pickler(file, _KEY_PROTOCOL)
    pickler.fast = True
    try:
        pickler.dump(key)
        data = file.getvalue()
    except Exception as error:  # a function of the user's, something that contains itself: cloudpickle knows more
        if is_from_handler(error):
            raise
        data = serialize(key)[TAG_SIZE:]
    if len(data) > KEY_LIMIT:
        raise RequestSizeError(
            f"The key of a Dict may have {KEY_LIMIT >> 20} MiB pickled; this one has {len(data)} bytes."
        )
    return data


_KEY_PROTOCOL = 4
_SMALL = 2**63
_SHORT = 64  # characters, of at most 4 bytes each
_SHORT_TEXT = struct.Struct("<BBBQBB")


def _short_text(key: str) -> bytes:
    """What a pickler without back references writes for a text of 1 to 255 bytes; for this alone it costs too much."""
    raw = key.encode("utf-8", "surrogatepass")
    if not raw:
        return b"\x80\x04\x8c\x00."
    return _SHORT_TEXT.pack(0x80, _KEY_PROTOCOL, 0x95, len(raw) + 3, 0x8C, len(raw)) + raw + b"."


def key_from(data: bytes) -> Any:
    """The key of these bytes. Raises DeserializationError."""
    return deserialize(TAG + data)


def _value_of(value: Any) -> bytes:
    data = serialize(value)
    if len(data) > VALUE_LIMIT:
        raise RequestSizeError(
            f"The value of a Dict may have {VALUE_LIMIT >> 20} MiB pickled; this one has {len(data)} bytes. Put large "
            "data in a Volume and keep its path."
        )
    return data
