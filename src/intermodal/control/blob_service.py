"""RPC: content-addressed bytes."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from intermodal.blobs.interface import BlobStore
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from modal._wire.messages.blob import BLOB_GET, BLOB_MISSING, BLOB_PUT, BlobDigests, BlobPut, BlobRef
from modal._wire.messages.call import PAYLOAD_LIMIT
from modal._wire.messages.common import Empty
from modal.exception import InvalidError, RequestSizeError

CHUNK = 1024 * 1024  # bytes sent at a time
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_LIMIT = 64 * 1024**3  # bytes


def check_digest(digest: str) -> None:
    """Raise `InvalidError` unless this is a lower-case hex SHA-256: digests become file names."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidError(f"{digest[:80]!r} is not a SHA-256 digest in lower-case hexadecimal.")


class BlobService:
    """Uploads and downloads. Knowing a digest is what entitles a caller to its bytes."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(BLOB_MISSING, self.missing)
        dispatcher.register(BLOB_PUT, self.put)
        dispatcher.register(BLOB_GET, self.get)

    async def missing(self, ctx: Context, request: BlobDigests, body: bytes) -> BlobDigests:
        for digest in request.digests:
            check_digest(digest)
        return BlobDigests([digest for digest in request.digests if not self._blobs.claim(digest)])

    async def put(self, ctx: Context, request: BlobPut, body: bytes, stream: ServerStream[Any, Any]) -> BlobRef:
        check_digest(request.digest)
        if not 0 <= request.size <= (_FILE_LIMIT if ctx.principal.kind != "container" else PAYLOAD_LIMIT):
            raise RequestSizeError(f"A file of {request.size} bytes is over the limit.")
        writer = self._blobs.writer(request.digest, request.size)
        try:
            async for _, data in stream:
                await writer.write(data)
            await writer.commit()
        finally:
            await writer.abort()
        return BlobRef(request.digest, request.size)

    async def get(self, ctx: Context, request: BlobRef, body: bytes, stream: ServerStream[Any, Any]) -> None:
        check_digest(request.digest)
        loop = asyncio.get_running_loop()
        with self._blobs.path(request.digest).open("rb") as file:
            while data := await loop.run_in_executor(None, file.read, CHUNK):
                await stream.send(Empty(), data)
