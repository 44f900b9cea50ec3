"""The socket between an agent and a runner, with real connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from intermodal.node.runner_link import LinkState, RunnerLink, SocketConnection
from modal._wire import frames
from modal._wire.messages.function import Concurrency, Source, SourceKind
from modal._wire.messages.runner import RunInput, RunInputs, Start

START = Start("ta-1", "ap-1", "fu-1", "f", "main", Source(SourceKind.FILE), False, 1.0, Concurrency(), 1)
HELLO = {"t": "Hello", "container_id": "ta-1", "python": "3.11.7", "pid": 1}
OUTPUTS = {"t": "Outputs", "outputs": [{"input_id": "in-1", "status": "success", "size": 0}]}


class Events:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append(name)


def said(header: Any) -> bytes:
    return frames.length_prefixed(frames.pack(header))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_a_runner_said_before_it_died_is_heard_though_something_is_sent_to_it_after(
    new_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    events = Events()
    link = RunnerLink("ta-1", START, b"", events)

    async def conversation() -> None:
        path = str(tmp_path / "socket")
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: SocketConnection(link, None, "ta-1", set()),  # type: ignore[arg-type]
            path,
        )
        with socket.socket(socket.AF_UNIX) as runner:
            runner.connect(path)
            runner.sendall(said(HELLO) + said({"t": "Ready"}))
            while link.state is not LinkState.READY:
                await asyncio.sleep(0.001)
            link.push(RunInputs([RunInput("in-1", "fc-1", 0)]), b"")
            runner.sendall(said(OUTPUTS))
        # Its end is not known here yet, so this finds no reader.
        link.push(RunInputs([RunInput("in-2", "fc-2", 0)]), b"")
        await asyncio.wait_for(link.closed.wait(), 30)
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as loop:
        loop.run(conversation())
    assert events.calls == ["said_hello", "said_ready", "said_outputs"]
