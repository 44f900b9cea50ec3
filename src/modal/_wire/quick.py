"""Calls that a blocking caller makes by itself: it writes the request and reads the reply, without the event loop.

For requests that the server answers at once, from a client on the server's machine. Going through the loop's thread
costs two more wake-ups, which is most of such a call. A connection is used by one thread at a time; a few are kept.
What goes wrong here is no failure: the caller sends the request again the usual way, under the same idempotency key.

A signal handler may raise at any point, which ends the call. Its connection is not used again then: a later call would
take the rest of an answer for its own.
"""

from __future__ import annotations

import socket
import struct
import threading
import weakref
from typing import Any, Optional, Union

from .._signals import is_from_handler
from .codec import decode, encode
from .connection import Connection, Failed, Replied, Welcome
from .errors import WireError
from .frames import READ_SIZE, Buffer, FrameDecoder
from .messages.common import Method, Shape

Answer = tuple[Any, bytes]

_KEPT = 8  #: connections
_PATIENCE = 20  #: seconds until the usual way is tried
_BODY_LIMIT = 1024 * 1024  #: bytes; larger requests go the usual way, where they do not block others
_LENGTH = struct.Struct(">I")


class QuickCalls:
    """The connections for quick calls of one client. Any thread may use it.

    Args:
        path: the server's Unix socket.
        hello: session, version and token, as in `Connection.hello`.
    """

    def __init__(self, path: str, hello: tuple[str, str, Optional[dict[str, Any]]]) -> None:
        self._path = path
        self._hello = hello
        self._idle: list[_Line] = []
        # All that there are. One that an interrupted call has left behind goes by itself.
        self._lines: weakref.WeakSet[_Line] = weakref.WeakSet()
        self._lock = threading.Lock()  # of `_lines`
        self._closed = False

    def unary(self, method: Method[Any, Any], request: Any, body: Buffer, key: str) -> Optional[Answer]:
        """Call a unary method; None when the usual way is to be gone.

        Raises:
            Error: any typed error of the server.
        """
        if len(body) > _BODY_LIMIT:
            return None
        try:
            line = self._idle.pop()
        except IndexError:
            made = self._connect()
            if made is None:
                return None
            line = made
        good = False
        answer: Union[Answer, Failed]
        try:
            answer = line.unary(method, request, body, key)
            good = True
        except (OSError, WireError) as error:
            if is_from_handler(error):
                raise
            return None
        finally:
            if good and not self._closed:
                self._idle.append(line)
            else:
                self._drop(line)
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def close(self) -> None:
        """Say goodbye on every connection and end it. Idempotent."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Optional[_Line]:
        with self._lock:
            if self._closed or len(self._lines) >= _KEPT:
                return None
            line = _Line()
            self._lines.add(line)
        try:
            line.open(self._path, self._hello)
            return line
        except BaseException as error:
            self._drop(line)
            if isinstance(error, (OSError, WireError)) and not is_from_handler(error):
                return None
            raise

    def _drop(self, line: _Line) -> None:
        with self._lock:
            self._lines.discard(line)
        line.close()


class _Line:
    """One connection."""

    def __init__(self) -> None:
        self._connection = Connection(client=True)
        self._decoder = FrameDecoder()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        weakref.finalize(self, self._socket.close)

    def open(self, path: str, hello: tuple[str, str, Optional[dict[str, Any]]]) -> None:
        """Connect. Raises OSError, WireError."""
        # The kernel's time limits: Python's cost a further system call each time.
        patience = struct.pack("ll", _PATIENCE, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self._socket.connect(path)
        self._connection.hello(*hello)
        self._flush()
        if not isinstance(self._event(), Welcome):
            raise WireError("The server did not welcome a further connection.")

    def unary(self, method: Method[Any, Any], request: Any, body: Buffer, key: str) -> Union[Answer, Failed]:
        """The response with its body, or a `Failed`. Raises OSError, WireError: the connection is of no use then."""
        id = self._connection.open(method.name, Shape.UNARY, encode(request), body, key=key)
        self._flush()
        while True:
            event = self._event()
            if type(event) is Replied and event.id == id:
                return decode(method.response, event.message), bytes(event.body)
            if type(event) is Failed and event.id == id:
                return event
            if event is not None:
                raise WireError("Something else arrived than the answer to a quick call.")

    def close(self) -> None:
        try:
            self._connection.bye()
            self._flush()
        except (OSError, WireError) as error:
            if is_from_handler(error):
                raise
        finally:
            self._socket.close()

    def _flush(self) -> None:
        parts: list[Any] = []
        for head, body in self._connection.take():
            parts += (_LENGTH.pack(len(head) + len(body)), head, body)
        self._socket.sendall(b"".join(parts))

    def _event(self) -> Any:
        """The next event; None for a frame that is none."""
        while True:
            data = self._socket.recv(READ_SIZE)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            frames = self._decoder.feed(data)
            if len(frames) == 1:
                return self._connection.receive(frames[0])
            if frames:
                raise WireError("Something else arrived than the answer to a quick call.")
