"""A real server with test methods, over each carrier, that can be stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from intermodal.control.rpc import Dispatcher, Principal, serve_unix
from intermodal.control.rpc_websocket import websocket_route
from modal._wire.client import RpcClient
from modal._wire.messages.common import Method, Shape
from modal.exception import AuthError


@dataclass(frozen=True)
class Note:
    text: str = ""
    number: int = 0
    numbers: list[int] = field(default_factory=list)


ECHO = Method("test.echo", Note, Note)
ACT = Method("test.act", Note, Note, mutating=True)
UPLOAD = Method("test.upload", Note, Note, Shape.CLIENT_STREAM, item=Note)
DOWNLOAD = Method("test.download", Note, Note, Shape.SERVER_STREAM)
CHAT = Method("test.chat", Note, Note, Shape.DUPLEX, item=Note)

CARRIERS = ("unix", "websocket")
GOOD_TOKEN = {"id": "ak-1", "secret": "as-1"}


def check_token(token: dict | None) -> Principal:
    if token != GOOD_TOKEN:
        raise AuthError("The token is not accepted; make a new one.")
    return Principal("token")


class Server:
    """One dispatcher behind one address."""

    def __init__(self, carrier: str, directory: Path, dispatcher: Dispatcher) -> None:
        self.carrier = carrier
        self.dispatcher = dispatcher
        self._path = directory / "s.sock"
        self._port = 0
        self._stop: Callable[[], object] | None = None

    @property
    def target(self) -> str:
        return f"unix://{self._path}" if self.carrier == "unix" else f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        if self.carrier == "unix":
            listener = await serve_unix(self.dispatcher, self._path)

            async def stop() -> None:
                listener.close()
                await self.dispatcher.close()

        else:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", self._port))
            self._port = sock.getsockname()[1]
            app = Starlette(routes=[websocket_route(self.dispatcher, lambda address: check_token)])
            config = uvicorn.Config(app, lifespan="off", log_level="error", ws="websockets-sansio")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[sock]))
            await until(lambda: server.started)

            async def stop() -> None:
                server.should_exit = True
                await self.dispatcher.close()
                await serving
                sock.close()

        self._stop = stop

    async def stop(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            await stop()

    def client(self, session: str = "se-1", **options: object) -> RpcClient:
        options.setdefault("token", GOOD_TOKEN)
        return RpcClient(self.target, session=session, **options)

    @contextlib.asynccontextmanager
    async def connected(self, session: str = "se-1", **options: object) -> AsyncIterator[RpcClient]:
        client = self.client(session, **options)
        await client.open()
        try:
            yield client
        finally:
            await client.close()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
