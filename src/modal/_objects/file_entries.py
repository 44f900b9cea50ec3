"""Entries of volumes and network file systems, and how files are sent there. Runs on the bridge's loop."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Optional, Union

from ..exception import ConnectionError, InvalidError

if TYPE_CHECKING:
    from pathlib import Path

    from .._wire.client import RpcClient
    from .named import Named

CHUNK = 1024 * 1024  #: bytes sent at a time


class FileEntryType(enum.IntEnum):
    """What kind of entry it is."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    DEVICE = 6


_TYPES = {
    "file": FileEntryType.FILE,
    "directory": FileEntryType.DIRECTORY,
    "link": FileEntryType.SYMLINK,
    "fifo": FileEntryType.FIFO,
    "socket": FileEntryType.SOCKET,
    "device": FileEntryType.DEVICE,
}


@dataclass(frozen=True)
class FileEntry:
    """An entry of a volume or network file system."""

    path: str
    type: FileEntryType
    mtime: int  #: seconds since the epoch
    size: int  #: bytes


@dataclass(frozen=True)
class Upload:
    """A file to be sent: its source, and its path and mode there."""

    source: Union[Path, BinaryIO, None]  #: None: a directory, which is made
    path: str
    mode: int = 0o644


class Listing:
    """Entries of a directory, part by part."""

    def __init__(self, obj: Named, path: str, *, recursive: bool = False, is_glob: bool = False) -> None:
        self._obj = obj
        self._path = path
        self._recursive = recursive
        self._is_glob = is_glob
        self._stack: Optional[AsyncExitStack] = None
        self._stream: Any = None

    async def next(self) -> list[FileEntry]:
        """The next entries; none at the end. Raises NotFoundError when there is no such path."""
        if self._stack is None:
            from .._wire.messages.files import FILES_LIST, FilesList

            rpc, object_id = await self._obj._bind()
            self._stack = AsyncExitStack()
            request = FilesList(object_id, self._path, self._recursive, self._is_glob)
            self._stream = await self._stack.enter_async_context(rpc.stream(FILES_LIST, request))
        async for part, _ in self._stream:
            return [FileEntry(one.path, _TYPES[one.kind.value], one.mtime, one.size) for one in part.entries]
        return []

    async def close(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()


class Reading:
    """The bytes of a file, part by part."""

    def __init__(self, obj: Named, path: str) -> None:
        self._obj = obj
        self._path = path
        self._stack: Optional[AsyncExitStack] = None
        self._stream: Any = None

    async def next(self) -> bytes:
        """The next bytes; b"" at the end. Raises NotFoundError when there is no such file."""
        if self._stack is None:
            from .._wire.messages.files import FILE_READ, FileRead

            rpc, object_id = await self._obj._bind()
            self._stack = AsyncExitStack()
            self._stream = await self._stack.enter_async_context(rpc.stream(FILE_READ, FileRead(object_id, self._path)))
        async for _, data in self._stream:
            return bytes(data)
        return b""

    async def close(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()


async def send_files(
    rpc: RpcClient,
    object_id: str,
    uploads: Iterable[Upload],
    *,
    force: bool,
    sent: Optional[Callable[[int], None]] = None,
) -> int:
    """Write files, and return how many bytes that were.

    Args:
        force: replace files that are there.
        sent: told how many bytes were sent, piece by piece.

    Raises:
        FileExistsError: a file is there and `force` is not set; nothing was written.
        InvalidError: a local file cannot be read, or a directory is where a file should be.
        ConnectionError: the connection broke; of a volume nothing was written.
    """
    from .._wire.messages.files import FILES_PUT, FilePart, FilesPut

    total = 0
    try:
        async with rpc.stream(FILES_PUT, FilesPut(object_id, force)) as stream:
            for upload in uploads:
                first = FilePart(upload.path, upload.mode, upload.source is None)
                async for data in _pieces(upload):
                    await stream.send(first, data)
                    first = FilePart()
                    total += len(data)
                    if sent is not None:
                        sent(len(data))
                if first.path:  # it is empty
                    await stream.send(first)
            await stream.end()
            done, _ = await stream.result()
    except ConnectionError as error:
        raise ConnectionError(f"The files were not written: {error}") from None
    if done.existing:
        raise FileExistsError(f"{'/' + done.existing.lstrip('/')} is there already; replace it with force=True.")
    return total


async def _pieces(upload: Upload) -> AsyncIterator[bytes]:
    if upload.source is None:
        return
    loop = asyncio.get_running_loop()
    if hasattr(upload.source, "read"):
        while True:
            data = await loop.run_in_executor(None, upload.source.read, CHUNK)
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise InvalidError("A file object to be uploaded must give bytes: open it in binary mode.")
            if not data:
                return
            yield bytes(data)
    try:
        with open(upload.source, "rb") as file:
            while data := await loop.run_in_executor(None, file.read, CHUNK):
                yield data
    except OSError as error:
        raise InvalidError(f"The local file {str(upload.source)!r} cannot be read: {error.strerror}.") from None
