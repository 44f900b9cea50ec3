"""The HTTP port: RPC over WebSocket, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from intermodal.control.http_protocol import (
    REQUEST_TIMEOUT,
    BoundedHttp,
    BoundedWebSocket,
    PortConfig,
    refuse_ambiguous,
)
from intermodal.control.rpc import Dispatcher
from intermodal.control.rpc_websocket import websocket_route
from intermodal.control.tls import Certificate
from intermodal.control.tokens import Tokens
from intermodal.settings import Settings
from intermodal.store.interface import Store
from modal.exception import InvalidError

log = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does, but with less patience for a TLS handshake than the minute of the event loop."""
        await super().startup(sockets=[])
        config = self.config
        for listener in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                lambda: BoundedHttp(config, self.server_state, self.lifespan.state),
                sock=listener,
                ssl=config.ssl,
                ssl_handshake_timeout=REQUEST_TIMEOUT if config.ssl is not None else None,
                backlog=config.backlog,
            )
            self.servers.append(server)


class HttpPort:
    """Serves on `settings.host`:`settings.port` from `open` to `close`."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher, tokens: Tokens, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._server: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self._certificate: Certificate | None = None
        self._renewing: asyncio.Task[None] | None = None
        routes = [
            websocket_route(dispatcher, tokens.authenticator),
            Route("/healthz", self._health),
        ]
        self._app = Starlette(routes=routes)

    async def _health(self, request: Request) -> JSONResponse:
        """Anyone may ask, so the reason, which can name hosts and paths, is for `intermodal status` and the log."""
        is_healthy = not self._store.healthy()
        return JSONResponse({"ok": is_healthy}, status_code=200 if is_healthy else 503)

    async def open(self) -> str:
        """Listen; returns the base URL, or "" when no port is wanted. Raises `InvalidError` when the port is taken."""
        settings = self._settings
        if settings.port < 0:
            return ""
        check_proxies(settings.trusted_proxies)
        self._certificate = load_certificate(settings)
        if self._certificate is None and not settings.trusted_proxies and not _is_loopback(settings.host):
            log.warning(
                "the port on %s is open to others without TLS: tokens and data can be read on the way. Set "
                "tls_certificate and tls_key, or put a proxy before it; see docs/access.md.",
                settings.host,
            )
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
        config = self._config()
        self._server = _Uvicorn(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http port")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if self._certificate is not None else "http"
        return f"{scheme}://{host}:{listener.getsockname()[1]}"

    def _config(self) -> PortConfig:
        config = PortConfig(
            refuse_ambiguous(self._app),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            http=BoundedHttp,
            ws=BoundedWebSocket,
            ws_per_message_deflate=False,  # a small message must not become a large one before it is looked at
            proxy_headers=bool(self._settings.trusted_proxies),
            forwarded_allow_ips=self._settings.trusted_proxies.split(","),
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # else strangers could fill the log with garbage
        config.load()
        if self._certificate is not None:
            config.ssl = self._certificate.context
            self._renewing = asyncio.create_task(self._certificate.watch(), name="certificate")
        return config

    async def close(self) -> None:
        """Stop listening and close every connection. Idempotent."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            await self._serving
            self._server = self._serving = None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None


def load_certificate(settings: Settings) -> Certificate | None:
    """What TLS is served with; None: there is no TLS. Raises `InvalidError`."""
    if not settings.tls_certificate and not settings.tls_key:
        return None
    if not settings.tls_certificate or not settings.tls_key:
        raise InvalidError("TLS needs both settings, tls_certificate and tls_key; only one of them is set.")
    return Certificate(Path(settings.tls_certificate), Path(settings.tls_key))


def check_proxies(text: str) -> None:
    """Raise `InvalidError` unless these are addresses and networks with commas between them."""
    for part in text.split(",") if text else ():
        try:
            ipaddress.ip_network(part.strip())
        except ValueError as error:
            raise InvalidError(
                f"The setting trusted_proxies must be addresses or networks such as 10.0.0.7 or 10.0.0.0/8, "
                f"with commas between them: {error}."
            ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
