"""What a runner may say of inputs that came over a client's direct line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from test_runner_link import HELLO, Transport, frame, say, wired

from intermodal.node.runner_link import RunnerLink
from modal._wire import frames
from modal._wire.messages.runner import OpenLine

PREFIX = "fc-abcdefghijklmn"
CALL = PREFIX + "00000001"
INPUT = f"in-{CALL[3:]}-0"
TAKEN = {"input_id": INPUT, "call_id": CALL, "size": 0}
ANSWERED = {**TAKEN, "status": "success"}


class SocketTransport(Transport):
    """One whose socket can be borrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.theirs = socket.socketpair()
        self.waiting = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self.ours


@pytest.fixture
def transport() -> Iterator[SocketTransport]:
    one = SocketTransport()
    yield one
    one.ours.close()
    one.theirs.close()


def with_line(transport: SocketTransport) -> tuple[RunnerLink, Any]:
    link, events, _ = wired()
    link._transport = transport  # type: ignore[assignment]
    say(link, HELLO, {"t": "Ready"})
    client, other = socket.socketpair()
    with client, other:
        assert link.open_line(OpenLine("dl-1", PREFIX), client)
    return link, events


def test_the_connection_travels_with_the_frame(transport: SocketTransport) -> None:
    link, _, _ = wired()
    link._transport = transport  # type: ignore[assignment]
    say(link, HELLO, {"t": "Ready"})
    client, other = socket.socketpair()
    with client, other:
        assert link.open_line(OpenLine("dl-1", PREFIX), client)
        data, [descriptor], _, _ = socket.recv_fds(transport.theirs, 4096, 4)
        [one] = frames.FrameDecoder().feed(data)
        assert frames.unpack(one)[0] == {"t": "OpenLine", "line_id": "dl-1", "prefix": PREFIX}
        with socket.socket(fileno=descriptor) as passed:
            passed.sendall(b"hello")
        assert other.recv(10) == b"hello"


def test_a_line_is_refused_while_something_waits_to_be_sent(transport: SocketTransport) -> None:
    link, _ = with_line(transport)
    transport.waiting = 1
    client, other = socket.socketpair()
    with client, other:
        assert not link.open_line(OpenLine("dl-2", PREFIX), client)


def test_inputs_of_the_line_are_taken_answered_and_returned(transport: SocketTransport) -> None:
    link, events = with_line(transport)
    second = {"input_id": f"in-{PREFIX[3:]}00000002-0", "call_id": PREFIX + "00000002", "size": 0}
    say(
        link,
        {"t": "Outputs", "outputs": [ANSWERED]},
        {"t": "Taken", "inputs": [second]},
        {"t": "Returned", "input_ids": [second["input_id"]]},
    )
    assert events.calls[-3:] == ["said_outputs", "said_taken", "said_returned"]


@pytest.mark.parametrize(
    "header",
    [
        {"t": "Taken", "inputs": [{**TAKEN, "call_id": "fc-" + 22 * "x"}]},
        {"t": "Taken", "inputs": [{**TAKEN, "call_id": CALL + "0"}]},
        {"t": "Taken", "inputs": [{**TAKEN, "input_id": "in-1"}]},
        {"t": "Taken", "inputs": [TAKEN, TAKEN]},
        {"t": "Taken", "inputs": [{**TAKEN, "size": 5}]},
        {"t": "Outputs", "outputs": [{**ANSWERED, "call_id": "fc-" + 22 * "x"}]},
        {"t": "Outputs", "outputs": [{**ANSWERED, "status": "failure"}]},
        {"t": "Outputs", "outputs": [{**ANSWERED, "input_id": f"in-{CALL[3:]}-1"}]},
        {"t": "Outputs", "outputs": [ANSWERED, ANSWERED]},
        {"t": "OpenLine", "line_id": "dl-1", "prefix": PREFIX},
    ],
)
def test_what_cannot_have_come_over_it_ends_the_container(transport: SocketTransport, header: dict[str, Any]) -> None:
    link, events = with_line(transport)
    say(link, header)
    assert events.calls[-1] == "broke_protocol"


def test_an_input_is_taken_once(transport: SocketTransport) -> None:
    link, events = with_line(transport)
    say(link, {"t": "Taken", "inputs": [TAKEN]})
    link.receive(frame({"t": "Taken", "inputs": [TAKEN]}))
    assert events.calls[-1] == "broke_protocol"


def test_without_a_line_there_are_no_such_inputs() -> None:
    link, events, _ = wired()
    say(link, HELLO, {"t": "Ready"}, {"t": "Taken", "inputs": [TAKEN]})
    assert events.calls[-1] == "broke_protocol"
