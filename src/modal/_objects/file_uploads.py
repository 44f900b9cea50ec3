"""Local files on their way to volumes and network file systems."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Optional, Union

from .._local_files import directories, local_file, walk
from .._wire.messages.files import FILES_PUT, FilePart, FilesPut
from ..exception import ConnectionError, InvalidError

if TYPE_CHECKING:
    from .._wire.client import RpcClient

_CHUNK = 1024 * 1024  # bytes sent at a time


@dataclass(frozen=True)
class Upload:
    """A file to be sent: its source, and its path and mode there."""

    source: Union[Path, BinaryIO, None]  #: None: a directory, which is made
    path: str
    mode: int = 0o644


def local_file_of(path: Union[Path, str], remote: str, for_folders: str) -> Any:
    """The local file, checked; `for_folders` is the method for directories. Raises InvalidError."""
    if not isinstance(path, (str, Path)):
        raise InvalidError(f"A file to be uploaded is a path or an open binary file, not {path!r}.")
    return local_file(path, remote, for_folders)


def uploads_of(root: Path, remote: str, *, recursive: bool = True) -> list[Upload]:
    """The files of a local directory by their places below `remote`, and directories that have none to be sent."""
    top = remote.rstrip("/")
    files = [
        Upload(file.path, file.remote_path, file.mode)
        for file in walk(root, top or "/", lambda path: False, recursive=recursive)
    ]
    made = {posixpath.dirname(file.path) for file in files}
    folders = [f"{top}/{path}".rstrip("/") for path in directories(root, recursive=recursive)]
    return files + [Upload(None, path) for path in folders if path and path not in made]


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


def _rewind(file: Any) -> None:
    """What was written to a buffer just now is to be sent, not the nothing that is behind it."""
    try:
        if file.seekable():
            file.seek(0)
    except (AttributeError, OSError):
        return  # such as a pipe, which is sent from where it is


async def _pieces(upload: Upload) -> AsyncIterator[bytes]:
    if upload.source is None:
        return
    loop = asyncio.get_running_loop()
    if hasattr(upload.source, "read"):
        if getattr(upload.source, "closed", False):
            raise InvalidError(f"The file object for {upload.path!r} was closed before it was sent; keep it open.")
        _rewind(upload.source)
        while True:
            data = await loop.run_in_executor(None, upload.source.read, _CHUNK)
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise InvalidError("A file object to be uploaded must give bytes: open it in binary mode.")
            if not data:
                return
            yield bytes(data)
    try:
        with open(upload.source, "rb") as file:
            while data := await loop.run_in_executor(None, file.read, _CHUNK):
                yield data
    except OSError as error:
        raise InvalidError(f"The local file {str(upload.source)!r} cannot be read: {error.strerror}.") from None
