"""A pool of ready network namespaces, so that starting a container does not wait for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import intermodal
from intermodal.model.errors import RuntimeFailure
from intermodal.node.network.addresses import AddressPool

log = logging.getLogger(__name__)

_REPLY_TIMEOUT = 10.0
#: Seconds after a namespace is taken until the pool makes another, while it has more.
_REFILL_DELAY = 0.25


@dataclass(frozen=True)
class Namespaces:
    """A network namespace and the user namespace that owns it, held open by descriptors of this process."""

    user: int
    network: int
    address: IPv4Address | None = None

    @property
    def user_path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.user}")

    @property
    def network_path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.network}")

    def close(self) -> None:
        """Let go of them; the kernel frees them when their last process is gone."""
        os.close(self.user)
        os.close(self.network)


class NamespaceMaker:
    """Talks to the helper process (see `maker`), starting it when needed. Methods block; any thread may call them."""

    def __init__(self, uid_base: int) -> None:
        self._uid_base = uid_base
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def make(self, request: dict[str, str], address: IPv4Address | None = None) -> Namespaces:
        """Make a pair of namespaces; an empty request makes one without a way out. Raises RuntimeFailure."""
        with self._lock:
            connection = self._connection()
            try:
                connection.send(json.dumps(request).encode())
                reply, descriptors, _, _ = socket.recv_fds(connection, 4096, 2)
            except OSError as error:
                self._stop()
                raise RuntimeFailure(f"The helper that makes namespaces does not answer ({error}).") from error
            if not reply:
                self._stop()
                raise RuntimeFailure("The helper that makes namespaces ended unexpectedly.")
        error_text = json.loads(reply)["error"]
        if error_text:
            raise RuntimeFailure(f"A network namespace could not be made: {error_text}.")
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return Namespaces(descriptors[0], descriptors[1], address)

    def close(self) -> None:
        """End the helper. Idempotent."""
        with self._lock:
            self._stop()

    def _connection(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.settimeout(_REPLY_TIMEOUT)
            packages = str(Path(intermodal.__file__).parent.parent)
            command = [sys.executable, "-m", "intermodal.node.network.maker", str(theirs.fileno()), str(self._uid_base)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": packages},
                start_new_session=True,
            )
            theirs.close()
            self._socket = ours
        return self._socket

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()  # it ends when it sees this
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(_REPLY_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class NamespacePool:
    """Keeps `size` connected network namespaces ready."""

    def __init__(
        self, maker: NamespaceMaker, addresses: AddressPool, interface_prefix: str, size: int, mtu: int
    ) -> None:
        self._maker = maker
        self._addresses = addresses
        self._prefix = interface_prefix
        self._size = size
        self._mtu = mtu
        self._ready: list[Namespaces] = []
        self._count = 0
        self._refill: asyncio.Task[None] | None = None
        self._making: set[asyncio.Task[Namespaces]] = set()
        self._closed = False

    def open(self) -> None:
        """Begin to fill the pool. Needs a running event loop."""
        self._fill()

    async def take(self) -> Namespaces:
        """Return a namespace nobody else has, made now if none is ready. Raises RuntimeFailure."""
        namespaces = self._ready.pop() if self._ready else await self._make()
        # Later: making one now would slow down the start that this one is for.
        asyncio.get_running_loop().call_later(0.0 if not self._ready else _REFILL_DELAY, self._fill)
        return namespaces

    def give_back(self, namespaces: Namespaces) -> None:
        """Free a namespace that `take` returned. Namespaces are not used twice: a container may have changed it."""
        if namespaces.address is not None:
            self._addresses.give_back(namespaces.address)
        namespaces.close()

    async def close(self) -> None:
        """Free what is ready. Idempotent."""
        self._closed = True
        if self._refill is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._refill
        if self._making:
            await asyncio.wait(self._making)
        while self._ready:
            self.give_back(self._ready.pop())

    def _fill(self) -> None:
        if not self._closed and (self._refill is None or self._refill.done()) and len(self._ready) < self._size:
            self._refill = asyncio.get_running_loop().create_task(self._make_ready())

    async def _make_ready(self) -> None:
        while len(self._ready) < self._size and not self._closed:
            try:
                self._ready.append(await self._make())
            except RuntimeFailure as error:
                # Whoever needs one next tries again and gets the error.
                log.warning("Cannot prepare a network namespace: %s", error)
                return

    async def _make(self) -> Namespaces:
        making = asyncio.get_running_loop().create_task(self._make_one())
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._keep)  # who wanted it is gone; the thread that makes it goes on
            raise

    async def _make_one(self) -> Namespaces:
        address = self._addresses.take()
        self._count += 1
        request = {
            "interface": f"{self._prefix}{self._count:x}",
            "address": str(address),
            "gateway": str(self._addresses.gateway),
            "mtu": str(self._mtu),
        }
        try:
            return await asyncio.to_thread(self._maker.make, request, address)
        except BaseException:
            self._addresses.give_back(address)
            raise

    def _keep(self, made: asyncio.Task[Namespaces]) -> None:
        """Let the next one who comes have what nobody waited for."""
        if not made.cancelled() and made.exception() is None:
            self._ready.append(made.result())
