"""A store whose disk fills up on request, for tests of everything above."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from intermodal.store.entries import EntryChange
from intermodal.store.front_journal import KeptReply
from intermodal.store.interface import Change, StoreError
from intermodal.store.memory import MemoryStore


class FailingStore(MemoryStore):
    """`intermodal.store.interface.Store` in memory. From `fail` to `recover`, writes fail and are kept."""

    def __init__(self) -> None:
        super().__init__()
        self._failure = ""
        self._kept: list[Change] = []

    def fail(self, failure: str) -> None:
        """From now on every write fails with this sentence."""
        self._failure = failure

    def recover(self) -> None:
        """Writes succeed again; those that failed are made up for, in order."""
        self._failure = ""
        kept, self._kept = self._kept, []
        super().write(kept)

    def write(self, changes: Sequence[Change]) -> Awaitable[None]:
        if not self._failure:
            return super().write(changes)
        self._kept.extend(changes)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_exception(StoreError(self._failure))
        done.exception()  # a caller that does not wait must not cause a warning
        return done

    def write_now(self, changes: Sequence[EntryChange], reply: KeptReply | None = None) -> None:
        if self._failure:
            raise StoreError(self._failure)
        super().write_now(changes, reply)

    def healthy(self) -> str:
        return self._failure
