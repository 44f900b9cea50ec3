"""The HTTP port: RPC over WebSocket, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from intermodal.control.rpc import Dispatcher
from intermodal.control.rpc_websocket import websocket_route
from intermodal.control.tokens import Tokens
from intermodal.settings import Settings
from intermodal.store.interface import Store
from modal.exception import InvalidError


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon handles signals."""
        yield


class HttpPort:
    """Serves on `settings.host`:`settings.port` from `open` to `close`."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher, tokens: Tokens, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._server: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        routes = [
            websocket_route(dispatcher, tokens.authenticator),
            Route("/healthz", self._health),
        ]
        self._app = Starlette(routes=routes)

    async def _health(self, request: Request) -> JSONResponse:
        unhealthy = self._store.healthy()
        return JSONResponse({"ok": not unhealthy, "problem": unhealthy}, status_code=503 if unhealthy else 200)

    async def open(self) -> str:
        """Listen; returns the base URL, or "" when no port is wanted. Raises `InvalidError` when the port is taken."""
        settings = self._settings
        if settings.port < 0:
            return ""
        listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            listener.close()
            raise InvalidError(
                f"The server cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Choose another port with --port (0 takes a free one)."
            ) from error
        config = uvicorn.Config(self._app, lifespan="off", log_config=None, access_log=False, ws="websockets-sansio")
        self._server = _Uvicorn(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http port")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"http://{host}:{listener.getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and close every connection. Idempotent."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            await self._serving
            self._server = self._serving = None
