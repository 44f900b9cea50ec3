"""The output of one app: numbered, kept, and handed to whoever watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from intermodal.store.interface import LogChunk, Store
from modal._wire.messages.app import LogEntry, LogStream

RECENT = 20_000  # entries kept in memory per app; older ones are read from the store
_NEVER_STORED = 1_000_000  # numbers left out after a restart
_STORE_EVERY = 0.05  # seconds over which entries are gathered into one write


class AppLog:
    """Append entries, read them from any point on.

    Args:
        app_id: whose output it is.
        store: where entries are kept.
        notify: called after entries were added.
        last_stored: the number of the last entry that an earlier server stored; None: there was none.
    """

    def __init__(self, app_id: str, store: Store, notify: Callable[[], None], last_stored: int | None = None) -> None:
        self._app_id = app_id
        self._store = store
        self._notify = notify
        self._recent: deque[LogEntry] = deque(maxlen=RECENT)
        self._unstored: list[LogEntry] = []
        self._timer: asyncio.TimerHandle | None = None
        # A server that died had shown entries which it had not stored yet: their numbers are not given again.
        self.last_seq = 0 if last_stored is None else last_stored + _NEVER_STORED
        self._first = self.last_seq + 1

    def append(
        self, at: float, stream: LogStream, text: str, function_id: str = "", container_id: str = "", input_id: str = ""
    ) -> None:
        self.last_seq += 1
        entry = LogEntry(self.last_seq, at, stream, text, function_id, container_id, input_id)
        self._recent.append(entry)
        self._unstored.append(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_STORE_EVERY, self.flush)
        self._notify()

    def flush(self) -> None:
        """Hand what was gathered to the store."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unstored:
            self._store.write([LogChunk(self._app_id, self._unstored)])
            self._unstored = []

    async def read(self, after: int, limit: int) -> list[LogEntry]:
        """Entries with `seq` above `after`, oldest first, at most `limit`."""
        if after >= self.last_seq:
            return []
        oldest = self._recent[0].seq if self._recent else self.last_seq + 1
        if after + 1 < oldest:
            self.flush()
            entries = await self._store.logs(self._app_id, after, limit)
            oldest = self._recent[0].seq if self._recent else self.last_seq + 1
            if entries or oldest > self._first:
                return entries
        start = max(0, after + 1 - oldest)
        return [self._recent[index] for index in range(start, min(start + limit, len(self._recent)))]
