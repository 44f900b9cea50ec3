"""The real runner with direct lines: a client's socket, and what the agent hears of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from fake_agent import Agent

from modal._serialization import deserialize, serialize
from modal._wire import codec, frames
from modal._wire.messages.call import Status
from modal._wire.messages.runner import (
    RUNNER_MESSAGES,
    CloseLines,
    OpenLine,
    Outputs,
    Ready,
    Returned,
    RunInput,
    RunInputs,
    Taken,
)

SCRIPT = """
import os, signal, sys, time
import modal

def work(what="", value=None):
    if what == "sleep":
        time.sleep(value)
    if what == "wait":
        open("begun", "w").close()
        try:
            time.sleep(60)
        finally:
            open("interrupted", "w").close()
    if what == "fail":
        raise ValueError(value)
    if what == "big":
        return bytes(value)
    if what == "ids":
        return modal.current_input_id(), modal.current_function_call_id()
    if what == "fork":
        pid = os.fork()
        if not pid:
            modal.current_input_id()
            return 1
        return os.waitpid(pid, 0)[1]
    return value

async def later(value):
    return value
"""
PREFIX = "fc-abcdefghijklmn"


class Client:
    """The other end of a line."""

    def __init__(self, agent: Agent, prefix: str = PREFIX) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        self.prefix = prefix
        self.count = 0
        self._decoder = frames.FrameDecoder()
        self._frames: list[memoryview] = []
        header = {"t": "OpenLine", **codec.encode(OpenLine("dl-1", prefix))}
        with theirs:
            socket.send_fds(agent._connection, [frames.length_prefixed(frames.pack(header))], [theirs.fileno()])

    def send(self, *args: Any) -> str:
        self.count += 1
        call_id = f"{self.prefix}{self.count:08d}"
        payload = serialize((args, {}))
        self.say(RunInputs([RunInput(f"in-{call_id[3:]}-0", call_id, len(payload))]), payload)
        return f"in-{call_id[3:]}-0"

    def say(self, message: Any, body: bytes = b"") -> None:
        header = {"t": type(message).__name__, **codec.encode(message)}
        self.socket.sendall(frames.length_prefixed(frames.pack(header, body)))

    def receive(self) -> tuple[Any, bytes]:
        while not self._frames:
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError
            self._frames = list(self._decoder.feed(data))
        header, body = frames.unpack(self._frames.pop(0))
        return codec.decode(RUNNER_MESSAGES[header["t"]], header), bytes(body)

    def rest(self) -> list[Any]:
        """All that comes until the line ends."""
        messages = []
        with contextlib.suppress(EOFError):
            while True:
                messages.append(self.receive()[0])
        return messages

    def call(self, *args: Any) -> Any:
        """The result of an input; of another one when the machine paused for so long that the first was returned."""
        name = self.send(*args)
        message, body = self.receive()
        while isinstance(message, Returned):
            assert message.input_ids == [name]
            name = self.send(*args)
            message, body = self.receive()
        assert isinstance(message, Outputs), message
        assert [(one.input_id, one.status, one.size) for one in message.outputs] == [(name, Status.SUCCESS, len(body))]
        return deserialize(body)


class Told:
    """What the agent was told, in order."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.taken: dict[str, Any] = {}
        self.reported: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.returned: list[str] = []

    def until(self, name: str) -> Any:
        """The final output of the input."""
        while name not in self.outputs:
            self.pump()
        return self.outputs[name]

    def until_reported(self, name: str) -> Any:
        while name not in self.reported:
            self.pump()
        return self.reported[name]

    def until_returned(self, name: str) -> None:
        while name not in self.returned:
            self.pump()

    def until_taken(self, name: str) -> Any:
        while name not in self.taken:
            self.pump()
        return self.taken[name]

    def pump(self) -> None:
        message, body = self._agent.receive()
        if isinstance(message, Returned):
            self.returned += message.input_ids
            return
        position = 0
        for one in message.inputs if isinstance(message, Taken) else message.outputs:
            data = body[position : position + one.size]
            position += one.size
            if isinstance(message, Taken):
                self.taken[one.input_id] = deserialize(data)[0]
            elif one.call_id:
                assert one.input_id == f"in-{one.call_id[3:]}-0"
                self.reported[one.input_id] = deserialize(data)
            else:
                self.outputs[one.input_id] = (one.status, data)
        assert position == len(body)


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent(SCRIPT) as one:
        yield one.ready("work")


@pytest.fixture
def client(agent: Agent) -> Iterator[Client]:
    one = Client(agent)
    assert isinstance(one.receive()[0], Ready)
    yield one
    one.socket.close()


@pytest.fixture
def told(agent: Agent) -> Told:
    return Told(agent)


def test_results_come_over_the_line_and_the_agent_hears_of_them(client: Client, told: Told) -> None:
    names = []
    for number in range(200):
        assert client.call("", number) == number
        names.append(f"in-{PREFIX[3:]}{client.count:08d}-0")
    for number, name in enumerate(names):
        assert told.until_reported(name) == number
    assert not set(told.taken) & set(names)


def test_both_kinds_of_inputs_are_run(agent: Agent, client: Client, told: Told) -> None:
    for number in range(20):
        agent.push((f"in-{number}", ("", number)))
        assert client.call("", -number) == -number
        assert deserialize(told.until(f"in-{number}")[1]) == number


def test_what_takes_longer_is_the_agents(client: Client, told: Told) -> None:
    name = client.send("sleep", 0.1)
    assert client.receive()[0] == Returned([name])
    assert told.until_taken(name) == ("sleep", 0.1)
    status, data = told.until(name)
    assert (status, deserialize(data)) == (Status.SUCCESS, 0.1)
    assert client.call("", 2) == 2


