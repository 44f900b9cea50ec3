"""Every way a container can end or fail to start: one clear reason, nothing lost, nothing left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from node_fixtures import ECHO, Site, leftovers, one_input, open_site, until

from intermodal.model.container import ExitCause
from intermodal.model.errors import BadImage, MissingTool, RuntimeFailure
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from modal._wire.messages.app import LogStream
from modal._wire.messages.function import Resources


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    if request.param == "uvloop":
        import uvloop

        return uvloop.EventLoopPolicy()
    return asyncio.DefaultEventLoopPolicy()


async def test_a_container_answers_and_finishes_when_asked(site: Site) -> None:
    name = await site.start(ECHO)
    await until(lambda: name in site.recorder.ready)
    for number, body in enumerate((b"", b"small", b"x" * 3_000_000)):
        site.agent.push(name, one_input(f"in-{number}", body), body)
        await until(lambda: len(site.recorder.answers) == number + 1)
        assert site.recorder.answers[-1][2] == body
    site.agent.stop(name, 10)
    exit = await site.exit_of(name)
    assert (exit.cause, exit.code) == (ExitCause.FINISHED, 0)


async def test_several_containers_run_side_by_side(site: Site) -> None:
    site.copies.script(ECHO)
    names = await asyncio.gather(*(site.start() for _ in range(4)))
    await until(lambda: set(names) <= set(site.recorder.ready))
    for name in names:
        site.agent.push(name, one_input("in-1", name.encode()), name.encode())
    await until(lambda: len(site.recorder.answers) == 4)
    assert {body.decode() for _, _, body in site.recorder.answers} == set(names)
    for name in names:
        site.agent.stop(name, 0)
    exits = [await site.exit_of(name) for name in names]
    assert {exit.cause for exit in exits} == {ExitCause.STOPPED}


async def test_os_exit_is_reported_with_its_status_and_all_output(site: Site) -> None:
    name = await site.start("ready(); hear(); print('x' * 200_000); print('last words'); os._exit(7)")
    await until(lambda: name in site.recorder.ready)
    site.agent.push(name, one_input("in-1"), b"")
    exit = await site.exit_of(name)
    assert (exit.cause, exit.code, exit.signal) == (ExitCause.EXITED, 7, None)
    assert "status 7" in exit.detail
    assert site.recorder.text[LogStream.STDOUT] == "x" * 200_000 + "\nlast words\n"


async def test_a_hook_that_fails_at_the_end_loses_no_output(site: Site) -> None:
    class Failing(Hook):
        async def exited(self, container: Container) -> None:
            raise OSError("no luck")

    site.agent._hooks = [Failing(), *site.agent._hooks]
    name = await site.start("ready(); hear(); print('x' * 200_000); print('last words'); os._exit(7)")
    await until(lambda: name in site.recorder.ready)
    site.agent.push(name, one_input("in-1"), b"")
    assert (await site.exit_of(name)).code == 7
    assert site.recorder.text[LogStream.STDOUT] == "x" * 200_000 + "\nlast words\n"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
async def test_a_signal_is_reported_by_name(site: Site, code: str, name: str) -> None:
    container = await site.start(f"ready(); print('here'); {code}")
    exit = await site.exit_of(container)
    assert (exit.cause, exit.code) == (ExitCause.SIGNALED, None)
    assert name in exit.detail
    assert site.recorder.text[LogStream.STDOUT] == "here\n"


async def test_a_kill_from_outside_is_reported(site: Site) -> None:
    container = await site.start("ready(); print('here'); hear()")
    await until(lambda: LogStream.STDOUT in site.recorder.text)
    process = site.agent._containers[container].process
    assert process is not None
    process.kill(9)
    exit = await site.exit_of(container)
    assert (exit.cause, exit.signal) == (ExitCause.SIGNALED, 9)


async def test_running_out_of_memory_is_reported_with_the_limit(site: Site) -> None:
    resources = Resources(memory=32, memory_limit=64)
    container = await site.start("ready(); print('here'); data = bytearray(300 << 20); hear()", resources=resources)
    exit = await site.exit_of(container)
    assert exit.cause is ExitCause.OUT_OF_MEMORY
    assert "64 MiB" in exit.detail
    assert site.recorder.text[LogStream.STDOUT] == "here\n"


async def test_memory_within_the_limit_is_fine(site: Site) -> None:
    resources = Resources(memory=32, memory_limit=128, cpu_limit=0.5)
    container = await site.start("ready(); data = bytearray(60 << 20); report(len(data))", resources=resources)
    assert await site.ask(container) == 60 << 20


async def test_output_that_is_not_utf8_is_shown_with_replacements(site: Site) -> None:
    script = """
        ready()
        os.write(1, "é".encode()[:1]); time.sleep(0.05); os.write(1, "é".encode()[1:])
        os.write(1, b"\\xff\\n"); os.write(2, "ü".encode()[:1])
    """
    await site.exit_of(await site.start(script))
    assert site.recorder.text == {LogStream.STDOUT: "é\ufffd\n", LogStream.STDERR: "\ufffd"}


async def test_a_crash_before_ready_shows_the_end_of_its_output(site: Site) -> None:
    exit = await site.exit_of(await site.start("raise ImportError('no such thing')"))
    assert exit.cause is ExitCause.START_FAILED
    assert "status 1" in exit.detail
    assert "ImportError: no such thing" in exit.detail


async def test_what_a_runner_says_of_a_failed_start_comes_through(site: Site) -> None:
    script = """
        hello()
        say({"t": "StartFailed", "error": {"type": "ExecutionError", "message": "No module named 'x'."}}, b"payload")
        os._exit(1)
    """
    name = await site.start(script)
    exit = await site.exit_of(name)
    error, payload = site.recorder.failed[name]
    assert (error.type, error.message, payload) == ("ExecutionError", "No module named 'x'.", b"payload")
    assert (exit.cause, exit.detail) == (ExitCause.START_FAILED, "No module named 'x'.")


async def test_a_container_that_never_reports_is_killed(node_data: Path, runner_home: Path) -> None:
    async with open_site(node_data, runner_home, hello_timeout=0.5) as site:
        exit = await site.exit_of(await site.start("print('stuck', file=sys.stderr); time.sleep(60)"))
    assert exit.cause is ExitCause.START_FAILED
    assert "0.5 seconds" in exit.detail
    assert "stuck" in exit.detail


async def test_slow_user_code_is_not_killed_while_it_loads(node_data: Path, runner_home: Path) -> None:
    async with open_site(node_data, runner_home, hello_timeout=0.5) as site:
        name = await site.start("hello(); time.sleep(0.8); say({'t': 'Ready'}); report(1)")
        assert await site.ask(name) == 1


async def test_a_container_that_ignores_stop_is_killed(site: Site) -> None:
    name = await site.start("ready(); print('up'); time.sleep(60)")
    await until(lambda: LogStream.STDOUT in site.recorder.text)
    site.agent.stop(name, 0.2)
    exit = await site.exit_of(name)
    assert (exit.cause, exit.signal) == (ExitCause.STOPPED, 9)


async def test_processes_left_behind_die_with_the_container(site: Site) -> None:
    script = """
        ready()
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
        print("done", flush=True)
        os._exit(0)
    """
    name = await site.start(script)
    exit = await site.exit_of(name)
    assert (exit.cause, exit.code) == (ExitCause.EXITED, 0)
    assert site.recorder.text[LogStream.STDOUT] == "done\n"


@pytest.mark.parametrize(
    "hostile",
    [
        'sock.sendall(struct.pack(">I", 1 << 31))',
        'sock.sendall(struct.pack(">II", 8, 99) + b"junk")',
        'say({"t": "Start"})',
        'say({"t": "Outputs", "outputs": [{"input_id": "in-never", "status": "success", "size": 0}]})',
        'say({"t": "Outputs", "outputs": [{"input_id": 5, "status": "success", "size": 0}]})',
        'say({"t": "Outputs", "outputs": 3})',
        'say({"t": "Yielded", "input_id": "in-never", "size": 0})',
        'say({"t": "Returned", "input_ids": ["in-never"]})',
        'say({"t": ["Ready"]})',
        'say({"t": "Ready"})',
        'sock.sendall(struct.pack(">II", 8, 4) + b"[[[[")',
        'hear(); say({"t": "Outputs", "outputs": [{"input_id": "in-1", "status": "success", "size": -1}]})',
    ],
)
async def test_a_malformed_message_ends_that_container_only(site: Site, hostile: str) -> None:
    site.copies.script(ECHO)
    neighbour = await site.start()
    await until(lambda: neighbour in site.recorder.ready)
    name = await site.start(f"ready(); {hostile}; time.sleep(60)")
    await until(lambda: name in site.recorder.ready)
    site.agent.push(name, one_input("in-1"), b"")
    exit = await site.exit_of(name)
    assert exit.cause is ExitCause.STOPPED
    assert "malformed" in exit.detail
    site.agent.push(neighbour, one_input("in-1", b"alive"), b"alive")
    await until(lambda: site.recorder.answers)


async def test_a_second_runner_is_not_listened_to(site: Site) -> None:
    script = """
        ready()
        first, sock = sock, socket.socket(socket.AF_UNIX)
        dial()
        say({"t": "Hello", "container_id": os.environ["INTERMODAL_CONTAINER_ID"], "python": "3.11", "pid": 1})
        lost = sock.recv(1) == b""
        sock = first
        report(lost)
    """
    assert await site.ask(await site.start(script)) is True


async def test_an_image_without_python_cannot_start(site: Site) -> None:
    with pytest.raises(BadImage, match="im-1 has no Python"):
        await site.start(ECHO, image=replace(site.image, python=""))
    assert site.agent._containers == {}


async def test_a_missing_interpreter_is_named(site: Site) -> None:
    with pytest.raises(BadImage, match="no /usr/bin/python9"):
        await site.start(ECHO, image=replace(site.image, python="/usr/bin/python9"))
    assert site.recorder.text == {}
    assert list(site.agent._layout.containers.iterdir()) == []


async def test_a_working_directory_that_is_a_file_is_named(site: Site) -> None:
    with pytest.raises(BadImage, match="working directory /etc/passwd"):
        await site.start(ECHO, image=replace(site.image, workdir="/etc/passwd"))


async def test_a_missing_layer_is_named(site: Site) -> None:
    with pytest.raises(RuntimeFailure, match=r"layer of the image is gone.*absent"):
        await site.start(ECHO, image=replace(site.image, layers=(site.data / "storage" / "absent",)))


async def test_a_missing_runtime_is_named(node_data: Path, runner_home: Path) -> None:
    with pytest.raises(MissingTool, match="apt-get install no-such-runtime"):
        async with open_site(node_data, runner_home, runtime="no-such-runtime"):
            pass
    assert leftovers(node_data) == []


async def test_starts_that_are_cancelled_leave_nothing(site: Site) -> None:
    site.copies.script(ECHO)
    cancelled = 0
    for moment in range(30):
        task = asyncio.create_task(site.start())
        await asyncio.sleep(moment * 0.003)
        task.cancel()
        try:
            name = await task
        except asyncio.CancelledError:
            cancelled += 1
        else:  # it was done already
            site.agent.stop(name, 0)
            assert (await site.exit_of(name)).cause is ExitCause.STOPPED
        assert site.agent._containers == {}
        assert list(site.agent._layout.containers.iterdir()) == []
    assert cancelled


async def test_stop_during_a_start_ends_the_container(site: Site) -> None:
    site.copies.script(ECHO)
    task = asyncio.create_task(site.start())
    await until(lambda: site.agent._containers)
    site.agent.stop("ta-1", 5)
    await task
    assert (await site.exit_of("ta-1")).cause is ExitCause.STOPPED


async def test_commands_for_unknown_containers_are_ignored(site: Site) -> None:
    site.agent.push("ta-none", one_input("in-1"), b"")
    site.agent.credit("ta-none", "in-1", 1)
    site.agent.recall("ta-none", 1)
    site.agent.cancel("ta-none", ["in-1"])
    site.agent.stop("ta-none", 0)
