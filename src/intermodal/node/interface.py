"""The seam between the server and a machine's agent.

The server calls `Node`; the agent calls back `NodeListener`. Callbacks are plain functions on the event loop's thread
and must not block. For one container they come in this order: `container_ready` or `container_start_failed`, any
number of `outputs`, `yielded`, `inputs_returned`, and last `container_exited`, exactly once for every `start` that
returned; `logs` and `container_leaving` come at any time before `container_exited`, which comes after the last of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from intermodal.model.container import ContainerExit, ContainerSpec
from modal._wire.messages.app import LogStream
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.runner import OpenLine, Outputs, RunInputs, Taken, Yielded
from modal._wire.messages.terminal import OutputStream, WindowSize


@dataclass(frozen=True)
class NodeCapacity:
    """What a machine has in all."""

    cpu: float  #: cores
    memory: int  #: MiB
    gpus: tuple[str, ...] = ()


class NodeListener(Protocol):
    """What the agent tells the server."""

    def container_ready(self, container_id: str, seconds: float) -> None:
        """User code is loaded; inputs may be pushed. `seconds` since `start` was called."""

    def container_start_failed(self, container_id: str, error: ErrorInfo, payload: bytes) -> None:
        """User code could not be loaded. `payload` is a failure payload, maybe empty. An exit follows."""

    def outputs(self, container_id: str, message: Outputs, body: memoryview | bytes) -> None:
        """Inputs ended. `body` concatenates the payloads; it is only valid during the call."""

    def inputs_taken(self, container_id: str, message: Taken, body: memoryview | bytes) -> None:
        """Inputs came over a direct line; they are answered or returned like inputs that were pushed.

        `outputs` may tell of further ones, which have a `call_id`: those were answered over their line.
        """

    def yielded(self, container_id: str, message: Yielded, body: memoryview | bytes) -> None:
        """A generator input yielded a value."""

    def inputs_returned(self, container_id: str, input_ids: list[str]) -> None:
        """The container gives back inputs it has not begun."""

    def container_leaving(self, container_id: str) -> None:
        """A signal told the container to end: it takes nothing more. To be answered by `Node.stop`."""

    def logs(self, container_id: str, stream: LogStream, text: str, at: float) -> None:
        """Output of the container, in order per stream; decoded as UTF-8 with replacement."""

    def container_exited(self, container_id: str, exit: ContainerExit) -> None:
        """The container is gone and everything of it is freed."""


class ContainerApi(Protocol):
    """Serves SDK calls that code in a container makes: the server's RPC, with the container as the caller."""

    def accept(self, container_id: str, transport: asyncio.Transport, first_frame: bytes) -> asyncio.Protocol:
        """Take over a connection whose first frame is an RPC handshake; return the protocol to continue with.

        The implementation connects that protocol and feeds it `first_frame`; bytes after it go to `data_received`.
        """


class Exec(Protocol):
    """A command that runs in a container. Whoever started it calls `close`, whatever happens."""

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """What it writes to: only stdout when it has a terminal."""

    async def read(self, stream: OutputStream) -> bytes:
        """Wait for output and return it; b"" at its end. One at a time per stream. What is not read stays with the
        command, which waits in the end."""

    async def write(self, data: bytes) -> None:
        """Pass bytes to its input; waits while it does not read. After its end they are dropped."""

    async def end_input(self) -> None:
        """No input follows."""

    def resize(self, window: WindowSize) -> None:
        """Change the size of its terminal, if it has one."""

    async def wait(self) -> int:
        """Return its exit code once it has ended: 128 and the signal's number if a signal ended it."""

    def close(self) -> None:
        """Kill it if it runs, with its descendants, and free everything. Idempotent."""


class Node(Protocol):
    """A machine's agent. Raises `intermodal.model.errors.RuntimeFailure`."""

    async def open(self) -> None:
        """Check the machine, clean what an earlier agent left, start pools. Called once, first."""

    async def close(self) -> None:
        """Kill every container, free everything. Idempotent."""

    def capacity(self) -> NodeCapacity: ...

    async def start(self, spec: ContainerSpec) -> None:
        """Start a container; returns when its process runs. Failure raises and leaves nothing behind."""

    def push(self, container_id: str, message: RunInputs, body: bytes) -> None:
        """Send inputs to a ready container. Unknown or ended containers are ignored (their exit is on its way)."""

    def credit(self, container_id: str, input_id: str, count: int) -> None:
        """Let a generator input yield `count` more values."""

    def open_line(self, container_id: str, message: OpenLine, connection: socket.socket) -> bool:
        """Hand a client's connection to the container; False when it cannot be done now. The caller closes its own."""

    def close_lines(self, container_id: str) -> None:
        """Have the container take no more inputs over direct lines, until one is opened again."""

    def recall(self, container_id: str, count: int) -> None:
        """Ask for up to `count` inputs that have not begun."""

    def cancel(self, container_id: str, input_ids: list[str]) -> None:
        """Interrupt inputs in user code."""

    async def exec(
        self, container_id: str, command: Sequence[str], env: dict[str, str], window: WindowSize | None
    ) -> Exec:
        """Run a command in a container whose process runs, with `env` over its environment; returns when it runs.

        Args:
            window: the size of the terminal that it gets; None: it gets pipes.

        Raises:
            NoSuchCommand: the container has no such program.
        """

    async def commit_volume(self, container_id: str, volume_id: str) -> None:
        """Commit what a container has written to a volume that it has mounted.

        Raises:
            InvalidError: it has not.
            NotFoundError: the volume was deleted.
        """

    async def reload_volume(self, container_id: str, volume_id: str) -> list[str]:
        """Show a container the latest version of a volume that it has mounted, after a commit.

        Returns the names of open files, which keep it from that. Raises as `commit_volume`.
        """

    def stop(self, container_id: str, grace: float) -> None:
        """Ask the container to finish; kill it `grace` seconds later (0: at once)."""
