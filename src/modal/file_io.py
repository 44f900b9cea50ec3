"""Files in sandboxes. Declared; they come with sandboxes."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Optional, TypeVar, Union

from ._later import not_built_yet

T = TypeVar("T", str, bytes)


class FileWatchEventType(enum.Enum):
    """What happened to a file."""

    Unknown = "Unknown"
    Access = "Access"
    Create = "Create"
    Modify = "Modify"
    Remove = "Remove"


@dataclass
class FileWatchEvent:
    """Something happened to files."""

    paths: list[str]
    type: FileWatchEventType


class FileIO(Generic[T]):
    """An open file in a sandbox. Use `Sandbox.open`."""

    def __init__(self, client: Any, task_id: str) -> None:
        not_built_yet("modal.file_io.FileIO")

    @classmethod
    def create(cls, path: str, mode: str, client: Any, task_id: str) -> FileIO[Any]:
        """Open a file."""
        not_built_yet("FileIO.create")

    def read(self, n: Optional[int] = None) -> T:
        """Read `n` bytes or characters, or all that is left."""
        not_built_yet("FileIO.read")

    def readline(self) -> T:
        """Read a line."""
        not_built_yet("FileIO.readline")

    def readlines(self) -> Sequence[T]:
        """Read all lines that are left."""
        not_built_yet("FileIO.readlines")

    def write(self, data: Union[bytes, str]) -> None:
        """Write data; `flush` or `close` makes it appear."""
        not_built_yet("FileIO.write")

    def flush(self) -> None:
        """Write what is buffered."""
        not_built_yet("FileIO.flush")

    def seek(self, offset: int, whence: int = 0) -> None:
        """Move to an offset from the start (0), the position (1) or the end (2)."""
        not_built_yet("FileIO.seek")

    @classmethod
    def ls(cls, path: str, client: Any, task_id: str) -> list[str]:
        """List a directory."""
        not_built_yet("FileIO.ls")

    @classmethod
    def mkdir(cls, path: str, client: Any, task_id: str, parents: bool = False) -> None:
        """Make a directory."""
        not_built_yet("FileIO.mkdir")

    @classmethod
    def rm(cls, path: str, client: Any, task_id: str, recursive: bool = False) -> None:
        """Remove a file or directory."""
        not_built_yet("FileIO.rm")

    @classmethod
    def watch(
        cls,
        path: str,
        client: Any,
        task_id: str,
        filter: Optional[list[FileWatchEventType]] = None,
        recursive: bool = False,
        timeout: Optional[int] = None,
    ) -> Iterator[FileWatchEvent]:
        """Watch a file or directory for changes."""
        not_built_yet("FileIO.watch")

    def close(self) -> None:
        """Write what is buffered and close the file."""
        not_built_yet("FileIO.close")


async def delete_bytes(file: FileIO[Any], start: Optional[int] = None, end: Optional[int] = None) -> None:
    """Delete the bytes from `start` (default: the beginning) up to `end` (default: the end)."""
    not_built_yet("modal.file_io.delete_bytes")


async def replace_bytes(file: FileIO[Any], data: bytes, start: Optional[int] = None, end: Optional[int] = None) -> None:
    """Put `data` in the place of the bytes from `start` (default: the beginning) up to `end` (default: the end)."""
    not_built_yet("modal.file_io.replace_bytes")
