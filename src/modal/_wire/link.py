"""The client's side of one live connection: calls under way and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Optional

from modal.exception import ConnectionError

from .codec import decode
from .connection import Aborted, Connection, Event, Failed, Replied, Welcome
from .endpoint import Endpoint, MessageStream, Received, Sent
from .errors import WireError
from .frames import Buffer
from .messages.common import Method

Answer = tuple[Any, bytes]


class LinkLost(Exception):
    """The connection went away under a call. Never leaves the client: it sends again or raises ConnectionError."""


class ClientStream(MessageStream[Sent, Received]):
    """A streaming call. See `RpcClient.stream`."""

    def __init__(self, link: Link, id: int, received: type[Received]) -> None:
        super().__init__(link, id, received)
        self._answer: Optional[tuple[Any, bytes]] = None

    def replied(self, message: Any, body: bytes) -> None:
        self._answer = (message, body)
        self._finished = True
        self._wake_reader()
        self.wake_senders()

    async def result(self) -> tuple[Received, bytes]:
        """Wait for the response of a client stream; call `end` first.

        Raises:
            Exception: the error the call ended with.
        """
        while self._answer is None:
            if self._error is not None:
                raise self._error
            await self._arrival()
        message, body = self._answer
        return decode(self._received, message), body


class Link(Endpoint):
    """Calls over one connection. Every call ends: with its answer, its error, or `LinkLost`."""

    def __init__(self, hello: tuple[str, str, Optional[dict[str, Any]]], on_lost: Callable[[Link], None]) -> None:
        super().__init__(Connection(client=True))
        loop = asyncio.get_running_loop()
        self.welcomed: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.server_version = ""
        self._hello = hello
        self._on_lost = on_lost
        self._calls: dict[int, tuple[asyncio.Future[Answer], type[Any]]] = {}
        self._heard = True  # since the last look of the keep-alive
        self._keep_alive: Optional[asyncio.TimerHandle] = None
        self._error: Exception = LinkLost("the server closed the connection")

    # Calls

    def call(
        self, method: Method[Any, Any], request: Any, body: Buffer, seconds: Optional[float], key: str
    ) -> tuple[int, asyncio.Future[Answer]]:
        """Begin a unary call."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        id = self.connection.open(method.name, method.shape, request, body, seconds=seconds, key=key)
        self._calls[id] = (future, method.response)
        self.poke()
        return id, future

    def forget(self, id: int) -> None:
        """Cancel a unary call that nobody waits for any more."""
        if self._calls.pop(id, None) is not None:
            self.connection.cancel(id)
            self.poke()

    def open_stream(
        self, method: Method[Any, Received], request: Any, body: Buffer, seconds: Optional[float], key: str
    ) -> tuple[int, ClientStream[Any, Received]]:
        id = self.connection.open(method.name, method.shape, request, body, seconds=seconds, key=key)
        stream: ClientStream[Any, Received] = ClientStream(self, id, method.response)
        self.streams[id] = stream
        self.poke()
        return id, stream

    def close_stream(self, id: int) -> None:
        """The stream is not used any more; cancel it if it still runs."""
        if self.streams.pop(id, None) is not None:
            self.connection.cancel(id)
            self.poke()

    # Endpoint

    def attached(self, carrier: Any) -> None:
        super().attached(carrier)
        self.connection.hello(*self._hello)
        self.poke()

    def received(self, frame: Buffer) -> None:
        self._heard = True
        super().received(frame)

    def handle(self, event: Event) -> None:
        if isinstance(event, Replied):
            self._answered(event)
        elif isinstance(event, Failed):
            self._failed(event)
        elif isinstance(event, Welcome):
            self.server_version = event.version
            if not self.welcomed.done():
                self.welcomed.set_result(None)
        elif isinstance(event, Aborted):
            self._error = event.error
            self.hang_up()

    def _answered(self, event: Replied) -> None:
        call = self._calls.pop(event.id, None)
        if call is None:
            stream = self.streams.get(event.id)
            if isinstance(stream, ClientStream):
                stream.replied(event.message, bytes(event.body))
            return
        future, response = call
        if future.done():
            return
        try:
            future.set_result((decode(response, event.message), bytes(event.body)))
        except WireError as error:
            future.set_exception(error)

    def _failed(self, event: Failed) -> None:
        call = self._calls.pop(event.id, None)
        if call is not None:
            if not call[0].done():
                call[0].set_exception(event.error)
            return
        stream = self.streams.get(event.id)
        if stream is not None:
            stream.fail(event.error)

    def broken(self, error: WireError) -> None:
        self._error = error
        super().broken(error)

    def detached(self, reason: Optional[Exception]) -> None:
        super().detached(reason)
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if reason is not None and isinstance(self._error, LinkLost):
            self._error = LinkLost(str(reason))
        self.fail_all(self._error)
        if not self.gone.done():
            self.gone.set_result(None)
        self._on_lost(self)

    def fail_all(self, error: Exception) -> None:
        """End everything under way with `error`."""
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        calls, self._calls = self._calls, {}
        for future, _ in calls.values():
            if not future.done():
                future.set_exception(error)
        if isinstance(error, LinkLost):
            error = ConnectionError(f"The connection to the server was lost during the call: {error}.")
        for stream in list(self.streams.values()):
            stream.fail(error)

    # Keep-alive, for carriers where the other side can vanish without a word

    def keep_alive(self, interval: float) -> None:
        """Ping after `interval` silent seconds, and hang up after as many again."""
        self._keep_alive = asyncio.get_running_loop().call_later(interval, self._look, interval, False)

    def _look(self, interval: float, pinged: bool) -> None:
        if self._heard:
            pinged = False
        elif pinged:
            self._error = LinkLost(f"the server did not answer for {2 * interval:g} s")
            self.hang_up()
            return
        else:
            self.connection.ping(0)
            self.poke()
            pinged = True
        self._heard = False
        self._keep_alive = asyncio.get_running_loop().call_later(interval, self._look, interval, pinged)
