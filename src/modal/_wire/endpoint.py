"""One side of a live connection: joins the pure `Connection` with a carrier, and feeds streams their frames."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, Optional, Protocol, TypeVar, Union

from .codec import decode, encode
from .connection import Connection, Credited, Ended, Event, Item
from .errors import WireError, to_error_info
from .frames import Buffer

Sent = TypeVar("Sent")
Received = TypeVar("Received")


class Carrier(Protocol):
    """Moves the frames of one connection. It calls the endpoint's methods from the event loop's thread."""

    #: The other side reads too slowly; streams wait until `Endpoint.writable`.
    congested: bool

    def poke(self) -> None:
        """Frames were queued in the connection: send them soon."""

    def close(self) -> None:
        """Send what is queued, then hang up; `Endpoint.detached` follows. Idempotent."""


class Endpoint(ABC):
    """What client and server have in common. Subclasses handle the events that are not about streams."""

    #: Stop reading while the other side does not. For servers; if both sides did, they could wait for each other.
    waits_for_reader = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.carrier: Optional[Carrier] = None
        self.streams: dict[int, MessageStream[Any, Any]] = {}

    def attached(self, carrier: Carrier) -> None:
        """The carrier is connected."""
        self.carrier = carrier

    def received(self, frame: Buffer) -> None:
        """A frame arrived. Never raises: what is wrong with it ends this connection."""
        try:
            event = self.connection.receive(frame)
            if event is None:
                return
            if isinstance(event, (Item, Ended, Credited)):
                stream = self.streams.get(event.id)
                if stream is not None:
                    stream.handle(event)
            else:
                self.handle(event)
        except WireError as error:
            self.broken(error)

    @abstractmethod
    def handle(self, event: Event) -> None:
        """React to an event that is not about the content of a stream."""

    def broken(self, error: WireError) -> None:
        """What arrives makes no sense: tell the other side and hang up."""
        self.connection.abort(to_error_info(error))
        self.hang_up()

    def hang_up(self) -> None:
        """Send what is queued and disconnect."""
        self.connection.close()
        if self.carrier is not None:
            self.carrier.close()

    def poke(self) -> None:
        if self.carrier is not None:
            self.carrier.poke()

    def writable(self) -> None:
        """The carrier is no longer congested."""
        for stream in list(self.streams.values()):
            stream.wake_senders()

    def detached(self, reason: Optional[Exception]) -> None:
        """The carrier is gone, for good."""
        self.carrier = None


class MessageStream(Generic[Sent, Received]):
    """One side of a stream: iterate over what arrives, send what goes.

    Iteration ends when the other side ends its items. Many tasks may send; one may iterate.
    """

    def __init__(self, endpoint: Endpoint, id: int, received: type[Received]) -> None:
        self._endpoint = endpoint
        self._connection = endpoint.connection
        self._id = id
        self._received = received
        self._items: deque[tuple[Any, bytes, int]] = deque()
        self._reader: Optional[asyncio.Future[None]] = None
        self._senders: deque[asyncio.Future[None]] = deque()
        self._finished = False
        self._error: Optional[Exception] = None

    # Called by the endpoint

    def handle(self, event: Union[Item, Ended, Credited]) -> None:
        if type(event) is Item:
            # Copied, so that a small item does not keep alive the whole block it was read with.
            self._items.append((event.message, bytes(event.body), event.size))
            self._wake_reader()
        elif type(event) is Ended:
            self._finished = True
            self._wake_reader()
            self.wake_senders()
        else:
            self.wake_senders()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, raised after the items that arrived before it."""
        if self._error is None:
            self._error = error
        self._wake_reader()
        self.wake_senders()

    def wake_senders(self) -> None:
        while self._senders:
            waiter = self._senders.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # Called by its user

    @property
    def is_broken(self) -> bool:
        """Whether the stream ended with an error, such as a lost connection."""
        return self._error is not None

    def _must_wait(self) -> bool:
        carrier = self._endpoint.carrier
        return self._error is None and (
            (carrier is not None and carrier.congested) or not self._connection.may_send(self._id)
        )

    async def send(self, item: Sent, body: Buffer = b"") -> None:
        """Send one item; waits while the other side is behind. When the call is over without error, nothing is sent.

        `body` must not be changed afterwards.

        Raises:
            RequestSizeError: item and body are over the frame limit; the stream goes on.
            Exception: the error the call ended with.
        """
        while self._must_wait():
            waiter = asyncio.get_running_loop().create_future()
            self._senders.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error
        self._connection.item(self._id, encode(item), body)
        self._endpoint.poke()

    async def end(self) -> None:
        """Send no more items."""
        self._connection.end(self._id)
        self._endpoint.poke()

    def __aiter__(self) -> MessageStream[Sent, Received]:
        return self

    async def __anext__(self) -> tuple[Received, bytes]:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._finished:
                raise StopAsyncIteration
            await self._arrival()
        message, body, size = self._items.popleft()
        self._connection.consumed(self._id, size)
        if self._connection.queued:
            self._endpoint.poke()
        return decode(self._received, message), body

    async def _arrival(self) -> None:
        """Wait until something arrives."""
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None
