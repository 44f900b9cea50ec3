"""The output of a container: two pipes, read to the end before its exit is reported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.log_reader import LogReader
from modal._wire.messages.app import LogStream

#: Seconds after the end of a container in which the last of its output must have been read.
_DRAIN_TIMEOUT = 10.0


class LogsHook(Hook):
    """Sets `container.stdout` and `stderr`; passes on what comes out, with the time."""

    def __init__(self, sink: Callable[[str, LogStream, str, float], None]) -> None:
        self._sink = sink
        self._readers: dict[str, dict[LogStream, LogReader]] = {}
        self._pipes: dict[str, list[tuple[LogStream, int]]] = {}

    async def prepare(self, container: Container) -> None:
        pipes = self._pipes[container.id] = []
        for stream in (LogStream.STDOUT, LogStream.STDERR):
            reading, writing = os.pipe()
            pipes.append((stream, reading))
            if stream is LogStream.STDOUT:
                container.stdout = writing
            else:
                container.stderr = writing

    async def started(self, container: Container) -> None:
        _close_writing_ends(container)
        readers = self._readers[container.id] = {}
        for stream, descriptor in self._pipes.pop(container.id):
            readers[stream] = LogReader(descriptor, self._sink_for(container.id, stream))

    async def exited(self, container: Container) -> None:
        readers = self._readers.get(container.id, {})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(reader.ended() for reader in readers.values())), _DRAIN_TIMEOUT)
        if LogStream.STDERR in readers:
            container.stderr_tail = readers[LogStream.STDERR].tail

    async def release(self, container: Container) -> None:
        _close_writing_ends(container)
        for _, descriptor in self._pipes.pop(container.id, []):
            os.close(descriptor)
        for reader in self._readers.pop(container.id, {}).values():
            reader.close()

    def _sink_for(self, container_id: str, stream: LogStream) -> Callable[[str], None]:
        return lambda text: self._sink(container_id, stream, text, time.time())


def _close_writing_ends(container: Container) -> None:
    for descriptor in (container.stdout, container.stderr):
        if descriptor >= 0:
            os.close(descriptor)
    container.stdout = container.stderr = -1
