"""What one generator call has yielded and nobody can need again is dropped; the rest is kept to be sent (again).

A connection that breaks loses what was under way on it, at most one flow-control window and one value. That much is
kept behind the furthest reader, so that a follower who comes back gets every value once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from modal._wire.connection import WINDOW
from modal._wire.messages.blob import BlobRef

_FRAME = 32  # bytes that a value's frame has beside the value, at least
CREDIT_EVERY = 16  #: values between two grants to the generator


@dataclass(frozen=True, slots=True)
class Payload:
    """Pickled bytes, inline or in the blob store."""

    data: bytes
    blob: BlobRef | None = None


@dataclass(slots=True)
class GeneratorValues:
    """Values by position, from `first` on."""

    first: int = 0  #: position of the oldest value kept
    sent: int = 0  #: values that the furthest follower was sent
    is_lost: bool = False  #: they were given out by a server that has ended since
    weight: int = 0  #: bytes kept
    _kept: deque[Payload] = field(default_factory=deque)
    _sent_weight: int = 0
    _followers: list[asyncio.Event] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many values there have been."""
        return self.first + len(self._kept)

    def append(self, payload: Payload) -> None:
        self._kept.append(payload)
        self.weight += _weight(payload)
        self.wake()

    def at(self, position: int) -> Payload:
        """The value at a position from `first` to before `total`."""
        return self._kept[position - self.first]

    def was_sent(self, position: int) -> int:
        """A follower was sent the value at `position`; returns how many more the generator may make now."""
        if position < self.sent:
            return 0
        self.sent = position + 1
        self._sent_weight += _weight(self.at(position))
        newest = _weight(self.at(position))
        while self.first < position and self._sent_weight - newest - _weight(self._kept[0]) >= WINDOW:
            gone = _weight(self._kept.popleft())
            self.first += 1
            self.weight -= gone
            self._sent_weight -= gone
        return CREDIT_EVERY if self.sent % CREDIT_EVERY == 0 else 0

    def follow(self) -> asyncio.Event:
        """An event that is set when there is something new, until `unfollow`."""
        event = asyncio.Event()
        self._followers.append(event)
        return event

    def unfollow(self, event: asyncio.Event) -> None:
        self._followers.remove(event)

    def wake(self) -> None:
        for event in self._followers:
            event.set()


def _weight(payload: Payload) -> int:
    return len(payload.data) + _FRAME
