"""The WebSocket carrier of the client, on the protocol machine of `websockets`: one binary message is one frame."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Optional
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from modal.exception import InvalidError

from .carrier import HIGH_WATER, LINGER
from .errors import WireError
from .frames import FRAME_LIMIT
from .link import Link, LinkLost

RPC_PATH = "/rpc"


async def connect_websocket(link: Link, target: str) -> None:
    """Connect `link` to the server at `target`, ``http(s)://host[:port][/prefix]``.

    Raises:
        InvalidError: `target` is no such address.
        OSError: nobody listens there, or TLS fails.
        LinkLost: who listens there is not the server.
    """
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidError(f"{target!r} is not the address of a server; it looks like http://host:port.")
    secure = parts.scheme == "https"
    try:
        uri = parse_uri(f"{'wss' if secure else 'ws'}://{parts.netloc}{parts.path.rstrip('/')}{RPC_PATH}")
    except (InvalidURI, ValueError):
        raise InvalidError(f"{target!r} is not the address of a server; it looks like http://host:port.") from None
    loop = asyncio.get_running_loop()
    _, carrier = await loop.create_connection(
        lambda: WebSocketCarrier(link, ClientProtocol(uri, max_size=FRAME_LIMIT), secure),
        uri.host,
        uri.port,
        ssl=ssl.create_default_context() if secure else None,
    )
    try:
        await carrier.upgraded
    except asyncio.CancelledError:
        carrier.close()
        raise


class WebSocketCarrier(asyncio.Protocol):
    """Frames as binary messages. What is queued in one turn of the event loop is written together."""

    def __init__(self, link: Link, protocol: ClientProtocol, is_secure: bool) -> None:
        self.congested = False
        self.upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = link
        self._protocol = protocol
        self._is_secure = is_secure
        self._parts: list[bytes] = []  # of a message that arrives in fragments
        self._transport: Any = None
        self._receiving = False
        self._batching = False
        self._closing = False
        self._linger: Optional[asyncio.TimerHandle] = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._protocol.send_request(self._protocol.connect())
        self._write()

    def data_received(self, data: bytes) -> None:
        self._receiving = True
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                self._handle(event)
        finally:
            self._receiving = False
        self._flush()
        if self._protocol.close_expected():
            self.close()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._write()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        if not self.upgraded.done():
            self.upgraded.set_exception(LinkLost(self._refusal(exc)))
        closed = self._protocol.close_rcvd
        if exc is None and closed is not None and closed.reason:
            exc = LinkLost(closed.reason)
        self._link.detached(exc)

    def _refusal(self, exc: Optional[Exception]) -> str:
        failure = self._protocol.handshake_exc
        if isinstance(failure, (InvalidHandshake, EOFError)):  # EOFError from older releases of `websockets`
            return f"who listens there does not answer as an Intermodal server ({failure})" + (
                "" if self._is_secure else "; perhaps its address begins with https://"
            )
        return str(exc or failure or "the connection was closed")

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        self._link.writable()

    def _handle(self, event: Any) -> None:
        if isinstance(event, Response):
            if self._protocol.handshake_exc is None and not self.upgraded.done():
                self._link.attached(self)
                self.upgraded.set_result(None)
        elif isinstance(event, Frame) and not self._closing:
            self._handle_frame(event)

    def _handle_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._link.broken(WireError("A text message arrived; frames are binary messages."))
        elif frame.opcode is Opcode.BINARY and frame.fin:
            self._link.received(frame.data)
        elif frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._parts.append(bytes(frame.data))  # the protocol machine bounds their sum
            if frame.fin:
                whole, self._parts = b"".join(self._parts), []
                self._link.received(whole)

    # Carrier

    def poke(self) -> None:
        if not self._receiving and not self._batching:
            self._batching = True
            asyncio.get_running_loop().call_soon(self._end_batch)
            self._flush()

    def _end_batch(self) -> None:
        self._batching = False
        self._flush()

    def close(self) -> None:
        if self._closing:
            return
        self._flush()
        self._closing = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close()
        self._write()
        self._transport.close()
        self._linger = asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def _flush(self) -> None:
        if self._protocol.state is State.OPEN and not self._closing:
            for head, body in self._link.connection.take():
                self._protocol.send_binary(b"".join((head, body)))
        self._write()

    def _write(self) -> None:
        data = [part for part in self._protocol.data_to_send() if part]
        if data:
            self._transport.write(b"".join(data))
