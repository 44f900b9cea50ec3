"""Reads a container's output from a pipe, to the last byte."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Callable

#: Bytes read at a time. Between reads other containers get their turn; what is not read yet waits in the pipe, and when
#: that is full, the container waits: that is the back-pressure.
CHUNK = 64 * 1024
_TAIL = 2048


class LogReader:
    """Passes what comes out of `descriptor` to `sink` as text, until its end. Takes over the descriptor."""

    def __init__(self, descriptor: int, sink: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._sink = sink
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.tail = ""  #: the end of what was read
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    async def ended(self) -> None:
        """Return when everything has been passed on and no process can write any more."""
        await asyncio.shield(self._ended)

    def close(self) -> None:
        """Stop reading, whatever is left. Idempotent."""
        if not self._ended.done():
            self._finish()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        text = self._decoder.decode(data, final=not data)
        if text:
            self.tail = (self.tail + text)[-_TAIL:]
            self._sink(text)
        if not data:
            self._finish()

    def _finish(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._ended.set_result(None)
