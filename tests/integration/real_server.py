"""A whole server in a thread of this process, with containers as plain processes, for tests that use the public API."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from intermodal.daemon import running
from intermodal.settings import Settings

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
T = TypeVar("T")


class RealServer:
    """Serves from entry to exit."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        chosen = {"port": -1, "runtime": "mock", "builder": "memory", "database_url": "memory://", "session_grace": 0.2}
        self.settings = Settings(data_dir=folder / "data", **{**chosen, **settings})
        self.settings.run_dir.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return f"unix://{self.settings.socket}"

    def __enter__(self) -> RealServer:
        self._thread.start()
        self._do(self._stack.enter_async_context(running(self.settings)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Its event loop does nothing while the block runs."""
        begun, over = threading.Event(), threading.Event()

        def halt() -> None:
            begun.set()
            over.wait(60)

        self._loop.call_soon_threadsafe(halt)
        assert begun.wait(20)
        try:
            yield
        finally:
            over.set()

    def _do(self, work: Any) -> Any:
        async def wrapped() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(60)


def until(holds: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Wait until `holds()` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return value
