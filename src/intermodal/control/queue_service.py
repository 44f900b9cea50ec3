"""RPC: queues. Items are in memory, except for large ones; every change is in the store before its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from intermodal.control.given_items import Given, GivenItems
from intermodal.control.loaded import RESIDENT, Loaded, drop_when_stored
from intermodal.control.named_service import NamedService
from intermodal.control.queue_lines import (
    Line,
    LiveQueue,
    Taken,
    Waiter,
    answer,
    check_partition,
    check_put,
    cut,
    fail,
    resident,
)
from intermodal.control.rpc import Context, Dispatcher, Principal, ServerStream
from intermodal.control.rpc_replies import kept_reply
from intermodal.machines.queue import Item, QueueState
from intermodal.store.entries import QueueWrite, StoredItem
from intermodal.store.interface import Store, StoreError
from modal._wire.messages.common import Empty
from modal._wire.messages.named import ObjectKind
from modal._wire.messages.queue import (
    ITEM_LIMIT,
    PARTITION_ITEMS,
    QUEUE_CLEAR,
    QUEUE_GET,
    QUEUE_LEN,
    QUEUE_PUT,
    QUEUE_RETURN,
    QUEUE_SCAN,
    QueueGet,
    QueueItems,
    QueueLength,
    QueuePut,
    QueuePutDone,
    QueueReturn,
    QueueScan,
    QueueSelect,
)
from modal.exception import InvalidError, NotFoundError

_REPLY_BYTES = 8 * 1024 * 1024  # of items given at a time; the rest stays for the next one
_SCAN_ITEMS = 200
_PUT, _FULL = QueuePutDone(True), QueuePutDone(False)
_RETRY = 1.0  # seconds until what has expired is cleared again that the store could not clear
_RECHECK = 0.25  # seconds until an item that nobody can be given now is offered again


class QueueService:
    """Serves queues.

    Args:
        is_connected: whether a client session has a connection now: only then items are given to it.
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self, store: Store, named: NamedService, is_connected: Callable[[Context], bool], now: Callable[[], float]
    ) -> None:
        self._store = store
        self._named = named
        self._is_connected = is_connected
        self._now = now
        self._loaded = Loaded(ObjectKind.QUEUE, named, self._read, now)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._given = GivenItems()
        named.holders[ObjectKind.QUEUE] = self

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(QUEUE_PUT, self.put)
        dispatcher.register(QUEUE_GET, self.get)
        dispatcher.register(QUEUE_RETURN, self.take_back)
        dispatcher.register(QUEUE_SCAN, self.scan)
        dispatcher.register(QUEUE_LEN, self.len)
        dispatcher.register(QUEUE_CLEAR, self.clear)
        dispatcher.session_closed.append(self.session_closed)

    # -- requests ----------------------------------------------------------------------------------------------

    def put(self, ctx: Context, request: QueuePut, body: bytes) -> Any:
        queue = self._find(ctx, request.queue_id, request.partition)
        if queue is None:
            return self._loaded.again(request.queue_id, self.put, ctx, request, body)
        check_put(request)
        return self._put_in_turn(queue, ctx, request, cut(request.sizes, body), _PUT)

    def _put_in_turn(self, queue: LiveQueue, ctx: Context, request: QueuePut, values: list[bytes], reply: Any) -> Any:
        """Put values when there is room, and nobody before it waits for that. Returns the reply, or a future of it."""
        line = queue.lines.get(request.partition)
        if not (line is not None and line.putters) and self._has_room(queue, request):
            self._put(queue, ctx, request, values, reply)
            return reply
        if request.wait is not None and request.wait <= 0:
            return _FULL
        waiter = Waiter(ctx, request, values=values, reply=reply)
        queue.line(request.partition).putters.append(waiter)
        if not queue.state.length(request.partition):
            queue.slotless[request.partition] = None
        self._park(queue, waiter, _FULL, lambda line: line.putters.remove(waiter))
        self._await_expiry(queue, queue.next_expiry())
        return waiter.done

    def _has_room(self, queue: LiveQueue, request: QueuePut) -> bool:
        count = len(request.sizes) + request.more
        if queue.state.has_room(request.partition, count):
            return True
        self._expire(queue)
        return queue.state.has_room(request.partition, count)

    def _put(self, queue: LiveQueue, ctx: Context, request: QueuePut, values: list[bytes], reply: Any) -> None:
        """Put values that there is room for. Raises StoreError, with nothing changed."""
        partition, before = request.partition, queue.state.expires_at(request.partition)
        expires_at = self._now() + request.ttl
        items = queue.state.put(partition, values, expires_at)
        puts = [StoredItem(partition, item.number, item.value, expires_at) for item in items]
        try:
            self._store.write_now([QueueWrite(queue.queue_id, puts=puts)], kept_reply(ctx, reply))
        except BaseException:
            queue.state.undo_put(partition, len(values), before)
            raise
        self._added(queue, partition, items)

    def _added(self, queue: LiveQueue, partition: str, items: list[Item]) -> None:
        large = [item for item in items if item.size > RESIDENT]
        if large:
            drop_when_stored(self._store, large)
        line = queue.lines.get(partition)
        if queue.slotless or (line is not None and line.putters):
            self._await_expiry(queue, queue.state.expires_at(partition))  # it may be sooner than before
        if line is not None:
            for follower in line.followers:
                follower.set()
            self._offer(queue, partition)

    def get(self, ctx: Context, request: QueueGet, body: bytes) -> Any:
        queue = self._find(ctx, request.queue_id, request.partition)
        if queue is None:
            return self._loaded.again(request.queue_id, self.get, ctx, request, body)
        if not request.count:
            return QueueItems()
        if not 1 <= request.count <= PARTITION_ITEMS:
            raise InvalidError(f"A get takes 1 to {PARTITION_ITEMS} items of a queue, not {request.count}.")
        if queue.state.length(request.partition):
            taken = self._take(queue, request)
            values = resident(taken.items)
            if values is not None:
                return self._deliver(queue, ctx, request, taken, values)
            waiter = Waiter(ctx, request)
            self._give_later(queue, waiter, taken)
            return waiter.done
        if request.wait is not None and request.wait <= 0:
            return QueueItems()
        waiter = Waiter(ctx, request)
        queue.line(request.partition).getters.append(waiter)
        self._park(queue, waiter, QueueItems(), lambda line: line.getters.remove(waiter))
        return waiter.done

    def take_back(self, ctx: Context, request: QueueReturn, body: bytes) -> Any:
        """Put items where they were, which a get of this client was given and nobody has got.

        If it is too long ago that they were taken, or the server was started since, they are put at the end, once there
        is room.
        """
        queue = self._find(ctx, request.queue_id, request.partition)
        if queue is None:
            return self._loaded.again(request.queue_id, self.take_back, ctx, request, body)
        partition, values = request.partition, cut(request.sizes, body)
        key = (*(ctx.reply_key or ())[:2], request.key, QUEUE_GET.name)
        count = len(values)
        given = self._given.find(key, queue.queue_id, partition, count)
        if given is None:
            put = QueuePut(queue.queue_id, partition, request.sizes)
            check_put(put)
            return self._put_in_turn(queue, ctx, put, values, Empty())
        expires_at = max(given.expires_at, queue.state.expires_at(partition))
        if expires_at <= self._now():
            return Empty()
        items = [Item(number, value, len(value)) for number, value in zip(given.numbers[-count:], values, strict=True)]
        puts = [StoredItem(partition, item.number, item.value, expires_at) for item in items]
        self._store.write_now([QueueWrite(queue.queue_id, puts=puts)], kept_reply(ctx, Empty()))
        self._given.forget(key)
        queue.state.give_back(partition, items, expires_at)
        self._added(queue, partition, items)
        return Empty()

    async def scan(self, ctx: Context, request: QueueScan, body: bytes, stream: ServerStream[Any, Any]) -> None:
        self._named.require_object(ctx, ObjectKind.QUEUE, request.queue_id)
        check_partition(request.partition)
        queue = await self._loaded.load(request.queue_id)
        arrived, last = asyncio.Event(), request.after
        line = queue.line(request.partition)
        line.followers.add(arrived)
        try:
            while True:
                self._fresh(queue, request.partition)
                arrived.clear()
                items = queue.state.after(request.partition, last, _SCAN_ITEMS)
                if items:
                    last = items[-1].number
                    await self._send(queue, request.partition, items, stream)
                    continue
                try:
                    await asyncio.wait_for(arrived.wait(), request.wait)
                except asyncio.TimeoutError:
                    return
                if not self._loaded.is_current(queue.queue_id, queue):
                    raise NotFoundError(f"The queue {queue.queue_id} was deleted.")
        finally:
            line.followers.discard(arrived)
            queue.tidy(request.partition)

    async def _send(self, queue: LiveQueue, partition: str, items: list[Item], stream: ServerStream[Any, Any]) -> None:
        part: list[bytes] = []
        size = 0
        for position, (item, value) in enumerate(zip(items, await self._values(queue, partition, items), strict=True)):
            if value is not None:  # else it was taken meanwhile
                part.append(value)
                size += len(value)
            if part and (size > _REPLY_BYTES or position == len(items) - 1):
                await stream.send(QueueItems([len(one) for one in part], last=item.number), b"".join(part))
                part, size = [], 0

    def len(self, ctx: Context, request: QueueSelect, body: bytes) -> Any:
        queue = self._find(ctx, request.queue_id, request.partition)
        if queue is None:
            return self._loaded.again(request.queue_id, self.len, ctx, request, body)
        if not request.every:
            return QueueLength(queue.state.length(request.partition))
        self._expire(queue)
        return QueueLength(queue.state.total())

    def clear(self, ctx: Context, request: QueueSelect, body: bytes) -> Any:
        queue = self._find(ctx, request.queue_id, request.partition)
        if queue is None:
            return self._loaded.again(request.queue_id, self.clear, ctx, request, body)
        gone = () if request.every else (request.partition,)
        change = QueueWrite(queue.queue_id, cleared=gone, cleared_all=request.every)
        self._store.write_now([change], kept_reply(ctx, Empty()))
        if request.every:
            queue.clear_all()
        else:
            queue.clear([request.partition])
        for partition in list(queue.lines) if request.every else [request.partition]:
            self._make_room(queue, partition)
        self._give_slots(queue)
        return Empty()

    # -- giving and waiting ------------------------------------------------------------------------------------

    def _park(self, queue: LiveQueue, waiter: Waiter, late: Any, leave: Callable[[Line], None]) -> None:
        """Let a request wait in its line, and answer it with `late` when its time is over."""
        loop = asyncio.get_running_loop()
        wait, partition = waiter.request.wait, waiter.request.partition
        timer = loop.call_later(wait, answer, waiter.done, late) if wait is not None else None

        def left(done: asyncio.Future[Any]) -> None:
            if timer is not None:
                timer.cancel()
            line = queue.lines.get(partition)
            if line is not None:
                try:
                    leave(line)
                except ValueError:
                    pass  # it was called up
                self._make_room(queue, partition)  # those behind it may want less
                queue.tidy(partition)

        waiter.done.add_done_callback(left)

    def _await_expiry(self, queue: LiveQueue, at: float | None) -> None:
        """Clear what has expired at that time (None: never), if not sooner: it makes room for who waits."""
        if at is None:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, at - self._now()) + 0.01
        if queue.timer is not None:
            if queue.timer.when() <= when:
                return
            queue.timer.cancel()
        queue.timer = loop.call_at(when, self._time_is_over, queue)

    def _time_is_over(self, queue: LiveQueue) -> None:
        queue.timer = None
        if not self._loaded.is_current(queue.queue_id, queue):
            return
        try:
            self._expire(queue)
        except StoreError:
            self._await_expiry(queue, self._now() + _RETRY)
            return
        self._await_expiry(queue, queue.next_expiry())

    def _offer(self, queue: LiveQueue, partition: str) -> None:
        """Give what is there to those who wait for it, in their order, as far as they are connected."""
        line = queue.lines.get(partition)
        if line is None:
            return
        absent: list[Waiter] = []
        while line.getters and queue.state.length(partition):
            waiter = line.getters.popleft()
            if waiter.done.done():
                continue
            if self._is_connected(waiter.ctx):
                self._give(queue, waiter)
            else:
                absent.append(waiter)
        line.getters.extendleft(reversed(absent))
        if absent and queue.state.length(partition):
            asyncio.get_running_loop().call_later(_RECHECK, self._offer, queue, partition)

    def _give(self, queue: LiveQueue, waiter: Waiter) -> None:
        """Take items for a request and answer it."""
        taken = self._take(queue, waiter.request)
        values = resident(taken.items)
        if values is not None:
            self._answer(queue, waiter, taken, values)
        else:
            self._give_later(queue, waiter, taken)

    def _take(self, queue: LiveQueue, request: QueueGet) -> Taken:
        """Items for a request."""
        expires_at = queue.state.expires_at(request.partition)
        return Taken(request.partition, queue.state.take(request.partition, request.count, _REPLY_BYTES), expires_at)

    def _give_later(self, queue: LiveQueue, waiter: Waiter, taken: Taken) -> None:
        """Answer a request once the values are read."""
        queue.taken.add(taken)
        self._spawn(self._give_stored(queue, waiter, taken))

    async def _give_stored(self, queue: LiveQueue, waiter: Waiter, taken: Taken) -> None:
        try:
            values = await self._values(queue, taken.partition, taken.items)
        except Exception as error:
            fail(waiter.done, error)
            self._give_back(queue, taken)
            return
        finally:
            queue.taken.discard(taken)
        if taken.is_cleared or any(value is None for value in values):
            answer(waiter.done, QueueItems())
        elif waiter.done.done():
            self._give_back(queue, taken)
        else:
            self._answer(queue, waiter, taken, [value or b"" for value in values])
            self._offer(queue, taken.partition)  # when the store refused that, they are there again

    def _give_back(self, queue: LiveQueue, taken: Taken) -> None:
        """Put items where they were, for who waits."""
        if not taken.is_cleared:
            queue.state.give_back(taken.partition, taken.items, taken.expires_at)
            self._offer(queue, taken.partition)

    def _answer(self, queue: LiveQueue, waiter: Waiter, taken: Taken, values: list[bytes]) -> None:
        try:
            waiter.done.set_result(self._deliver(queue, waiter.ctx, waiter.request, taken, values))
        except Exception as error:
            fail(waiter.done, error)

    def _deliver(
        self, queue: LiveQueue, ctx: Context, request: QueueGet, taken: Taken, values: list[bytes]
    ) -> tuple[QueueItems, bytes]:
        """The reply that gives away items which were taken. Raises StoreError, after giving them back."""
        partition, items = taken.partition, taken.items
        more = len(items) < request.count and queue.state.length(partition) > 0
        reply, body = QueueItems([len(value) for value in values], more), b"".join(values)
        change = QueueWrite(queue.queue_id, removed=[(partition, item.number) for item in items])
        try:
            self._store.write_now([change], kept_reply(ctx, reply, body))
        except Exception:
            queue.state.give_back(partition, items, taken.expires_at)
            raise
        if ctx.reply_key is not None:
            numbers = [item.number for item in items]
            self._given.remember(ctx.reply_key, Given(queue.queue_id, partition, numbers, taken.expires_at))
        if partition in queue.lines:
            self._make_room(queue, partition)
        if queue.slotless:
            self._give_slots(queue)
        return reply, body

    def _give_slots(self, queue: LiveQueue) -> None:
        """Let those put who waited until fewer partitions hold something."""
        while queue.slotless and queue.state.has_slot():
            partition = next(iter(queue.slotless))
            del queue.slotless[partition]
            self._make_room(queue, partition)

    def _make_room(self, queue: LiveQueue, partition: str) -> None:
        """Let those put who waited for room, in their order."""
        line = queue.lines.get(partition)
        while line is not None and line.putters:
            waiter = line.putters[0]
            if waiter.done.done():
                line.putters.popleft()
                continue
            if not queue.state.has_room(partition, len(waiter.values) + waiter.request.more):
                if not queue.state.length(partition):
                    queue.slotless[partition] = None
                return
            line.putters.popleft()
            try:
                self._put(queue, waiter.ctx, waiter.request, waiter.values, waiter.reply)
            except Exception as error:
                fail(waiter.done, error)
                continue
            answer(waiter.done, waiter.reply)

    async def _values(self, queue: LiveQueue, partition: str, items: list[Item]) -> list[bytes | None]:
        """The values of items; None for one that the store no longer has."""
        absent = [item.number for item in items if item.value is None]
        known = {item.number: item.value for item in items}
        stored = await self._store.queue_values(queue.queue_id, partition, absent) if absent else {}
        return [known[item.number] if known[item.number] is not None else stored.get(item.number) for item in items]

    # -- life --------------------------------------------------------------------------------------------------

    def created(self, object_id: str) -> None:
        return  # it is read when it is first used

    def deleted(self, object_id: str) -> None:
        queue = self._loaded.forget(object_id)
        if queue is None:
            return
        queue.clear_all()
        gone = NotFoundError(f"The queue {object_id} was deleted.")
        for waiter in queue.waiters():
            fail(waiter.done, gone)
        for line in queue.lines.values():
            for follower in line.followers:
                follower.set()

    def session_closed(self, session_id: str, principal: Principal) -> None:
        """A client is gone for good: it waits no more."""
        for queue in self._loaded:
            for waiter in queue.waiters():
                if waiter.ctx.session_id == session_id:
                    waiter.done.cancel()

    async def expire(self) -> None:
        """Clear partitions whose time is over; let go of queues that nobody uses. Raises StoreError."""
        for queue in self._loaded:
            self._expire(queue)
        self._loaded.forget_idle(lambda queue: not queue.lines and not queue.taken)

    def _expire(self, queue: LiveQueue) -> None:
        """Clear all partitions whose time is over. Raises StoreError, with nothing changed."""
        due = queue.state.due(self._now())
        if due:
            self._clear(queue, due)

    def _fresh(self, queue: LiveQueue, partition: str) -> None:
        """Clear the partition if its time is over. Raises StoreError, with nothing changed."""
        if 0.0 < queue.state.expires_at(partition) <= self._now():
            self._clear(queue, [partition])

    def _clear(self, queue: LiveQueue, partitions: list[str]) -> None:
        self._store.write_now([QueueWrite(queue.queue_id, cleared=tuple(partitions))])
        queue.clear(partitions)
        for partition in partitions:
            self._make_room(queue, partition)
        self._give_slots(queue)

    def _find(self, ctx: Context, queue_id: str, partition: str) -> LiveQueue | None:
        """The queue, if it is in memory. Raises `NotFoundError`, `AuthError`, `InvalidError` and StoreError."""
        queue = self._loaded.find_for(ctx, queue_id)
        check_partition(partition)
        if queue is not None:
            self._fresh(queue, partition)
        return queue

    async def _read(self, queue_id: str) -> LiveQueue:
        items = await self._store.queue_items(queue_id, RESIDENT)
        queue = LiveQueue(queue_id, QueueState(int(self._now() * 1_000_000)))
        for item in items:
            size = ITEM_LIMIT if item.value is None else len(item.value)  # how large it is, only the store knows
            queue.state.restore(item.partition, Item(item.number, item.value, size), item.expires_at)
        return queue

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of the store, which says it by itself
