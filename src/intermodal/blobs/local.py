"""Blobs as files: ``<root>/ab/abcdef…``, read-only, visible only when whole."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Container
from pathlib import Path
from typing import TypeVar

from intermodal.model.errors import DiskFull, RuntimeFailure
from intermodal.threads import in_thread
from modal.exception import InvalidError, NotFoundError

Result = TypeVar("Result")

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
#: Below this many bytes a write costs less than handing it to a thread.
_INLINE_BYTES = 256 * 1024


class LocalBlobStore:
    """`intermodal.blobs.interface.BlobStore` in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"

    async def open(self) -> None:
        _translate(self._prepare)

    def has(self, digest: str) -> bool:
        return _DIGEST.match(digest) is not None and self._path(digest).is_file()

    def claim(self, digest: str) -> bool:
        if not self.has(digest):
            return False
        _translate(lambda: os.utime(self._path(digest)))
        return True

    async def sweep(self, keep: Container[str], older_than: float) -> int:
        deleted = 0
        for folder in await asyncio.to_thread(self._folders):
            # One folder at a time on the event loop, so that nothing is claimed between the look and the deletion.
            deleted += _translate(lambda folder=folder: _sweep(folder, keep, older_than))  # type: ignore[misc]
            await asyncio.sleep(0)
        return deleted

    def _folders(self) -> list[Path]:
        return [folder for folder in self._root.iterdir() if folder != self._incoming]

    def path(self, digest: str) -> Path:
        if not self.has(digest):
            raise NotFoundError(f"There is no blob {digest[:80]!r} on this server; upload it first.")
        return self._path(digest)

    def writer(self, digest: str, size: int) -> LocalBlobWriter:
        """Begin an upload.

        Raises:
            InvalidError: `digest` is not 64 lower-case hex digits, or `size` is negative.
            RuntimeFailure: the file cannot be made.
        """
        if not _DIGEST.match(digest):
            raise InvalidError(f"{digest[:80]!r} is not a lower-case hexadecimal SHA-256 digest.")
        if size < 0:
            raise InvalidError(f"A blob cannot have {size} bytes.")
        return _translate(lambda: LocalBlobWriter(self._incoming, self._path(digest), digest, size))

    def _prepare(self) -> None:
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in self._incoming.iterdir():
            unfinished.unlink()

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest


class LocalBlobWriter:
    """One upload into a temporary file. `commit` or `abort` ends it."""

    def __init__(self, incoming: Path, target: Path, digest: str, size: int) -> None:
        descriptor, name = tempfile.mkstemp(dir=incoming)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._temporary = Path(name)
        self._target = target
        self._digest = digest
        self._size = size
        self._received = 0
        self._hash = hashlib.sha256()
        self._ended = False

    async def write(self, data: bytes) -> None:
        if self._ended:
            raise InvalidError("This upload has ended.")
        if self._received + len(data) > self._size:
            raise InvalidError(
                f"The upload of blob {self._digest[:12]} is larger than the announced {self._size} bytes."
            )
        self._received += len(data)
        if len(data) < _INLINE_BYTES:
            _translate(lambda: self._append(data))
        else:
            await in_thread(_translate, lambda: self._append(data))

    async def commit(self) -> None:
        if self._ended:
            raise InvalidError("This upload has ended.")
        try:
            if self._received != self._size:
                raise InvalidError(
                    f"The upload of blob {self._digest[:12]} has {self._received} bytes instead of {self._size}."
                )
            if self._hash.hexdigest() != self._digest:
                raise InvalidError(
                    f"The content uploaded as blob {self._digest[:12]} has another digest; it was damaged."
                )
            await in_thread(_translate, self._publish)
            self._ended = True
        finally:
            await self.abort()

    async def abort(self) -> None:
        self._ended = True
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        self._hash.update(view)
        while view:
            view = view[self._file.write(view) or 0 :]

    def _publish(self) -> None:
        os.fchmod(self._file.fileno(), 0o444)
        os.fsync(self._file.fileno())
        self._target.parent.mkdir(exist_ok=True)
        self._temporary.replace(self._target)
        _sync_directory(self._target.parent)


def _sweep(folder: Path, keep: Container[str], older_than: float) -> int:
    old = [blob for blob in folder.iterdir() if blob.name not in keep and blob.stat().st_mtime < older_than]
    for blob in old:
        blob.unlink()
    return len(old)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translate(action: Callable[[], Result]) -> Result:
    """Run `action`; say what an error of the disk means."""
    try:
        return action()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                "No space is left on the disk that holds uploaded files; free some and try again."
            ) from error
        raise RuntimeFailure(f"An uploaded file could not be stored: {error}.") from error
