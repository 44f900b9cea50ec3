"""Queues: items in partitions, first in, first out. The body holds the items, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .common import Empty, Method, Shape

PARTITION_BYTES = 64  #: of a partition's name in UTF-8, at most
PARTITION_ITEMS = 5_000  #: at most
PARTITIONS = 100_000  #: of a queue, at most
ITEM_LIMIT = 256 * 1024  #: bytes of a pickled item
TTL_LIMIT = 7 * 24 * 3600  #: seconds


@dataclass(frozen=True)
class QueuePut:
    """Add all items or none. `partition` is a partition's name; "" is the default one."""

    queue_id: str
    partition: str = ""
    sizes: list[int] = field(default_factory=list)
    ttl: float = 24 * 3600.0  #: seconds after which the partition is cleared, unless more is put
    wait: Optional[float] = None  #: seconds to wait for room; None: for ever; 0: not at all
    more: int = 0  #: items that will follow, and must have room too


@dataclass(frozen=True)
class QueuePutDone:
    accepted: bool  #: False: there was no room in time


@dataclass(frozen=True)
class QueueGet:
    """Take up to `count` items, waiting for the first.

    A count of 0 takes none: it asks for the reply to an earlier request with the same key, if that was given items.
    """

    queue_id: str
    partition: str = ""
    count: int = 1
    wait: Optional[float] = None  #: as of QueuePut


@dataclass(frozen=True)
class QueueItems:
    sizes: list[int] = field(default_factory=list)
    more: bool = False  #: of a get: more were there than fit in a reply; ask again for the rest
    last: int = 0  #: of a scan: number of the last item, for `QueueScan.after`

    def cut(self, body: bytes) -> list[bytes]:
        """The items of a body."""
        items, at = [], 0
        for size in self.sizes:
            items.append(body[at : at + size])
            at += size
        return items


@dataclass(frozen=True)
class QueueReturn:
    """Give the last items of what a get took back to where they were: they are in the body."""

    queue_id: str
    partition: str
    key: str  #: of the get
    sizes: list[int]


@dataclass(frozen=True)
class QueueScan:
    """Items as they lie, and those that come within `wait` seconds after the last one."""

    queue_id: str
    partition: str = ""
    wait: float = 0.0
    after: int = 0  #: number of the last item that is known


@dataclass(frozen=True)
class QueueSelect:
    """One partition, or with `every` all."""

    queue_id: str
    partition: str = ""
    every: bool = False


@dataclass(frozen=True)
class QueueLength:
    items: int


QUEUE_PUT = Method("queue.put", QueuePut, QueuePutDone, mutating=True)
QUEUE_GET = Method("queue.get", QueueGet, QueueItems, mutating=True)
QUEUE_RETURN = Method("queue.return", QueueReturn, Empty, mutating=True)
QUEUE_SCAN = Method("queue.scan", QueueScan, QueueItems, Shape.SERVER_STREAM)
QUEUE_LEN = Method("queue.len", QueueSelect, QueueLength)
QUEUE_CLEAR = Method("queue.clear", QueueSelect, Empty, mutating=True)
