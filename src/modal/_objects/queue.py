"""`modal.Queue`: a first-in, first-out queue that functions share."""

from __future__ import annotations

import queue
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Optional

from .._renamed import renamed_parameter
from .._serialization import deserialize, serialize
from .._sync import BlockingContext, blocking, generator_in_caller, in_caller, is_async, on_loop
from .._wire.messages.named import ObjectKind
from .._wire.messages.queue import (
    ITEM_LIMIT,
    PARTITION_BYTES,
    PARTITION_ITEMS,
    PARTITIONS,
    QUEUE_CLEAR,
    QUEUE_LEN,
    QUEUE_PUT,
    QUEUE_SCAN,
    TTL_LIMIT,
    QueueItems,
    QueuePut,
    QueueScan,
    QueueSelect,
)
from ..exception import InvalidError, RequestSizeError
from .named import Named
from .pulled import Pulled
from .taking import Taking

if TYPE_CHECKING:
    from .client import Client

_BATCH_BYTES = 12 * 1024 * 1024  # of items put together
_QUICK_BYTES = 256 * 1024  # of items put together without the loop
_FOR_EVER = 1e9  # seconds; a longer timeout is none
_NOT_CONSUMED = "The items of Queue.iterate were never asked for: iterate over them."


class Queue(Named):
    """A first-in, first-out queue that functions share, in independent partitions.

    Items may be whatever can be pickled, up to 256 KiB each. A partition holds up to 5,000 items, a queue up to 100,000
    partitions that hold any. A partition is cleared 24 hours after the last item was put. Every change is safe before
    its call returns.

    queue = modal.Queue.from_name("my-queue", create_if_missing=True)
    queue.put(1)
    assert queue.get() == 1
    """

    _kind = ObjectKind.QUEUE

    @staticmethod
    def validate_partition_key(partition: Optional[str]) -> bytes:
        """Return a partition's key as bytes; None is the default partition, b"".

        Raises:
            InvalidError: for an empty key, one of more than 64 bytes, one with a zero byte, or no valid Unicode.
        """
        if partition is None:
            return b""
        if not isinstance(partition, str):
            raise InvalidError(f"A partition key is a string, not {partition!r}.")
        try:
            key = partition.encode()
        except UnicodeEncodeError:
            raise InvalidError(f"A partition key is valid Unicode, unlike {partition[:70]!r}.") from None
        if not 0 < len(key) <= PARTITION_BYTES:
            raise InvalidError(f"A partition key has 1 to {PARTITION_BYTES} bytes; {partition[:70]!r} has {len(key)}.")
        if "\0" in partition:
            raise InvalidError(f"A partition key has no zero byte: {partition!r}.")
        return key

    @classmethod
    def ephemeral(
        cls, client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300.0
    ) -> BlockingContext[Queue]:
        """Make a queue that lives as long as the context, for `with` and `async with`.

        Args:
            client: the connection to use; default: that of the configuration.
            environment_name: the environment; default: that of the configuration.
            _heartbeat_sleep: no effect: the connection itself tells that this client is alive.
        """
        return BlockingContext(Queue._ephemeral(client, environment_name))

    @staticmethod
    @renamed_parameter("label", "name")
    def from_name(
        name: str, namespace: Any = None, environment_name: Optional[str] = None, create_if_missing: bool = False
    ) -> Queue:
        """Refer to a queue by its name; it is looked up when it is first used.

        Args:
            name: its name.
            namespace: no effect.
            environment_name: the environment; default: that of the configuration.
            create_if_missing: make it when there is none.
        """
        return Queue._named(name, environment_name, create_if_missing)

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def lookup(
        name: str,
        namespace: Any = None,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> Queue:
        """Find a queue by its name, now. Arguments as of `from_name`.

        Raises:
            NotFoundError: there is none.
        """
        return await Queue._lookup(Queue.from_name(name, None, environment_name, create_if_missing), client)

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def delete(name: str, *, client: Optional[Client] = None, environment_name: Optional[str] = None) -> None:
        """Delete a queue and all its items. Who waits at it gets a NotFoundError.

        Raises:
            NotFoundError: there is none of this name.
        """
        await Queue._delete(name, client, environment_name)

    @in_caller
    async def clear(self, *, partition: Optional[str] = None, all: bool = False) -> None:
        """Remove the items of a partition, or of all.

        Raises:
            InvalidError: both were given.
        """
        key = partition_name(partition)
        if partition is not None and all:
            raise InvalidError("Queue.clear takes a partition or all=True, not both.")
        await self._ask(QUEUE_CLEAR, lambda queue_id: QueueSelect(queue_id, key, bool(all)))

    @in_caller
    async def get(
        self, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> Optional[Any]:
        """Remove and return the first item.

        Args:
            block: wait for an item; False: return None when there is none, whatever the timeout.
            timeout: seconds to wait at most; None: for ever.
            partition: the partition; None: the default one.

        Raises:
            queue.Empty: `timeout` passed.
        """
        found = await Taking(self, partition_name(partition), 1, _wait(block, timeout)).items()
        if block and not found:
            raise queue.Empty(_nothing_in(timeout))
        return found[0] if found else None

    @in_caller
    async def get_many(
        self, n_values: int, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> list[Any]:
        """Remove and return up to `n_values` items, waiting for the first one.

        Args:
            n_values: how many at most, 1 or more.
            block: wait for an item; False: return none when there are none, whatever the timeout.
            timeout: seconds to wait at most; None: for ever.
            partition: the partition; None: the default one.

        Raises:
            queue.Empty: `timeout` passed.
            DeserializationError: the first item cannot be unpickled here; it is taken. Items before one that cannot be
                are returned, and it stays.
        """
        if isinstance(n_values, bool) or not isinstance(n_values, int) or n_values < 1:
            raise InvalidError(f"Queue.get_many takes a number of items of 1 or more, not {n_values!r}.")
        found = await Taking(self, partition_name(partition), n_values, _wait(block, timeout)).items()
        if block and not found:
            raise queue.Empty(_nothing_in(timeout))
        return found

    @in_caller
    async def put(
        self,
        v: Any,
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 24 * 3600,
    ) -> None:
        """Add an item at the end.

        Args:
            v: the item.
            block: wait for room when the partition is full; False: do not, whatever the timeout.
            timeout: seconds to wait at most; None: for ever.
            partition: the partition; None: the default one.
            partition_ttl: seconds from now on after which the partition is cleared, unless more is put; at most 7 days.

        Raises:
            queue.Full: there was no room, in time.
            RequestSizeError: the item has more than 256 KiB pickled.
            SerializationError: it cannot be pickled.
        """
        await self._add([_dumps(v)], partition_name(partition), partition_ttl, _wait(block, timeout))

    @in_caller
    async def put_many(
        self,
        vs: list[Any],
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 24 * 3600,
    ) -> None:
        """Add items at the end: all of them or none, one after the other without others between them.

        Items of more than 12 MiB together are added in parts of that size, the first of them once there is room for
        all; should others fill the partition meanwhile, `queue.Full` says how many were added.

        Args:
            vs: the items, up to 5,000.
            block: wait until there is room for them; False: do not, whatever the timeout.
            timeout: seconds to wait at most; None: for ever.
            partition: the partition; None: the default one.
            partition_ttl: seconds from now on after which the partition is cleared, unless more is put; at most 7 days.

        Raises:
            queue.Full: there was no room, in time.
            InvalidError: there are more than a partition holds.
            RequestSizeError: an item has more than 256 KiB pickled.
            SerializationError: one cannot be pickled.
        """
        values = [_dumps(value) for value in vs]
        if len(values) > PARTITION_ITEMS:
            raise InvalidError(f"A partition holds {PARTITION_ITEMS} items; {len(values)} never fit.")
        if values:
            await self._add(values, partition_name(partition), partition_ttl, _wait(block, timeout))

    async def _add(self, values: list[bytes], partition: str, ttl: float, wait: Optional[float]) -> None:
        """Put values, waiting for room; in the caller. Waiting is left to the loop, where it can be ended."""
        _check_ttl(ttl)
        sizes = [len(value) for value in values]
        if sum(sizes) <= _QUICK_BYTES and not await is_async():
            reply, _ = await self._ask(
                QUEUE_PUT, lambda queue_id: QueuePut(queue_id, partition, sizes, float(ttl), 0.0), b"".join(values)
            )
            if reply.accepted:
                return
            if wait == 0.0:
                raise queue.Full(_no_room(len(values), 0))
        await on_loop(self._put(values, partition, ttl, wait))

    async def _put(self, values: list[bytes], partition: str, ttl: float, wait: Optional[float]) -> None:
        rpc, queue_id = await self._bind()
        deadline = None if wait is None else time.monotonic() + wait
        added = 0
        for part in _parts(values):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            more = len(values) - added - len(part)
            request = QueuePut(queue_id, partition, [len(value) for value in part], float(ttl), left, more)
            reply, _ = await rpc.unary(QUEUE_PUT, request, b"".join(part))
            if not reply.accepted:
                raise queue.Full(_no_room(len(values), added))
            added += len(part)

    @in_caller
    async def len(self, *, partition: Optional[str] = None, total: bool = False) -> int:
        """Return the number of items of a partition, or of all.

        Raises:
            InvalidError: both were given.
        """
        key = partition_name(partition)
        if partition is not None and total:
            raise InvalidError("Queue.len takes a partition or total=True, not both.")
        reply, _ = await self._ask(QUEUE_LEN, lambda queue_id: QueueSelect(queue_id, key, bool(total)))
        return reply.items

    @generator_in_caller(_NOT_CONSUMED)
    async def iterate(
        self, *, partition: Optional[str] = None, item_poll_timeout: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        """Iterate over the items without removing them, with `for` or `async for`.

        Args:
            partition: the partition; None: the default one.
            item_poll_timeout: seconds to wait for another item after the last one; `math.inf`: for ever.

        Raises:
            InvalidError: `item_poll_timeout` is no number of seconds.
        """
        scan = ItemScan(self, partition_name(partition), _seconds(item_poll_timeout))
        try:
            while items := await on_loop(scan.next()):
                for item in items:
                    yield deserialize(item)
        finally:
            await on_loop(scan.close())


class ItemScan(Pulled["list[bytes]"]):
    """The items of a partition, part by part."""

    def __init__(self, queue: Queue, partition: str, wait: float) -> None:
        super().__init__(queue, QUEUE_SCAN, lambda queue_id: QueueScan(queue_id, partition, wait), [])

    async def _part(self, message: QueueItems, body: bytes) -> list[bytes]:
        return message.cut(body)


def partition_name(partition: Optional[str]) -> str:
    """A partition that was given, as it travels. Raises InvalidError."""
    if partition is None:
        return ""
    Queue.validate_partition_key(partition)
    return partition


def _wait(block: bool, timeout: Optional[float]) -> Optional[float]:
    """Seconds to wait; None: for ever."""
    if not block:
        return 0.0
    if timeout is None:
        return None
    seconds = _seconds(timeout)
    return seconds if seconds < _FOR_EVER else None


def _seconds(timeout: Any) -> float:
    """A timeout that was given, checked; at most `_FOR_EVER`."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InvalidError(f"A timeout is a number of seconds of 0 or more, not {timeout!r}.")
    return float(min(timeout, _FOR_EVER))


def _nothing_in(timeout: Optional[float]) -> str:
    return f"No item came within {timeout or 0:g} s."


def _no_room(count: int, added: int) -> str:
    if added:
        return f"Only the first {added} of {count} items were added: others have filled the partition meanwhile."
    return (
        f"There is no room for {count} more: a partition holds {PARTITION_ITEMS} items, and a queue {PARTITIONS} "
        "partitions that hold any."
    )


def _check_ttl(ttl: Any) -> None:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 < ttl <= TTL_LIMIT:
        raise InvalidError(f"partition_ttl must be above 0 and at most {TTL_LIMIT} seconds, not {ttl!r}.")


def _dumps(value: Any) -> bytes:
    data = serialize(value)
    if len(data) > ITEM_LIMIT:
        raise RequestSizeError(
            f"An item of a Queue may have {ITEM_LIMIT >> 10} KiB pickled; this one has {len(data)} bytes. Put large "
            "data in a Volume or a Dict and pass where it is."
        )
    return data


def _parts(values: list[bytes]) -> list[list[bytes]]:
    """The values in order, in parts that fit in a message."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for value in values:
        if size + len(value) > _BATCH_BYTES and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(value)
        size += len(value)
    return parts
