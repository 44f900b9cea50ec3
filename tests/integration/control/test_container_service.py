"""Commands in containers, and terminals for them, through the wire: hostile requests, limits, sudden ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from test_call_path import PYTHON, Client

from intermodal.control import container_service, interact_service
from intermodal.daemon import running
from intermodal.settings import Settings
from modal._serialization import deserialize, deserialize_failure
from modal._wire.client import RpcClient
from modal._wire.messages.app import APP_CREATE, APP_EVENTS, AppCreate, AppEvents
from modal._wire.messages.call import CALL_GET, CallGet, Output, Status
from modal._wire.messages.container import (
    CONTAINER_EXEC,
    CONTAINER_LIST,
    CONTAINER_LOGS,
    CONTAINER_STOP,
    ContainerExec,
    ContainerInfo,
    ContainerList,
    ContainerLogs,
    ContainerRef,
    ContainerState,
)
from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind
from modal._wire.messages.terminal import INTERACT_ATTACH, InteractAttach, TerminalInput, TerminalOutput, WindowSize
from modal.exception import InteractiveTimeoutError, InvalidError, NotFoundError

WINDOW = WindowSize(24, 80)


def make_busy() -> Callable[..., str]:
    def busy(path: str) -> str:
        import time

        print("working", flush=True)
        with open(path, "a") as file:
            file.write("x")
        if len(open(path).read()) > 1:
            return "second time"
        time.sleep(300)
        return "first time"

    return busy


def make_ask() -> Callable[..., str]:
    def ask() -> str:
        import modal

        modal.interact()
        return input("word? ")

    return ask


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    chosen = {"runtime": "mock", "builder": "memory", "database_url": "memory://", "session_grace": 0.2}
    return Settings(data_dir=tmp_path / "data", port=-1, **chosen)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    settings.run_dir.mkdir(parents=True)
    async with running(settings):
        rpc = RpcClient(f"unix://{settings.socket}", session="se-test")
        layers = [ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)]
        async with rpc.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
            [done] = [event.done async for event, _ in events if event.done]
        app, _ = await rpc.unary(APP_CREATE, AppCreate("test", "main"))
        yield Client(rpc, done.image_id, app.app_id)
        await rpc.close()


async def containers(client: Client) -> list[ContainerInfo]:
    return (await client.rpc.unary(CONTAINER_LIST, ContainerList()))[0].containers


@pytest.fixture
async def container_id(client: Client, tmp_path: Path) -> str:
    function_id = await client.function(make_busy())
    client.call_id = await client.spawn(function_id, str(tmp_path / "attempts"))  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while not (tmp_path / "attempts").exists():
            await asyncio.sleep(0.01)
    [one] = await containers(client)
    assert (one.state, one.function_name) == (ContainerState.RUNNING, "busy")
    return one.container_id


async def run(client: Client, request: ContainerExec, *items: TerminalInput) -> tuple[bytes, TerminalOutput]:
    out = b""
    async with asyncio.timeout(20), client.rpc.stream(CONTAINER_EXEC, request) as stream:
        for item in items:
            await stream.send(item)
        async for message, data in stream:
            out += data
            if message.exit_code is not None:
                return out, message
    raise AssertionError("no exit code came")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": []}, "empty"),
        ({"command": [""]}, "empty"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"command": ["true"] * 5000}, "too long"),
        ({"command": ["true", "x" * 200_000]}, "too long"),
        ({"env": {"": "x"}}, "name"),
        ({"env": {"A=B": "x"}}, "name"),
        ({"env": {"A": "\0"}}, "NUL"),
        ({"window": WindowSize(-1, 80)}, "cannot be"),
        ({"window": WindowSize(24, 70_000)}, "cannot be"),
    ],
)
async def test_impossible_commands_are_refused(
    changes: dict[str, Any],
    reason: str,
    client: Client,
    container_id: str,
) -> None:
    request = ContainerExec(**{"container_id": container_id, "command": ["true"], **changes})
    with pytest.raises(InvalidError, match=reason):
        await run(client, request)
    assert (await run(client, ContainerExec(container_id, ["echo", "fine"])))[0] == b"fine\n"


async def test_an_impossible_size_ends_the_command(client: Client, container_id: str, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 300"
    async with client.rpc.stream(CONTAINER_EXEC, ContainerExec(container_id, ["sh", "-c", script], WINDOW)) as stream:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        await stream.send(TerminalInput(WindowSize(-5, 0)))
        with pytest.raises(InvalidError, match="cannot be"):
            await stream.__anext__()
    await gone(int((tmp_path / "pid").read_text()))


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)


async def test_unknown_containers(client: Client) -> None:
    with pytest.raises(NotFoundError, match="ta-nobody"):
        await run(client, ContainerExec("ta-nobody", ["true"]))
    with pytest.raises(NotFoundError, match="ta-nobody"):
        await client.rpc.unary(CONTAINER_STOP, ContainerRef("ta-nobody"))
    async with client.rpc.stream(CONTAINER_LOGS, ContainerLogs("ta-nobody")) as stream:
        with pytest.raises(NotFoundError, match="ta-nobody"):
            await stream.__anext__()
    with pytest.raises(NotFoundError, match="environment"):
        await client.rpc.unary(CONTAINER_LIST, ContainerList("nowhere"))


async def test_a_limit_of_commands(client: Client, container_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_service, "MAX_COMMANDS", 4)
    request = ContainerExec(container_id, ["sh", "-c", "echo up; cat"])
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            stream = await stack.enter_async_context(client.rpc.stream(CONTAINER_EXEC, request))
            assert (await stream.__anext__())[1] == b"up\n"
        with pytest.raises(InvalidError, match="4 commands run"):
            await run(client, request)
    async with asyncio.timeout(20):  # that they are gone is known a moment later
        while True:
            with contextlib.suppress(InvalidError):
                assert (await run(client, request, TerminalInput(eof=True)))[1].exit_code == 0
                break
            await asyncio.sleep(0.01)


async def test_many_commands_at_once(client: Client, container_id: str) -> None:
    requests = [ContainerExec(container_id, ["sh", "-c", f"echo {number}"]) for number in range(60)]
    ended = await asyncio.gather(*(run(client, request) for request in requests))
    assert [out for out, _ in ended] == [b"%d\n" % number for number in range(60)]


async def test_a_command_whose_output_nobody_reads_stands_still(
    client: Client,
    container_id: str,
    tmp_path: Path,
) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec cat /dev/zero"
    async with client.rpc.stream(CONTAINER_EXEC, ContainerExec(container_id, ["sh", "-c", script])) as stream:
        await stream.__anext__()
        pid = int((tmp_path / "pid").read_text())
        written, before = -1, -2
        async with asyncio.timeout(30):
            while written != before:  # until it does not get on any more
                before = written
                await asyncio.sleep(0.3)
                io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
                written = int(io["wchar"])
        assert written < 4_000_000
    await gone(pid)


async def test_a_lost_connection_kills_the_command(
    client: Client,
    container_id: str,
    settings: Any,
    tmp_path: Path,
) -> None:
    other = RpcClient(f"unix://{settings.socket}", session="se-other")
    script = f"echo $$ > {tmp_path}/pid; echo up; exec sleep 300"
    async with other.stream(CONTAINER_EXEC, ContainerExec(container_id, ["sh", "-c", script])) as stream:
        await stream.__anext__()
        await other.close()
    await gone(int((tmp_path / "pid").read_text()))


async def test_a_stopped_container_ends_its_commands_and_its_input_runs_again(
    client: Client, container_id: str
) -> None:
    async with client.rpc.stream(
        CONTAINER_EXEC, ContainerExec(container_id, ["sh", "-c", "echo up; sleep 300"])
    ) as stream:
        await stream.__anext__()
        await client.rpc.unary(CONTAINER_STOP, ContainerRef(container_id))
        last = [message async for message, _ in stream][-1]
    assert last.exit_code == 137
    assert container_id in last.error
    got, data = await client.rpc.unary(CALL_GET, CallGet(client.call_id, timeout=20.0), timeout=30)  # type: ignore[attr-defined]
    assert (got.status, deserialize(data)) == (Status.SUCCESS, "second time")
    async with client.rpc.stream(CONTAINER_LOGS, ContainerLogs(container_id)) as logs:
        assert "".join([entry.text async for event, _ in logs for entry in event.logs]) == "working\n"


# -- asking the user -------------------------------------------------------------------------------------------------


@pytest.fixture
async def interactive(client: Client) -> Client:
    app, _ = await client.rpc.unary(APP_CREATE, AppCreate("asks", "main", interactive=True))
    return Client(client.rpc, client.image_id, app.app_id)


async def offers(client: Client) -> AsyncIterator[str]:
    async with client.rpc.stream(APP_EVENTS, AppEvents(client.app_id, interactive=True)) as stream:
        async for event, _ in stream:
            if event.offer:
                yield event.offer


async def test_nobody_answers(interactive: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interact_service, "ATTACH_TIMEOUT", 0.3)
    output, data = await interactive.run(await interactive.function(make_ask()))
    assert output.status is Status.FAILURE
    assert isinstance(deserialize_failure(data), InteractiveTimeoutError)


async def test_an_app_that_is_not_interactive_gives_no_terminal(client: Client) -> None:
    output, data = await client.run(await client.function(make_ask()))
    assert output.status is Status.FAILURE
    error = deserialize_failure(data)
    assert isinstance(error, InvalidError)
    assert "modal run --interactive" in str(error)


async def test_an_offer_is_taken_once(interactive: Client) -> None:
    with pytest.raises(NotFoundError, match="does not ask"):
        await attach(interactive, "te-nobody", WINDOW)
    answer = asyncio.create_task(interactive.run(await interactive.function(make_ask())))
    async with asyncio.timeout(30):
        async for offer in offers(interactive):
            with pytest.raises(InvalidError, match="cannot be"):
                await attach(interactive, offer, WindowSize(0, 99_999))
            async with interactive.rpc.stream(INTERACT_ATTACH, InteractAttach(offer, WINDOW)) as stream:
                await said(stream, b"word? ")
                with pytest.raises(NotFoundError, match="does not ask"):
                    await attach(interactive, offer, WINDOW)
                await stream.send(TerminalInput(), b"yes\n")
                assert (await answer_of(answer)) == "yes"
                assert [message async for message, _ in stream if message.exit_code is not None] == []
            break


async def test_an_impossible_size_disconnects_and_the_container_goes_on(interactive: Client) -> None:
    answer = asyncio.create_task(interactive.run(await interactive.function(make_ask())))
    async with asyncio.timeout(30):
        async for offer in offers(interactive):
            async with interactive.rpc.stream(INTERACT_ATTACH, InteractAttach(offer, WINDOW)) as stream:
                await said(stream, b"word? ")
                await stream.send(TerminalInput(WindowSize(70_000, 1)))
                output, data = await answer
            break
    assert output.status is Status.FAILURE
    assert isinstance(deserialize_failure(data), EOFError)


async def attach(client: Client, offer: str, window: WindowSize) -> None:
    async with client.rpc.stream(INTERACT_ATTACH, InteractAttach(offer, window)) as stream:
        async for _ in stream:
            pass


async def said(stream: Any, text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += (await stream.__anext__())[1]


async def answer_of(answer: asyncio.Task[tuple[Output, bytes]]) -> object:
    output, data = await answer
    assert output.status is Status.SUCCESS
    return deserialize(data)
