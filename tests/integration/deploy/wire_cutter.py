"""A relay between clients and a server whose wire can be cut, cleanly or without a word."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any, Optional


class WireCutter:
    """Listens where clients connect, and carries bytes to the server and back.

    Args:
        target: a path of a Unix socket, or (host, port).
        path: where to listen; None: on a TCP port of its own.
    """

    def __init__(self, target: Path | tuple[str, int], path: Optional[Path] = None) -> None:
        self._target = target
        self._path = path
        self._listener: Any = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._carries = asyncio.Event()
        self._carries.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> WireCutter:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        if self._path is not None:
            return f"unix://{self._path}"
        return f"http://127.0.0.1:{self._port}"

    def cut(self) -> None:
        """Break every connection, and accept none from now on."""
        self._do(self._break())

    def mend(self) -> None:
        """Accept connections again."""
        self._do(self._listen())

    def fall_silent(self) -> None:
        """Carry nothing any more, in neither direction, and say nothing about it."""
        self._loop.call_soon_threadsafe(self._carries.clear)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._listener = await asyncio.start_unix_server(self._carry, self._path)
        else:
            self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def _break(self) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        await self._break()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, Path):
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        else:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._carries.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
