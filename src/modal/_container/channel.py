"""The runner's connection to its agent: whole frames in and out of a blocking Unix socket.

The bytes are those of `modal._wire.frames`. They are read and written here a second time because that module brings
typing and dataclasses along, which would double the time a container takes to start.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, SOCK_STREAM
from _socket import socket as Socket
from _thread import allocate_lock
from json import JSONDecoder, JSONEncoder
from select import POLLIN, poll
from signal import set_wakeup_fd
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    Frame = tuple[dict[str, Any], memoryview]

FRAME_LIMIT = 16 * 1024 * 1024
_READ_SIZE = 64 * 1024  #: below the size from which malloc maps and unmaps memory for each read
_JOIN_LIMIT = 64 * 1024  #: payloads up to this size are copied into one write

_PASSED = CMSG_SPACE(4)  #: room for one descriptor beside the bytes of a read
_FLAGS = MSG_DONTWAIT | MSG_CMSG_CLOEXEC

_int = Struct("i")
_length = Struct(">I")
_lengths = Struct(">II")
_dump = JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_load = JSONDecoder().decode


class ProtocolError(Exception):
    """What the agent sent is no frame."""


class FrameReader:
    """Cuts a byte stream into frames. Pure."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete.

        Raises:
            ProtocolError: a length or a header is impossible.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < 4 or len(self._kept) < 4 + _length.unpack_from(self._kept)[0] <= 4 + FRAME_LIMIT:
                return []
            data = bytes(self._kept)
            self._kept = bytearray()
        frames: list[Frame] = []
        position, end = 0, len(data)
        view = memoryview(data)
        while end - position >= 8:
            size, header_size = _lengths.unpack_from(data, position)
            if size > FRAME_LIMIT or header_size + 4 > size:
                raise ProtocolError("The agent sent a frame with an impossible length.")
            stop = position + 4 + size
            if stop > end:
                break
            start = position + 8
            try:
                header = _load(data[start : start + header_size].decode())
            except ValueError:
                raise ProtocolError("The agent sent a frame whose header is not JSON.") from None
            if type(header) is not dict:
                raise ProtocolError("The agent sent a frame whose header is not a JSON object.")
            frames.append((header, view[start + header_size : stop]))
            position = stop
        if position < end:
            self._kept += view[position:]
        return frames


def frame_head(header: dict[str, Any], body_size: int) -> bytes:
    """Return the bytes of a frame before its body, with the length that stream sockets need."""
    raw = _dump(header).encode("utf-8", "replace")
    return _lengths.pack(4 + len(raw) + body_size, len(raw)) + raw


class Channel:
    """One connected socket. Any thread may send; the main thread reads, or another while that one cannot."""

    def __init__(self, path: str) -> None:
        self._socket = Socket(AF_UNIX, SOCK_STREAM)
        self._socket.connect(path)
        self._send_lock = allocate_lock()
        self.reader = FrameReader()
        # A signal that comes just before the main thread blocks would not wake it: Python's C handler only sets a flag.
        # So it also writes to this pipe, and the main thread waits for both.
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._poll = poll()
        self._own = self._socket.fileno()
        self._poll.register(self._own, POLLIN)
        self._poll.register(self._woken, POLLIN)
        self.passed: list[int] = []  #: descriptors that the agent has sent, and nobody has taken yet
        self.others_ready = False  #: the last `receive` saw something to read at a descriptor that is watched

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """Wait for bytes, in the main thread only.

        Returns:
            The bytes; b"" at the end of the connection; None when `timeout` seconds have passed, a signal came, or
            there is something to read elsewhere (`others_ready`).
        """
        set_wakeup_fd(self._wake, warn_on_full_buffer=False)  # again each time: user code may have used it
        self.others_ready = False
        data = None
        for ready, _ in self._poll.poll(None if timeout is None else max(0.0, timeout * 1000)):
            if ready == self._own:
                data = self.receive_now()
            elif ready == self._woken:
                self._drain()
            else:
                self.others_ready = True
        return data

    def receive_now(self) -> Optional[bytes]:
        """Return bytes that are there already; None when there are none, b"" at the end of the connection."""
        try:
            data, passed, _, _ = self._socket.recvmsg(_READ_SIZE, _PASSED, _FLAGS)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        for _, _, raw in passed:
            self.passed += [descriptor for (descriptor,) in _int.iter_unpack(raw)]
        return data

    def watch(self, descriptor: int) -> None:
        """Let `receive` wait for this one too."""
        self._poll.register(descriptor, POLLIN)

    def unwatch(self, descriptor: int) -> None:
        try:
            self._poll.unregister(descriptor)
        except KeyError:
            return

    def wait_readable(self, timeout: float, others: Sequence[int] = ()) -> None:
        """Wait for bytes here, or at other descriptors, at most `timeout` seconds, in any thread."""
        watched = poll()
        for descriptor in (self._own, *others):
            watched.register(descriptor, POLLIN)
        watched.poll(timeout * 1000)

    def wake(self) -> None:
        """Make `receive` return."""
        try:
            os.write(self._wake, b"\0")
        except OSError:  # full: it returns anyway; or closed by a fork
            return

    def _drain(self) -> None:
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            return

    def send(self, header: dict[str, Any], payloads: Optional[list[bytes]] = None) -> None:
        """Send one frame whose body joins `payloads`.

        Raises:
            OSError: the connection is gone.
        """
        payloads = payloads or []
        size = sum(map(len, payloads))
        head = frame_head(header, size)
        with self._send_lock:
            if size <= _JOIN_LIMIT:
                self._socket.sendall(b"".join((head, *payloads)))
                return
            self._socket.sendall(head)
            for payload in payloads:
                self._socket.sendall(payload)

    def leave_in_child(self) -> None:
        """After a fork: the child must not hold the connection open, nor speak on it, nor wake its parent."""
        if self._wake < 0:
            return
        set_wakeup_fd(-1)
        os.close(self._socket.detach())
        os.close(self._woken)
        os.close(self._wake)
        self._woken = self._wake = -1
