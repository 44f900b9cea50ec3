"""Streams of processes in sandboxes. Declared; they come with sandboxes."""

from __future__ import annotations

from typing import Generic, TypeVar, Union

from ._later import not_built_yet

T = TypeVar("T", str, bytes)


class StreamReader(Generic[T]):
    """The output of a process."""

    @property
    def file_descriptor(self) -> int:
        """1 for stdout, 2 for stderr."""
        not_built_yet("modal.io_streams.StreamReader")

    def read(self) -> T:
        """Return everything until the end of the stream."""
        not_built_yet("modal.io_streams.StreamReader.read")


class StreamWriter:
    """The input of a process."""

    def write(self, data: Union[bytes, bytearray, memoryview, str]) -> None:
        """Queue data; `drain` sends it."""
        not_built_yet("modal.io_streams.StreamWriter.write")

    def write_eof(self) -> None:
        """End the stream after what is queued; `drain` sends it."""
        not_built_yet("modal.io_streams.StreamWriter.write_eof")

    def drain(self) -> None:
        """Send what is queued."""
        not_built_yet("modal.io_streams.StreamWriter.drain")
