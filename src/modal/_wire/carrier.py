"""The carrier for stream sockets: an asyncio protocol that both sides use."""

from __future__ import annotations

import asyncio
import select
import struct
from collections import deque
from typing import Any, Optional

from .endpoint import Endpoint
from .errors import WireError
from .frames import READ_SIZE, FrameDecoder

HIGH_WATER = 1024 * 1024  #: bytes not yet taken by the kernel from which on streams wait
LINGER = 5.0  #: seconds that a closing connection has to send what is queued

_LENGTH = struct.Struct(">I")
_JOIN_LIMIT = 64 * 1024  # bodies below this are joined with their neighbours; copying costs less than a system call
_BATCH = 64 * 1024


class StreamCarrier(asyncio.Protocol):
    """Frames over a stream socket, each preceded by its length.

    The first frame of a turn of the event loop is written at once; further ones of the same turn are written together.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.congested = False
        self._endpoint = endpoint
        self._connection = endpoint.connection
        self._decoder = FrameDecoder()
        self._backlog: deque[bytes | memoryview] = deque()
        self._transport: Any = None  # uvloop's transports do not derive from asyncio.Transport
        self._loop: Any = None
        self._receiving = False
        self._batching = False
        self._closing = False
        self._linger: Any = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        if hasattr(transport, "max_size"):  # asyncio's own; uvloop reads into a buffer that it keeps
            transport.max_size = READ_SIZE
        self._endpoint.attached(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._backlog.extend(self._decoder.feed(data))
        except WireError as error:
            self._endpoint.broken(error)
            return
        self._work()
        if self._decoder.error is not None and not self._closing:
            self._endpoint.broken(self._decoder.error)

    def frame_received(self, frame: bytes | memoryview) -> None:
        """Take one frame, without its length, that someone else has read."""
        self._backlog.append(frame)
        self._work()

    def _work(self) -> None:
        """Handle the frames that have arrived, and send what comes of it together."""
        backlog = self._backlog
        self._receiving = True
        try:
            while backlog and not self._closing:
                if self.congested and self._endpoint.waits_for_reader:
                    break  # one block of small requests can ask for more than memory holds
                self._endpoint.received(backlog.popleft())
                if self._connection.queued > HIGH_WATER:
                    self._flush()
        finally:
            self._receiving = False
        if self._connection.queued:
            self._flush()

    def pause_writing(self) -> None:
        self.congested = True
        if self._endpoint.waits_for_reader:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.congested = False
        if self._endpoint.waits_for_reader and not self._closing:
            self._transport.resume_reading()
        self._endpoint.writable()
        self._work()

    def eof_received(self) -> None:
        self._closing = True  # returning None makes the transport close

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._closing = True
        self.congested = False
        if self._linger is not None:
            self._linger.cancel()
        self._endpoint.detached(exc)

    def is_hung_up(self) -> bool:
        """Whether the other side has closed the connection; what it sent before may still have to be read."""
        if self._closing:
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    # Carrier

    def poke(self) -> None:
        if self._receiving:
            return
        if not self._batching:
            self._batching = True
            self._loop.call_soon(self._end_batch)
            self._flush()
        elif self._connection.queued > _BATCH:
            self._flush()

    def _end_batch(self) -> None:
        self._batching = False
        if self._connection.queued:
            self._flush()

    def close(self) -> None:
        if self._closing:
            return
        self._flush()
        self._closing = True
        self._transport.close()
        # Someone who does not read must not keep the socket open.
        self._linger = self._loop.call_later(LINGER, self._transport.abort)

    def _flush(self) -> None:
        frames = self._connection.take()
        if self._closing:
            return
        write = self._transport.write
        parts: list[bytes] = []
        for head, body in frames:
            size = len(body)
            parts.append(_LENGTH.pack(len(head) + size))
            parts.append(head)
            if size >= _JOIN_LIMIT:
                write(b"".join(parts))
                write(body)
                parts = []
            elif size:
                parts.append(body)  # type: ignore[arg-type]
        if parts:
            write(b"".join(parts))
