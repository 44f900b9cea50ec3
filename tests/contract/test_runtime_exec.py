"""Commands in running containers, with every runtime."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from test_runtime import Bench, bench, opened  # noqa: F401

from intermodal.model.errors import NoSuchCommand, RuntimeFailure
from intermodal.node.command import RunningCommand
from intermodal.runtimes.exec_process import session_of
from intermodal.runtimes.interface import ContainerProcess, ExecCommand
from modal._wire.messages.terminal import OutputStream, WindowSize

OUT, ERR = OutputStream.STDOUT, OutputStream.STDERR


class Host:
    """A container that does nothing, and commands in it."""

    def __init__(self, container: ContainerProcess) -> None:
        self.container = container

    async def run(self, script: str, window: WindowSize | None = None, **env: str) -> RunningCommand:
        return await self.command("/bin/sh", "-c", script, window=window, **env)

    async def command(self, *argv: str, window: WindowSize | None = None, **env: str) -> RunningCommand:
        env = {"PATH": "/usr/bin:/bin", **env}
        return RunningCommand(await self.container.exec(ExecCommand(argv, env, "/root", window)))


@pytest.fixture
async def host(opened: Bench) -> AsyncIterator[Host]:  # noqa: F811
    container, output = await opened.start("exec sleep 300")
    yield Host(container)
    await container.delete()
    os.close(output)


@asynccontextmanager
async def closing(command: RunningCommand) -> AsyncIterator[RunningCommand]:
    try:
        yield command
    finally:
        command.close()
        await command.wait()


async def everything(command: RunningCommand, stream: OutputStream = OUT) -> bytes:
    data = b""
    while piece := await command.read(stream):
        data += piece
    return data


async def until(command: RunningCommand, text: bytes, seen: bytes = b"") -> bytes:
    async with asyncio.timeout(20):
        while text not in seen:
            piece = await command.read(OUT)
            assert piece, seen
            seen += piece
    return seen


async def test_a_command_gets_its_environment_and_gives_its_output_and_exit_code(host: Host) -> None:
    async with closing(await host.run('pwd; echo "$NAME"; echo error >&2; exit 3', NAME="value")) as command:
        out, err = await asyncio.gather(everything(command), everything(command, ERR))
        assert out.endswith(b"/root\nvalue\n")
        assert err == b"error\n"
        assert await command.wait() == 3


async def test_input_comes_out_as_it_went_in(host: Host) -> None:
    data = os.urandom(3_000_000)
    async with closing(await host.run("cat")) as command:

        async def feed() -> None:
            await command.write(data)
            await command.end_input()
            await command.write(b"dropped")

        fed = asyncio.create_task(feed())
        assert await everything(command) == data
        await fed
        assert await command.wait() == 0


async def test_input_waits_for_a_command_that_does_not_read(host: Host) -> None:
    async with closing(await host.run("sleep 300")) as command:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await command.write(bytes(10_000_000))


async def test_a_signal_ends_a_command_with_the_code_of_shells(host: Host) -> None:
    async with closing(await host.run("kill -TERM $$")) as command:
        assert await command.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("window", [None, WindowSize(24, 80)], ids=["pipes", "terminal"])
async def test_a_command_that_is_not_there(host: Host, window: WindowSize | None) -> None:
    with pytest.raises(NoSuchCommand, match="no command `no-such-program`") as caught:
        await host.command("no-such-program", window=window)
    assert caught.value.code == 127


async def test_what_is_no_program_cannot_be_executed(host: Host) -> None:
    with pytest.raises(NoSuchCommand, match="cannot be executed") as caught:
        await host.command("/root")
    assert caught.value.code == 126


async def test_a_terminal_has_its_size_and_changes_it(host: Host) -> None:
    script = "trap 'stty size' WINCH; stty size; test -t 0 && test -t 1 && echo yes; while :; do sleep 0.05; done"
    async with closing(await host.run(script, WindowSize(33, 99))) as command:
        assert command.streams == (OUT,)
        assert (await until(command, b"yes")).startswith(b"33 99\r\n")
        command.resize(WindowSize(44, 111))
        await until(command, b"44 111")


async def test_keys_become_signals_in_a_terminal(host: Host) -> None:
    async with closing(
        await host.run("trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.05; done", WindowSize(24, 80))
    ) as command:
        seen = await until(command, b"up")
        await command.write(b"\x03")
        await until(command, b"caught", seen)
        assert await command.wait() == 5


async def test_the_end_of_input_in_a_terminal(host: Host) -> None:
    async with closing(await host.run("cat; echo done", WindowSize(24, 80))) as command:
        await command.write(b"text\n")
        seen = await until(command, b"text\r\ntext\r\n")
        await command.end_input()
        await until(command, b"done", seen)
        assert await command.wait() == 0
        assert await everything(command) in (b"", b"\r\n")


async def test_the_last_output_before_the_end_is_not_lost(host: Host) -> None:
    for window in (None, WindowSize(24, 80)):
        for _ in range(5):
            async with closing(
                await host.run("i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done", window)
            ) as command:
                assert (await everything(command)).split()[-1] == b"499"


async def test_what_a_command_leaves_behind_does_not_hold_it_up(host: Host) -> None:
    for script in ("sleep 300 & echo up", "while :; do echo flood; done & echo up"):
        async with closing(await host.run(script)) as command:
            async with asyncio.timeout(30):
                assert b"up" in await everything(command)
                assert await command.wait() == 0


async def test_closing_kills_the_command_and_its_children(host: Host) -> None:
    command = await host.run("sleep 301 & sleep 302 & echo up; wait")
    await until(command, b"up")
    leader = command._process._waiter.pid
    command.close()
    command.close()
    await command.wait()
    alive = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and session_of(int(pid)) == leader]
    for _ in range(200):
        if not (alive := [pid for pid in alive if session_of(pid) == leader]):
            break
        await asyncio.sleep(0.02)
    assert alive == []


async def test_a_command_ends_with_its_container(host: Host) -> None:
    async with closing(await host.run("echo up; sleep 300")) as command:
        await until(command, b"up")
        host.container.kill(signal.SIGKILL)
        assert await command.wait() == 137
        assert await everything(command) == b""
    await host.container.wait()
    with pytest.raises(RuntimeFailure, match="ended"):
        await host.run("true")


async def test_many_commands_side_by_side(host: Host) -> None:
    commands = await asyncio.gather(*(host.run(f"echo {number}; exit {number}") for number in range(8)))
    for number, command in enumerate(commands):
        async with closing(command):
            assert await everything(command) == b"%d\n" % number
            assert await command.wait() == number
