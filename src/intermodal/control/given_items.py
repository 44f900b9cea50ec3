"""What gets were given, for as long as it may be given back. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_GIVEN = 20_000  # items that are remembered; of one get all


@dataclass(slots=True)
class Given:
    """What a get was given."""

    queue_id: str
    partition: str
    numbers: list[int]
    expires_at: float  #: of the partition, in seconds since the epoch


class GivenItems:
    """What the latest gets were given, by the keys of their replies."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[tuple[object, ...], Given] = OrderedDict()  # latest last
        self._items = 0

    def remember(self, key: tuple[object, ...], given: Given) -> None:
        """Until enough was given since."""
        self.forget(key)
        self._by_key[key] = given
        self._items += len(given.numbers)
        while self._items > _GIVEN and len(self._by_key) > 1:
            self._items -= len(self._by_key.popitem(last=False)[1].numbers)

    def find(self, key: tuple[object, ...], queue_id: str, partition: str, count: int) -> Given | None:
        """What a get of this partition was given, if that were so many items at least."""
        given = self._by_key.get(key)
        if given is None or (given.queue_id, given.partition) != (queue_id, partition):
            return None
        return given if 0 < count <= len(given.numbers) else None

    def forget(self, key: tuple[object, ...]) -> None:
        """It was given back."""
        given = self._by_key.pop(key, None)
        if given is not None:
            self._items -= len(given.numbers)
