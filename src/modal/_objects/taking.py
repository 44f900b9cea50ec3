"""Taking items from a queue so that they are with somebody: what nobody got is given back.

The server gives an item to a request and is done with it. The caller may have gone meanwhile (Ctrl-C or another signal
whose handler raises, a cancelled task, `asyncio.wait_for`), or may be unable to read it. Then the items go back to
where they were, under the key of the request that took them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Optional

from .._serialization import deserialize
from .._signals import is_from_handler
from .._sync import is_async, on_loop, undone
from .._wire.messages.queue import PARTITION_ITEMS, QUEUE_GET, QUEUE_RETURN, QueueGet, QueueItems, QueueReturn
from ..exception import DeserializationError, Error

if TYPE_CHECKING:
    from .queue import Queue


class Taking:
    """One `get` of up to `count` items, which waits `wait` seconds for the first (None: for ever)."""

    def __init__(self, queue: Queue, partition: str, count: int, wait: Optional[float]) -> None:
        self._queue = queue
        self._partition = partition
        self._count = count
        self._wait = wait
        self._key = ""  #: of a request that was sent and whose items are not among the taken
        self._taken: list[tuple[str, list[bytes]]] = []  #: by the keys of the requests, in order
        self._has_more = False
        self._giving: Optional[asyncio.Lock] = None  #: held while items are given back

    async def items(self) -> list[Any]:
        """The items, unpickled; in the caller.

        One that cannot be unpickled ends it: those before are returned, and the next call begins with it and raises.
        Whatever else is raised, by a signal handler for instance, gives all of them back.
        """
        try:
            await self._take()
            items: list[Any] = []
            try:
                for value in [value for _, values in self._taken for value in values]:
                    items.append(deserialize(value))
            except DeserializationError:
                await on_loop(undone(self.give_back(max(1, len(items)))))
                if not items:
                    raise
            return items
        except BaseException as error:
            if not isinstance(error, Error) or is_from_handler(error):
                await on_loop(undone(self.give_back()))
            raise

    async def _take(self) -> None:
        """What is there at once is taken in the caller's thread; waiting is left to the loop, where it can be ended."""
        is_bound = self._queue._rpc is not None and self._queue._object_id is not None
        is_quick = is_bound and self._count <= PARTITION_ITEMS and not await is_async()
        if not is_quick or not (await self._take_quickly() or self._wait == 0.0):
            await on_loop(self._take_slowly())

    async def _take_quickly(self) -> bool:
        """Whether that was all that was wanted."""
        queue, count = self._queue, self._count
        assert queue._rpc is not None
        self._key = queue._rpc.new_key(QUEUE_GET)
        reply, body = await queue._ask(
            QUEUE_GET, lambda queue_id: QueueGet(queue_id, self._partition, count, 0.0), key=self._key
        )
        self._add(reply, body)
        if reply.sizes and reply.more:
            await on_loop(self._take_more())
        return bool(reply.sizes)

    # -- on the loop

    async def _take_slowly(self) -> None:
        deadline = None if self._wait is None else time.monotonic() + self._wait
        wait = self._wait
        while not await self._request(self._count, wait):
            if deadline is not None:
                wait = deadline - time.monotonic()
                if wait <= 0:
                    return
        await self._take_more()

    async def _take_more(self) -> None:
        """The rest of what was there: a reply has room for so much only. If that fails, what was taken is all."""
        while self._has_more and (left := self._count - sum(len(values) for _, values in self._taken)):
            try:
                if not await self._request(left, 0.0):
                    return
            except Exception:
                return

    async def _request(self, count: int, wait: Optional[float]) -> bool:
        """Whether there were items."""
        rpc, queue_id = await self._queue._bind()
        self._key = rpc.new_key(QUEUE_GET)
        request = QueueGet(queue_id, self._partition, min(count, PARTITION_ITEMS), wait)
        reply, body = await rpc.unary(QUEUE_GET, request, key=self._key)
        self._add(reply, body)
        return bool(reply.sizes)

    def _add(self, reply: QueueItems, body: bytes) -> None:
        self._taken.append((self._key, reply.cut(body)))
        self._key = ""
        # Of a count above what one request can take, there may be more.
        self._has_more = reply.more or len(reply.sizes) == PARTITION_ITEMS

    async def give_back(self, kept: int = 0) -> None:
        """Give all but the first `kept` items back, the last ones first, and what a request is still to give."""
        self._giving = self._giving or asyncio.Lock()
        async with self._giving:
            rpc, queue_id = await self._queue._bind()
            if self._key and not any(self._key == key for key, _ in self._taken):
                # With the same key this is the reply to the first one, if that was given items; else it takes none.
                request = QueueGet(queue_id, self._partition, 0, 0.0)
                reply, body = await rpc.unary(QUEUE_GET, request, key=self._key)
                self._add(reply, body)
            spare = sum(len(values) for _, values in self._taken) - kept
            while spare > 0:
                key, values = self._taken.pop()
                rest, back = values[: max(0, len(values) - spare)], values[max(0, len(values) - spare) :]
                if rest:
                    self._taken.append((key, rest))
                if back:
                    spare -= len(back)
                    giving = QueueReturn(queue_id, self._partition, key, [len(value) for value in back])
                    await rpc.unary(QUEUE_RETURN, giving, b"".join(back))
