"""Content-addressed bytes: mount files, build contexts, large arguments and results."""

from __future__ import annotations

from dataclasses import dataclass, field

from .common import Empty, Method, Shape


@dataclass(frozen=True)
class BlobDigests:
    digests: list[str] = field(default_factory=list)  #: lower-case hex SHA-256


@dataclass(frozen=True)
class BlobPut:
    """Opens an upload. Item bodies are the bytes in order; the server refuses a digest or size that does not match."""

    digest: str
    size: int


@dataclass(frozen=True)
class BlobRef:
    digest: str
    size: int


#: Request: digests the client has. Reply: those that the server lacks.
BLOB_MISSING = Method("blob.missing", BlobDigests, BlobDigests)
BLOB_PUT = Method("blob.put", BlobPut, BlobRef, Shape.CLIENT_STREAM, mutating=True, item=Empty)
#: Item bodies are the bytes in order.
BLOB_GET = Method("blob.get", BlobRef, Empty, Shape.SERVER_STREAM)
