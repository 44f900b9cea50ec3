"""Runs the same commands as plain processes, without any isolation: for tests of everything above, without root.

It misbehaves on request: see `Behaviour`. A process finds its files where they are on this machine: the paths that a
container would see are replaced in its command, its environment and its working directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from intermodal.model.errors import BadImage, NoSuchCommand, RuntimeFailure
from intermodal.runtimes.exec_process import ExecProcess, set_window
from intermodal.runtimes.interface import Bundle, ContainerProcess, ExecCommand, ProcessExit
from intermodal.runtimes.pidfd import ChildWaiter


@dataclass
class Behaviour:
    """What goes wrong in containers that start from now on."""

    start_delay: float = 0.0  #: seconds that a start takes
    start_failure: str = ""  #: starting fails, with this text
    hangs: bool = False  #: the process does nothing, for ever
    dies_after: float | None = None  #: seconds after its start, it is killed as if by someone else
    is_out_of_memory: bool = False  #: a SIGKILL counts as the kernel's, for want of memory


class MockRuntime:
    """A `Runtime` (see the interface). `root` is a directory for its own state; `behaviour` may change at any time."""

    def __init__(self, root: Path, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self._root = root

    async def check(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def clean(self) -> int:
        found = 0
        for note in self._root.glob("*.pid"):
            with contextlib.suppress(OSError):
                pid = int(note.read_text())
                environment = (await _environment(pid)).split(b"\0")
                # The number may have gone to another process by now.
                if f"INTERMODAL_MOCK={note.stem}".encode() in environment:
                    os.killpg(pid, signal.SIGKILL)
            note.unlink(missing_ok=True)
            found += 1
        return found

    async def close(self) -> None:
        return

    def path_inside(self, bundle: Bundle, path: str) -> str:
        return _translate(bundle, path)

    async def start(self, bundle: Bundle) -> ContainerProcess:
        behaviour = replace(self.behaviour)
        await asyncio.sleep(behaviour.start_delay)
        if behaviour.start_failure:
            raise RuntimeFailure(behaviour.start_failure)
        argv = [_translate(bundle, part) for part in bundle.argv]
        if behaviour.hangs:
            argv = [sys.executable, "-c", "import signal\nwhile True: signal.pause()"]
        if shutil.which(argv[0]) is None and Path(argv[0]).name.startswith("python"):
            argv[0] = sys.executable  # images of the memory builder do not exist
        if shutil.which(argv[0]) is None:
            raise BadImage(
                f"The image has no {bundle.argv[0]}, which is to be run; check the image's Python or entrypoint."
            )
        cwd = Path(_translate(bundle, bundle.cwd))
        env = {name: _translate(bundle, value) for name, value in bundle.env.items()}
        try:
            cwd.mkdir(parents=True, exist_ok=True)
            process = subprocess.Popen(  # noqa: ASYNC220 - the waiter needs the pid before it can be reaped
                argv,
                cwd=cwd,
                env={**env, "INTERMODAL_MOCK": bundle.container_id},
                stdin=subprocess.DEVNULL,
                stdout=bundle.stdout,
                stderr=bundle.stderr,
                start_new_session=True,
            )
        except (FileExistsError, NotADirectoryError):
            raise BadImage(f"The working directory {bundle.cwd} cannot be used in this image: it is a file.") from None
        except OSError as error:
            raise RuntimeFailure(f"{argv[0]} cannot be started: {error}.") from error
        note = self._root / f"{bundle.container_id}.pid"
        note.write_text(str(process.pid))
        return MockProcess(bundle, process, note, behaviour)


class MockProcess:
    """A `ContainerProcess` (see the interface): the leader of a process group, which stands for the container."""

    def __init__(self, bundle: Bundle, process: subprocess.Popen[bytes], note: Path, behaviour: Behaviour) -> None:
        self._bundle = bundle
        self._execs: list[ExecProcess] = []
        self._process = process
        self._note = note
        self._behaviour = behaviour
        self._waiter = ChildWaiter(process.pid)
        self._waiter.exited.add_done_callback(self._ended)
        self._death: asyncio.TimerHandle | None = None
        if behaviour.dies_after is not None:
            loop = asyncio.get_running_loop()
            self._death = loop.call_later(behaviour.dies_after, self.kill, signal.SIGKILL)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> ProcessExit:
        ended = await asyncio.shield(self._waiter.exited)
        return replace(ended, out_of_memory=self._behaviour.is_out_of_memory and ended.signal == signal.SIGKILL)

    def kill(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._kill_group()
        self._waiter.signal(number)

    async def pause(self) -> None:
        if self._waiter.exited.done():
            raise RuntimeFailure("The container has ended.")
        os.killpg(self._process.pid, signal.SIGSTOP)

    async def resume(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)

    async def exec(self, command: ExecCommand) -> ExecProcess:
        if self._waiter.exited.done():
            raise RuntimeFailure("The container has ended.")
        process = _start_command(self._bundle, command)
        self._execs = [one for one in self._execs if not one.ended.done()] + [process]
        return process

    async def delete(self) -> None:
        self.kill(signal.SIGKILL)
        await self.wait()
        self._note.unlink(missing_ok=True)

    def _ended(self, exited: asyncio.Future[ProcessExit]) -> None:
        self._process.returncode = 0  # its status has been taken; Popen must not look for it
        if self._death is not None:
            self._death.cancel()
        self._kill_group()

    def _kill_group(self) -> None:
        # Code that was connected to a terminal has left the group.
        members = [self._process.pid, *_descendants(self._process.pid)]
        for kill, pid in [(os.killpg, self._process.pid), *((os.kill, pid) for pid in members[1:])]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        for process in self._execs:
            process.kill()


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *_descendants(child))]


async def _environment(pid: int) -> bytes:
    """What a process was given. In the middle of its start it has none for a moment. Raises OSError."""
    for _ in range(100):
        if text := Path(f"/proc/{pid}/environ").read_bytes():
            return text
        await asyncio.sleep(0.01)
    return b""


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _start_command(bundle: Bundle, command: ExecCommand) -> ExecProcess:
    env = {name: _translate(bundle, value) for name, value in command.env.items()}
    env["INTERMODAL_MOCK"] = bundle.container_id
    cwd = _translate(bundle, command.cwd)
    descriptors: tuple[int, ...]
    stdio: tuple[int, int, int]
    prepare: Callable[[], object] | None = None
    if command.window is not None:
        ours, theirs = os.openpty()
        set_window(ours, command.window)
        descriptors, stdio = (ours,), (theirs, theirs, theirs)
        prepare = functools.partial(fcntl.ioctl, theirs, termios.TIOCSCTTY, 0)
    else:
        pipes = [os.pipe() for _ in range(3)]
        descriptors, stdio = (pipes[0][1], pipes[1][0], pipes[2][0]), (pipes[0][0], pipes[1][1], pipes[2][1])
    try:
        process = subprocess.Popen(
            [_translate(bundle, part) for part in command.argv],
            cwd=cwd,
            env=env,
            stdin=stdio[0],
            stdout=stdio[1],
            stderr=stdio[2],
            start_new_session=True,
            preexec_fn=prepare,
        )
        process.returncode = 0  # the waiter takes its status; Popen must not look for it
        return ExecProcess(ChildWaiter(process.pid), descriptors, _all_processes)
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, FileNotFoundError):
            raise NoSuchCommand(f"The container has no command `{command.argv[0]}`.", 127) from None
        raise NoSuchCommand(
            f"`{command.argv[0]}` cannot be executed in the container ({error.strerror}).", 126
        ) from None
    finally:
        for descriptor in set(stdio):
            os.close(descriptor)


def _translate(bundle: Bundle, text: str) -> str:
    """Replace container paths in `text` (a path, or several with colons between)."""
    places = {mount.target: str(mount.source) for mount in bundle.mounts}
    places["/root"] = str(bundle.rootfs / "root")
    targets = sorted(places, key=len, reverse=True)
    pattern = rf"(?:(?<=^)|(?<=:))({'|'.join(map(re.escape, targets))})(?=/|:|$)"
    return re.sub(pattern, lambda found: places[found[1]], text)
