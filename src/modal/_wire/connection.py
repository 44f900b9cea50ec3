"""One connection that carries many calls, as a pure machine: frames in, events and frames out. No sockets, no clock.

The client says `hello`, the server answers `welcome` (or a connection error, after which it hangs up). Then only the
client opens calls, with ids that increase:

    client  open   id m q [d] [k]    method, request, seconds left, idempotency key; body
            item   id q              one message of a client stream or duplex; body
            end    id                no more items
            cancel id                the caller is gone
            bye                      the session is over, do not wait for it to come back
    server  reply  id q              the response of a unary or client-stream call, its last frame; body
            item   id q              one message of a server stream or duplex; body
            end    id                the stream is complete, its last frame
            error  id e              the call failed, its last frame
    both    credit id n              the receiver has consumed n bytes of items
            ping n / pong n
            error  e                 without id: the whole connection failed, hang up

Flow control: each side may send items of a stream while its credit is above zero; an item costs the size of its frame,
so that messages without a body are held back too. Credit may so fall below zero by one frame, never more: that is the
bound on what one stream can make the other side keep. A side that sends without credit is cut off.
"""

from __future__ import annotations

import enum
from typing import Any, Callable, NamedTuple, Optional, Union

from .codec import decode, encode
from .errors import TooLarge, WireError, from_error_info
from .frames import FRAME_LIMIT, Buffer, pack_header, unpack
from .messages.common import ErrorInfo, Shape

PROTOCOL = 1  #: raised by one with every change that an older side would misunderstand
WINDOW = 1024 * 1024  #: bytes of items of one stream under way in one direction
MAX_CALLS = 65_536  #: calls open at once on one connection
_ID_LIMIT = 2**53

Frame = tuple[bytes, Buffer]  #: header part and body; on the wire one follows the other


class Hello(NamedTuple):
    """The client introduced itself. The server answers `welcome` or `abort`."""

    session: str
    version: str
    token: Optional[dict[str, Any]]


class Welcome(NamedTuple):
    """The server accepted us."""

    version: str


class Opened(NamedTuple):
    """A call begins. The server answers `accept` (streams), then `reply`, `end` or `fail`."""

    id: int
    method: str
    request: Any
    body: memoryview
    seconds: Optional[float]
    key: str


class Item(NamedTuple):
    """A message of a stream. Once it is used, give `size` to `consumed`."""

    id: int
    message: Any
    body: memoryview
    size: int


class Ended(NamedTuple):
    """The other side sends no more items. For a client the call is over."""

    id: int


class Replied(NamedTuple):
    id: int
    message: Any
    body: memoryview


class Failed(NamedTuple):
    id: int
    error: Exception


class Cancelled(NamedTuple):
    id: int


class Credited(NamedTuple):
    """The stream may send again."""

    id: int


class Said(NamedTuple):
    """The other side said `bye` or `pong`."""

    what: str


class Aborted(NamedTuple):
    """The other side, or this one when the versions do not match, gave the connection up. Hang up after flushing."""

    error: Exception


Event = Union[Hello, Welcome, Opened, Item, Ended, Replied, Failed, Cancelled, Credited, Said, Aborted]


class State(enum.Enum):
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class _Call:
    """One call as this side sees it."""

    __slots__ = ("items_end", "may_receive", "may_send", "owed", "receivable", "sendable")

    def __init__(self, window: int) -> None:
        self.sendable = window  # credit for our items
        self.receivable = window  # credit that the other side has
        self.owed = 0  # consumed bytes not granted again yet
        self.may_send = False
        self.may_receive = False
        self.items_end = False  # the other side ended its items


_CLIENT_SENDS = (Shape.CLIENT_STREAM, Shape.DUPLEX)
_SERVER_SENDS = (Shape.SERVER_STREAM, Shape.DUPLEX)


def version_error(client: int, server: int) -> ErrorInfo:
    """Say which side is too old."""
    old = "client" if client < server else "server"
    return ErrorInfo(
        "VersionError",
        f"The client speaks protocol version {client} and the server version {server}; "
        f"upgrade Intermodal on the {old}.",
    )


