"""Direct lines: connections of clients over which inputs come, and results go, without the agent between.

An input of a line is known to this container and its client only (`InputLoop.direct`), for a few milliseconds: when it
ends with a result, the client gets that, and the agent hears of the call afterwards, together with others
(`Outbox.report`). In every other case it is handed over: the agent is told of it as if it had pushed it (`Taken`), the
client to ask the server (`Returned`). So for all that takes time or goes wrong there is one way.
"""

from __future__ import annotations

from _socket import AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RD, SOCK_STREAM
from _socket import socket as Socket

from .channel import FrameReader, ProtocolError, frame_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .channel import Channel
    from .machine import Input, InputLoop
    from .outbox import Outbox

DIRECT_LIMIT = 64 * 1024  #: bytes; as in modal._wire.messages.call
_READ_SIZE = 64 * 1024


class Line:
    """One client's connection. What cannot be sent is dropped with the line: the client asks the server then."""

    def __init__(self, descriptor: int, prefix: str) -> None:
        self.socket = Socket(AF_UNIX, SOCK_STREAM, 0, descriptor)
        self.prefix = prefix
        self.reader = FrameReader()
        self.is_broken = False

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        data = frame_head(header, len(payload)) + payload
        try:
            # There is room, unless the client does not read.
            self.is_broken = self.socket.send(data, MSG_DONTWAIT | MSG_NOSIGNAL) != len(data) or self.is_broken
        except OSError:
            self.is_broken = True

    def receive(self) -> list[tuple[dict[str, Any], memoryview]]:
        """The frames that have come. Raises `ProtocolError`."""
        try:
            data = self.socket.recv(_READ_SIZE, MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_broken = True
            return []
        frames = self.reader.feed(data)
        for header, _ in frames:
            self._check(header)
        return frames

    def _check(self, header: dict[str, Any]) -> None:
        """The agent would take an id that is not of this line as a lie of this container."""
        try:
            for record in header["inputs"]:
                call_id = record["call_id"]
                fits = call_id.startswith(self.prefix) and len(call_id) == 25 and call_id.isascii()
                if not fits or record["input_id"] != f"in-{call_id[3:]}-0" or record["size"] > DIRECT_LIMIT:
                    raise ProtocolError("An input came over a direct line that is not of this line.")
        except (KeyError, TypeError, AttributeError):
            raise ProtocolError("A malformed frame came over a direct line.") from None


class Lines:
    """The lines of one container. Its methods are called with the shell's lock held."""

    def __init__(self, channel: Channel, machine: InputLoop, outbox: Outbox) -> None:
        self._channel = channel
        self._machine = machine
        self._outbox = outbox
        self._lines: dict[int, Line] = {}

    @property
    def descriptors(self) -> list[int]:
        return list(self._lines)

    def open(self, descriptor: int, prefix: str) -> None:
        line = self._lines[descriptor] = Line(descriptor, prefix)
        self._channel.watch(descriptor)
        line.send({"t": "Ready"})

    def receive(self) -> list[Any]:
        """Queue what has come over the lines; returns the machine's instructions."""
        instructions: list[Any] = []
        for line in list(self._lines.values()):
            try:
                for header, body in line.receive():
                    instructions += self._machine.handle(header, body, line)
            except ProtocolError:
                line.is_broken = True
            if line.is_broken:
                self._drop(line)
        return instructions

    def answer(self, item: Input, record: dict[str, Any], payload: bytes) -> bool:
        """Give the client the result of its input; False when it must be handed over instead."""
        if record["status"] != "success" or len(payload) > DIRECT_LIMIT or "blob" in record:
            return False
        line: Line = item.line
        line.send({"t": "Outputs", "outputs": [record]}, payload)
        record["call_id"] = item.call_id
        if item.method:
            record["method"] = item.method
        self._outbox.report(record, payload)
        self._machine.answered(item)
        if line.is_broken:
            self._drop(line)
        return True

    def hand_over(self, items: list[Input]) -> None:
        """Tell the agent of inputs, and their clients to ask there.

        Raises:
            OSError: the agent is gone.
        """
        if not items:
            return
        records, payloads, lines = [], [], []
        for item in items:
            payload = bytes(item.sent or b"")
            record = {"input_id": item.input_id, "call_id": item.call_id, "size": len(payload)}
            if item.method:
                record["method"] = item.method
            records.append(record)
            payloads.append(payload)
            lines.append((item.line, item.input_id))
        self._outbox.taken(records, payloads)
        self._machine.tell(items)
        for line, input_id in lines:
            line.send({"t": "Returned", "input_ids": [input_id]})

    def drain(self) -> list[Any]:
        """Let nothing more come; returns the machine's instructions for what had come already.

        What a client has sent is in the socket, and is read; what it sends from now on fails there.
        """
        for line in self._lines.values():
            try:
                line.socket.shutdown(SHUT_RD)
            except OSError:
                line.is_broken = True
        instructions = self.receive()
        while self._lines:
            instructions += self.receive()  # until each says that it has ended
        return instructions

    def leave_in_child(self) -> None:
        """After a fork: the child has nothing to do with them."""
        for line in self._lines.values():
            line.socket.close()
        self._lines.clear()

    def _drop(self, line: Line) -> None:
        """Nothing comes any more. It is closed when the last of its inputs has been answered or handed over."""
        descriptor = line.socket.fileno()
        self._channel.unwatch(descriptor)
        self._lines.pop(descriptor, None)
