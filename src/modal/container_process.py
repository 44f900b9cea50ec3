"""Processes in sandboxes. Declared; they come with sandboxes."""

from __future__ import annotations

from typing import Any, Generic, Optional, TypeVar

from ._later import not_built_yet
from .io_streams import StreamReader, StreamWriter
from .stream_type import StreamType

T = TypeVar("T", str, bytes)


class ContainerProcess(Generic[T]):
    """A process started with `Sandbox.exec`."""

    def __init__(
        self,
        process_id: str,
        client: Any,
        stdout: StreamType = StreamType.PIPE,
        stderr: StreamType = StreamType.PIPE,
        text: bool = True,
        by_line: bool = False,
    ) -> None:
        not_built_yet("modal.container_process.ContainerProcess")

    @property
    def stdout(self) -> StreamReader[T]:
        """The process's standard output."""
        not_built_yet("ContainerProcess.stdout")

    @property
    def stderr(self) -> StreamReader[T]:
        """The process's standard error."""
        not_built_yet("ContainerProcess.stderr")

    @property
    def stdin(self) -> StreamWriter:
        """The process's standard input."""
        not_built_yet("ContainerProcess.stdin")

    @property
    def returncode(self) -> int:
        """The exit code of a process that has ended."""
        not_built_yet("ContainerProcess.returncode")

    def poll(self) -> Optional[int]:
        """Return the exit code, or None while the process runs."""
        not_built_yet("ContainerProcess.poll")

    def wait(self) -> int:
        """Wait for the process and return its exit code."""
        not_built_yet("ContainerProcess.wait")

    def attach(self, *, pty: Optional[bool] = None) -> None:
        """Connect the process to this terminal."""
        not_built_yet("ContainerProcess.attach")
