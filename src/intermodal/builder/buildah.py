"""Runs buildah.

Each run lives in a pid and mount namespace of its own, tied to our life: when it is cancelled, or when our process
is killed, the kernel kills everything in it and takes its mounts away. What can still be left are an empty cgroup and
a directory of state for each step, which `sweep` removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from intermodal.builder.dockerfile import VARIABLES
from intermodal.model.errors import DiskFull, MissingTool, RuntimeFailure
from intermodal.runtimes.cgroups import Cgroups, data_key

#: Runs a program in namespaces that die with it, and it with us.
NAMESPACE = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
_TOOLS = {"buildah": "buildah", "runc": "runc", "unshare": "util-linux", "setpriv": "util-linux", "mount": "mount"}
#: A runc state directory that vanishes with the mount namespace.
_IN_NAMESPACE = 'mkdir -p /run/runc && mount -t tmpfs -o mode=700 tmpfs /run/runc && exec "$@"'
#: The same, and the variables of RUN steps, read from stdin: in memory, and in this mount namespace alone.
_WITH_VARIABLES = (
    'mount -t tmpfs -o mode=755 tmpfs "$1" && cat > "$1/environment.sh" && chmod 444 "$1/environment.sh" && '
    f"shift && exec </dev/null && {_IN_NAMESPACE}"
)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}\Z")
_MAX_LINE = 64 * 1024
_NO_SPACE = "no space left on device"


class CommandFailed(Exception):
    """A program ended with an error; `output` is the end of what it printed."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"exit status {status}: {output}")
        self.status = status
        self.output = output


@dataclass(frozen=True)
class Bud:
    """The arguments of one `buildah bud`."""

    dockerfile: Path
    context: Path
    tag: str
    volumes: tuple[str, ...] = ()  #: as buildah's ``-v``
    variables: str = field(default="", repr=False)  #: shell assignments for RUN steps, at `dockerfile.ENVIRONMENT`
    use_cache: bool = True


class Buildah:
    """The buildah of one data directory."""

    def __init__(self, data: Path) -> None:
        self.root = data / "storage" / "images"
        self.scratch = data / "run" / "builds"
        self._runroot = data / "run" / "buildah"
        self._cgroup_parent = f"/intermodal/{data_key(data)}-builds"

    def check(self) -> None:
        """Raise `MissingTool` unless the programs that a build needs are there."""
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise MissingTool(tool, package, "build images")

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory for one build that only we can enter, removed at the end."""
        self.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = Path(tempfile.mkdtemp(prefix="build-", dir=self.scratch))
        try:
            yield path
        finally:
            self._remove(path)

    def _remove(self, workspace: Path) -> None:
        """Remove a build's directory, and the cgroups of its steps."""
        self._remove_cgroups({workspace.name})
        shutil.rmtree(workspace, ignore_errors=True)

    def _remove_cgroups(self, names: set[str] | None = None) -> None:
        """Remove the cgroups of the builds `names`; of all builds, and the one above them, by default."""
        with contextlib.suppress(RuntimeFailure):  # a process hangs in the kernel (`sweep` tries again), or no cgroups
            cgroups = Cgroups(self._cgroup_parent)
            for name in cgroups.names() if names is None else names:
                cgroups.kill(name)
                cgroups.remove(name)
            if names is None:
                cgroups.remove_parent()

    async def build(self, bud: Bud, workspace: Path, output: Callable[[str], None]) -> str:
        """Build an image and return its hex id.

        Raises:
            CommandFailed: a step failed.
            DiskFull: no space is left.
        """
        iid_file = workspace / "image-id"
        argv = ["bud", "--runtime", "runc", "--isolation", "oci", "--network", "host", "--layers", "--force-rm"]
        argv += ["--cgroup-parent", f"{self._cgroup_parent}/{workspace.name}"]
        argv += ["--format", "docker"]  # the other format cannot keep SHELL and HEALTHCHECK
        argv += [] if bud.use_cache else ["--no-cache"]
        for volume in (*bud.volumes, f"{_variables_directory(workspace)}:{VARIABLES}:ro"):
            argv += ["-v", volume]
        argv += ["--ignorefile", os.devnull]  # the client has chosen the files; a .dockerignore among them is data
        argv += ["--iidfile", str(iid_file), "-t", bud.tag, "-f", str(bud.dockerfile), str(bud.context)]
        await self.run(argv, workspace, output, bud.variables)
        image = iid_file.read_text().strip().removeprefix("sha256:")
        if not _IMAGE_ID.match(image):
            raise RuntimeFailure(f"buildah reported {image!r} as the id of the image it built.")
        return image

    async def run(
        self, argv: Sequence[str], workspace: Path, output: Callable[[str], None], variables: str = ""
    ) -> None:
        """Run one buildah command with its output in `output`, line by line."""
        storage = ["--root", str(self.root), "--runroot", str(self._runroot), "--storage-driver", "overlay"]
        temporary = workspace / "tmp"
        temporary.mkdir(exist_ok=True)
        directory = _variables_directory(workspace)
        directory.mkdir(exist_ok=True)
        command = [*NAMESPACE, "sh", "-c", _WITH_VARIABLES, "sh", str(directory), "buildah", *storage, *argv]
        env = {**os.environ, "TMPDIR": str(temporary), "BUILDAH_ISOLATION": "oci"}
        await run_command(command, env, output, variables.encode())

    async def sweep(self) -> int:
        """Remove what interrupted builds left; return how many there were. No build may run meanwhile."""
        left = list(self.scratch.glob("build-*")) if self.scratch.is_dir() else []
        for path in left:
            self._remove(path)
        self._remove_cgroups()
        if (self.root / "overlay-containers" / "containers.json").exists():
            with self.workspace() as workspace:
                try:
                    await self.run(["rm", "--all"], workspace, lambda line: None)
                except CommandFailed as failure:
                    raise RuntimeFailure(f"buildah could not remove old working containers: {failure.output}") from None
        return len(left)

    def close(self) -> None:
        """Remove what is kept while it is open. No build may run."""
        self._remove_cgroups()


def _variables_directory(workspace: Path) -> Path:
    return workspace / "variables"


async def run_command(
    command: Sequence[str], env: Mapping[str, str], output: Callable[[str], None], stdin: bytes = b"", tail: int = 40
) -> None:
    """Run a program whose first child process is the root of a pid namespace; kill that namespace on cancel.

    It reads all of `stdin` before it says anything.

    Raises:
        CommandFailed: it ended with an error; holds the last `tail` lines.
        DiskFull: it ended with an error because no space is left.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        limit=_MAX_LINE,
        start_new_session=True,
    )
    last: list[str] = []
    try:
        await _feed(process, stdin)
        async for line in _lines(process):
            last.append(line)
            del last[:-tail]
            output(line)
        status = await process.wait()
    except BaseException:
        await _kill(process)
        raise
    if status != 0:
        text = "".join(last)
        if _NO_SPACE in text.lower():
            raise DiskFull("No space is left on the disk that holds images; free some, or move the data directory.")
        raise CommandFailed(status, text)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: its status says more
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    """Whole lines, or long pieces of lines, as they come."""
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.read(_MAX_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace") + "\n"
        if len(rest) >= _MAX_LINE:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace") + "\n"


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the namespace from within, so that its parent can reap it; then the parent, if it is still there."""
    if process.returncode is not None:
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(OSError):
        for pid in children.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), 5)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
