"""The scheduler: events in, instructions out."""

from __future__ import annotations

from collections.abc import Iterator

from .events import Event
from .instructions import Instruction


class Scheduler:
    """Decides how many containers each function has, where they run, and which input runs next.

    Args:
        ids: an endless supply of fresh container ids.
    """

    def __init__(self, ids: Iterator[str]) -> None:
        self._ids = ids

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in one event and return what to do about it, in order.

        Args:
            event: what happened.
            now: seconds on a clock that never goes back.
        """
        raise NotImplementedError(f"{event} at {now}")
