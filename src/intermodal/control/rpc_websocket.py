"""RPC over WebSocket: an endpoint for Starlette. One binary message is one frame."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from intermodal.control.http_protocol import lift_limit
from intermodal.control.rpc import Dispatcher, Principal
from intermodal.control.rpc_context import Authenticate
from intermodal.control.rpc_peer import Peer
from modal._wire.carrier import HIGH_WATER, LINGER
from modal._wire.connection import Frame
from modal._wire.errors import WireError
from modal._wire.websocket import RPC_PATH

logger = logging.getLogger("intermodal.rpc")

#: Messages of a client that breaks the protocol below our frames end with this close code.
_POLICY_VIOLATION = 1008


def websocket_route(
    dispatcher: Dispatcher, authenticator: Callable[[str], Authenticate], path: str = RPC_PATH
) -> WebSocketRoute:
    """Serve RPC at `path`; `authenticator(address)` checks the handshake of a connection from there.

    The server below must accept messages of `modal._wire.frames.FRAME_LIMIT` bytes (uvicorn's default).
    """

    async def endpoint(websocket: WebSocket) -> None:
        if "origin" in websocket.headers:
            # Only browsers send it, and a page of any site may connect to this machine; clients of ours never do.
            await websocket.close(_POLICY_VIOLATION)
            return
        await websocket.accept()
        address = websocket.client.host if websocket.client is not None else "an unknown address"
        authenticate, lift = authenticator(address), lift_limit(websocket.scope)

        def check(token: dict[str, Any] | None) -> Principal:
            principal = authenticate(token)
            lift()
            return principal

        await WebSocketServerCarrier(websocket, dispatcher.peer(check)).run()

    return WebSocketRoute(path, endpoint)


class WebSocketServerCarrier:
    """Moves the frames of one accepted WebSocket until it closes.

    Replies made while a frame is handled are sent by the reading task itself; a second task sends everything else.
    """

    def __init__(self, websocket: WebSocket, peer: Peer) -> None:
        self.congested = False
        self._websocket = websocket
        self._peer = peer
        self._connection = peer.connection
        self._frames: deque[Frame] = deque()
        self._receiving = False
        self._sending = asyncio.Lock()
        self._closing = asyncio.Event()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Serve until either side hangs up."""
        sender = asyncio.create_task(self._send_when_poked())
        reader = asyncio.create_task(self._read())
        closing = asyncio.create_task(self._closing.wait())
        self._peer.attached(self)
        try:
            await asyncio.wait((sender, reader, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (closing, reader, sender):
                task.cancel()
            ends = await asyncio.gather(reader, sender, closing, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception):
                    logger.error("a connection failed", exc_info=end)
            self._peer.detached(None)
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
                async with asyncio.timeout(LINGER):
                    await self._send()
                    await self._websocket.close()

    async def _read(self) -> None:
        while not self._closing.is_set():
            message: Any = await self._websocket.receive()
            if message["type"] != "websocket.receive":
                return
            data = message.get("bytes")
            self._receiving = True
            try:
                if data is None:
                    self._peer.broken(WireError("A text message arrived; frames are binary messages."))
                else:
                    self._peer.received(data)
            finally:
                self._receiving = False
            if self._connection.queued:
                await self._send()

    async def _send_when_poked(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send()

    async def _send(self) -> None:
        """Send what is queued, in order."""
        async with self._sending:
            try:
                while self._frames or self._connection.queued:
                    self._frames.extend(self._connection.take())
                    while self._frames:
                        head, body = self._frames.popleft()
                        await self._websocket.send_bytes(b"".join((head, body)))
            except (WebSocketDisconnect, RuntimeError, OSError):
                self._frames.clear()  # the client is gone; what it said last is still read, up to its end
        if self.congested:
            self.congested = False
            self._peer.writable()

    # Carrier

    def poke(self) -> None:
        if self._connection.queued > HIGH_WATER:
            self.congested = True
        if not self._receiving:
            self._wake.set()

    def close(self) -> None:
        self._closing.set()
