"""RPC: mounts, and the server's side of reading them."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable

from intermodal.blobs.interface import BlobStore
from intermodal.control.blob_service import check_digest
from intermodal.control.rpc import Context, Dispatcher
from intermodal.store.interface import MountRecord, Store
from modal._wire.codec import decode, encode
from modal._wire.messages.common import FileEntry
from modal._wire.messages.mount import MOUNT_CREATE, MountCreate, MountRef
from modal.exception import InvalidError, NotFoundError

_FILES = 200_000


class MountService:
    """Mounts by their content.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, store: Store, blobs: BlobStore, now: Callable[[], float]) -> None:
        self._store = store
        self._blobs = blobs
        self._now = now
        self._known: dict[str, list[FileEntry]] = {}
        self._used: dict[str, float] = {}  # mount id -> when it was last asked for

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(MOUNT_CREATE, self.create)

    async def create(self, ctx: Context, request: MountCreate, body: bytes) -> MountRef:
        if len(request.files) > _FILES:
            raise InvalidError(f"A mount holds at most {_FILES} files; this one has {len(request.files)}.")
        for entry in request.files:
            self._check(entry)
        files = [encode(entry) for entry in sorted(request.files, key=lambda entry: entry.path)]
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        mount_id = f"mo-{digest[:32]}"
        self._used[mount_id] = self._now()
        if mount_id not in self._known:
            self._known[mount_id] = list(request.files)
            self._store.write([MountRecord(mount_id, files)])
        return MountRef(mount_id)

    def _check(self, entry: FileEntry) -> None:
        path = entry.path
        if not path.startswith("/") or posixpath.normpath(path) != path or "\0" in path or path == "/":
            raise InvalidError(f"{path!r} is not an absolute, normalized path of a file in the container.")
        check_digest(entry.digest)
        if not self._blobs.has(entry.digest):
            raise NotFoundError(f"The content of {path} was not uploaded.")

    async def files(self, mount_id: str) -> list[FileEntry]:
        """The files of a mount. Raises `NotFoundError`."""
        self._used[mount_id] = self._now()
        if mount_id not in self._known:
            record = await self._store.mount(mount_id)
            if record is None:
                raise NotFoundError(f"There is no mount {mount_id!r}.")
            self._known[mount_id] = [decode(FileEntry, entry) for entry in record.files]
        return self._known[mount_id]

    def used_since(self, time: float) -> set[str]:
        """Mounts that a function which is about to be made may refer to."""
        self._used = {mount_id: at for mount_id, at in self._used.items() if at >= time}
        return set(self._used)

    def forget(self, mount_ids: Iterable[str]) -> None:
        """These were deleted."""
        for mount_id in mount_ids:
            self._known.pop(mount_id, None)
            self._used.pop(mount_id, None)
