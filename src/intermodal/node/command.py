"""A command in a container: its input and output as the server passes them on, never more than a chunk in memory."""

from __future__ import annotations

import asyncio
import os
import termios
from typing import Any

from intermodal.runtimes.exec_process import ExecProcess
from modal._wire.messages.terminal import OutputStream, WindowSize

CHUNK = 64 * 1024  #: bytes read at a time
#: What it left behind may keep its output open. After its end, what is there is read: until nothing has come for so
#: many seconds, and at most so many bytes, since what was left behind may write for ever.
_LINGER, _LINGER_BYTES = 0.25, 4 * 1024 * 1024
_STREAMS = (OutputStream.STDOUT, OutputStream.STDERR)


class RunningCommand:
    """An `Exec` (see the interface)."""

    def __init__(self, process: ExecProcess) -> None:
        self._process = process
        self._outputs = dict(zip(_STREAMS, process.outputs))
        self._left = _LINGER_BYTES
        self._stdin_open = True
        self._closed = False

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        return tuple(self._outputs)

    async def read(self, stream: OutputStream) -> bytes:
        descriptor = self._outputs[stream]
        while not self._closed:
            try:
                data = os.read(descriptor, CHUNK)
            except BlockingIOError:
                if not await self._is_readable(descriptor):
                    break
                continue
            except OSError:  # EIO: nobody has the terminal open any more
                break
            if self._process.ended.done():
                self._left -= len(data)
            return data if self._left > 0 else b""
        return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._stdin_open and not self._closed:
            try:
                view = view[os.write(self._process.stdin, view) :]
            except BlockingIOError:
                await self._until_writable()
            except OSError:  # it has closed its input, or ended
                return

    async def end_input(self) -> None:
        if not self._stdin_open:
            return
        if self._process.has_terminal:
            await self.write(_end_of_file(self._process.stdin))
        else:
            self._stdin_open = False
            self._process.close_stdin()

    def resize(self, window: WindowSize) -> None:
        if not self._closed:
            self._process.resize(window)

    async def wait(self) -> int:
        await asyncio.shield(self._process.ended)
        return self._process.exit_code

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._process.ended.done():
            self._process.kill()
        self._process.close()

    async def _is_readable(self, descriptor: int) -> bool:
        """Wait until there is something to read; False when the command has ended and nothing more has come."""
        loop, ended = asyncio.get_running_loop(), self._process.ended
        readable: asyncio.Future[Any] = loop.create_future()
        loop.add_reader(descriptor, _set, readable)
        try:
            if ended.done():
                await asyncio.wait([readable], timeout=_LINGER)
                return readable.done()
            await asyncio.wait([readable, ended], return_when=asyncio.FIRST_COMPLETED)
            return True
        finally:
            loop.remove_reader(descriptor)

    async def _until_writable(self) -> None:
        loop, stdin = asyncio.get_running_loop(), self._process.stdin
        writable: asyncio.Future[Any] = loop.create_future()
        loop.add_writer(stdin, _set, writable)
        try:
            await asyncio.wait([writable, self._process.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(stdin)


def _set(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def _end_of_file(terminal: int) -> bytes:
    """The character by which the terminal says that input ends, as its program has set it."""
    character = termios.tcgetattr(terminal)[6][termios.VEOF]
    assert isinstance(character, bytes)
    return character
