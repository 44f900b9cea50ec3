"""RPC: volumes as containers have them mounted, and their life."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from intermodal.control.access import require_user
from intermodal.control.file_deletion import FileDeletion
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.threads import in_thread
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
        self._deletion = FileDeletion()
        self.drafts: Path | None = None  # a mount of the server's own shows them to nobody
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
        problems = verify(self._store, request.volume_id)
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

    def writing(self, object_id: str, only_new: bool) -> AbstractContextManager[Path]:
        return self._mounts.writing(object_id, only_new)

    # -- as a holder

    def created(self, object_id: str) -> None:
        self._store.create(object_id)

    def deleted(self, object_id: str) -> None:
        self._deletion.start(self._store.delete, object_id)

    def forget_others(self) -> None:
        """Delete what deleted volumes left, since the server died while it deleted them."""
        self._deletion.start(self._store.delete_others, self._named.exists)
