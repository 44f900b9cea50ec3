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
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intermodal.model.errors import BadImage, DiskFull, MissingTool, RuntimeFailure
from intermodal.runtimes.cgroups import Cgroups
from intermodal.runtimes.interface import Bundle, ContainerProcess, ProcessExit
from intermodal.runtimes.oci_spec import CAPABILITIES, build_spec
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
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=bundle.stdout, stderr=bundle.stderr
            )
            try:
                # Not wait_for, which in Python 3.11 loses a cancellation that comes as the process ends.
                async with asyncio.timeout(_COMMAND_TIMEOUT):
                    code = await process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                raise
            if code != 0:
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
        return RuncProcess(self, name, waiter)

    def _command(self) -> list[str]:
        return [self._program, "--root", str(self._settings.root)]

    def _discard(self, name: str) -> None:
        self._cgroups.kill(name)
        self._cgroups.remove(name)
        shutil.rmtree(self._settings.root / name, ignore_errors=True)

    async def remove(self, name: str) -> None:
        """Free the control groups and state of an ended container."""
        await asyncio.to_thread(self._discard, name)

    def out_of_memory(self, name: str) -> bool:
        return self._cgroups.out_of_memory_kills(name) > 0


class RuncProcess:
    """A `ContainerProcess` (see the interface)."""

    def __init__(self, runtime: RuncRuntime, name: str, waiter: ChildWaiter) -> None:
        self._runtime = runtime
        self._name = name
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

    async def delete(self) -> None:
        if self._deleted:
            return
        self._waiter.signal(signal.SIGKILL)
        await self.wait()
        await self._runtime.remove(self._name)
        self._deleted = True


def start_failure(bundle: Bundle, log: Path) -> RuntimeFailure:
    """Say in one sentence why the runtime did not start `bundle`, from its JSON log."""
    message = ""
    with contextlib.suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    message = str(entry.get("msg", ""))
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
