"""Starts containers with runc, or any OCI runtime that has runc's command line.

`runc run --detach` sets the container up, starts its process with our pipes as its output, and goes away; the process
is then ours (we are a subreaper), so its exit status reaches us without a supervisor in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intermodal.model.errors import BadImage, DiskFull, MissingTool, NoSuchCommand, RuntimeFailure
from intermodal.runtimes.cgroups import Cgroups
from intermodal.runtimes.exec_process import ExecProcess, set_window
from intermodal.runtimes.interface import Bundle, ContainerProcess, ExecCommand, ProcessExit
from intermodal.runtimes.oci_spec import CAPABILITIES, build_spec, exec_spec
from intermodal.runtimes.pidfd import ChildWaiter
from intermodal.runtimes.seccomp import load_profile
from intermodal.runtimes.syscalls import become_subreaper

#: Seconds that the runtime program may take for one command before it is given up.
_COMMAND_TIMEOUT = 60.0


@dataclass(frozen=True)
class RuncSettings:
    """`root` is a directory for the runtime's own state, `cgroup_parent` a path such as ``/intermodal/1f0c``."""

    root: Path
    cgroup_parent: str
    program: str = "runc"  #: name or path of the OCI runtime
    pids_limit: int = 4096  #: processes and threads of one container


class RuncRuntime:
    """A `Runtime` (see the interface) that starts OCI containers."""

    def __init__(self, settings: RuncSettings) -> None:
        self._settings = settings
        self._cgroups = Cgroups(settings.cgroup_parent)
        self._program = ""
        self._seccomp: dict[str, Any] = {}

    async def check(self) -> None:
        program = shutil.which(self._settings.program)
        if program is None:
            raise MissingTool(self._settings.program, Path(self._settings.program).name, "run containers")
        if os.geteuid() != 0:
            raise RuntimeFailure("Containers need root to be set up; start the server as root.")
        if not self._cgroups.has_memory:
            raise RuntimeFailure(
                "The memory controller of cgroups is off, so containers cannot be limited; enable it with the kernel "
                "parameter cgroup_enable=memory."
            )
        self._program = program
        self._seccomp = load_profile(CAPABILITIES)
        self._settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cgroups.prepare()
        become_subreaper()

    async def clean(self) -> int:
        return await asyncio.to_thread(self._clean)

    async def close(self) -> None:
        await asyncio.to_thread(self._cgroups.remove_parent)

    def _clean(self) -> int:
        names = self._cgroups.names()
        with contextlib.suppress(FileNotFoundError):
            names |= {entry.name for entry in self._settings.root.iterdir()}
        for name in names:
            self._cgroups.kill(name)
            if self._program:
                subprocess.run(
                    [*self._command(), "delete", "--force", name],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_COMMAND_TIMEOUT,
                    check=False,
                )
            self._cgroups.remove(name)
            shutil.rmtree(self._settings.root / name, ignore_errors=True)
        return len(names)

    def path_inside(self, bundle: Bundle, path: str) -> str:
        return path

    async def start(self, bundle: Bundle) -> ContainerProcess:
        name = bundle.container_id
        spec = build_spec(bundle, self._cgroups.path(name), self._seccomp, self._settings.pids_limit)
        state = bundle.state_dir
        (state / "config.json").write_text(json.dumps(spec))
        pid_file, log = state / "pid", state / "runtime.log"
        command = [*self._command(), "--log", str(log), "--log-format", "json"]
        command += ["run", "--detach", "--bundle", str(state), "--pid-file", str(pid_file), name]
        try:
            if await _run(command, subprocess.DEVNULL, bundle.stdout, bundle.stderr) != 0:
                raise start_failure(bundle, log)
            waiter = ChildWaiter(int(pid_file.read_text()))
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(self._discard, name))
            if isinstance(error, asyncio.TimeoutError):
                raise RuntimeFailure(
                    f"{self._settings.program} did not start the container in {_COMMAND_TIMEOUT:.0f} s."
                )
            if isinstance(error, ProcessLookupError):
                raise RuntimeFailure("The container's process vanished while it was being started.") from error
            raise
        return RuncProcess(self, bundle, waiter)

    async def exec(self, bundle: Bundle, command: ExecCommand) -> ExecProcess:
        """Run one more process in a container; see `ContainerProcess.exec`."""
        directory = Path(tempfile.mkdtemp(prefix="exec-", dir=bundle.state_dir))
        # In memory: the variables may be secrets.
        spec = os.memfd_create("process.json")
        try:
            os.write(spec, json.dumps(exec_spec(bundle, command)).encode())
            pid_file, log = directory / "pid", directory / "log"
            runc = [*self._command(), "--log", str(log), "--log-format", "json", "exec", "--detach"]
            runc += ["--process", f"/proc/{os.getpid()}/fd/{spec}", "--pid-file", str(pid_file)]
            start = _exec_with_pipes if command.window is None else _exec_with_terminal
            code, descriptors = await start(runc, bundle.container_id, directory)
            try:
                if code != 0:
                    raise exec_failure(command, log)
                waiter = ChildWaiter(int(pid_file.read_text()))
                if command.window is not None:
                    set_window(descriptors[0], command.window)  # runc 1.1 does not heed `consoleSize` here
                return ExecProcess(waiter, descriptors, lambda: self._cgroups.pids(bundle.container_id))
            except BaseException:
                for descriptor in descriptors:
                    os.close(descriptor)
                raise
        except asyncio.TimeoutError:
            raise RuntimeFailure(f"{self._settings.program} did not start the command in {_COMMAND_TIMEOUT:.0f} s.")
        except ProcessLookupError as error:
            raise RuntimeFailure("The command's process vanished while it was being started.") from error
        finally:
            os.close(spec)
            shutil.rmtree(directory, ignore_errors=True)

    def _command(self) -> list[str]:
        return [self._program, "--root", str(self._settings.root)]

    def _discard(self, name: str) -> None:
        self._cgroups.kill(name)
        self._cgroups.remove(name)
        shutil.rmtree(self._settings.root / name, ignore_errors=True)

    async def remove(self, name: str) -> None:
        """Free the control groups and state of an ended container."""
        await asyncio.to_thread(self._discard, name)

    async def pause(self, name: str) -> None:
        """Stop a container's processes; see `ContainerProcess.pause`."""
        try:
            await asyncio.to_thread(self._cgroups.freeze, name)
        except OSError as error:
            raise RuntimeFailure(f"The container {name} cannot be paused: {error}.") from error

    async def resume(self, name: str) -> None:
        """Let a container's processes go on; see `ContainerProcess.resume`."""
        await asyncio.to_thread(self._cgroups.thaw, name)

    def out_of_memory(self, name: str) -> bool:
        return self._cgroups.out_of_memory_kills(name) > 0


