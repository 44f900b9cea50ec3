"""Deletes the files of deleted objects beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ParamSpec

log = logging.getLogger(__name__)
P = ParamSpec("P")


class FileDeletion:
    """What is being deleted. What fails is logged; services try it again when the server starts next."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def start(self, delete: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `delete` in a thread."""
        task = asyncio.ensure_future(asyncio.to_thread(delete, *args, **kwargs))
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("files could not be deleted: %s", error)
