"""A queue's partitions: what is in them, what fits, when they expire. Pure: the clock is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from modal._wire.messages.queue import PARTITION_ITEMS, PARTITIONS


@dataclass(slots=True)
class Item:
    """An item. `value` is None while only the store has it."""

    number: int  #: increasing within the queue, in all its time; only an item that is given back has its own again
    value: bytes | None
    size: int


@dataclass(slots=True)
class _Partition:
    items: deque[Item] = field(default_factory=deque)
    expires_at: float = 0.0


class QueueState:
    """All partitions of one queue. Only those that hold something are kept.

    Args:
        number: that of the first item to be put; above all that were used before.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._partitions: dict[str, _Partition] = {}

    def restore(self, partition: str, item: Item, expires_at: float) -> None:
        """Add an item that was stored before; in the order of numbers."""
        one = self._partitions.setdefault(partition, _Partition())
        one.items.append(item)
        one.expires_at = expires_at
        self._number = max(self._number, item.number + 1)

    def due(self, now: float) -> list[str]:
        """The partitions whose time is over; they are to be cleared."""
        return [name for name, one in self._partitions.items() if one.expires_at <= now]

    def next_expiry(self) -> float | None:
        """When the time of the next partition is over; None when all are empty."""
        return min((one.expires_at for one in self._partitions.values()), default=None)

    def has_slot(self) -> bool:
        """Whether one more partition can hold something."""
        return len(self._partitions) < PARTITIONS

    def has_room(self, partition: str, count: int) -> bool:
        """Whether so many items can be put."""
        one = self._partitions.get(partition)
        if one is None:
            return self.has_slot() and count <= PARTITION_ITEMS
        return len(one.items) + count <= PARTITION_ITEMS

    def put(self, partition: str, values: Sequence[bytes], expires_at: float) -> list[Item]:
        """Append values (one or more) that there is room for; returns their items."""
        one = self._partitions.setdefault(partition, _Partition())
        added = [Item(number, value, len(value)) for number, value in enumerate(values, self._number)]
        self._number += len(added)
        one.items.extend(added)
        one.expires_at = expires_at
        return added

    def undo_put(self, partition: str, count: int, expires_at: float) -> None:
        """Remove the last `count` items again; the partition expires as it did before."""
        one = self._partitions[partition]
        for _ in range(count):
            one.items.pop()
        one.expires_at = expires_at
        if not one.items:
            del self._partitions[partition]

    def take(self, partition: str, count: int, size: int) -> list[Item]:
        """Remove and return up to `count` items from the front, of at most `size` bytes together (or one)."""
        one = self._partitions.get(partition)
        if one is None:
            return []
        taken: list[Item] = []
        while one.items and len(taken) < count:
            size -= one.items[0].size
            if taken and size < 0:
                break
            taken.append(one.items.popleft())
        if not one.items:
            del self._partitions[partition]
        return taken

    def give_back(self, partition: str, items: Sequence[Item], expires_at: float) -> None:
        """Put items that were taken where they were: before those of higher numbers."""
        one = self._partitions.setdefault(partition, _Partition())
        front = list(items)
        while one.items and one.items[0].number < items[-1].number:  # given back before these
            front.append(one.items.popleft())
        one.items.extendleft(sorted(front, key=lambda item: item.number, reverse=True))
        one.expires_at = max(one.expires_at, expires_at)

    def expires_at(self, partition: str) -> float:
        """When the partition is cleared; 0.0 for one that is empty."""
        one = self._partitions.get(partition)
        return one.expires_at if one is not None else 0.0

    def after(self, partition: str, number: int, count: int) -> list[Item]:
        """Up to `count` items with numbers above `number`, in place."""
        one = self._partitions.get(partition)
        if one is None:
            return []
        if number < one.items[0].number:
            return list(islice(one.items, count))
        return list(islice((item for item in one.items if item.number > number), count))

    def length(self, partition: str) -> int:
        """Items of a partition."""
        one = self._partitions.get(partition)
        return len(one.items) if one is not None else 0

    def total(self) -> int:
        """Items of all partitions."""
        return sum(len(one.items) for one in self._partitions.values())

    def clear(self, partition: str) -> None:
        """Remove all items of a partition."""
        self._partitions.pop(partition, None)

    def clear_all(self) -> None:
        """Remove all items."""
        self._partitions.clear()
