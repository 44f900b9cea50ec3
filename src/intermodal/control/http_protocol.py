"""What uvicorn's protocols lack for a port that strangers can reach: limits on those who have not said who they are.

A request has `REQUEST_TIMEOUT` seconds to arrive with all its headers; an RPC connection then has
`rpc_peer.HANDSHAKE_TIMEOUT` seconds to authenticate, and until it has, its messages are small. At most `MAX_STRANGERS`
connections that have not come so far are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

REQUEST_TIMEOUT = 10.0  #: seconds that a request has to arrive
STRANGER_LIMIT = 64 * 1024  #: bytes of a message before the handshake, which is all that a stranger may send
MAX_STRANGERS = 1000  #: connections whose request or handshake has not arrived
_LIFT = "intermodal.lift_limit"


class Strangers:
    """Connections that have not said what they want or who they are.

    Beyond the limit the one that has taken longest is cut off: clients in earnest take milliseconds.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = MAX_STRANGERS if limit is None else limit
        self._waiting: dict[asyncio.Transport, None] = {}

    def add(self, transport: asyncio.Transport) -> None:
        self._waiting[transport] = None
        if len(self._waiting) > self._limit:
            slowest = next(iter(self._waiting))
            del self._waiting[slowest]
            slowest.abort()

    def remove(self, transport: asyncio.Transport) -> None:
        self._waiting.pop(transport, None)


class PortConfig(uvicorn.Config):
    """What the protocols of one port share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.strangers = Strangers()


class BoundedHttp(H11Protocol):
    """HTTP/1.1 that hangs up on those who dribble."""

    config: PortConfig
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._forget_deadline()
        self._watch = _do_nothing  # type: ignore[method-assign]
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """The clock runs while part of a request, or nothing, has arrived; not while one is answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)
            self.config.strangers.add(self.transport)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self.config.strangers.remove(self.transport)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that is a stranger, and whose messages are small, until the endpoint calls `lift_limit`."""

    config: PortConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = self.conn.max_size
        self.conn.max_size = STRANGER_LIMIT

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.config.strangers.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.strangers.remove(self.transport)
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # else the request was refused
            self.scope[_LIFT] = self._lift  # type: ignore[literal-required]

    def _lift(self) -> None:
        self.conn.max_size = self._limit
        self.config.strangers.remove(self.transport)


def refuse_ambiguous(app: ASGIApp) -> ASGIApp:
    """Refuse requests whose body a proxy and we might end at different places, which is how requests are smuggled."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = {name for name, _ in scope["headers"]}
            if {b"content-length", b"transfer-encoding"} <= names:
                text = "A request has either Content-Length or Transfer-Encoding, not both."
                await PlainTextResponse(text, 400, {"connection": "close"})(scope, receive, send)
                return
        await app(scope, receive, send)

    return checked


def lift_limit(scope: Scope) -> Callable[[], None]:
    """What to call once the client of this WebSocket is known."""
    lift: Callable[[], None] = scope.get(_LIFT, _do_nothing)
    return lift


def _do_nothing() -> None:
    """There is no limit."""
