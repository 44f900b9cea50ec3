"""Writes that wait while someone else has the terminal. Bounded: of a flood the end is kept."""

from __future__ import annotations

from collections import deque
from typing import Any

LIMIT = 4 << 20  #: characters


class HeldWrites:
    """Keeps (stream, text) pairs in order."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._writes: deque[tuple[Any, str]] = deque()
        self._size = 0
        self._dropped = 0

    def add(self, stream: Any, text: str) -> None:
        """Keep a write; the oldest ones give way when there are too many."""
        self._writes.append((stream, text))
        self._size += len(text)
        while self._size > self._limit and len(self._writes) > 1:
            size = len(self._writes.popleft()[1])
            self._size -= size
            self._dropped += size

    def take(self) -> list[tuple[Any, str]]:
        """Return the writes and forget them; the first one says what was dropped."""
        writes = list(self._writes)
        if self._dropped:
            writes.insert(0, (writes[0][0], f"[{self._dropped} characters of output were not kept]\n"))
        self.__init__(self._limit)  # type: ignore[misc]
        return writes
