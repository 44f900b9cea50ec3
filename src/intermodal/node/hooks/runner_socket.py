"""The container's own socket, where its runner and its SDK calls come in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from typing import Any

from intermodal.model.errors import RuntimeFailure
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.interface import ContainerApi
from intermodal.node.runner_link import SocketConnection
from intermodal.runtimes.interface import BindMount

DIRECTORY = "/opt/intermodal/run"
NAME = "agent.sock"
_PATH_LIMIT = 107
#: Seconds that the last frames of a process that is gone may take to be read.
_DRAIN_TIMEOUT = 5.0
#: Turns of the event loop from a connection that waits to its first frame, and some more.
_ACCEPT_TURNS = 6


class RunnerSocketHook(Hook):
    """Listens on the socket from `prepare` on; connections are accepted once the process runs."""

    def __init__(self, api: ContainerApi) -> None:
        self._api = api
        self._listeners: dict[str, socket.socket] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._transports: dict[str, set[Any]] = {}

    async def prepare(self, container: Container) -> None:
        directory = container.home / "run"
        path = directory / NAME
        if len(os.fsencode(path)) > _PATH_LIMIT:
            raise RuntimeFailure(f"The path {path} is too long for a Unix socket.")
        directory.mkdir(mode=0o755)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listeners[container.id] = listener
        self._transports[container.id] = set()
        listener.setblocking(False)
        listener.bind(str(path))
        # Any user inside may connect: a program may drop its privileges. Outside, `container.home` keeps others away.
        path.chmod(0o666)
        listener.listen(64)
        container.mounts.append(BindMount(directory, DIRECTORY))

    async def started(self, container: Container) -> None:
        link, transports = container.link, self._transports[container.id]
        assert link is not None
        server = self._servers[container.id] = await asyncio.get_running_loop().create_unix_server(
            lambda: SocketConnection(link, self._api, container.id, transports),
            sock=self._listeners.pop(container.id),
            start_serving=False,
        )
        await server.start_serving()  # apart, since a start that is cancelled here must find the server to close

    async def exited(self, container: Container) -> None:
        # What the runner sent just before it died is still in its socket, or its connection waits to be accepted.
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        if container.link is not None and container.link.is_connected:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(container.link.closed.wait(), _DRAIN_TIMEOUT)

    async def release(self, container: Container) -> None:
        listener = self._listeners.pop(container.id, None)
        if listener is not None:
            listener.close()
        server = self._servers.pop(container.id, None)
        if server is not None:
            server.close()
        for transport in self._transports.pop(container.id, set()):
            transport.abort()
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, container.home / "run")
