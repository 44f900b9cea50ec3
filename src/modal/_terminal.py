"""This process's terminal, or whatever its standard streams are, connected with a program elsewhere.

Runs on the SDK's event loop and never blocks it: a descriptor is read when it has something, and written a little at a
time when it takes it. So a slow reader here slows the program down, and nothing piles up in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Coroutine, Iterator
from typing import Any, Optional

from ._wire.endpoint import MessageStream
from ._wire.messages.terminal import OutputStream, TerminalInput, TerminalOutput, WindowSize

_CHUNK = 32 * 1024  #: bytes read at a time
_WRITE = 4096  #: bytes that a writable pipe or terminal takes without blocking (PIPE_BUF)
#: Seconds between looks at the window's size. (Only the main thread can get SIGWINCH, and it may be in user code.)
_WINDOW_EVERY = 0.2
_DESCRIPTORS = {OutputStream.STDOUT: 1, OutputStream.STDERR: 2}
_DEFAULT_WINDOW = WindowSize(24, 80)

Stream = MessageStream[TerminalInput, TerminalOutput]


def is_terminal() -> bool:
    """Whether a person sits here: stdin and stdout are a terminal."""
    return os.isatty(0) and os.isatty(1)


def window_size() -> WindowSize:
    """The size of this process's terminal; 24 rows of 80 when it has none."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.lines and size.columns:
                return WindowSize(size.lines, size.columns)
    return _DEFAULT_WINDOW


@contextlib.contextmanager
def raw_mode() -> Iterator[None]:
    """Pass every key on as it is, Ctrl-C included, inside the `with` block. No effect when stdin is no terminal."""
    if not os.isatty(0):
        yield
        return
    import atexit
    import termios
    import tty

    before = termios.tcgetattr(0)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(0, termios.TCSANOW, before)

    atexit.register(restore)  # a shell is no fun in raw mode
    tty.setraw(0, termios.TCSANOW)
    try:
        yield
    finally:
        restore()
        atexit.unregister(restore)


async def connect(stream: Stream, window: Optional[WindowSize]) -> Optional[TerminalOutput]:
    """Pass stdin to the program and its output to stdout and stderr until the program closes the stream.

    Returns its last message, when that says how it ended.

    Args:
        stream: the program.
        window: the size that its terminal has been given; None when it has pipes.

    Raises:
        ConnectionError: the connection was lost.
        BrokenPipeError: who reads our output has gone.
    """
    others: list[Coroutine[Any, Any, None]] = [_send_input(stream)]
    if window is not None:
        others.append(_send_window(stream, window))
    tasks = [asyncio.ensure_future(one) for one in others]
    last = b"\n"
    try:
        async for message, data in stream:
            if data:
                last = data
                await write_all(_DESCRIPTORS[message.stream], data)
            if message.exit_code is not None:
                return message
        if not last.endswith(b"\n") and os.isatty(1):
            await write_all(1, b"\r\n")  # this process goes on, on a line of its own
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_input(stream: Stream) -> None:
    while data := await read_some(0):
        await stream.send(TerminalInput(), data)
    await stream.send(TerminalInput(eof=True))


async def _send_window(stream: Stream, window: WindowSize) -> None:
    while True:
        await asyncio.sleep(_WINDOW_EVERY)
        if window != (window := window_size()):
            await stream.send(TerminalInput(window))


async def read_some(descriptor: int) -> bytes:
    """Wait until there is something to read, and return it; b"" at the end."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, _set, readable)
    except OSError:  # a file, which is always readable, or nothing at all
        await asyncio.sleep(0)
    else:
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:  # closed, or a terminal that is gone
        return b""


async def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting while the other side does not read. Raises BrokenPipeError when it has gone."""
    view = memoryview(data)
    while view:
        await _until_writable(descriptor)
        try:
            view = view[os.write(descriptor, view[:_WRITE]) :]
        except BlockingIOError:  # someone has made it non-blocking
            await asyncio.sleep(0.01)


async def _until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _set, writable)
    try:
        await writable
    finally:
        loop.remove_writer(descriptor)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