class Connection:
    """Methods that send only queue frames, for `take`. All of them ignore the id of a call that is over."""

    def __init__(self, *, client: bool, window: int = WINDOW, max_calls: int = MAX_CALLS) -> None:
        self.state = State.OPENING
        self.queued = 0  #: bytes waiting in `take`
        self._client = client
        self._window = window
        self._max_calls = max_calls
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._arrived = 0  # bytes of the frame being received
        self._outgoing: list[Frame] = []
        self._receivers = _RECEIVERS[(client, State.OPENING)]

    def take(self) -> list[Frame]:
        """Return the frames to send now, in order, and forget them."""
        frames, self._outgoing = self._outgoing, []
        self.queued = 0
        return frames

    def _send(self, header: dict[str, Any], body: Buffer = b"") -> int:
        head = pack_header(header)
        size = len(head) + len(body)
        if size > FRAME_LIMIT:
            raise TooLarge(f"The message has {size} bytes; the limit is {FRAME_LIMIT}.")
        self._outgoing.append((head, body))
        self.queued += size
        return size

    def _become(self, state: State) -> None:
        self.state = state
        self._receivers = _RECEIVERS[(self._client, state)]

    # Sending: both sides

    def ping(self, number: int) -> None:
        self._send({"t": "ping", "n": number})

    def abort(self, error: ErrorInfo) -> None:
        """Tell the other side why the connection ends. Nothing more is received; every call is over."""
        if self.state is not State.CLOSED:
            self._send({"t": "error", "e": encode(error)})
            self.close()

    def close(self) -> None:
        """This side hangs up: every call is over and nothing more is received."""
        self._become(State.CLOSED)
        self._calls.clear()

    def may_send(self, id: int) -> bool:
        """Whether `item` would be sent now; True also when the call is over, since the item is dropped then."""
        call = self._calls.get(id)
        return call is None or call.sendable > 0

    def item(self, id: int, message: Any, body: Buffer = b"") -> None:
        """Send a message of a stream. The caller has checked `may_send`.

        Raises:
            WireError: the message is over a limit (TooLarge) or is not JSON; nothing was sent.
        """
        call = self._calls.get(id)
        if call is not None and call.may_send:
            call.sendable -= self._send({"t": "item", "id": id, "q": message}, body)

    def end(self, id: int) -> None:
        """Send no more items; on the server this completes the call."""
        call = self._calls.get(id)
        if call is None or not call.may_send:
            return
        self._send({"t": "end", "id": id})
        call.may_send = False
        if not self._client:
            del self._calls[id]

    def consumed(self, id: int, size: int) -> None:
        """The application took an item of `size`: grant as much again, in portions of half a window."""
        call = self._calls.get(id)
        if call is None:
            return
        call.owed += size
        if call.owed * 2 >= self._window and not call.items_end:
            self._send({"t": "credit", "id": id, "n": call.owed})
            call.receivable += call.owed
            call.owed = 0

    # Sending: the client

    def hello(self, session: str, version: str, token: Optional[dict[str, Any]]) -> None:
        self._send({"t": "hello", "protocol": PROTOCOL, "version": version, "session": session, "token": token})

    def bye(self) -> None:
        self._send({"t": "bye"})

    def open(
        self, method: str, shape: Shape, request: Any, body: Buffer, *, seconds: Optional[float] = None, key: str = ""
    ) -> int:
        """Begin a call and return its id.

        Raises:
            WireError: the message is over a limit (TooLarge) or is not JSON; nothing was sent.
        """
        id = self._last_id + 1
        header = {"t": "open", "id": id, "m": method, "q": request}
        if seconds is not None:
            header["d"] = seconds
        if key:
            header["k"] = key
        self._send(header, body)
        self._last_id = id
        call = self._calls[id] = _Call(self._window)
        call.may_send = shape in _CLIENT_SENDS
        call.may_receive = shape in _SERVER_SENDS
        return id

    def cancel(self, id: int) -> None:
        if self._calls.pop(id, None) is not None:
            self._send({"t": "cancel", "id": id})

    # Sending: the server

    def welcome(self, version: str) -> None:
        self._send({"t": "welcome", "protocol": PROTOCOL, "version": version})
        self._become(State.OPEN)

    def accept(self, id: int, shape: Shape) -> None:
        """The opened call has this shape. Called while its `Opened` is handled, before the next frame is received."""
        call = self._calls.get(id)
        if call is not None:
            call.may_receive = shape in _CLIENT_SENDS
            call.may_send = shape in _SERVER_SENDS

    def reply(self, id: int, message: Any, body: Buffer = b"") -> None:
        """Complete a unary or client-stream call.

        Raises:
            WireError: the message is over a limit (TooLarge) or is not JSON; nothing was sent, the call is still open.
        """
        if id in self._calls:
            self._send({"t": "reply", "id": id, "q": message}, body)
            del self._calls[id]

    def fail(self, id: int, error: ErrorInfo) -> None:
        """Complete any call with an error."""
        if self._calls.pop(id, None) is not None:
            self._send({"t": "error", "id": id, "e": encode(error)})

    # Receiving

    def receive(self, frame: Buffer) -> Optional[Event]:
        """Take one frame.

        Raises:
            WireError: the other side broke the protocol. Give the error to `abort`.
        """
        header, body = unpack(frame)
        self._arrived = len(frame)
        kind = header.get("t")
        receiver = self._receivers.get(kind) if type(kind) is str else None
        if receiver is None:
            if self.state is State.CLOSED:
                return None
            raise WireError(f"A frame arrived that is not allowed when the connection is {self.state.value}.")
        return receiver(self, header, body)

    def _known(self, header: dict[str, Any]) -> tuple[int, Optional[_Call]]:
        """Return the call that a frame is about; None when it is over, which the other side need not know yet."""
        id = header.get("id")
        if type(id) is not int or not 0 < id <= self._last_id:
            raise WireError("A frame arrived about a call that was never opened.")
        return id, self._calls.get(id)

    def _on_hello(self, header: dict[str, Any], body: memoryview) -> Event:
        protocol, session, version = header.get("protocol"), header.get("session"), header.get("version")
        if type(protocol) is not int:
            raise WireError("The handshake is malformed.")
        if protocol != PROTOCOL:  # before anything else, which may look different there
            return self._mismatch(protocol, PROTOCOL)
        if type(session) is not str or type(version) is not str:
            raise WireError("The handshake is malformed.")
        token = header.get("token")
        if not 0 < len(session) <= 100 or not (token is None or type(token) is dict):
            raise WireError("The handshake is malformed.")
        return Hello(session, version, token)

    def _on_welcome(self, header: dict[str, Any], body: memoryview) -> Event:
        protocol = header.get("protocol")
        if type(protocol) is not int:
            raise WireError("The handshake is malformed.")
        if protocol != PROTOCOL:
            return self._mismatch(PROTOCOL, protocol)
        self._become(State.OPEN)
        return Welcome(str(header.get("version", "")))

    def _mismatch(self, client: int, server: int) -> Event:
        info = version_error(client, server)
        self.abort(info)
        return Aborted(from_error_info(info))

    def _on_open(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        id, method, seconds, key = header.get("id"), header.get("m"), header.get("d"), header.get("k", "")
        if type(id) is not int or not self._last_id < id < _ID_LIMIT:
            raise WireError("A call was opened whose id does not follow the one before.")
        if type(method) is not str or type(key) is not str or len(key) > 200:
            raise WireError("A call was opened with a malformed header.")
        if seconds is not None and not (type(seconds) in (int, float) and 0 <= seconds < 1e9):
            raise WireError("A call was opened with an impossible deadline.")
        self._last_id = id
        self._calls[id] = _Call(self._window)
        if len(self._calls) > self._max_calls:
            self.fail(id, ErrorInfo("InvalidError", f"More than {self._max_calls} calls are open on one connection."))
            return None
        return Opened(id, method, header.get("q"), body, seconds, key)

    def _on_item(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        id, call = self._known(header)
        if call is None:
            return None
        if not call.may_receive or call.items_end:
            raise WireError("An item arrived for a call that takes none.")
        if call.receivable <= 0:
            raise WireError("An item arrived for a stream that has no credit left.")
        call.receivable -= self._arrived
        return Item(id, header.get("q"), body, self._arrived)

    def _on_end(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        id, call = self._known(header)
        if call is None:
            return None
        if not call.may_receive or call.items_end:
            raise WireError("The end of a stream arrived for a call that has none.")
        call.items_end = True
        if self._client:
            del self._calls[id]
        return Ended(id)

    def _on_reply(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        id, call = self._known(header)
        if call is None:
            return None
        if call.may_receive:
            raise WireError("A reply arrived for a stream.")
        del self._calls[id]
        return Replied(id, header.get("q"), body)

    def _on_error(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        error = from_error_info(decode(ErrorInfo, header.get("e")))
        if "id" not in header:
            self.close()
            return Aborted(error)
        id, call = self._known(header)
        if call is None:
            return None
        del self._calls[id]
        return Failed(id, error)

    def _on_connection_error(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        if "id" in header:
            raise WireError("A frame arrived that only a server may send.")
        return self._on_error(header, body)

    def _on_cancel(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        id, call = self._known(header)
        if call is None:
            return None
        del self._calls[id]
        return Cancelled(id)

    def _on_credit(self, header: dict[str, Any], body: memoryview) -> Optional[Event]:
        id, call = self._known(header)
        count = header.get("n")
        if type(count) is not int or count <= 0:
            raise WireError("Impossible credit arrived.")
        if call is None:
            return None
        call.sendable += count
        if call.sendable > self._window:
            raise WireError("More credit arrived than the window holds.")
        return Credited(id)

    def _on_ping(self, header: dict[str, Any], body: memoryview) -> None:
        number = header.get("n")
        if type(number) is not int or not 0 <= number < _ID_LIMIT:
            raise WireError("A malformed ping arrived.")
        self._send({"t": "pong", "n": number})

    def _on_said(self, header: dict[str, Any], body: memoryview) -> Event:
        return Said(header["t"])


_Receiver = Callable[[Connection, dict[str, Any], memoryview], Optional[Event]]

_BOTH: dict[str, _Receiver] = {
    "item": Connection._on_item,
    "end": Connection._on_end,
    "credit": Connection._on_credit,
    "ping": Connection._on_ping,
    "pong": Connection._on_said,
}

#: (this side is the client, state) -> what the other side may send
_RECEIVERS: dict[tuple[bool, State], dict[str, _Receiver]] = {
    (True, State.OPENING): {"welcome": Connection._on_welcome, "error": Connection._on_connection_error},
    (False, State.OPENING): {"hello": Connection._on_hello},
    (True, State.OPEN): {**_BOTH, "reply": Connection._on_reply, "error": Connection._on_error},
    (False, State.OPEN): {
        **_BOTH,
        "open": Connection._on_open,
        "cancel": Connection._on_cancel,
        "bye": Connection._on_said,
        "error": Connection._on_connection_error,
    },
    (True, State.CLOSED): {},
    (False, State.CLOSED): {},
}