class RuncProcess:
    """A `ContainerProcess` (see the interface)."""

    def __init__(self, runtime: RuncRuntime, bundle: Bundle, waiter: ChildWaiter) -> None:
        self._runtime = runtime
        self._bundle = bundle
        self._name = bundle.container_id
        self._waiter = waiter
        self._exit: ProcessExit | None = None
        self._deleted = False

    @property
    def pid(self) -> int:
        return self._waiter.pid

    async def wait(self) -> ProcessExit:
        ended = await asyncio.shield(self._waiter.exited)
        if self._exit is None:
            # Read before `delete` removes the counters.
            self._exit = replace(ended, out_of_memory=self._runtime.out_of_memory(self._name))
        return self._exit

    def kill(self, signal: int) -> None:
        self._waiter.signal(signal)

    async def exec(self, command: ExecCommand) -> ExecProcess:
        return await self._runtime.exec(self._bundle, command)

    async def pause(self) -> None:
        await self._runtime.pause(self._name)

    async def resume(self) -> None:
        await self._runtime.resume(self._name)

    async def delete(self) -> None:
        if self._deleted:
            return
        self._waiter.signal(signal.SIGKILL)
        await self.resume()  # paused, it would not die
        await self.wait()
        await self._runtime.remove(self._name)
        self._deleted = True


