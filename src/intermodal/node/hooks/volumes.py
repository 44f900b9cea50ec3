"""Volumes and network file systems in containers.

A volume is an overlay over the version that was committed when the container started. It is mounted on a directory of
the agent's, and the container follows what is mounted there: so a commit can take the writable layer away and put the
next one in its place, and a reload the latest version, without the container's doing.

Files on disk belong to the users that containers have outside (root is `uid_base`): overlayfs cannot write through a
mount that shifts owners unless whoever mounts it is such a user.

A commit pauses the container for some milliseconds. When nothing in it could still write to the old layer (open files,
working directories), that is taken as it is; else what has changed is copied.

A mount point is never below what is deleted with a container: what is mounted there are people's files.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from intermodal.model.container import MountedObject
from intermodal.model.errors import BadImage, RuntimeFailure
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.layout import NodeLayout
from intermodal.node.mount_table import unmount_below
from intermodal.node.open_files import Use, uses_of
from intermodal.overlay.mounts import mount_overlay
from intermodal.runtimes.interface import BindMount
from intermodal.runtimes.syscalls import MS_RDONLY, make_shared_point, unmount
from intermodal.threads import in_thread
from intermodal.volumes.changes import PathTooLong
from intermodal.volumes.durable import remove_long
from intermodal.volumes.entries import PATH_LIMIT
from intermodal.volumes.files import shown
from intermodal.volumes.live_folders import LiveFolders
from intermodal.volumes.mounts import FLAGS, OPTIONS, VolumeMounts
from intermodal.volumes.recovery import recover
from intermodal.volumes.session import Session, Version
from intermodal.volumes.store import VolumeStore
from modal.exception import Error, InvalidError, NotFoundError

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_COMMIT_EVERY = 5.0  # seconds between looks for something to commit
_COPY_EVERY = 60.0  # seconds between copies of what is being written
_TRIED_AGAIN = "It is tried again when the server starts next."
_THREADS = 16  # for commits; apart, since many large ones would keep the rest of the server waiting for a thread


@dataclass(eq=False)
class _Mounted:
    """One volume in one container."""

    wanted: MountedObject
    point: Path
    version: Version  #: that a read-only mount holds
    session: Session | None  #: of one that writes
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_mounted: bool = False
    copied_at: float = 0.0
    is_away: str = ""  #: why it could not be mounted again after a commit
    said: str = ""  #: what kept it from being committed, when that was last said


class VolumesHook(Hook):
    """Mounts `spec.volumes` once the process is there, before it runs user code; commits while it runs, and at its end.

    Args:
        layout: where mount points are.
        owner: root in containers.
        volumes: below the data directory, as `folders` are.
        say: tells people something about a container.
    """

    def __init__(
        self,
        layout: NodeLayout,
        owner: int,
        volumes: VolumeStore,
        mounts: VolumeMounts,
        folders: LiveFolders,
        say: Callable[[str, str], None],
    ) -> None:
        self._points = layout.volumes
        self._owner = owner
        self._volumes = volumes
        self._mounts = mounts
        self._folders = folders
        self._say = say
        self._mounted: dict[str, list[_Mounted]] = {}
        self._containers: dict[str, Container] = {}
        self._committing: dict[str, asyncio.Task[None]] = {}
        self._working: set[asyncio.Task[Any]] = set()  #: what is never left half-done
        self._threads = ThreadPoolExecutor(_THREADS, "volumes")

    # -- the agent's life

    async def open(self) -> None:
        await self._do(self._clean)
        self._points.mkdir(exist_ok=True)
        os.chown(self._points, 0, self._owner)
        self._points.chmod(0o710)  # root in containers reaches what is below, and nobody else
        for volume_id in await self._do(self._volumes.volumes):
            try:
                layers = await self._do(recover, self._volumes, volume_id)
            except Exception:
                # It stays for the next start; the other volumes are not to suffer.
                log.exception("what dead mounts had left of volume %s could not be committed", volume_id)
                continue
            if layers:
                log.info("committed to volume %s what %d mounts had left", volume_id, layers)

    async def close(self) -> None:
        await asyncio.gather(*self._working, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._clean)

    def _clean(self) -> None:
        """Unmount what is left; delete nothing but empty directories. Raises OSError when it cannot be unmounted."""
        unmount_below(self._points)
        for folder in (*self._points.glob("*"), self._points):
            with contextlib.suppress(OSError):
                folder.rmdir()

    async def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    # -- a container's life

    async def prepare(self, container: Container) -> None:
        mounted = self._mounted[container.id] = []
        for number, wanted in enumerate(container.spec.volumes):
            try:
                if wanted.is_volume:
                    source = self._points / f"{container.id}-{number}"
                    await in_thread(self._open, wanted, source, mounted)
                else:
                    source = await in_thread(self._folders.folder, wanted.object_id)
            except NotFoundError as error:
                raise BadImage(f"What is to be mounted at {wanted.path} is gone: {error}") from error
            container.mounts.append(BindMount(source, wanted.path, wanted.read_only, follows=wanted.is_volume))

    def _open(self, wanted: MountedObject, point: Path, mounted: list[_Mounted]) -> None:
        if wanted.read_only:
            mounted.append(_Mounted(wanted, point, self._volumes.hold(wanted.object_id), None))
        else:
            session = self._volumes.open(wanted.object_id, point.name)
            mounted.append(_Mounted(wanted, point, session.version, session))
        point.mkdir()
        make_shared_point(point)

    async def started(self, container: Container) -> None:
        mounted = self._mounted[container.id]
        for one in mounted:
            await in_thread(self._mount, one, self._layers(one))
        self._containers[container.id] = container
        if mounted:
            work = self._commit_always(container, mounted)
            self._committing[container.id] = asyncio.create_task(work, name=f"volume commits of {container.id}")

    async def release(self, container: Container) -> None:
        self._containers.pop(container.id, None)
        if committing := self._committing.pop(container.id, None):
            committing.cancel()
        mounted = self._mounted.pop(container.id, [])
        # What fails for one volume keeps no other from being committed. All are unmounted before anything else is done.
        unmounted = [one for one in mounted if await self._unmount(container, one)]
        for one in unmounted:
            try:
                async with one.lock:
                    await self._end(container, one)
            except Exception:
                log.exception("a mount of volume %s in %s could not be ended", one.wanted.object_id, container.id)

    async def _unmount(self, container: Container, one: _Mounted) -> bool:
        """Whether that succeeded; if not, what was written stays where it is until the server starts next."""
        try:
            async with one.lock:
                await self._do(_remove_point, one.point)
                one.is_mounted = False
        except OSError as error:
            self._failed(container, one, error, _TRIED_AGAIN)
            return False
        return True

    async def _end(self, container: Container, one: _Mounted) -> None:
        if one.session is None:
            await self._do(self._volumes.let_go, one.wanted.object_id, one.version)
            return
        keep = True  # unless it is known that nothing is to be committed any more
        try:
            await self._detach_at_last(container, one, one.session)
            if one.session.unpublished:
                await self._publish(one, one.session)
            keep = False
        except NotFoundError as error:
            keep = False
            self._failed(container, one, error)
        except Exception as error:
            self._failed(container, one, error, _TRIED_AGAIN)
            if not isinstance(error, (Error, OSError)):
                log.exception("a mount of volume %s in %s could not be committed", one.wanted.object_id, container.id)
        finally:
            await self._do(self._volumes.close, one.session, keep=keep)

    async def _detach_at_last(self, container: Container, one: _Mounted, session: Session) -> None:
        try:
            if await self._do(self._volumes.has_writes, session):
                await self._do(self._volumes.detach, session)
        except PathTooLong as error:
            self._failed(container, one, error, "That path is left out; the rest is committed.")
            await self._do(remove_long, session.upper)
            if await self._do(self._volumes.has_writes, session):
                await self._do(self._volumes.detach, session)

    # -- what containers ask for

    async def commit(self, container: Container, volume_id: str) -> None:
        """Commit what the container has written to a volume. Raises `InvalidError`, `NotFoundError`, RuntimeFailure."""
        for one in self._find(container, volume_id):
            with _paths_checked(one):
                await self._to_the_end(self._commit_asked(container, one))

    async def reload(self, container: Container, volume_id: str) -> list[str]:
        """Show the container the latest version, after a commit; returns the open files that keep it from that."""
        for one in self._find(container, volume_id):
            with _paths_checked(one):
                if open_files := await self._to_the_end(self._reload_asked(container, one)):
                    return open_files
        return []

    async def _commit_asked(self, container: Container, one: _Mounted) -> None:
        async with one.lock:
            self._require_running(container)
            await self._commit(container, one)

    async def _reload_asked(self, container: Container, one: _Mounted) -> list[str]:
        async with one.lock:
            self._require_running(container)
            await self._commit(container, one)
            async with self._paused(container):
                uses = await self._do(self._uses, container, one)
                if not uses:
                    await self._do(self._renew, one)
        return sorted({shown(use.name) for use in uses})

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what changes a mount to its end, also when whoever asked for it goes away.

        Threads cannot be interrupted: the mount would be let go and the container resumed while one works on it still.
        """
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    def _require_running(self, container: Container) -> None:
        if container.id not in self._containers:
            raise RuntimeFailure(f"The container {container.id} has ended.")

    def _find(self, container: Container, volume_id: str) -> list[_Mounted]:
        found = [one for one in self._mounted.get(container.id, []) if one.wanted.object_id == volume_id]
        for one in found:
            if one.is_away:
                raise RuntimeFailure(f"The volume at {one.wanted.path} could not be mounted again: {one.is_away}.")
        if not found or not all(one.is_mounted or one.lock.locked() for one in found):
            raise InvalidError(
                f"The volume {volume_id} is not mounted in this container: add it to the function's `volumes`."
            )
        return found

    # -- committing

    async def _commit_always(self, container: Container, mounted: list[_Mounted]) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY)
            for one in mounted:
                if not one.lock.locked():  # else it is being committed
                    await self._to_the_end(self._commit_quietly(container, one))

    async def _commit_quietly(self, container: Container, one: _Mounted) -> None:
        async with one.lock:
            if container.id in self._containers:
                try:
                    await self._commit_if_due(container, one)
                except Exception:
                    log.exception("volume %s in %s could not be committed", one.wanted.object_id, container.id)

    async def _commit_if_due(self, container: Container, one: _Mounted) -> None:
        """Commit unless the container is writing: then what it has is copied, from time to time."""
        try:
            if one.is_away:
                await self._do(self._mount_again, one)
            if one.session is None or not await self._do(self._volumes.has_changes, one.session):
                return
            uses = await self._do(self._uses, container, one)
            if any(use.writes for use in uses) and time.monotonic() - one.copied_at < _COPY_EVERY:
                return
            await self._commit(container, one)
        except (Error, OSError) as error:
            is_dying = isinstance(error, OSError) and error.errno in (errno.EINVAL, errno.ESRCH)  # of /proc/<pid>
            if container.id in self._containers and not is_dying:  # else it has just ended, or is about to
                self._failed(container, one, error)

    async def _commit(self, container: Container, one: _Mounted) -> None:
        session = one.session
        if session is None:
            return
        if await self._do(self._volumes.has_writes, session):
            async with self._paused(container):
                uses = await self._do(self._uses, container, one)
                in_use = any(use.writes for use in uses)
                if not in_use:
                    await self._do(self._switch, one, session)
            if in_use:
                await self._do(self._volumes.copy, session)
                one.copied_at = time.monotonic()
        if session.unpublished:
            await self._publish(one, session)

    def _switch(self, one: _Mounted, session: Session) -> None:
        """Take the writable layer away, and mount an empty one over it."""
        with self._unmounted(one):
            self._volumes.detach(session)

    def _renew(self, one: _Mounted) -> None:
        """Mount the latest version."""
        volume_id = one.wanted.object_id
        with self._unmounted(one):
            if one.session is None:
                before, one.version = one.version, self._volumes.hold(volume_id)
                self._volumes.let_go(volume_id, before)
                return
            if self._volumes.has_changes(one.session):
                self._volumes.detach(one.session)
                self._volumes.commit(one.session)
            self._volumes.rebase(one.session)

    async def _publish(self, one: _Mounted, session: Session) -> None:
        await self._do(self._volumes.commit, session)
        one.said = ""
        await self._do(self._mounts.tidy, one.wanted.object_id, session)

    def _failed(self, container: Container, one: _Mounted, error: Exception, then: str = "") -> None:
        if isinstance(error, NotFoundError):
            text = f"What was written to {one.wanted.path} is lost, since the volume was deleted."
        elif one.is_away:
            text = f"The volume at {one.wanted.path} could not be mounted again: {one.is_away}."
        else:
            text = f"What was written to {one.wanted.path} could not be committed: {error}. {then}".rstrip()
        if text != one.said:
            one.said = text
            log.error("container %s: %s", container.id, text)
            self._say(container.id, f"{text}\n")

    # -- mounting

    @contextlib.asynccontextmanager
    async def _paused(self, container: Container) -> Any:
        if container.process is None:
            raise RuntimeFailure(f"The container {container.id} has ended.")
        await container.process.pause()
        try:
            yield
        finally:
            await container.process.resume()

    def _uses(self, container: Container, one: _Mounted) -> list[Use]:
        assert container.process is not None
        return uses_of(container.process.pid, one.point.stat().st_dev, one.wanted.path)

    def _layers(self, one: _Mounted) -> list[Path]:
        version = one.version if one.session is None else one.session.version
        return self._volumes.layers(one.wanted.object_id, version)

    def _mount(self, one: _Mounted, layers: list[Path]) -> None:
        if one.session is not None:
            mount_overlay(layers, one.session.folder, one.point, flags=FLAGS, options=OPTIONS)
        else:
            # An overlay needs two layers, or one to write to; of a new volume there is only an empty one.
            spare = [self._volumes.spare_layer(one.wanted.object_id)] if len(layers) == 1 else []
            mount_overlay([*layers, *spare], None, one.point, flags=FLAGS | MS_RDONLY, options=OPTIONS)
        one.is_mounted = True

    @contextlib.contextmanager
    def _unmounted(self, one: _Mounted) -> Iterator[None]:
        """While the block runs. Even if that fails the container has its files again afterwards."""
        if one.is_mounted:  # else it is away, and below it is the mount point that the container follows
            unmount(one.point)
            one.is_mounted = False
        try:
            yield
        finally:
            self._mount_again(one)

    def _mount_again(self, one: _Mounted) -> None:
        """If that fails nothing can be written to the mount point, and it is tried again."""
        try:
            if one.session is not None:
                one.session.make_work()
            self._mount(one, self._layers(one))
        except (Error, OSError) as error:
            one.is_away = str(error)
            raise
        one.is_away = ""


@contextlib.contextmanager
def _paths_checked(one: _Mounted) -> Iterator[None]:
    try:
        yield
    except PathTooLong as error:
        raise InvalidError(
            f"The volume at {one.wanted.path} cannot be committed: {shown(error.path[:100])}… has more than "
            f"{PATH_LIMIT:,} bytes, and no path in a volume can be longer. Shorten or remove it."
        ) from None


def _remove_point(point: Path) -> None:
    """Unmount what is mounted there, which is an overlay over the point itself. Raises OSError."""
    while unmount(point):
        pass
    with contextlib.suppress(FileNotFoundError):
        point.rmdir()
