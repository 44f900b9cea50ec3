"""Deletes what has been kept for long enough: results, logs, what stopped apps consisted of, and files nobody needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from intermodal.blobs.interface import BlobStore
from intermodal.control.calls import Calls
from intermodal.control.mount_service import MountService
from intermodal.control.tokens import Tokens
from intermodal.store.interface import Store
from modal.exception import Error

log = logging.getLogger(__name__)
_EVERY = 3600.0  # seconds between two sweeps, at most
_UPLOAD_GRACE = 24 * 3600.0  # seconds from the upload of a file to the last use that nothing refers to, as in a build
_REMEMBER = 10.0  # times the retention: how long it is known that an expired call has existed


class Expiring(Protocol):
    """Something whose content expires by itself."""

    async def expire(self) -> None:
        """Delete what is due. Raises StoreError."""


class Retention:
    """Sweeps from time to time.

    Args:
        retention: seconds results are kept.
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        calls: Calls,
        mounts: MountService,
        holders: Sequence[Expiring],
        blobs: BlobStore,
        tokens: Tokens,
        retention: float,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._calls = calls
        self._mounts = mounts
        self._holders = holders
        self._blobs = blobs
        self._tokens = tokens
        self._retention = retention
        self._now = now
        self._started = now()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except (Error, OSError) as error:
                log.error("what has expired could not be deleted: %s", error)
            await asyncio.sleep(min(_EVERY, self._retention))

    async def sweep(self) -> None:
        """Delete what is due now.

        Raises:
            StoreError: the database failed; nothing that is needed was deleted.
        """
        now = self._now()
        # A file may be uploaded before anything refers to it, and a mount made before its function.
        settled = now - min(_UPLOAD_GRACE, self._retention)
        gone = await self._store.expire(now - self._retention, now - self._retention * _REMEMBER)
        self._calls.expire(now - self._retention)
        self._tokens.forget(now - self._retention)
        for holder in self._holders:
            await holder.expire()
        unused: list[str] = []
        if self._started < settled:  # else mounts may be in use that were asked for before this server started
            unused = await self._store.drop_mounts(self._mounts.used_since(settled))
            self._mounts.forget(unused)
        files = await self._blobs.sweep(await self._store.digests(), settled)
        if gone or files:
            log.info("deleted %d expired calls, %d mounts and %d files", gone, len(unused), files)
