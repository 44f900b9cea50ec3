"""What every implementation of `intermodal.runtimes.interface.Runtime` does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from intermodal.model.errors import BadImage, RuntimeFailure
from intermodal.node.exits import unwrap
from intermodal.runtimes.interface import BindMount, Bundle, ContainerProcess, ProcessExit, Runtime
from intermodal.runtimes.mock import Behaviour, MockRuntime
from intermodal.runtimes.runc import RuncRuntime, RuncSettings
from modal._wire.messages.function import Resources


@dataclass
class Bench:
    """A runtime under test and what bundles are made of."""

    make: Callable[[], Runtime]
    home: Path
    runtime: Runtime = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.runtime = self.make()

    def bundle(self, script: str, **changes: Any) -> tuple[Bundle, int]:
        """A bundle that runs a shell script, and the reading end of its output."""
        self.count += 1
        state = self.home / f"state-{self.count}"
        state.mkdir()
        reading, writing = os.pipe()
        bundle = Bundle(
            container_id=f"ta-{self.count}",
            rootfs=self.home / "rootfs",
            argv=("/bin/sh", "-c", script),
            env={"PATH": "/usr/bin:/bin", "NAME": "value"},
            cwd="/root",
            stdout=writing,
            stderr=writing,
            state_dir=state,
        )
        return replace(bundle, **changes), reading

    async def start(self, script: str, **changes: Any) -> tuple[ContainerProcess, int]:
        bundle, reading = self.bundle(script, **changes)
        try:
            process = await self.runtime.start(bundle)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(bundle.stdout)
        return process, reading


def read(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read().decode()


def make_rootfs(top: Path) -> None:
    """A shell and the libraries it needs, owned by root of the container."""
    needed = ["/bin/sh", "/bin/sleep", "/bin/cat", "/bin/stty"]
    for program in list(needed):
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        needed += [word for line in listing.splitlines() for word in line.split() if word.startswith("/")]
    for path in dict.fromkeys(needed):
        (top / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(path).resolve(), top / path[1:])
    (top / "root").mkdir()
    for directory, _, files in os.walk(top):
        for name in (".", *files):
            os.chown(Path(directory) / name, 100_000, 100_000)


@pytest.fixture(params=["runc", "mock"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    home = Path(tempfile.mkdtemp(prefix="intermodal-contract-", dir="/run"))
    home.chmod(0o755)
    (home / "rootfs" / "root").mkdir(parents=True)
    parent = f"/intermodal/contract{os.getpid()}"
    if request.param == "runc":
        (home / "rootfs" / "root").rmdir()
        make_rootfs(home / "rootfs")
        yield Bench(lambda: RuncRuntime(RuncSettings(home / "state", parent)), home)
    else:
        yield Bench(lambda: MockRuntime(home / "state"), home)
    assert [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(parent)] == []
    shutil.rmtree(home)


@pytest.fixture
async def opened(bench: Bench) -> AsyncIterator[Bench]:
    await bench.runtime.check()
    await bench.runtime.clean()
    yield bench
    await bench.runtime.close()
    await bench.runtime.close()


async def test_a_process_runs_with_its_environment_and_its_exit_is_known(opened: Bench) -> None:
    process, output = await opened.start('echo "$NAME"; echo error >&2; exit 3')
    assert process.pid > 0
    first, second = await asyncio.gather(process.wait(), process.wait())
    assert first == second == ProcessExit(code=3, signal=None)
    assert read(output) == "value\nerror\n"
    assert await process.wait() == first
    await process.delete()
    await process.delete()
    assert await process.wait() == first


async def test_kill_ends_a_process_and_its_children(opened: Bench) -> None:
    process, output = await opened.start("sleep 60 & echo up; sleep 60")
    assert os.read(output, 3) == b"up\n"
    process.kill(signal.SIGKILL)
    assert await process.wait() == ProcessExit(code=None, signal=signal.SIGKILL)
    assert await asyncio.wait_for(asyncio.to_thread(read, output), 10) == ""  # nobody holds the pipe any more
    process.kill(signal.SIGKILL)  # no error
    await process.delete()


async def test_delete_kills_a_running_process(opened: Bench) -> None:
    process, output = await opened.start("sleep 60 & sleep 60")
    await process.delete()
    assert (await process.wait()).signal == signal.SIGKILL
    assert await asyncio.wait_for(asyncio.to_thread(read, output), 10) == ""


async def test_other_signals_reach_the_process(opened: Bench) -> None:
    process, output = await opened.start("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    assert os.read(output, 3) == b"up\n"
    process.kill(signal.SIGTERM)
    assert await process.wait() == ProcessExit(code=0, signal=None)
    assert read(output) == "asked\n"
    await process.delete()


async def test_containers_run_side_by_side(opened: Bench) -> None:
    started = await asyncio.gather(*(opened.start(f"echo {number}; exit {number}") for number in range(4)))
    exits = await asyncio.gather(*(process.wait() for process, _ in started))
    assert [exit.code for exit in exits] == [0, 1, 2, 3]
    assert [read(output).strip() for _, output in started] == ["0", "1", "2", "3"]
    for process, _ in started:
        await process.delete()


async def test_a_missing_program_is_the_images_fault_and_leaves_nothing(opened: Bench) -> None:
    with pytest.raises(BadImage, match="/no/such/program"):
        await opened.start("", argv=("/no/such/program",))
    assert await opened.runtime.clean() == 0


async def test_an_impossible_working_directory_is_the_images_fault(opened: Bench) -> None:
    (opened.home / "rootfs" / "root" / "file").write_text("")
    with pytest.raises(BadImage, match="/root/file"):
        await opened.start("true", cwd="/root/file")


async def test_the_working_directory_is_made(opened: Bench) -> None:
    process, output = await opened.start("pwd", cwd="/root/new/deep")
    await process.wait()
    assert read(output).strip().endswith("/root/new/deep")
    await process.delete()


async def test_mounted_directories_are_found_by_their_inside_path(opened: Bench) -> None:
    source = opened.home / "source"
    source.mkdir()
    (source / "file").write_text("content")
    bundle, output = opened.bundle("", mounts=(BindMount(source, "/opt/data"),))
    inside = opened.runtime.path_inside(bundle, "/opt/data/file")
    process = await opened.runtime.start(replace(bundle, argv=("/bin/cat", inside)))
    os.close(bundle.stdout)
    await process.wait()
    assert read(output) == "content"
    await process.delete()


async def test_clean_removes_what_an_earlier_agent_left(opened: Bench) -> None:
    # Everything in it is killed; the shell may see its child die, and would say so, before it dies itself.
    process, output = await opened.start("exec 2>/dev/null; sleep 60")
    successor = opened.make()
    await successor.check()
    assert await successor.clean() == 1
    assert unwrap(await process.wait()).signal == signal.SIGKILL
    assert read(output) == ""
    assert await opened.runtime.clean() == 0
    await process.delete()


async def test_limits_are_accepted(opened: Bench) -> None:
    resources = Resources(cpu=0.5, cpu_limit=1.0, memory=16, memory_limit=64)
    process, output = await opened.start("echo fine", resources=resources)
    assert (await process.wait()).out_of_memory is False
    assert read(output) == "fine\n"
    await process.delete()


async def test_the_mock_misbehaves_on_request(tmp_path: Path) -> None:
    behaviour = Behaviour()
    runtime = MockRuntime(tmp_path / "state", behaviour)
    bench = Bench(lambda: runtime, tmp_path)
    await runtime.check()

    runtime.behaviour = Behaviour(start_failure="no luck")
    with pytest.raises(RuntimeFailure, match="no luck"):
        await bench.start("true")

    runtime.behaviour = Behaviour(start_delay=0.1)
    began = time.monotonic()
    process, output = await bench.start("true")
    assert time.monotonic() - began >= 0.1
    assert (await process.wait()).code == 0

    os.close(output)
    runtime.behaviour = Behaviour(hangs=True, dies_after=0.1, is_out_of_memory=True)
    process, output = await bench.start("exit 0")
    assert await process.wait() == ProcessExit(None, signal.SIGKILL, out_of_memory=True)
    os.close(output)
    await process.delete()


async def test_a_number_that_belongs_to_another_process_is_not_killed(tmp_path: Path) -> None:
    runtime = MockRuntime(tmp_path / "state")
    await runtime.check()
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / "state" / "ta-1.pid").write_text(str(bystander.pid))
        await runtime.clean()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_paused_container_does_nothing_until_it_is_resumed(opened: Bench) -> None:
    process, output = await opened.start("while :; do echo tick; sleep 0.01; done")
    assert os.read(output, 4) == b"tick"
    await process.pause()
    os.set_blocking(output, False)
    while True:  # what it had said before
        try:
            os.read(output, 65536)
        except BlockingIOError:
            break
    await asyncio.sleep(0.1)
    with pytest.raises(BlockingIOError):
        os.read(output, 1)
    await process.resume()
    await process.resume()
    os.set_blocking(output, True)
    assert os.read(output, 1)
    await process.pause()
    await process.delete()
    os.close(output)
    with pytest.raises(RuntimeFailure):
        await process.pause()
    await process.resume()