async def _run(command: list[str], stdin: int, stdout: int, stderr: int) -> int:
    """Run a command of the runtime program and return its exit status. Raises asyncio.TimeoutError."""
    process = await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        # Not wait_for, which in Python 3.11 loses a cancellation that comes as the process ends.
        async with asyncio.timeout(_COMMAND_TIMEOUT):
            return await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


async def _exec_with_pipes(runc: list[str], name: str, directory: Path) -> tuple[int, tuple[int, ...]]:
    """Start a process with pipes; return the runtime's exit status and our ends of them."""
    theirs_in, stdin = os.pipe()
    stdout, theirs_out = os.pipe()
    stderr, theirs_err = os.pipe()
    try:
        return await _run([*runc, name], theirs_in, theirs_out, theirs_err), (stdin, stdout, stderr)
    except BaseException:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (theirs_in, theirs_out, theirs_err):
            os.close(descriptor)


async def _exec_with_terminal(runc: list[str], name: str, directory: Path) -> tuple[int, tuple[int, ...]]:
    """Start a process with a terminal, which the runtime makes in the container and hands us through a socket."""
    path = str(directory / "console")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        code = await _run(
            [*runc, "--tty", "--console-socket", path, name],
            subprocess.DEVNULL,
            subprocess.DEVNULL,
            subprocess.DEVNULL,
        )
        if code != 0:
            return code, ()
        console, _ = listener.accept()
        with console:
            _, descriptors, _, _ = socket.recv_fds(console, 4096, 1)
    if not descriptors:
        raise RuntimeFailure("The container runtime did not hand over the command's terminal.")
    return code, (descriptors[0],)


def exec_failure(command: ExecCommand, log: Path) -> RuntimeFailure:
    """Say in one sentence why the runtime did not start `command`, from its JSON log."""
    message = _logged_error(log)
    lowered, program = message.lower(), command.argv[0]
    if "no space left on device" in lowered:
        return DiskFull(f"No space is left to start a command: {message}")
    if "executable file not found" in lowered or ("exec" in lowered and "no such file" in lowered):
        return NoSuchCommand(f"The container has no command `{program}`.", 127)
    if "permission denied" in lowered or "exec format error" in lowered or "is a directory" in lowered:
        return NoSuchCommand(f"`{program}` cannot be executed in the container ({_cause(message)}).", 126)
    if "stopped container" in lowered or "does not exist" in lowered or "no such process" in lowered:
        return RuntimeFailure("The container has ended.")
    return RuntimeFailure(f"The container runtime could not start the command: {message or 'it gave no reason'}.")


def _logged_error(log: Path) -> str:
    message = ""
    with contextlib.suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    message = str(entry.get("msg", ""))
    return message


def start_failure(bundle: Bundle, log: Path) -> RuntimeFailure:
    """Say in one sentence why the runtime did not start `bundle`, from its JSON log."""
    message = _logged_error(log)
    lowered = message.lower()
    if "no space left on device" in lowered:
        return DiskFull(f"No space is left to start a container: {message}")
    program = bundle.argv[0]
    if "exec: " in lowered and ("no such file" in lowered or "not found" in lowered):
        return BadImage(f"The image has no {program}, which is to be run; check the image's Python or entrypoint.")
    if "exec: " in lowered or "exec format error" in lowered:
        return BadImage(f"{program} in the image cannot be executed ({_cause(message)}).")
    if "chdir to cwd" in lowered or ("mkdir" in lowered and bundle.cwd in message):
        return BadImage(f"The working directory {bundle.cwd} cannot be used in this image ({_cause(message)}).")
    return RuntimeFailure(f"The container runtime failed: {message or 'it gave no reason'}.")


def _cause(message: str) -> str:
    return message.rsplit(": ", 1)[-1].rstrip(".")
