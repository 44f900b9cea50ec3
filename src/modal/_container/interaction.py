"""`modal.interact()` inside the container: its standard streams become the terminal of whoever runs the app.

The process gets a pseudo-terminal as descriptors 0, 1 and 2, and, where it can, as its controlling terminal, so that
keys such as Ctrl-C become signals. A task on the SDK's event loop carries bytes between that terminal and the server.
A session lasts until the input that asked for it has ended, or until the client is gone: then the old descriptors are
back, and who still waits for a key reads the end of input.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import signal
import struct
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any, Optional

from modal import _event_loop
from modal._objects.client import default_client
from modal._runtime_context import container_context, current_input_id
from modal._wire.messages.terminal import INTERACT_OFFER, InteractOffer, TerminalInput, TerminalOutput, WindowSize
from modal.exception import InvalidError

from . import shell as shells
from . import streams

if TYPE_CHECKING:
    from modal._wire.client import RpcClient
    from modal._wire.endpoint import MessageStream

    Stream = MessageStream[TerminalOutput, TerminalInput]

_CHUNK = 32 * 1024  #: bytes read at a time
_QUIET = 0.2  #: seconds after which nothing more is expected from a terminal that other processes hold open
_LAST_OUTPUT = 10.0  #: seconds that the client may take to show the last output before the input's end goes on
_STANDARD = (0, 1, 2)
_begin_lock = threading.Lock()


def begin() -> None:
    """Connect this container to the user's terminal, unless it is.

    Raises:
        InvalidError: this is no container, or its app does not run interactively.
        InteractiveTimeoutError: no terminal was connected in time.
    """
    context, shell = container_context(), shells.current
    if context is None or shell is None:
        raise InvalidError(
            "modal.interact() connects a container to your terminal; this code runs in your own process, which has it."
        )
    with _begin_lock:
        if shell.session is None:
            Session(shell).open()


def breakpointhook(*args: Any, **kwargs: Any) -> Any:
    """What `breakpoint()` does in a container of an interactive app: connect, then debug."""
    begin()
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **kwargs)
    import pdb

    # Our own frames, which called the user's function, are not what is to be debugged.
    debugger = pdb.Pdb(skip=["modal._container.*"])
    if kwargs.get("header") is not None:
        debugger.message(kwargs["header"])
    debugger.set_trace(sys._getframe(2))  # past the hook
    return None


class Session:
    """The container's connection to a terminal."""

    def __init__(self, shell: shells.Shell) -> None:
        self._shell = shell
        self.owner = current_input_id()  #: None: code that runs outside of inputs, such as that of a module
        self.thread = threading.get_ident()
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        self._saved: list[int] = []
        self._task: Optional[asyncio.Task[None]] = None
        self._ending: Optional[asyncio.Event] = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    # -- in the thread of user code

    def open(self) -> None:
        """Wait for the terminal, and take over the standard streams."""
        self._shell.hold_time()
        try:
            _event_loop.run(self._connect())
        except BaseException:
            self._shell.release_time()
            os.close(self._slave)
            if self._task is None:
                os.close(self._master)
            else:
                self._over.wait(_LAST_OUTPUT)
            raise
        with self._lock:
            if self._over.is_set():  # the client has gone in this moment
                os.close(self._slave)
                return
            self._take_streams()
            self._shell.session = self

    def end(self) -> None:
        """What asked for the terminal has ended: show its last output and let go. Returns when the client has it."""
        sys.settrace(None)
        streams.flush()
        self._give_back()
        ending = self._ending
        if ending is not None:
            loop = _event_loop.the_loop()
            loop.call_soon_threadsafe(ending.set)
            if not self._over.wait(_LAST_OUTPUT) and self._task is not None:
                loop.call_soon_threadsafe(self._task.cancel)

    def _take_streams(self) -> None:
        streams.flush()
        self._saved = [os.dup(descriptor) for descriptor in _STANDARD]
        for descriptor in self._saved:
            os.set_inheritable(descriptor, False)
        _become_controlled_by(self._slave)
        for descriptor in _STANDARD:
            os.dup2(self._slave, descriptor)
        os.close(self._slave)
        raw = io.BufferedReader(io.FileIO(0, "rb", closefd=False))
        sys.stdin = sys.__stdin__ = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape")  # type: ignore[misc]

    def _give_back(self) -> None:
        """Put the old streams in their places. In whatever thread notices first that it is over."""
        with self._lock:
            saved, self._saved = self._saved, []
            for descriptor, old in zip(_STANDARD, saved):
                os.dup2(old, descriptor)
                os.close(old)
            if saved:
                self._shell.session = None
                self._shell.release_time()

    # -- on the event loop of the SDK

    async def _connect(self) -> None:
        connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()
        rpc = await default_client()._rpc()
        self._task = asyncio.ensure_future(self._relay(rpc, connected))
        try:
            await connected
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    async def _relay(self, rpc: RpcClient, connected: asyncio.Future[None]) -> None:
        sender: Optional[asyncio.Future[None]] = None
        try:
            async with rpc.stream(INTERACT_OFFER, InteractOffer(self.owner or "")) as stream:
                async for message, data in stream:
                    if message.window is not None:
                        _set_window(self._master, message.window)
                    if not connected.done():
                        connected.set_result(None)
                        sender = asyncio.ensure_future(self._send_output(stream))
                    if data or message.eof:
                        await self._type(data + (_end_of_file(self._master) if message.eof else b""))
        except Exception as error:
            if not connected.done():
                connected.set_exception(error)
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            self._give_back()
            self._over.set()
            os.close(self._master)

    async def _send_output(self, stream: Stream) -> None:
        while data := await self._read():
            await stream.send(TerminalOutput(), data)
        await stream.end()

    async def _read(self) -> bytes:
        assert self._ending is not None
        while True:
            try:
                return os.read(self._master, _CHUNK)
            except BlockingIOError:
                pass
            except OSError:  # EIO: nobody has the terminal open any more
                if self._ending.is_set():
                    return b""
                await asyncio.sleep(_QUIET)  # user code has closed its streams; it may open the terminal again
                continue
            if not await self._is_readable():
                return b""

    async def _is_readable(self) -> bool:
        """Wait for output; False when the session ends and there is none."""
        assert self._ending is not None
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._master, readable.set)
        waits = [asyncio.ensure_future(readable.wait()), asyncio.ensure_future(self._ending.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not readable.is_set():
                await asyncio.wait(waits[:1], timeout=_QUIET)
            return readable.is_set()
        finally:
            loop.remove_reader(self._master)
            for wait in waits:
                wait.cancel()

    async def _type(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._master, view) :]
            except BlockingIOError:  # nobody reads what is typed
                await asyncio.sleep(0.05)
            except OSError:
                return


def _ignore_hang_up(number: int, frame: Any) -> None:
    """The handler of SIGHUP, which comes when the terminal goes."""


def _become_controlled_by(terminal: int) -> None:
    """Make `terminal` the one whose keys become signals to this process."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # it would end the container
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGHUP, _ignore_hang_up)
    with contextlib.suppress(OSError):  # it leads a session already
        os.setsid()
    with contextlib.suppress(OSError):  # user code has chosen another
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _set_window(terminal: int, window: WindowSize) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", window.rows, window.columns, 0, 0))


def _end_of_file(terminal: int) -> bytes:
    character = termios.tcgetattr(terminal)[6][termios.VEOF]
    return character if isinstance(character, bytes) else b"\x04"
