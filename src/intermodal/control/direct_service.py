"""Direct lines: a client of this machine that calls a function again and again speaks with a container by itself.

The client asks for a line (`CALL_DIRECT`), connects to the socket for lines, and shows its ticket; the connection is
then handed to the container. The server is not in the way of what goes over it. It hears of each call from the
container: when it is answered, or when that takes more than a few milliseconds; from then on it is a call like any
other. A client that got no answer asks with `CallRun`, whatever the reason. See docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from intermodal.control.access import require_user
from intermodal.control.fleet import Fleet
from intermodal.control.functions import Functions
from intermodal.control.rpc import Context, Dispatcher, listen_unix
from intermodal.model.ids import new_id
from modal._wire.messages.call import CALL_DIRECT, DIRECT_ID, DIRECT_PREFIX, CallDirect, DirectLine
from modal._wire.messages.runner import OpenLine
from modal.exception import InvalidError

_TICKET = 32  # characters
_TICKET_SECONDS = 5.0  # that a ticket is good for
_LINES = 1_000  # that are remembered, so that a client without an answer is understood


@dataclass(frozen=True)
class Line:
    """Where a line went."""

    container_id: str
    function_id: str
    app_id: str
    prefix: str  #: of the ids of its calls


class DirectService:
    """Gives out lines, and knows which container each went to.

    Args:
        path: where the socket for lines is made.
    """

    def __init__(self, path: Path, functions: Functions, fleet: Fleet, rng: random.Random) -> None:
        self._path = path
        self._functions = functions
        self._fleet = fleet
        self._rng = rng
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._tickets: dict[str, str] = {}  # ticket -> line id
        self._listener: asyncio.Server | None = None

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(CALL_DIRECT, self.line)

    async def open(self) -> None:
        """Listen. Only this user may connect."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(
            lambda: _Arrival(self), sock=listen_unix(self._path), backlog=1024
        )

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def line(self, ctx: Context, request: CallDirect, body: bytes) -> DirectLine:
        """A line to a container that is idle now; an empty answer when there is none."""
        require_user(ctx)
        function = self._functions.get(request.function_id)
        # Only a client of this user on this machine can connect to the socket.
        container_id = self._fleet.direct_container(function.function_id) if ctx.principal.kind == "local" else ""
        if not container_id:
            return DirectLine()
        line_id, ticket = new_id("dl", self._rng), secrets.token_hex(_TICKET // 2)
        prefix = new_id("fc", self._rng)[:DIRECT_PREFIX]
        self._lines[line_id] = Line(container_id, function.function_id, function.app_id, prefix)
        if len(self._lines) > _LINES:
            self._lines.popitem(last=False)
        self._tickets[ticket] = line_id
        asyncio.get_running_loop().call_later(_TICKET_SECONDS, self._tickets.pop, ticket, None)
        return DirectLine(line_id, str(self._path), ticket, prefix)

    def line_of(self, line_id: str, call_id: str, function_id: str) -> Line | None:
        """The line that this call of the function was made over; None when it is not known (any more).

        Raises:
            InvalidError: the call cannot have been made over that line.
        """
        line = self._lines.get(line_id)
        prefix = line.prefix if line is not None else "fc-"
        rest = call_id[len(prefix) :]
        is_other = line is not None and line.function_id != function_id
        if (
            is_other
            or len(call_id) != DIRECT_ID
            or not call_id.startswith(prefix)
            or not rest.isascii()
            or not rest.isalnum()
        ):
            raise InvalidError(f"The call {call_id[:40]!r} cannot have been made over the line {line_id[:40]!r}.")
        return line

    def connected(self, ticket: str, connection: socket.socket) -> None:
        """Somebody showed a ticket on this connection, which is handed on. The caller closes its own descriptor."""
        line_id = self._tickets.pop(ticket, "")
        line = self._lines.get(line_id)
        if line is not None:
            self._fleet.open_line(line.container_id, OpenLine(line_id, line.prefix), connection)


class _Arrival(asyncio.Protocol):
    """A connection to the socket for lines, until its ticket is here."""

    def __init__(self, service: DirectService) -> None:
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticket = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(_TICKET_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._ticket += data
        if len(self._ticket) < _TICKET:
            return
        if len(self._ticket) == _TICKET and self._ticket.isalnum():
            # The transport is closed, which leaves other descriptors of the connection as they are.
            descriptor: Any = self._transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                self._service.connected(self._ticket.decode(), connection)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
