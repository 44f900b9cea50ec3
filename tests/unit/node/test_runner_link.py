from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intermodal.node.runner_link import LinkState, RunnerLink, SocketConnection
from modal._wire import frames
from modal._wire.messages.function import Concurrency, Source, SourceKind
from modal._wire.messages.runner import RUNNER_MESSAGES, RunInput, RunInputs, Start

START = Start("ta-1", "ap-1", "fu-1", "f", "main", Source(SourceKind.FILE), False, 1.0, Concurrency(), 1)
HELLO = {"t": "Hello", "container_id": "ta-1", "python": "3.11.7", "pid": 1}


class Events:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append(name)


class Transport:
    def __init__(self) -> None:
        self.sent = bytearray()
        self.aborted = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


def wired() -> tuple[RunnerLink, Events, Transport]:
    events, transport = Events(), Transport()
    link = RunnerLink("ta-1", START, b"pickled", events)
    assert link.connect(transport)  # type: ignore[arg-type]
    return link, events, transport


def frame(header: Any, body: bytes = b"") -> memoryview:
    return memoryview(frames.pack(header, body))


def say(link: RunnerLink, *headers: Any) -> None:
    for header in headers:
        link.receive(frame(header))


def test_a_conversation() -> None:
    link, events, transport = wired()
    say(link, HELLO)
    (sent,) = frames.FrameDecoder().feed(bytes(transport.sent))
    header, body = frames.unpack(sent)
    assert (header["t"], bytes(body)) == ("Start", b"pickled")
    link.push(RunInputs([RunInput("in-0", "fc-1", 0)]), b"")  # too early, not sent
    say(link, {"t": "Ready"})
    link.push(RunInputs([RunInput("in-1", "fc-1", 0), RunInput("in-2", "fc-1", 0)]), b"")
    say(
        link,
        {"t": "Yielded", "input_id": "in-1", "size": 0},
        {"t": "Outputs", "outputs": [{"input_id": "in-1", "status": "success", "size": 0}]},
        {"t": "Returned", "input_ids": ["in-2"]},
        {"t": "Leaving"},
    )
    assert events.calls == ["said_hello", "said_ready", "said_yielded", "said_outputs", "said_returned", "said_leaving"]
    say(link, {"t": "Outputs", "outputs": [{"input_id": "in-1", "status": "success", "size": 0}]})
    assert events.calls[-1] == "broke_protocol"
    assert link.state is LinkState.FAILED
    say(link, HELLO)
    assert events.calls[-1] == "broke_protocol"
    assert len(events.calls) == 7


BLOB = {"digest": "0" * 64, "size": 5}


@pytest.mark.parametrize(
    "lie", [{"seconds": -1.0}, {"seconds": 1e300}, {"size": 2, "blob": BLOB}, {"size": -1, "blob": BLOB}]
)
def test_an_output_that_cannot_be_is_refused(lie: dict[str, Any]) -> None:
    link, events, _ = wired()
    say(link, HELLO, {"t": "Ready"})
    link.push(RunInputs([RunInput("in-1", "fc-1", 0)]), b"")
    say(link, {"t": "Outputs", "outputs": [{"input_id": "in-1", "status": "success", "size": 0, **lie}]})
    assert events.calls == ["said_hello", "said_ready", "broke_protocol"]


@pytest.mark.parametrize("seconds", [b"NaN", b"Infinity"])
def test_a_time_that_is_no_number_is_refused(seconds: bytes) -> None:
    link, events, _ = wired()
    say(link, HELLO, {"t": "Ready"})
    link.push(RunInputs([RunInput("in-1", "fc-1", 0)]), b"")
    said = {"t": "Outputs", "outputs": [{"input_id": "in-1", "status": "success", "size": 0, "seconds": 0.25}]}
    head = bytes(frame(said)).replace(b"0.25", seconds)[4:]
    link.receive(memoryview(struct.pack(">I", len(head)) + head))
    assert events.calls == ["said_hello", "said_ready", "broke_protocol"]


def test_a_runner_that_names_another_container_is_refused() -> None:
    link, events, _ = wired()
    say(link, {**HELLO, "container_id": "ta-2"})
    assert events.calls == ["broke_protocol"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted(RUNNER_MESSAGES)) | JSON
FIELDS = st.sampled_from(["outputs", "input_id", "input_ids", "size", "error", "seconds", "container_id"])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.dictionaries(FIELDS, JSON, max_size=4), st.binary(max_size=8)), max_size=4),
    st.booleans(),
)
def test_no_frame_breaks_more_than_its_container(messages: list[Any], is_ready: bool) -> None:
    link, events, _ = wired()
    if is_ready:
        say(link, HELLO, {"t": "Ready"})
    for name, fields, body in messages:
        try:
            packed = frame({"t": name, **fields}, body)
        except frames.WireError:
            continue
        link.receive(packed)
    assert events.calls.count("broke_protocol") <= 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=32).map(lambda data: struct.pack(">I", len(data)) + data), st.data())
def test_no_bytes_break_a_connection_but_their_own(data: bytes, draw: st.DataObject) -> None:
    async def run() -> None:
        events, transport = Events(), Transport()
        link = RunnerLink("ta-1", START, b"", events)
        connection = SocketConnection(link, Api(), "ta-1", set())
        connection.connection_made(transport)  # type: ignore[arg-type]
        cut = draw.draw(st.integers(0, len(data)))
        for piece in (data[:cut], data[cut:]):
            if piece and not transport.aborted:
                connection.data_received(piece)
        connection.connection_lost(None)

    asyncio.run(run())


class Api:
    def __init__(self) -> None:
        self.first: list[bytes] = []
        self.later = bytearray()

    def accept(self, container_id: str, transport: Any, first_frame: bytes) -> asyncio.Protocol:
        api = self

        class Taker(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                api.later.extend(data)

        self.first.append(first_frame)
        return Taker()


async def test_a_connection_of_user_code_is_handed_over_with_what_came_after() -> None:
    api, transport = Api(), Transport()
    link = RunnerLink("ta-1", START, b"", Events())
    connection = SocketConnection(link, api, "ta-1", set())
    connection.connection_made(transport)  # type: ignore[arg-type]
    hello = frames.length_prefixed(frames.pack({"t": "hello"}))
    for byte in hello[:-1]:
        connection.data_received(bytes([byte]))
    connection.data_received(hello[-1:] + b"more")
    assert frames.unpack(api.first[0])[0] == {"t": "hello"}
    assert bytes(api.later) == b"more"
    assert isinstance(transport.protocol, asyncio.Protocol)
    assert not link.is_connected
