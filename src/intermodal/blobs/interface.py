"""Content-addressed bytes, named by their SHA-256.

`tests/contract/test_blobs.py` holds every implementation to it.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Protocol


class BlobWriter(Protocol):
    """One upload. `commit` or `abort` ends it; aborting after a commit does nothing."""

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            modal.exception.InvalidError: this is more than the announced size.
            intermodal.model.errors.RuntimeFailure: the disk failed; `DiskFull` when it is full.
        """

    async def commit(self) -> None:
        """Make the blob visible, durably. Raises `modal.exception.InvalidError` if size or digest do not match."""

    async def abort(self) -> None: ...


class BlobStore(Protocol):
    async def open(self) -> None:
        """Remove unfinished uploads of an earlier process. Called once, first."""

    def has(self, digest: str) -> bool: ...

    def claim(self, digest: str) -> bool:
        """As `has`, and a blob that is there counts as new from now on: somebody is about to refer to it."""

    async def sweep(self, keep: Container[str], older_than: float) -> int:
        """Delete blobs that are not in `keep` and neither written nor claimed since a time; return how many.

        Args:
            older_than: seconds since the epoch.
        """

    def writer(self, digest: str, size: int) -> BlobWriter: ...

    def path(self, digest: str) -> Path:
        """Local path of the bytes. Raises `modal.exception.NotFoundError`."""