@pytest.mark.parametrize("what", ["fail", "big"])
def test_failures_and_large_results_are_the_agents(client: Client, told: Told, what: str) -> None:
    name = client.send(what, 100_000)
    assert client.receive()[0] == Returned([name])
    assert told.until_taken(name) == (what, 100_000)
    status, data = told.until(name)
    assert status is (Status.FAILURE if what == "fail" else Status.SUCCESS)
    assert data


def test_code_that_asks_for_its_ids_is_known_to_the_agent(client: Client, told: Told) -> None:
    name = client.send("ids")
    assert client.receive()[0] == Returned([name])
    assert deserialize(told.until(name)[1]) == (name, f"fc-{name[3:-2]}")


def test_an_input_behind_something_long_goes_back(agent: Agent, client: Client, told: Told) -> None:
    agent.push(("in-long", ("wait",)))
    agent.wait_for_file("begun")
    name = client.send("", 1)
    assert client.receive()[0] == Returned([name])
    told.until_returned(name)
    assert told.taken[name] == ("", 1)
    agent.cancel("in-long")
    assert told.until("in-long")[0] is Status.TERMINATED
    assert client.call("", 2) == 2


def test_cancelling_one_that_runs(agent: Agent, client: Client, told: Told) -> None:
    name = client.send("wait")
    agent.wait_for_file("begun")
    agent.cancel(name)
    assert told.until(name)[0] is Status.TERMINATED
    assert told.taken[name] == ("wait",)
    agent.wait_for_file("interrupted")


def test_a_stop_gives_everything_back_and_ends_the_lines(agent: Agent, client: Client, told: Told) -> None:
    running = client.send("wait")
    agent.wait_for_file("begun")
    waiting = client.send("", 1)  # (a client of ours sends one at a time)
    agent.stop(5)
    assert told.until(running)[0] is Status.INTERNAL_FAILURE
    if waiting not in told.returned:
        told.until_returned(waiting)
    messages = client.rest()
    assert sorted(one for message in messages for one in message.input_ids) == sorted([running, waiting])
    with pytest.raises(BrokenPipeError):
        client.send("", 2)
    assert agent.wait()[0] == 0


def test_a_stop_while_idle_reports_what_was_done(agent: Agent, client: Client, told: Told) -> None:
    assert client.call("", 1) == 1
    agent.stop(5)
    assert told.until_reported(f"in-{PREFIX[3:]}{client.count:08d}-0") == 1
    with pytest.raises(EOFError):
        client.receive()


def test_lines_can_be_closed_and_opened_again(agent: Agent, client: Client, told: Told) -> None:
    assert client.call("", 1) == 1
    agent.send(CloseLines())
    with pytest.raises(EOFError):
        client.receive()
    with pytest.raises(BrokenPipeError):
        client.send("", 2)
    other = Client(agent, "fc-nopqrstuvwxyzA")
    assert isinstance(other.receive()[0], Ready)
    assert other.call("", 3) == 3
    other.socket.close()


def test_a_client_that_is_gone_is_nobodys_loss(agent: Agent, client: Client, told: Told) -> None:
    name = client.send("sleep", 0.001)
    client.socket.close()
    while name not in told.reported and name not in told.outputs:
        told.pump()
    other = Client(agent, "fc-nopqrstuvwxyzA")
    assert isinstance(other.receive()[0], Ready)
    assert other.call("", 3) == 3
    other.socket.close()


@pytest.mark.parametrize("data", [b"\xff" * 64, frames.length_prefixed(frames.pack({"t": "Stop"}))])
def test_nonsense_ends_the_line_alone(agent: Agent, client: Client, data: bytes) -> None:
    client.socket.sendall(data)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.receive()
    assert agent.call("", 5)[1] == 5


def test_an_id_of_someone_else_ends_the_line_alone(agent: Agent, client: Client) -> None:
    client.prefix = "fc-XXXXXXXXXXXXXX"
    client.send("", 1)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.receive()
    assert agent.call("", 5)[1] == 5


def test_a_forked_child_leaves_the_line_alone(client: Client) -> None:
    name = client.send("fork")
    message, body = client.receive()
    if isinstance(message, Outputs):
        assert deserialize(body) == 0
    else:
        assert message == Returned([name])
    assert client.call("", 2) == 2


def test_a_signal_from_outside_hands_everything_over(agent: Agent, client: Client) -> None:
    client.send("wait")
    agent.wait_for_file("begun")
    agent.signal(signal.SIGTERM)
    messages = client.rest()
    assert [type(one) for one in messages] == [Returned]


@pytest.mark.parametrize(("function", "options"), [("later", {}), ("work", {"concurrency": 2})])
def test_other_kinds_of_containers_refuse(function: str, options: dict[str, Any]) -> None:
    with Agent(SCRIPT) as agent:
        agent.ready(function, **options)
        client = Client(agent)
        with pytest.raises(EOFError):
            client.receive()
        client.socket.close()
        assert agent.call(*([3] if function == "later" else ["", 3]))[1] == 3


def test_descriptors_do_not_pile_up(agent: Agent, client: Client) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{agent.process.pid}/fd"))

    assert client.call("", 1) == 1
    before = count()
    for number in range(20):
        other = Client(agent, f"fc-nopqrstuvwxy{number:02d}")
        other.receive()
        assert other.call("", number) == number
        other.socket.close()
    assert client.call("", 1) == 1
    assert client.call("", 1) == 1
    assert count() <= before + 1
