"""A stand-in for the server's blob service, as `RpcClient` shows it; it can misbehave on request."""

from __future__ import annotations

import contextlib
import hashlib

from modal._wire.messages.blob import BLOB_GET, BLOB_MISSING, BLOB_PUT, BlobDigests, BlobRef
from modal._wire.messages.common import Empty
from modal._wire.messages.mount import MOUNT_CREATE, MountRef
from modal.exception import InvalidError, NotFoundError


class PutStream:
    def __init__(self, server, request) -> None:
        self.server, self.request, self.data, self.ended = server, request, bytearray(), False

    async def send(self, item, body=b"") -> None:
        assert item == Empty()
        self.server.largest_item = max(self.server.largest_item, len(body))
        self.data += body
        await self.server.before_item(self.request)

    async def end(self) -> None:
        self.ended = True

    async def result(self):
        assert self.ended
        data = bytes(self.data)
        if hashlib.sha256(data).hexdigest() != self.request.digest or len(data) != self.request.size:
            raise InvalidError("digest mismatch")
        self.server.blobs[self.request.digest] = data
        self.server.puts += 1
        return BlobRef(self.request.digest, len(data)), b""


class BlobServer:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.puts = 0
        self.largest_item = 0
        self.damage = False
        self.mounts = []

    async def before_item(self, request) -> None:
        """Replaced by tests that change a file meanwhile."""

    async def unary(self, method, request, body=b"", *, timeout=None, key=None):
        if method is BLOB_MISSING:
            return BlobDigests([digest for digest in request.digests if digest not in self.blobs]), b""
        assert method is MOUNT_CREATE
        self.mounts.append(request.files)
        return MountRef(f"mo-{len(self.mounts)}"), b""

    @contextlib.asynccontextmanager
    async def stream(self, method, request, body=b"", *, timeout=None):
        if method is BLOB_PUT:
            yield PutStream(self, request)
        else:
            assert method is BLOB_GET
            yield self.chunks(request)

    async def chunks(self, request):
        if request.digest not in self.blobs:
            raise NotFoundError("no such blob")
        data = self.blobs[request.digest]
        if self.damage:
            data = data[:-1] + b"?"
        for start in range(0, len(data), 1024 * 1024):
            yield Empty(), data[start : start + 1024 * 1024]
