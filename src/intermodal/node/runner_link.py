"""The agent's end of a container's socket.

Two kinds of connections arrive there. The first frame tells them apart: ``Hello`` is the runner itself, ``hello`` an
RPC client in user code, which is handed to the server. Everything in a container is hostile: a frame that does not fit
ends the container (if it came from the runner) or the connection (if not), and touches nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from intermodal.node.interface import ContainerApi
from modal._wire import codec, frames
from modal._wire.errors import WireError
from modal._wire.messages.call import DIRECT_ID, DIRECT_PREFIX, Status
from modal._wire.messages.runner import (
    RUNNER_MESSAGES,
    Hello,
    Leaving,
    OpenLine,
    Outputs,
    Ready,
    Returned,
    RunInput,
    RunInputs,
    RunOutput,
    Start,
    StartFailed,
    Taken,
    Yielded,
)

_LENGTH = struct.Struct(">I")
#: Bodies up to this size are joined with their header: one copy costs less than a second system call.
_JOINED_BODY = 32 * 1024
#: The first frame is a handshake; it is small.
_FIRST_FRAME_LIMIT = 64 * 1024
_READ_SIZE = 256 * 1024
#: More than a socket holds; a hostile runner that closed one direction only could go on in the other.
_DRAIN_READS = 32
_LONGEST = 1e9  # seconds that an input may have run


class LinkEvents(Protocol):
    """What a link tells its owner. Called on the event loop."""

    def said_hello(self, message: Hello) -> None: ...

    def said_ready(self, message: Ready) -> None: ...

    def said_start_failed(self, message: StartFailed, body: memoryview) -> None: ...

    def said_outputs(self, message: Outputs, body: memoryview) -> None: ...

    def said_taken(self, message: Taken, body: memoryview) -> None: ...

    def said_yielded(self, message: Yielded, body: memoryview) -> None: ...

    def said_returned(self, message: Returned) -> None: ...

    def said_leaving(self, message: Leaving) -> None: ...

    def broke_protocol(self, reason: str) -> None: ...


class LinkState(enum.Enum):
    WAITING = "waiting"  #: for Hello
    STARTING = "starting"  #: Start was sent
    READY = "ready"
    FAILED = "failed"  #: StartFailed came, or the protocol was broken


#: What the runner may say in each state.
_ALLOWED: dict[LinkState, frozenset[type]] = {
    LinkState.WAITING: frozenset({Hello}),
    LinkState.STARTING: frozenset({Ready, StartFailed, Leaving}),
    LinkState.READY: frozenset({Outputs, Taken, Yielded, Returned, Leaving}),
    LinkState.FAILED: frozenset(),
}


class RunnerLink:
    """The conversation with one runner, apart from how its frames travel."""

    def __init__(self, container_id: str, start: Start, start_body: bytes, events: LinkEvents) -> None:
        self.state = LinkState.WAITING
        self._container_id = container_id
        self._start = start
        self._start_body = start_body
        self._events = events
        self.closed = asyncio.Event()  # the runner's connection is over
        self._transport: asyncio.Transport | None = None
        self._held: set[str] = set()  # inputs pushed, or taken over a direct line, and not answered
        self._prefixes: set[str] = set()  # of the calls that may come over direct lines
        self._handlers: dict[type, Callable[[Any, memoryview], None]] = {
            Hello: self._hello,
            Ready: self._ready,
            StartFailed: self._start_failed,
            Outputs: self._outputs,
            Taken: self._taken,
            Yielded: self._yielded,
            Returned: self._returned,
            Leaving: self._leaving,
        }

    @property
    def is_connected(self) -> bool:
        """Has the runner ever connected?"""
        return self._transport is not None

    def connect(self, transport: asyncio.Transport) -> bool:
        """Take a connection as the runner's; False when there is one already."""
        if self._transport is not None:
            return False
        self._transport = transport
        return True

    def receive(self, frame: memoryview) -> None:
        """Act on one frame of the runner."""
        if self.state is LinkState.FAILED:
            return
        try:
            header, body = frames.unpack(frame)
            name = header.get("t")
            cls = RUNNER_MESSAGES.get(name) if isinstance(name, str) else None
            if cls is None or cls not in _ALLOWED[self.state]:
                raise WireError(f"{str(name)[:40]!r} is not allowed while {self.state.value}")
            self._handlers[cls](codec.decode(cls, header), body)
        except WireError as error:
            self.fail(str(error))

    def fail(self, reason: str) -> None:
        """The runner broke the protocol: listen to it no more."""
        self.state = LinkState.FAILED
        self._events.broke_protocol(reason)

    def send(self, message: object, body: bytes = b"") -> bool:
        """Send a message to the runner; False when it is not connected."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        header = frames.pack_header({"t": type(message).__name__, **codec.encode(message)})
        prefix = _LENGTH.pack(len(header) + len(body)) + header
        if len(body) <= _JOINED_BODY:
            transport.write(prefix + body)
        else:
            transport.write(prefix)
            transport.write(body)
        return True

    def push(self, message: RunInputs, body: bytes) -> None:
        """Send inputs and remember that the runner holds them."""
        if self.state is LinkState.READY and self.send(message, body):
            self._held.update(one.input_id for one in message.inputs)

    def open_line(self, message: OpenLine, connection: socket.socket) -> bool:
        """Hand a client's connection to the runner; False when that cannot be done at this moment."""
        transport = self._transport
        if self.state is not LinkState.READY or transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size():
            return False  # the frame would overtake what waits there
        frame = frames.length_prefixed(frames.pack({"t": "OpenLine", **codec.encode(message)}))
        # The transport cannot send descriptors; its socket is borrowed for that.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own:
            try:
                socket.send_fds(own, [frame], [connection.fileno()])
            except OSError:
                return False  # the socket is full, or closed, which is noticed elsewhere
        self._prefixes.add(message.prefix)
        return True

    def _hello(self, message: Hello, body: memoryview) -> None:
        if message.container_id != self._container_id:
            raise WireError(f"it says to be {message.container_id[:40]!r}")
        self.state = LinkState.STARTING
        self._events.said_hello(message)
        self.send(self._start, self._start_body)
        self._start_body = b""

    def _ready(self, message: Ready, body: memoryview) -> None:
        self.state = LinkState.READY
        self._events.said_ready(message)

    def _start_failed(self, message: StartFailed, body: memoryview) -> None:
        self.state = LinkState.FAILED
        self._events.said_start_failed(message, body)

    def _outputs(self, message: Outputs, body: memoryview) -> None:
        _check_sizes([one.size for one in message.outputs], len(body))
        ids = [one.input_id for one in message.outputs]
        direct = {one.input_id for one in message.outputs if one.call_id and self._is_direct(one)}
        if len(set(ids)) != len(ids) or not self._held.issuperset(set(ids) - direct):
            raise WireError("it answers inputs that it does not hold")
        if any(one.status is Status.SUCCESS and one.error is not None for one in message.outputs):
            raise WireError("an output is both a success and an error")
        if not all(0.0 <= one.seconds <= _LONGEST for one in message.outputs):
            raise WireError("an output took a time that cannot be")  # the scheduler reckons with it
        self._held.difference_update(ids)
        self._events.said_outputs(message, body)

    def _taken(self, message: Taken, body: memoryview) -> None:
        _check_sizes([one.size for one in message.inputs], len(body))
        ids = {one.input_id for one in message.inputs}
        if len(ids) != len(message.inputs) or ids & self._held or not all(map(self._is_direct, message.inputs)):
            raise WireError("it takes inputs that cannot have come over a direct line")
        self._held |= ids
        self._events.said_taken(message, body)

    def _is_direct(self, one: RunInput | RunOutput) -> bool:
        """Whether it belongs to a call that may have come over a direct line."""
        if isinstance(one, RunOutput) and (one.status is not Status.SUCCESS or one.blob is not None):
            return False  # its line is for results alone
        is_first = one.input_id == f"in-{one.call_id[3:]}-0"
        return is_first and len(one.call_id) == DIRECT_ID and one.call_id[:DIRECT_PREFIX] in self._prefixes

    def _yielded(self, message: Yielded, body: memoryview) -> None:
        _check_sizes([message.size], len(body))
        if message.input_id not in self._held:
            raise WireError("it yields for an input that it does not hold")
        self._events.said_yielded(message, body)

    def _returned(self, message: Returned, body: memoryview) -> None:
        if not self._held.issuperset(message.input_ids) or len(set(message.input_ids)) != len(message.input_ids):
            raise WireError("it returns inputs that it does not hold")
        self._held.difference_update(message.input_ids)
        self._events.said_returned(message)

    def _leaving(self, message: Leaving, body: memoryview) -> None:
        self._events.said_leaving(message)


