"""RPC: volumes and network file systems as containers have them mounted, and their life."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from intermodal.control.access import require_user
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.threads import in_thread
from intermodal.volumes.live import LiveFolders
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.store import VolumeStore
from intermodal.volumes.verify import verify
from modal._wire.messages.common import Empty
from modal._wire.messages.files import (
    VOLUME_COMMIT,
    VOLUME_RELOAD,
    VOLUME_VERIFY,
    VolumeProblem,
    VolumeRef,
    VolumeReloaded,
)
from modal._wire.messages.named import ObjectKind
from modal.exception import InvalidError

log = logging.getLogger(__name__)


class MountedVolumes(Protocol):
    """What the agent does with the volumes of its containers."""

    async def commit_volume(self, container_id: str, volume_id: str) -> None: ...

    async def reload_volume(self, container_id: str, volume_id: str) -> list[str]: ...


class VolumeService:
    """Commits and reloads on behalf of containers; holds the volumes' files as a `Holder` and a `Space`."""

    def __init__(self, named: NamedService, store: VolumeStore, mounts: VolumeMounts, node: MountedVolumes) -> None:
        self._named = named
        self._store = store
        self._mounts = mounts
        self._node = node
        self._pool = ThreadPoolExecutor(os.cpu_count(), "volume-verify")
        self._deleting: set[asyncio.Future[Any]] = set()
        named.holders[ObjectKind.VOLUME] = self

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(VOLUME_COMMIT, self.commit)
        dispatcher.register(VOLUME_RELOAD, self.reload)
        dispatcher.register(VOLUME_VERIFY, self.verify)

    async def commit(self, ctx: Context, request: VolumeRef, body: bytes) -> Empty:
        container_id = self._container(ctx, request.volume_id, "commit")
        await self._node.commit_volume(container_id, request.volume_id)
        return Empty()

    async def reload(self, ctx: Context, request: VolumeRef, body: bytes) -> VolumeReloaded:
        container_id = self._container(ctx, request.volume_id, "reload")
        return VolumeReloaded(await self._node.reload_volume(container_id, request.volume_id))

    async def verify(self, ctx: Context, request: VolumeRef, body: bytes, stream: ServerStream[Any, Any]) -> None:
        require_user(ctx)
        self._named.require_object(ctx, ObjectKind.VOLUME, request.volume_id)
        problems = verify(self._store, request.volume_id, self._pool)
        try:
            while (problem := await in_thread(next, problems, None)) is not None:
                await stream.send(VolumeProblem(problem))
        finally:
            await in_thread(problems.close)

    def _container(self, ctx: Context, volume_id: str, method: str) -> str:
        self._named.require_object(ctx, ObjectKind.VOLUME, volume_id)
        if ctx.principal.kind != "container":
            raise InvalidError(
                f"Volume.{method} works where the volume is mounted: in a function with volumes={{path: volume}}. "
                "Elsewhere every change is committed by itself, and every read sees what is committed."
            )
        return ctx.principal.container_id

    # -- as a space of files

    def reading(self, object_id: str) -> AbstractContextManager[Path]:
        return self._mounts.reading(object_id)

    def writing(self, object_id: str) -> AbstractContextManager[Path]:
        return self._mounts.writing(object_id)

    # -- as a holder

    def created(self, object_id: str) -> None:
        self._store.create(object_id)

    def forget_others(self) -> None:
        """Delete what deleted volumes left, since the server died while it deleted them."""
        for volume_id in self._store.volumes():
            if not self._named.exists(volume_id):
                self.deleted(volume_id)

    def deleted(self, object_id: str) -> None:
        delete_in_thread(self._store.delete, object_id, self._deleting)


class NetworkFileSystemService:
    """Holds the live directories of network file systems."""

    def __init__(self, named: NamedService, folders: LiveFolders) -> None:
        self._folders = folders
        self._deleting: set[asyncio.Future[Any]] = set()
        named.holders[ObjectKind.NETWORK_FILE_SYSTEM] = self

    def created(self, object_id: str) -> None:
        self._folders.folder(object_id)

    def deleted(self, object_id: str) -> None:
        delete_in_thread(self._folders.delete, object_id, self._deleting)


def delete_in_thread(delete: Any, object_id: str, running: set[asyncio.Future[Any]]) -> None:
    """Delete files beside the event loop; what fails is logged, and tried again after the next start."""

    def done(task: asyncio.Future[Any]) -> None:
        running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the files of %s could not be deleted: %s", object_id, task.exception())

    task = asyncio.ensure_future(asyncio.to_thread(delete, object_id))
    running.add(task)
    task.add_done_callback(done)
