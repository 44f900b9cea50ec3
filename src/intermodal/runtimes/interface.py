"""The seam between the agent and whatever starts containers.

A runtime's life: `check` once when the agent starts, `clean` before the first `start` (removes what a crashed agent
left), then `start` any number of times, side by side. `tests/contract/test_runtime.py` holds every implementation to
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modal._wire.messages.function import Resources
from modal._wire.messages.terminal import WindowSize

if TYPE_CHECKING:
    from intermodal.runtimes.exec_process import ExecProcess


@dataclass(frozen=True)
class BindMount:
    source: Path
    target: str  #: absolute path in the container
    read_only: bool = True
    follows: bool = False  #: what is mounted on `source` later, and unmounted, is seen in the container, too


@dataclass(frozen=True)
class Bundle:
    """One process to run in isolation. All paths exist when `start` is called."""

    container_id: str
    rootfs: Path  #: mounted root file system, writable
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    stdout: int  #: file descriptor the process writes to; stays open in the agent, which closes it after `start`
    stderr: int
    resources: Resources = field(default_factory=Resources)
    mounts: tuple[BindMount, ...] = ()
    netns: Path | None = None  #: a network namespace to join; None: a new empty one
    userns: Path | None = None  #: the user namespace that owns `netns`, mapped as `uid_base` says; None: a new one
    hostname: str = "modal"
    uid_base: int = 100_000  #: uid 0 inside is this uid outside; 65,536 ids are mapped
    state_dir: Path = Path()  #: an empty directory of the container's own for the bundle's files


@dataclass(frozen=True)
class ProcessExit:
    """Exactly one of `code` and `signal` is set."""

    code: int | None
    signal: int | None
    out_of_memory: bool = False


@dataclass(frozen=True)
class ExecCommand:
    """One more process to run in a container that runs."""

    argv: tuple[str, ...]
    env: dict[str, str]  #: all of its environment
    cwd: str
    window: WindowSize | None = None  #: of the terminal that it gets; None: it gets pipes


class ContainerProcess(Protocol):
    """A started container."""

    @property
    def pid(self) -> int:
        """The pid of its first process, outside."""

    async def wait(self) -> ProcessExit:
        """Return how it ended, once it has. May be awaited many times and by several tasks."""

    def kill(self, signal: int) -> None:
        """Send `signal` to the first process; with SIGKILL, all of the container dies. No error if it has ended."""

    async def exec(self, command: ExecCommand) -> ExecProcess:
        """Run one more process in the container: in its namespaces, control groups and limits, as its user.

        Raises:
            NoSuchCommand: the container has no such program, or may not execute it.
            RuntimeFailure: the container has ended, or the process cannot be started.
        """

    async def pause(self) -> None:
        """Stop every process of the container where it is, until `resume`. Raises RuntimeFailure; then they run on."""

    async def resume(self) -> None:
        """Let them go on. No error if they do, or have ended."""

    async def delete(self) -> None:
        """Free what the runtime keeps for it (cgroups, state), killing it first if it runs. Idempotent."""


class Runtime(Protocol):
    """Starts containers. Raises `intermodal.model.errors.RuntimeFailure` (platform fault) from every method."""

    async def check(self) -> None:
        """Verify that this machine can run containers; the error names what is missing and how to install it."""

    async def clean(self) -> int:
        """Kill and delete every container of an earlier agent with the same data directory; return how many."""

    async def close(self) -> None:
        """After the last container: free what the runtime itself keeps. Idempotent."""

    def path_inside(self, bundle: Bundle, path: str) -> str:
        """The name by which the process of `bundle` will know the absolute container path `path`."""

    async def start(self, bundle: Bundle) -> ContainerProcess:
        """Start the container. On error nothing is left behind.

        Raises `intermodal.model.errors.BadImage` when the image or the settings are at fault.
        """