def _check_sizes(sizes: Sequence[int], total: int) -> None:
    if any(size < 0 for size in sizes) or sum(sizes) != total:
        raise WireError(f"its payload sizes {list(sizes)[:8]} do not add up to the {total} bytes that came")


class SocketConnection(asyncio.Protocol):
    """One connection to a container's socket, until its first frame has said whose it is."""

    def __init__(self, link: RunnerLink, api: ContainerApi, container_id: str, open_transports: set[Any]) -> None:
        self._link = link
        self._api = api
        self._container_id = container_id
        self._open = open_transports
        self._transport: asyncio.Transport | None = None
        self._first = bytearray()
        self._decoder: frames.FrameDecoder | None = None  # set once this is known to be the runner's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports do not derive from asyncio's.)
        self._transport = cast(asyncio.Transport, transport)
        # Those that were handed over end without this class hearing of it.
        self._open -= {one for one in self._open if one.is_closing()}
        self._open.add(transport)

    def data_received(self, data: bytes) -> None:
        if self._decoder is not None:
            self._runner_data(data)
            return
        self._first += data
        if len(self._first) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack_from(self._first)
        if length > _FIRST_FRAME_LIMIT:
            self._refuse()
        elif len(self._first) >= _LENGTH.size + length:
            stop = _LENGTH.size + length
            frame, rest = bytes(self._first[_LENGTH.size : stop]), bytes(self._first[stop:])
            self._first.clear()
            self._identify(frame, rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._transport)
        if self._decoder is not None:
            if exc is not None:
                self._drain()
            self._link.closed.set()

    def _drain(self) -> None:
        """Read what the runner said before it went, when the connection broke at something that was sent to it."""
        assert self._transport is not None
        with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as own:
            own.setblocking(False)
            with contextlib.suppress(OSError):
                for _ in range(_DRAIN_READS):
                    self._runner_data(own.recv(_READ_SIZE))

    def _identify(self, frame: bytes, rest: bytes) -> None:
        assert self._transport is not None
        try:
            header, _ = frames.unpack(frame)
        except WireError:
            self._refuse()
            return
        if header.get("t") == "hello":
            self._hand_over(frame, rest)
        elif header.get("t") == "Hello" and self._link.connect(self._transport):
            self._decoder = frames.FrameDecoder()
            self._link.receive(memoryview(frame))
            if rest:
                self._runner_data(rest)
        else:
            self._refuse()

    def _hand_over(self, frame: bytes, rest: bytes) -> None:
        transport = self._transport
        assert transport is not None
        protocol = self._api.accept(self._container_id, transport, frame)
        assert isinstance(protocol, asyncio.Protocol)
        transport.set_protocol(protocol)
        if rest:
            protocol.data_received(rest)

    def _runner_data(self, data: bytes) -> None:
        assert self._decoder is not None
        assert self._transport is not None
        try:
            for frame in self._decoder.feed(data):
                self._link.receive(frame)
            if self._decoder.error is not None:  # frames came before the fault
                raise self._decoder.error
        except WireError as error:
            self._link.fail(str(error))
            self._transport.abort()

    def _refuse(self) -> None:
        assert self._transport is not None
        self._transport.abort()
