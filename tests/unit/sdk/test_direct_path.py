"""The client's end of a direct line, with containers that answer wrongly, late, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Optional

import pytest

from modal import _event_loop
from modal._calls import direct
from modal._calls.direct import DirectPath
from modal._serialization import deserialize, serialize
from modal._sync import drive
from modal._wire import codec, frames
from modal._wire.messages.call import CALL_DIRECT, CALL_RUN, DirectLine, Output, Status
from modal._wire.messages.runner import Outputs, Returned, RunInputs, RunOutput

PREFIX = "fc-abcdefghijklmn"


class Server:
    """Stands for the server: remembers what it is asked for over RPC."""

    target = "unix:///nowhere"

    def __init__(self) -> None:
        self.asked: list[Any] = []  #: CallRun of calls that were sent over the line
        self.usual = 0
        self.offers = 0

    async def unary(self, method: Any, request: Any, body: bytes = b"") -> Any:
        if method is CALL_DIRECT:
            self.offers += 1
            return DirectLine(), b""
        assert method is CALL_RUN
        self.asked.append(request)
        return Output(0, Status.SUCCESS, 0), serialize("from the server")

    async def run(self, payload: bytes) -> tuple[Output, bytes]:
        self.usual += 1
        return Output(0, Status.SUCCESS, 0), serialize("the usual way")

    async def client(self) -> Any:
        return self


class Container:
    """The other end of the line; `answer(input id, payload)` gives the bytes to send, None to hang up."""

    def __init__(self, answer: Callable[[str, bytes], Optional[bytes]]) -> None:
        self.ours, self.theirs = socket.socketpair()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client hung up, maybe with something unread
            self._answer_all()

    def _answer_all(self) -> None:
        decoder = frames.FrameDecoder()
        while data := self.theirs.recv(1 << 20):
            for frame in decoder.feed(data):
                header, body = frames.unpack(frame)
                [one] = codec.decode(RunInputs, header).inputs
                answer = self._answer(one.input_id, bytes(body))
                if answer is None:
                    self.theirs.shutdown(socket.SHUT_RDWR)
                    return
                self.theirs.sendall(answer)

    def close(self) -> None:
        self.ours.close()
        self._thread.join(10)
        self.theirs.close()


def framed(message: Any, body: bytes = b"", **changes: Any) -> bytes:
    header = {"t": type(message).__name__, **codec.encode(message), **changes}
    return frames.length_prefixed(frames.pack(header, body))


def echo(input_id: str, payload: bytes) -> bytes:
    data = serialize(deserialize(payload)[0][0])
    return framed(Outputs([RunOutput(input_id, Status.SUCCESS, len(data))]), data)


Make = Callable[[Callable[[str, bytes], Optional[bytes]]], DirectPath]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    containers, paths = [], []

    def make(answer: Callable[[str, bytes], Optional[bytes]]) -> DirectPath:
        container = Container(answer)
        containers.append(container)
        path = DirectPath("fu-1")
        path._line = direct._Line(server, container.ours, DirectLine("dl-1", "", "", PREFIX))  # type: ignore[arg-type]
        paths.append(path)
        return path

    yield make
    for path in paths:
        path.close()
    for container in containers:
        container.close()


def call(path: DirectPath, server: Server, value: Any) -> Any:
    output, data = drive(path.call(serialize(((value,), {})), server.run, server.client))
    assert output.status is Status.SUCCESS
    return deserialize(data)


def test_the_result_comes_over_the_line(make: Make, server: Server) -> None:
    path = make(echo)
    for number in range(50):
        assert call(path, server, number) == number
    assert not server.asked
    assert not server.usual


def test_large_arguments_take_the_usual_way(make: Make, server: Server) -> None:
    path = make(echo)
    assert call(path, server, bytes(100_000)) == "the usual way"
    assert call(path, server, 1) == 1


def test_what_is_returned_is_asked_for_and_the_line_stays(make: Make, server: Server) -> None:
    path = make(lambda input_id, payload: framed(Returned([input_id])))
    assert call(path, server, 1) == "from the server"
    [request] = server.asked
    assert (request.call_id, request.line_id) == (PREFIX + "00000001", "dl-1")
    assert path._line is not None
    for _ in range(2):
        assert call(path, server, 1) == "from the server"
    assert path._line is None  # three times in a row: it is of no use


@pytest.mark.parametrize(
    "answer",
    [
        lambda one, payload: None,
        lambda one, payload: b"\xff" * 100,
        lambda one, payload: framed(Returned(["in-other"])),
        lambda one, payload: framed(Outputs([])),
        lambda one, payload: framed(Outputs([RunOutput("in-other", Status.SUCCESS, 0)])),
        lambda one, payload: framed(Outputs([RunOutput(one, Status.SUCCESS, 5)])),
        lambda one, payload: framed(Outputs([RunOutput(one, Status.FAILURE, 0)])),
        lambda one, payload: framed(Outputs([RunOutput(one, Status.SUCCESS, 0)] * 2)),
        lambda one, payload: framed(Outputs([RunOutput(one, Status.SUCCESS, 0)]), outputs=7),
        lambda one, payload: framed(Outputs([RunOutput(one, Status.SUCCESS, 0)])) * 2,
        lambda one, payload: b"\xff\xff\xff\xff",
        lambda one, payload: framed(Outputs([RunOutput(one, Status.SUCCESS, 1 << 20)]), bytes(1 << 20)),
        lambda one, payload: b"\x00\x00",
        lambda one, payload: b"",
    ],
)
def test_anything_else_is_not_trusted(make: Make, server: Server, answer: Any) -> None:
    """The server is asked, and the line is given up."""
    path = make(answer)
    assert call(path, server, 1) == "from the server"
    assert path._line is None
    assert server.asked[0].call_id == PREFIX + "00000001"
    assert call(path, server, 1) == "the usual way"


def test_an_input_that_the_container_cannot_have_read_takes_the_usual_way(make: Make, server: Server) -> None:
    path = make(lambda one, payload: None)
    assert path._line is not None
    path._line._socket.shutdown(socket.SHUT_WR)
    assert call(path, server, 1) == "the usual way"
    assert not server.asked


def test_a_second_thread_takes_the_usual_way(make: Make, server: Server) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow(input_id: str, payload: bytes) -> bytes:
        inside.set()
        leave.wait(0.03)
        return echo(input_id, payload)

    path = make(slow)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call(path, server, 1)))
    thread.start()
    assert inside.wait(10)
    if call(path, server, 2) == "the usual way":
        assert server.usual == 1
    leave.set()
    thread.join()
    assert results[0] in (1, "from the server")


def test_the_less_use_lines_are_the_later_the_next_is_asked_for(server: Server) -> None:
    """The server offers none here."""
    path = DirectPath("fu-1")
    for _ in range(200):
        call(path, server, 1)
        settle(path)
    assert server.usual == 200
    assert 4 <= server.offers <= 7


def settle(path: DirectPath) -> None:
    """Let the loop do what it was asked to."""

    async def wait() -> None:
        while path._asking:
            await asyncio.sleep(0)

    _event_loop.run(wait())


def test_after_the_end_nothing_is_asked_for(make: Make, server: Server) -> None:
    path = make(echo)
    path.close()
    for _ in range(10):
        assert call(path, server, 1) == "the usual way"
    assert not server.offers
