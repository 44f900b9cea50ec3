"""Direct calls: a function that is called again and again is called over a line of its own to one of its containers.

The calling thread writes the input and reads the result itself: two wake-ups, where the usual way has six, through the
client's event loop, the server and back. Only what is simple goes this way: blocking `remote` calls of a client on the
server's machine, with small arguments and results, one at a time. Whatever else happens (the call takes longer than
some milliseconds, fails, the container ends, Ctrl-C), the server is asked, which knows of the call by then, or learns
of it by being asked.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
import weakref
from collections.abc import Coroutine
from typing import Any, Callable, Optional

from .. import _event_loop
from .._signals import is_from_handler
from .._sync import on_loop
from .._wire.client import RpcClient
from .._wire.codec import decode, encode
from .._wire.errors import WireError
from .._wire.frames import READ_SIZE, FrameDecoder, length_prefixed, pack, unpack
from .._wire.messages.call import (
    CALL_DIRECT,
    CALL_RUN,
    DIRECT_LIMIT,
    CallDirect,
    CallRun,
    DirectLine,
    Input,
    Output,
    Status,
)
from .._wire.messages.runner import Outputs, RunInput, RunInputs
from ..exception import Error
from .payload import fetch

Answer = tuple[Output, bytes]
Run = Callable[[bytes], Coroutine[Any, Any, Answer]]
GetClient = Callable[[], Coroutine[Any, Any, RpcClient]]

_QUICK = 0.02  #: seconds; a line is worth having for calls that take less
_FIRST_ASK = 2  #: quick calls in a row after which a line is asked for
_LAST_ASK = 4096  #: as many when lines have been of no use again and again
_USEFUL = 64  #: answers that make a line one that was of use
_RETURNED_LIMIT = 3  #: calls in a row that take too long, or fail; then the line is of no use
_CONNECT_LIMIT = 2.0  #: seconds
_ANSWER_LIMIT = 0.05  #: seconds; the container says long before that it will take longer
_FRAME_LIMIT = DIRECT_LIMIT + 64 * 1024
_TIMEVAL = struct.pack("ll", 0, int(_ANSWER_LIMIT * 1e6))


class DirectPath:
    """How one function is called directly, and when. `call` may be used by many threads."""

    def __init__(self, function_id: str, method: str = "") -> None:
        self.function_id = function_id
        self._method = method  #: of a class
        self.generation = _event_loop.generation
        self._line: Optional[_Line] = None
        self._in_use = threading.Lock()
        self._asking = False
        self._quick = 0  #: calls in a row, the usual way
        self._ask_after = _FIRST_ASK
        self._closed = False

    async def call(self, payload: bytes, run: Run, rpc: GetClient) -> Answer:
        """Run one input; in the caller's thread, which blocks.

        Args:
            payload: its pickled arguments.
            run: the usual way.
            rpc: gets the connection to the server.
        """
        if self._line is None or len(payload) > DIRECT_LIMIT or not self._in_use.acquire(blocking=False):
            return await on_loop(self._usual(payload, run, rpc))
        line, answer, sent = self._line, None, None
        try:
            try:
                answer = line.ask(payload, self._method) if line is not None else None
            finally:
                if line is not None:
                    sent = line.sent
                    if not line.is_good or self._closed:
                        self._drop(line)
                self._in_use.release()
            if answer is not None:
                return answer
            if line is not None and sent is not None:
                return await on_loop(self._result(line.client, payload, sent))
        except BaseException as error:
            is_interrupted = not isinstance(error, Error) or is_from_handler(error)  # by Ctrl-C, for instance
            if line is not None and sent is not None and is_interrupted:
                await on_loop(_cancelled(self._result(line.client, payload, sent)))
            raise
        return await on_loop(self._usual(payload, run, rpc))  # it did not begin

    def close(self) -> None:
        """The app has ended, or this process is a fork of the one whose line it is."""
        self._closed = True
        line, self._line = self._line, None
        if line is None:
            return
        if self.generation != _event_loop.generation:
            line.close()
        elif self._in_use.acquire(blocking=False):
            line.close()
            self._in_use.release()
        else:
            line.hang_up()  # who waits there closes it

    def _drop(self, line: _Line) -> None:
        """The line is of no use any more. The less use it was, the later the next is asked for."""
        line.close()
        if self._line is not line:
            return
        self._line = None
        self._quick = 0
        self._ask_after = _FIRST_ASK if line.answered >= _USEFUL else min(2 * self._ask_after, _LAST_ASK)

    # -- on the loop

    async def _result(self, client: RpcClient, payload: bytes, sent: tuple[str, str]) -> Answer:
        """The result of an input that was sent over a line, from the server."""
        request = CallRun(self.function_id, Input(0, len(payload)), "", self._method, *sent)
        output, data = await client.unary(CALL_RUN, request, payload)
        return output, await fetch(client, output.blob, data)

    async def _usual(self, payload: bytes, run: Run, rpc: GetClient) -> Answer:
        began = time.monotonic()
        answer = await run(payload)
        if self._line is not None or self._asking or self._closed:
            return answer
        is_quick = time.monotonic() - began < _QUICK and answer[0].status is Status.SUCCESS
        self._quick = self._quick + 1 if is_quick else 0
        if self._quick >= self._ask_after:
            self._asking = True
            task = asyncio.ensure_future(self._ask(rpc))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return answer

    async def _ask(self, rpc: GetClient) -> None:
        line = None
        try:
            client = await rpc()
            if client.target.startswith("unix://"):
                offer, _ = await client.unary(CALL_DIRECT, CallDirect(self.function_id))
                line = await asyncio.wait_for(_connect(client, offer), _CONNECT_LIMIT) if offer.path else None
        except (Error, OSError, asyncio.TimeoutError):
            line = None
        finally:
            self._asking = False
        if line is not None and not self._closed:
            self._line = line
            return
        if line is not None:
            line.close()
        self._quick = 0
        self._ask_after = min(2 * self._ask_after, _LAST_ASK)


class _Line:
    """A connection to a container, used by one thread at a time. What comes over it is not to be trusted."""

    def __init__(self, client: RpcClient, connection: socket.socket, offer: DirectLine) -> None:
        weakref.finalize(self, connection.close)  # nobody says when a function that was looked up is used no more
        self.client = client  #: of the server that it came from
        self.answered = 0
        self.is_good = True  #: worth using again
        self.sent: Optional[tuple[str, str]] = None  #: ids of a call that has no answer, and of this line
        self._line_id = offer.line_id
        self._socket = connection
        self._prefix = offer.prefix
        self._count = 0
        self._input_id = ""
        self._returned = 0  #: calls in a row that the container gave to the server
        self._decoder = FrameDecoder(_FRAME_LIMIT)
        # The kernel's time limits: Python's cost a further system call each time.
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)

    def ask(self, payload: bytes, method: str) -> Optional[Answer]:
        """Send an input and wait for its result; None when there is none here.

        Unless `sent` is None then, the server is to be asked for it.
        """
        self.is_good, self.sent = False, None  # until proved otherwise
        if not self._send(payload, method):
            return None
        answer = self._receive()
        if answer is not None:
            self.is_good, self.sent = True, None
        return answer

    def _send(self, payload: bytes, method: str) -> bool:
        self._count += 1
        call_id = f"{self._prefix}{self._count:08d}"
        self._input_id = f"in-{call_id[3:]}-0"
        message = RunInputs([RunInput(self._input_id, call_id, len(payload), method=method)])
        frame = length_prefixed(pack({"t": "RunInputs", **encode(message)}, payload))
        self.sent = (call_id, self._line_id)
        try:
            self._socket.sendall(frame)
        except OSError as error:
            if is_from_handler(error):
                raise
            self.sent = None  # the container's end is closed: it has not got the whole frame
        return self.sent is not None

    def _receive(self) -> Optional[Answer]:
        deadline = time.monotonic() + _ANSWER_LIMIT
        try:
            while True:
                data = self._socket.recv(READ_SIZE)
                frames = self._decoder.feed(data)
                if len(frames) == 1:
                    return self._answer(frames[0])
                if frames or not data or time.monotonic() > deadline:
                    return None
        except (OSError, WireError) as error:
            if is_from_handler(error):
                raise
            if isinstance(error, ConnectionResetError):  # the container ended with the input unread: it has not begun
                self.sent = None
            return None

    def _answer(self, frame: memoryview) -> Optional[Answer]:
        header, body = unpack(frame)
        if header.get("t") == "Returned" and header.get("input_ids") == [self._input_id]:
            self._returned += 1
            self.is_good = self._returned < _RETURNED_LIMIT
            return None
        if header.get("t") != "Outputs":
            return None
        outputs = decode(Outputs, header).outputs
        if len(outputs) != 1:
            return None
        one = outputs[0]
        if one.input_id != self._input_id or one.status is not Status.SUCCESS or one.blob or one.size != len(body):
            return None
        self.answered += 1
        self._returned = 0
        return Output(0, Status.SUCCESS, one.size, None, None, one.input_id), bytes(body)

    def hang_up(self) -> None:
        """End the connection under a thread that may be waiting at it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if is_from_handler(error):
                raise

    def close(self) -> None:
        self._socket.close()


async def _connect(client: RpcClient, offer: DirectLine) -> _Line:
    """Get the line that was offered. Raises OSError, WireError."""
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await loop.sock_connect(connection, offer.path)
        await loop.sock_sendall(connection, offer.ticket.encode())
        decoder = FrameDecoder(_FRAME_LIMIT)
        while True:
            data = await loop.sock_recv(connection, 4096)
            if not data:
                raise ConnectionResetError("the container does not take it")
            frames = decoder.feed(data)
            if frames and unpack(frames[0])[0].get("t") == "Ready":
                return _Line(client, connection, offer)
            if frames:
                raise WireError("A direct line did not begin with Ready.")
    except BaseException:
        connection.close()
        raise


async def _cancelled(run: Coroutine[Any, Any, Answer]) -> None:
    """Tell the server of a call only to cancel it."""
    task = asyncio.ensure_future(run)
    await asyncio.sleep(0)  # it sends its request
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
