"""Volumes on disk, and what makes a commit whole.

    <root>/<volume>/version.json     what is committed: a number, and layers, topmost first
    <root>/<volume>/layers/<id>/     a committed layer, as overlayfs wrote it; it never changes
    <root>/<volume>/manifests/<id>   its entries with the digests of its files
    <root>/<volume>/pending/<id>/    a layer that is being committed
    <root>/<volume>/open/<session>/  the writable directories of one mount

A commit takes the writable directory of a mount as it is: nothing is copied. It becomes a pending layer by one rename,
is hashed and made durable there, and counts once `version.json`, replaced by another rename, names it; then it is moved
to the others. So a death at any moment leaves the version before or the one after. Pending layers and writable
directories of containers that a dead server left are committed when the next one starts (`recovery.py`). What is put on
top last wins, file by file. A change from outside containers is committed as a whole, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

from intermodal.overlay.layers import Layers
from intermodal.volumes.changes import Change, changes
from intermodal.volumes.conflicts import require_room
from intermodal.volumes.durable import remove_tree, write
from intermodal.volumes.entries import Entry
from intermodal.volumes.holds import Holds
from intermodal.volumes.manifests import read_manifest, write_manifest
from intermodal.volumes.session import Session, Version, print_of
from intermodal.volumes.upper_layer import copy_delta, delta_of, settle
from modal.exception import NotFoundError

#: A version of more layers is merged into one.
MERGE_ABOVE = 20
_TICK = 0.01  # seconds between two times that file systems tell apart, or more
_ID = re.compile(r"vo-[0-9A-Za-z]{22}")
_LAYER = re.compile(r"\d{10}")
_WITH_LAYERS = ("layers", "manifests", "pending")


class VolumeStore:
    """Every volume below `root`. Its methods block, and may be called from any thread.

    Args:
        root: the directory; on a file system with extended attributes.
        owner: who owns new directories at the top of volumes: the user that is root in containers.
        pool: hashes large files on several cores.
    """

    def __init__(self, root: Path, owner: int = 0, pool: Executor | None = None) -> None:
        self.root = root
        self._owner = owner
        self.pool = pool
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()  # of the locks
        self._known: set[str] = set()  # volumes that exist, also those without directories yet
        self._holds = Holds()

    # -- volumes -----------------------------------------------------------------------------------------------

    def create(self, volume_id: str) -> None:
        """Let there be such a volume. Does not block: its directories are made when it is first used."""
        self._known.add(volume_id)

    def delete(self, volume_id: str) -> None:
        """Delete a volume. What is mounted goes on as it is; the files go with the last mount."""
        with self._lock(volume_id):
            self._known.discard(volume_id)
            in_use = self._holds.delete(volume_id)
        if not in_use:
            self._remove(volume_id)

    def delete_others(self, exists: Callable[[str], bool]) -> None:
        """Delete what deleted volumes have left: those that do not exist, and what was being deleted."""
        for path in self.root.glob("*.gone"):
            remove_tree(path)
        for volume_id in self.volumes():
            if not exists(volume_id):
                self.delete(volume_id)

    def volumes(self) -> list[str]:
        """The ids of all volumes on disk."""
        if not self.root.exists():
            return []
        return sorted(path.name for path in self.root.iterdir() if _ID.fullmatch(path.name))

    def version(self, volume_id: str) -> Version:
        """What is committed now. Raises `NotFoundError`, OSError."""
        path = self.folder(volume_id) / "version.json"
        with contextlib.suppress(FileNotFoundError):
            return Version.from_json(path.read_bytes())
        with self._lock(volume_id):
            if volume_id not in self._known:
                raise _gone(volume_id)
            if not path.exists():
                self._make(volume_id)
            return Version.from_json(path.read_bytes())

    def layers(self, volume_id: str, version: Version) -> list[Path]:
        """The directories of a version, topmost first, above an empty one."""
        folder = self.folder(volume_id)
        found = []
        for layer in (*version.layers, "empty"):
            path = folder / "layers" / layer
            found.append(path if path.exists() else folder / "pending" / layer)
        return found

    def spare_layer(self, volume_id: str) -> Path:
        """A further empty directory, for a mount that needs two."""
        return self.folder(volume_id) / "spare"

    # -- mounts ------------------------------------------------------------------------------------------------

    def hold(self, volume_id: str) -> Version:
        """The current version, whose layers stay until `let_go`. Raises `NotFoundError`."""
        with self._lock(volume_id):
            version = self.version(volume_id)
            if self._holds.is_deleted(volume_id):
                raise _gone(volume_id)
            self._holds.take(volume_id, (*version.layers, "empty"))
        return version

    def let_go(self, volume_id: str, version: Version) -> None:
        """The end of one `hold`. Deletes layers that nothing needs any more."""
        self._let_go(volume_id, (*version.layers, "empty"))

    @contextlib.contextmanager
    def held(self, volume_id: str) -> Iterator[Version]:
        """The current version, held while the block runs."""
        version = self.hold(volume_id)
        try:
            yield version
        finally:
            self.let_go(volume_id, version)

    def hold_everything(self, volume_id: str) -> None:
        """Keep every layer that is there until this process ends."""
        self._holds.take(volume_id, os.listdir(self.folder(volume_id) / "layers"))  # noqa: PTH208

    def _let_go(self, volume_id: str, layers: Sequence[str]) -> None:
        if self._holds.drop(volume_id, layers):
            self._remove(volume_id)
        else:
            self.collect(volume_id)

    def open(self, volume_id: str, session_id: str) -> Session:
        """Begin a mount that writes. Raises `NotFoundError`."""
        version = self.hold(volume_id)
        session = Session(volume_id, session_id, self.folder(volume_id) / "open" / session_id, version)
        try:
            session.remove()
            session.upper.mkdir(parents=True)
            self._like_below(session, session.upper)
            session.make_work()
            session.remember_version()
        except BaseException:
            self.close(session)
            raise
        return session

    def close(self, session: Session, *, keep: bool = False) -> None:
        """The mount has ended. What could not be published is when the server starts next; what else it has is gone.

        With `keep` that is committed when the server starts next, too.
        """
        if keep:
            return
        session.remove()
        self._let_go(session.volume_id, self._held(session))

    # -- commits -----------------------------------------------------------------------------------------------

    def has_changes(self, session: Session) -> bool:
        """Whether there is something that is not committed."""
        return bool(session.unpublished) or self.has_writes(session)

    def has_writes(self, session: Session) -> bool:
        """Whether something was written since it was last detached or copied."""
        if not session.copied:
            return any(True for _ in session.upper.iterdir())
        return bool(delta_of(session, self.changes(session), self.below(session)))

    def detach(self, session: Session) -> None:
        """Take the writable directory as a pending layer and give the session an empty one.

        The layer is the topmost of the session's version then. Nothing may write to the mount meanwhile or afterwards;
        it is mounted anew on the layers of that version.

        Raises:
            OSError: the session has its writable directory still, and can be mounted again.
        """
        layer = self.new_layer(session.volume_id)
        pending = self.pending(session.volume_id, layer)
        below = self.below(session)
        if session.copied:
            delta = delta_of(session, self.changes(session), below)
            copy_delta(session.upper, self.draft(session.volume_id, layer), pending, delta)
        else:
            settle(session.upper, below)
        self._put_aside(session, layer)
        if session.merged is not None:
            session.unused, session.merged = (*session.unused, *session.merged[0]), None
        session.copied, session.copies = {}, []
        self._holds.take(session.volume_id, (layer,))
        session.unpublished.append(layer)
        remove_tree(session.folder / "old")

    def _put_aside(self, session: Session, layer: str) -> None:
        """Take the writable directory away, as the pending layer unless there is a copy of that already."""
        pending = self.pending(session.volume_id, layer)
        before, moved = session.version, False
        aside = session.folder / "old" if session.copied else pending
        try:
            new = session.folder / "new"
            remove_tree(new)
            new.mkdir()
            session.version = Version(before.number, (layer, *reversed(session.copies), *self._lowest(session)))
            self._like_below(session, new, pending if session.copied else session.upper)
            session.upper.rename(aside)
            moved = True
            new.rename(session.upper)
            # While `old` is there, or `upper` is empty, a dead server's session has nothing else to be committed.
            session.forget_copied()
            session.remember_version()
        except BaseException:
            session.version = before
            if moved:
                aside.rename(session.upper)
            if session.copied:
                remove_tree(pending)
            with contextlib.suppress(OSError):
                session.remember_version()
                session.remember_copied()
            raise

    def copy(self, session: Session) -> bool:
        """Copy what has changed since the last copy as a pending layer; False when nothing has changed.

        For a mount that is in use: a file that is being written is copied as it is now. Raises OSError.
        """
        found = self.changes(session)
        delta = delta_of(session, found, self.below(session))
        if not delta:
            return False
        layer = self.new_layer(session.volume_id)
        time.sleep(_TICK)  # else what is written after it was copied could have the time that was seen
        pending = self.pending(session.volume_id, layer)
        copy_delta(session.upper, self.draft(session.volume_id, layer), pending, delta)
        session.copied = {change.path: print_of(change) for change in found}
        with contextlib.suppress(OSError):
            session.remember_copied()
        session.copies.append(layer)
        self._holds.take(session.volume_id, (layer,))
        session.unpublished.append(layer)
        return True

    def commit(self, session: Session) -> None:
        """Publish what was detached or copied. What could not be published is tried again at the next commit.

        Raises:
            NotFoundError: the volume was deleted.
            OSError: the disk failed; the version is one before.
        """
        while session.unpublished:
            self.publish(session.volume_id, session.unpublished[0])
            session.unpublished.pop(0)
        unused, session.unused = session.unused, ()
        if unused:
            self._let_go(session.volume_id, unused)

    def publish(self, volume_id: str, layer: str) -> Version:
        """Make a pending layer the topmost one of the volume; returns when that is durable.

        Raises:
            NotFoundError: the volume was deleted.
            OSError: the disk failed; the version is the one before, or the layer is its topmost already.
        """
        pending = self.pending(volume_id, layer)
        if self._holds.is_deleted(volume_id):
            raise _gone(volume_id)
        if pending.exists():
            write_manifest(self._manifest(volume_id, layer), pending, self.pool)
        with self._lock(volume_id):
            return self._put_on_top(volume_id, layer)

    def commit_whole(self, session: Session, only_new: bool = False) -> None:
        """Publish what a mount that has ended has written, all of it or nothing, and nothing after a death.

        Args:
            only_new: no file may be replaced, also none that is newer than the session.

        Raises:
            Exists: one would be.
            InvalidError: a file would take the place of a directory that is newer than the session, or the reverse.
            NotFoundError: the volume was deleted.
            OSError: the disk failed.
        """
        volume_id = session.volume_id
        layer = self.new_layer(volume_id)
        draft = self.draft(volume_id, layer)
        try:
            settle(session.upper, self.below(session))
            session.upper.rename(draft)
            entries = write_manifest(self._manifest(volume_id, layer), draft, self.pool)
            with self._lock(volume_id):
                version = self.version(volume_id)
                if self._holds.is_deleted(volume_id):
                    raise _gone(volume_id)
                if version.number != session.version.number:
                    require_room(entries, Layers(self.layers(volume_id, version)), only_new=only_new)
                draft.rename(self.pending(volume_id, layer))
                self._put_on_top(volume_id, layer)
        except BaseException:
            self._discard(volume_id, layer)
            raise

    def _put_on_top(self, volume_id: str, layer: str) -> Version:
        version = self.version(volume_id)
        if layer not in version.layers:
            version = Version(version.number + 1, (layer, *version.layers))
        self._write_version(volume_id, version)
        self.move_committed(volume_id, version)
        return version

    def _discard(self, volume_id: str, layer: str) -> None:
        """Delete a layer that could not be published, unless the version has it."""
        with self._lock(volume_id):
            if layer not in self.version(volume_id).layers:
                remove_tree(self.draft(volume_id, layer))
                remove_tree(self.pending(volume_id, layer))
                self._manifest(volume_id, layer).unlink(missing_ok=True)

    def move_committed(self, volume_id: str, version: Version) -> None:
        """Move the pending layers that a version names to the others.

        Only then: a layer that no version names is deleted there, but committed after a death as long as it is pending.
        """
        for layer in version.layers:
            pending = self.pending(volume_id, layer)
            if pending.exists():
                pending.rename(self.folder(volume_id) / "layers" / layer)

    def rebase(self, session: Session) -> list[Path]:
        """Let the session, which is not mounted now, go on from the current version. What is not committed is gone.

        Returns the layers to mount it on, topmost first. Raises `NotFoundError`, OSError: it is as it was.
        """
        now = self.hold(session.volume_id)
        before, held = session.version, self._held(session)
        old = session.folder / "old"
        session.version = now
        try:
            session.upper.rename(old)
            session.upper.mkdir()
            self._like_below(session, session.upper)
            session.forget_copied()
            session.remember_version()
        except BaseException:
            session.version = before
            if old.exists():
                remove_tree(session.upper)
                old.rename(session.upper)
            with contextlib.suppress(OSError):
                session.remember_copied()
            self.let_go(session.volume_id, now)
            raise
        remove_tree(old)
        session.copied, session.copies, session.merged, session.unused = {}, [], None, ()
        self._let_go(session.volume_id, held)
        return self.layers(session.volume_id, session.version)

    def adopt(self, session: Session, layer: str, draft: Path) -> None:
        """Let a draft of a layer stand for all that the session is mounted on, from its next mount on."""
        with self._lock(session.volume_id):
            self._holds.take(session.volume_id, (layer,))
            try:
                draft.rename(self.folder(session.volume_id) / "layers" / layer)
            except OSError:
                self._let_go(session.volume_id, (layer,))
                raise
        session.merged = session.version.layers, layer

    def pending(self, volume_id: str, layer: str) -> Path:
        """Where a layer is before it is published."""
        return self.folder(volume_id) / "pending" / layer

    def draft(self, volume_id: str, layer: str) -> Path:
        """Where a layer is made that counts for nothing until it is whole."""
        return self.folder(volume_id) / "pending" / f"{layer}.draft"

    # -- upkeep ------------------------------------------------------------------------------------------------

    def collect(self, volume_id: str) -> int:
        """Delete layers that neither the version nor a mount needs; returns how many."""
        folder = self.folder(volume_id)
        with self._lock(volume_id):
            try:
                needed = {*self.version(volume_id).layers, "empty"}
            except NotFoundError:
                return 0
            needed |= self._holds.needed(volume_id)
            gone = [path for path in (folder / "layers").iterdir() if path.name not in needed]
            for path in gone:
                self._manifest(volume_id, path.name).unlink(missing_ok=True)
                path.rename(folder / f"{path.name}.gone")
            going = list(folder.glob("*.gone"))
        for path in going:
            remove_tree(path)
        return len(gone)

    def manifest(self, volume_id: str, layer: str) -> list[Entry]:
        """The entries of a committed layer, as they were then. Raises OSError, ValueError, TypeError."""
        return read_manifest(self._manifest(volume_id, layer))

    def replace_layers(self, volume_id: str, old: Version, layer: str, draft: Path) -> bool:
        """Let a draft of a layer that links the same files stand for all of `old`; False if there is a newer version.

        What was committed is not read again: harm that the disk does to it is found by comparing it with the digests.
        """
        folder = self.folder(volume_id)
        write_manifest(self._manifest(volume_id, layer), draft, self.pool, self._digests(volume_id, old))
        with self._lock(volume_id):
            replaces = self.version(volume_id) == old and not self._holds.is_deleted(volume_id)
            if replaces:
                self.move_committed(volume_id, old)  # else it would look like one that is not committed
                draft.rename(folder / "layers" / layer)
                self._write_version(volume_id, Version(old.number, (layer,)))
        if not replaces:
            self._manifest(volume_id, layer).unlink(missing_ok=True)
        self.collect(volume_id)
        return replaces

    def _digests(self, volume_id: str, version: Version) -> dict[int, str]:
        """The digests of a version's files by inode number, of layers whose manifests can be read."""
        found = {}
        for layer, folder in zip(version.layers, self.layers(volume_id, version), strict=False):
            with contextlib.suppress(OSError, ValueError, TypeError):
                for entry in self.manifest(volume_id, layer):
                    if entry.kind == "file":
                        found[(folder / entry.path).lstat().st_ino] = entry.digest
        return found

    def changes(self, session: Session) -> list[Change]:
        """Everything that a session's writable directory changes in its version. Raises OSError."""
        return list(changes(session.upper, self.below(session)))

    def below(self, session: Session) -> Layers:
        """What is below a session's writable directory."""
        return Layers(self.layers(session.volume_id, session.version))

    # -- parts -------------------------------------------------------------------------------------------------

    def _make(self, volume_id: str) -> None:
        """Make the directories of an empty volume. Raises OSError; what is there then is used the next time."""
        folder = self.folder(volume_id)
        for name in ("layers/empty", "spare", "manifests", "pending", "open"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("layers/empty", "spare"):
            _give(folder / name, self._owner)
        self._write_version(volume_id, Version())

    def folder(self, volume_id: str) -> Path:
        """Where all of a volume is. Raises `NotFoundError` for what is no id of one."""
        if not _ID.fullmatch(volume_id):
            raise NotFoundError(f"There is no volume {volume_id[:60]!r}.")
        return self.root / volume_id

    def _manifest(self, volume_id: str, layer: str) -> Path:
        return self.folder(volume_id) / "manifests" / layer

    def _lock(self, volume_id: str) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(volume_id, threading.RLock())

    def new_layer(self, volume_id: str) -> str:
        """An id that no layer has, had, or is about to have, above all before."""
        with self._lock(volume_id):
            folder = self.folder(volume_id)
            number = 1 + max(_counted(folder / "next"), *(_highest(folder / name) for name in _WITH_LAYERS))
            write(folder / "next", str(number + 1).encode(), sync=False)
            return f"{number:010d}"

    def _held(self, session: Session) -> tuple[str, ...]:
        """The layers that a session has counted."""
        merged = () if session.merged is None else (session.merged[1],)
        return (*session.copies, *session.version.layers, *session.unused, *merged, "empty")

    def _lowest(self, session: Session) -> tuple[str, ...]:
        """The layers that a session is mounted on from its next mount on."""
        if session.merged is None:
            return session.version.layers
        old, layer = session.merged
        return (*session.version.layers[: -len(old)], layer)

    def _write_version(self, volume_id: str, version: Version) -> None:
        write(self.folder(volume_id) / "version.json", version.to_json())

    def _remove(self, volume_id: str) -> None:
        """Delete the directory of a deleted volume that nobody uses any more. Raises OSError."""
        gone = self.root / f"{volume_id}-{os.urandom(4).hex()}.gone"
        with self._lock(volume_id):
            with contextlib.suppress(FileNotFoundError):
                self.folder(volume_id).rename(gone)
            self._holds.forget(volume_id)
            with self._guard:
                self._locks.pop(volume_id, None)
        remove_tree(gone)

    def _like_below(self, session: Session, upper: Path, below: Path | None = None) -> None:
        """A new writable directory has the owner and mode of the volume's root."""
        status = (below or self.layers(session.volume_id, session.version)[0]).stat()
        os.chown(upper, status.st_uid, status.st_gid)
        upper.chmod(stat.S_IMODE(status.st_mode))


def _counted(counter: Path) -> int:
    """The last layer id that was given; 0 if that cannot be read, as after a power cut."""
    try:
        return int(counter.read_text()) - 1
    except (FileNotFoundError, ValueError):
        return 0


def _highest(folder: Path) -> int:
    """The highest layer id that names something here."""
    return max((int(found[0]) for name in os.listdir(folder) if (found := _LAYER.match(name))), default=0)  # noqa: PTH208


def _gone(volume_id: str) -> NotFoundError:
    return NotFoundError(f"There is no volume {volume_id}; it was deleted.")


def _give(folder: Path, owner: int) -> None:
    folder.chmod(0o755)
    os.chown(folder, owner, owner)
