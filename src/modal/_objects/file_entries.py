"""What volumes and network file systems share: their entries, and how files are read there."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from .._sync import generator_in_caller, in_caller, on_loop
from .._wire.messages.files import (
    FILE_REMOVE,
    FILES_LIST,
    FILES_READ,
    FileInfo,
    FileKind,
    FilePart,
    FileRemove,
    FilesList,
    FilesListed,
    FilesRead,
)
from ..exception import InvalidError
from .named import Named
from .pulled import Pulled


class FileEntryType(enum.IntEnum):
    """What kind of entry it is."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    DEVICE = 6


_TYPES = {
    FileKind.FILE: FileEntryType.FILE,
    FileKind.DIRECTORY: FileEntryType.DIRECTORY,
    FileKind.LINK: FileEntryType.SYMLINK,
    FileKind.FIFO: FileEntryType.FIFO,
    FileKind.SOCKET: FileEntryType.SOCKET,
    FileKind.DEVICE: FileEntryType.DEVICE,
}


@dataclass(frozen=True)
class FileEntry:
    """An entry of a volume or network file system."""

    path: str
    type: FileEntryType
    mtime: int  #: seconds since the epoch
    size: int  #: bytes

    @classmethod
    def _of(cls, info: FileInfo) -> FileEntry:
        return cls(info.path, _TYPES[info.kind], info.mtime, info.size)


class Entries(list[FileEntry]):
    """A list that may be awaited as well, as people do in `async with modal.Volume.ephemeral() as volume`."""

    def __await__(self) -> Generator[Any, None, Entries]:
        yield from ()
        return self


def path_text(path: Any) -> str:
    """A path in a volume or network file system as text. Raises InvalidError for what is none."""
    if not isinstance(path, (str, PurePath)):
        raise InvalidError(f"A path in a volume or network file system is a string, not {path!r}.")
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{text!r} is not valid Unicode, as the paths that you give must be.") from None
    return text


class Listing(Pulled["list[FileInfo]"]):
    """Entries of a directory, part by part. `next` raises NotFoundError when there is no such path."""

    def __init__(self, obj: Named, path: str, *, recursive: bool = False, is_glob: bool = False) -> None:
        super().__init__(obj, FILES_LIST, lambda object_id: FilesList(object_id, path, recursive, is_glob), [])

    async def _part(self, message: FilesListed, body: bytes) -> list[FileInfo]:
        return message.entries

    async def entries(self) -> Entries:
        """All of them, as users see them."""
        return Entries(FileEntry._of(one) for part in await self.rest() for one in part)


class FilesReading(Pulled["list[tuple[str, bytes]]"]):
    """The bytes of several files, part by part: a path where a file begins, else "", and bytes.

    `next` raises NotFoundError when there is no such file.
    """

    def __init__(self, obj: Named, paths: list[str]) -> None:
        super().__init__(obj, FILES_READ, lambda object_id: FilesRead(object_id, paths), [])

    async def _part(self, message: FilePart, body: bytes) -> list[tuple[str, bytes]]:
        return [(message.path, body)]


class WithFiles(Named):
    """An object that holds files: what volumes and network file systems share."""

    _is_read_only = False  #: where a function has it mounted

    @generator_in_caller()
    async def read_file(self, path: str) -> AsyncGenerator[bytes, None]:
        """Read a file in pieces of up to 1 MiB, with `for` or `async for`; of a volume, as it is committed.

        Raises:
            NotFoundError: there is no such file.
            InvalidError: it is a directory.
        """
        reading = FilesReading(self, [path_text(path)])
        try:
            while parts := await on_loop(reading.next()):
                if parts[0][1]:
                    yield parts[0][1]
        finally:
            await on_loop(reading.close())

    @in_caller
    async def remove_file(self, path: str, recursive: bool = False) -> None:
        """Remove a file, or with `recursive` a directory.

        Raises:
            NotFoundError: there is no such path.
            InvalidError: it is a directory and `recursive` is not set.
        """

        text = path_text(path)

        async def remove() -> None:
            rpc, object_id = await self._bind()
            await rpc.unary(FILE_REMOVE, FileRemove(object_id, text, bool(recursive)))

        await on_loop(remove())
