"""RPC: what this server is."""

from __future__ import annotations

import os
from collections.abc import Callable

from intermodal.control.rpc import Context, Dispatcher
from intermodal.settings import Settings
from intermodal.store.interface import Store
from modal._wire.connection import PROTOCOL
from modal._wire.messages.common import Empty
from modal._wire.messages.server import SERVER_INFO, ServerInfo


class ServerService:
    def __init__(self, settings: Settings, version: str, store: Store, containers: Callable[[], int]) -> None:
        self._settings = settings
        self._version = version
        self._store = store
        self._containers = containers
        self.url = ""  #: set once the HTTP port is open

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(SERVER_INFO, self.info)

    def info(self, ctx: Context, request: Empty, body: bytes) -> ServerInfo:
        unhealthy = self._store.healthy()
        return ServerInfo(
            version=self._version,
            pid=os.getpid(),
            url=self.url,
            # Where things are on the server's disk is of use to its own users alone.
            socket=str(self._settings.socket) if ctx.principal.kind == "local" else "",
            data_dir=str(self._settings.data_dir) if ctx.principal.kind == "local" else "",
            containers=self._containers(),
            protocol=PROTOCOL,
            warnings=[unhealthy] if unhealthy else [],
        )
