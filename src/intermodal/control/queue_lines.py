"""Queues as the server has them in memory: what is in them, and who waits at them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from intermodal.control.rpc import Context
from intermodal.machines.queue import Item, QueueState
from modal._wire.messages.queue import ITEM_LIMIT, PARTITION_BYTES, PARTITION_ITEMS, TTL_LIMIT, QueuePut
from modal.exception import InvalidError, RequestSizeError


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits: for items, or for room."""

    ctx: Context
    request: Any
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    values: list[bytes] = field(default_factory=list)  #: to be put
    reply: Any = None  #: when they are


@dataclass(slots=True, eq=False)
class Taken:
    """Items that were taken for a get, which is not answered yet."""

    partition: str
    items: list[Item]
    expires_at: float  #: when the partition was to be cleared
    is_cleared: bool = False  #: it was, meanwhile: they are no items of the queue any more


@dataclass(slots=True)
class Line:
    """Who waits at one partition."""

    getters: deque[Waiter] = field(default_factory=deque)
    putters: deque[Waiter] = field(default_factory=deque)
    followers: set[asyncio.Event] = field(default_factory=set)


@dataclass(slots=True)
class LiveQueue:
    """A queue in memory."""

    queue_id: str
    state: QueueState
    lines: dict[str, Line] = field(default_factory=dict)
    #: Partitions that hold nothing, where a put waits until there are fewer others.
    slotless: dict[str, None] = field(default_factory=dict)
    taken: set[Taken] = field(default_factory=set)  #: whose values are being read
    timer: asyncio.TimerHandle | None = None  #: set while a put waits: partitions that expire make room

    def line(self, partition: str) -> Line:
        return self.lines.setdefault(partition, Line())

    def tidy(self, partition: str) -> None:
        """Forget a line in which nobody waits."""
        line = self.lines.get(partition)
        if line is None or not line.putters:
            self.slotless.pop(partition, None)
        if line is not None and not (line.getters or line.putters or line.followers):
            del self.lines[partition]

    def waiters(self) -> list[Waiter]:
        """Everyone who waits, for items or for room."""
        return [waiter for line in self.lines.values() for waiter in (*line.getters, *line.putters)]

    def clear(self, partitions: Iterable[str]) -> None:
        """Empty these partitions."""
        for partition in partitions:
            self.state.clear(partition)
            for taken in self.taken:
                taken.is_cleared |= taken.partition == partition

    def clear_all(self) -> None:
        """Empty all partitions."""
        self.state.clear_all()
        for taken in self.taken:
            taken.is_cleared = True

    def next_expiry(self) -> float | None:
        """When time next makes room for a put that waits; None: never."""
        if self.slotless:  # any partition that becomes empty makes room for these
            return self.state.next_expiry()
        waited = (self.state.expires_at(partition) for partition, line in self.lines.items() if line.putters)
        return min(waited, default=None)


def check_partition(partition: str) -> None:
    """Raise `InvalidError` for what is no partition."""
    if partition and (len(partition.encode()) > PARTITION_BYTES or "\0" in partition):
        raise InvalidError(f"A partition key has 1 to {PARTITION_BYTES} bytes and no zero byte.")


def check_put(request: QueuePut) -> None:
    """Raise `InvalidError` for a put that can never be done."""
    if not 1 <= len(request.sizes) <= PARTITION_ITEMS:
        raise InvalidError(f"A put adds 1 to {PARTITION_ITEMS} items to a queue, not {len(request.sizes)}.")
    if not 0 < request.ttl <= TTL_LIMIT:
        raise InvalidError(f"partition_ttl must be above 0 and at most {TTL_LIMIT} seconds, not {request.ttl:g}.")
    if not 0 <= request.more <= PARTITION_ITEMS - len(request.sizes):
        raise InvalidError(f"{len(request.sizes)} items and {request.more} more never fit in a partition.")


def cut(sizes: list[int], body: bytes) -> list[bytes]:
    """The values in a body. Raises `InvalidError` and `RequestSizeError`."""
    values, at = [], 0
    for size in sizes:
        if not 0 <= size <= ITEM_LIMIT:
            raise RequestSizeError(f"An item of a queue may have {ITEM_LIMIT >> 10} KiB; this one has {size} bytes.")
        values.append(body[at : at + size])
        at += size
    if at != len(body):
        raise InvalidError("The items do not add up to what was sent.")
    return values


def resident(items: list[Item]) -> list[bytes] | None:
    """The values of items; None when the store must be asked for one."""
    values = [item.value for item in items if item.value is not None]
    return values if len(values) == len(items) else None


def answer(done: asyncio.Future[Any], answer: Any) -> None:
    if not done.done():
        done.set_result(answer)


def fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
