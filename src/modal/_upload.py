"""Content-addressed uploads and downloads: files, and payloads too large to travel inline."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Optional, Protocol, Union

from ._local_files import LocalFile
from ._wire.messages.blob import BLOB_GET, BLOB_MISSING, BLOB_PUT, BlobDigests, BlobPut, BlobRef
from ._wire.messages.common import Empty, FileEntry
from .exception import InvalidError, RemoteError, RequestSizeError

CHUNK = 1024 * 1024  #: bytes of one item of an upload
MAX_FILE_SIZE = 64 * 1024**3  #: bytes; the server takes no larger file
_HASHING_THREADS = 4
_PARALLEL_UPLOADS = 8
_DIGESTS_A_REQUEST = 5_000  #: 67 bytes each, well within the header limit of a frame


class Client(Protocol):
    """The part of `modal._wire.client.RpcClient` that is used here."""

    async def unary(
        self,
        method: Any,
        request: Any,
        body: bytes = b"",
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
    ) -> tuple[Any, bytes]: ...

    def stream(
        self, method: Any, request: Any, body: bytes = b"", *, timeout: Optional[float] = None
    ) -> AbstractAsyncContextManager[Any]: ...


class _Hashed:
    """A file as it was when it was hashed."""

    __slots__ = ("digest", "file", "size")

    def __init__(self, file: LocalFile) -> None:
        self.file = file
        hasher = hashlib.sha256()
        self.size = 0
        with _open(file.path) as source:
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                self.size += len(chunk)
                if self.size > MAX_FILE_SIZE:
                    raise RequestSizeError(f"{str(file.path)!r} is larger than {MAX_FILE_SIZE // 1024**3} GiB.")
        self.digest = hasher.hexdigest()


async def upload_files(client: Client, files: Sequence[LocalFile]) -> list[FileEntry]:
    """Upload what the server lacks of `files` and return their entries, in order.

    Files are hashed in threads. When several files have one remote path, the last one wins.

    Raises:
        InvalidError: if a file cannot be read, or changes between being hashed and being sent.
        RequestSizeError: if a file is larger than `MAX_FILE_SIZE`.
    """
    loop = asyncio.get_running_loop()
    chosen = list({file.remote_path: file for file in files}.values())
    with ThreadPoolExecutor(_HASHING_THREADS, "modal-hash") as pool:
        hashed = await asyncio.gather(*(loop.run_in_executor(pool, _Hashed, file) for file in chosen))
        by_digest = {item.digest: item for item in hashed}
        missing = await _missing(client, list(by_digest))
        gate = asyncio.Semaphore(_PARALLEL_UPLOADS)

        async def send(item: _Hashed) -> None:
            async with gate:
                await _put(client, BlobPut(item.digest, item.size), _read_again(item, pool), str(item.file.path))

        await _all_or_first_error([send(by_digest[digest]) for digest in missing])
    return [FileEntry(item.file.remote_path, item.digest, item.size, item.file.mode) for item in hashed]


async def upload_bytes(client: Client, data: Union[bytes, bytearray, memoryview]) -> BlobRef:
    """Upload `data` unless the server has it, and return its reference."""
    view = memoryview(data).cast("B")
    loop = asyncio.get_running_loop()
    digest = await loop.run_in_executor(None, lambda: hashlib.sha256(view).hexdigest())
    if await _missing(client, [digest]):
        await _put(client, BlobPut(digest, len(view)), _slices(view), "the payload")
    return BlobRef(digest, len(view))


async def download_bytes(client: Client, ref: BlobRef) -> bytes:
    """Download a blob.

    Raises:
        NotFoundError: if the server does not have it (any more).
        RemoteError: if what arrives is not what `ref` names.
    """
    data = bytearray()
    async with client.stream(BLOB_GET, ref) as stream:
        async for _, body in stream:
            data += body
            if len(data) > ref.size:
                break
    if len(data) != ref.size or hashlib.sha256(data).hexdigest() != ref.digest:
        raise RemoteError(f"The download of {ref.digest[:12]}… is damaged: its content does not match its digest.")
    return bytes(data)


async def _missing(client: Client, digests: list[str]) -> list[str]:
    missing: list[str] = []
    for start in range(0, len(digests), _DIGESTS_A_REQUEST):
        request = BlobDigests(digests[start : start + _DIGESTS_A_REQUEST])
        reply, _ = await client.unary(BLOB_MISSING, request)
        asked = set(request.digests)
        missing += [digest for digest in reply.digests if digest in asked]
    return missing


async def _put(client: Client, request: BlobPut, chunks: AsyncIterator[bytes], what: str) -> None:
    async with client.stream(BLOB_PUT, request) as stream:
        async for chunk in chunks:
            await stream.send(Empty(), chunk)
        await stream.end()
        stored, _ = await stream.result()
    if (stored.digest, stored.size) != (request.digest, request.size):
        raise RemoteError(f"The server stored {what} under another digest; try again.")


async def _read_again(item: _Hashed, pool: ThreadPoolExecutor) -> AsyncIterator[bytes]:
    """The file's bytes; an error that names it if they are no longer those that were hashed."""
    loop = asyncio.get_running_loop()
    hasher = hashlib.sha256()
    sent = 0
    with _open(item.file.path) as source:
        while True:
            chunk = await loop.run_in_executor(pool, source.read, CHUNK)
            sent += len(chunk)
            hasher.update(chunk)
            ended = not chunk
            if sent > item.size or (ended and (sent < item.size or hasher.hexdigest() != item.digest)):
                raise InvalidError(f"{str(item.file.path)!r} changed while it was being uploaded; run again.")
            if ended:
                return
            yield chunk


async def _slices(view: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(view), CHUNK):
        yield bytes(view[start : start + CHUNK])


async def _all_or_first_error(coroutines: Sequence[Any]) -> None:
    """Run all at once; when one fails, stop the others before raising its error."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidError(f"The local file {str(path)!r} cannot be read: {error.strerror}.") from None
