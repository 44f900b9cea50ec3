"""RPC: mounts and anonymous secrets, and the server's side of reading them."""

from __future__ import annotations

import hashlib
import json
import posixpath
import random
import re
from collections.abc import Callable, Iterable

from intermodal.blobs.interface import BlobStore
from intermodal.control.access import require_app
from intermodal.control.apps import Apps
from intermodal.control.blob_service import check_digest
from intermodal.control.rpc import Context, Dispatcher
from intermodal.model.ids import new_id
from intermodal.store.interface import MountRecord, SecretRecord, Store
from intermodal.store.secret_box import SecretBox
from modal._wire.codec import decode, encode
from modal._wire.messages.common import FileEntry
from modal._wire.messages.mount import MOUNT_CREATE, SECRET_CREATE, MountCreate, MountRef, SecretCreate, SecretRef
from modal.exception import InvalidError, NotFoundError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILES = 200_000
_SECRET_BYTES = 256 * 1024


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


class SecretService:
    """Secrets are kept sealed in the database and open only in the server's memory."""

    def __init__(self, store: Store, box: SecretBox, apps: Apps, rng: random.Random) -> None:
        self._store = store
        self._box = box
        self._apps = apps
        self._rng = rng
        self._open: dict[str, tuple[str, dict[str, str]]] = {}  # id -> app id, variables

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(SECRET_CREATE, self.create)

    async def create(self, ctx: Context, request: SecretCreate, body: bytes) -> SecretRef:
        self._apps.get(request.app_id)
        require_app(ctx, request.app_id)
        for name, value in request.env.items():
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                raise InvalidError(f"{name!r} cannot be set as an environment variable.")
        if sum(len(name) + len(value) for name, value in request.env.items()) > _SECRET_BYTES:
            raise InvalidError(f"A secret holds at most {_SECRET_BYTES // 1024} KiB.")
        secret_id = new_id("st", self._rng)
        self._open[secret_id] = (request.app_id, dict(request.env))
        await self._store.write([SecretRecord(secret_id, request.app_id, self._box.seal(request.env))])
        return SecretRef(secret_id)

    def restore(self, record: SecretRecord) -> None:
        self._open[record.secret_id] = (record.app_id, self._box.unseal(record.sealed))

    def env(self, secret_id: str) -> dict[str, str]:
        """The variables. Raises `NotFoundError`."""
        try:
            return self._open[secret_id][1]
        except KeyError:
            raise NotFoundError(f"There is no secret {secret_id!r}.") from None

    def require_owner(self, secret_id: str, app_id: str) -> None:
        """Raise `NotFoundError` unless the secret is one of this app."""
        if self._open.get(secret_id, ("", {}))[0] != app_id:
            raise NotFoundError(f"There is no secret {secret_id!r} in this app.")

    def adopt(self, draft_id: str, app_id: str) -> list[SecretRecord]:
        """What was made for a draft belongs to the deployed app from now on; returns what is to be written for that."""
        changes = []
        for secret_id, (owner, env) in self._open.items():
            if owner == draft_id:
                self._open[secret_id] = (app_id, env)
                changes.append(SecretRecord(secret_id, app_id, self._box.seal(env)))
        return changes

    def forget_app(self, app_id: str) -> None:
        """Drop the secrets that lived as long as this app."""
        for secret_id in [key for key, (owner, _) in self._open.items() if owner == app_id]:
            del self._open[secret_id]
