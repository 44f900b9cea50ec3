"""Volumes on disk, and what makes a commit whole.

    <root>/<volume>/version.json     what is committed: a number, and layers, topmost first
    <root>/<volume>/layers/<id>/     a committed layer, as overlayfs wrote it; it never changes
    <root>/<volume>/manifests/<id>   its entries with the digests of its files
    <root>/<volume>/pending/<id>/    a layer that is being committed
    <root>/<volume>/open/<session>/  the writable directories of one mount

A commit takes the writable directory of a mount as it is: nothing is copied. It becomes a pending layer by one rename,
is hashed and made durable there, and counts once `version.json`, replaced by another rename, names it. So a death at
any moment leaves the version before or the one after. Pending layers and writable directories that a dead server left
are committed when the next one starts. What is put on top last wins, file by file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from intermodal.overlay.layer_tree import LayerTree
from intermodal.volumes import durable
from intermodal.volumes.entries import OPAQUE, Entry, entries_of, is_opaque, kind_of, walk
from modal.exception import NotFoundError

#: A version of more layers is merged into one.
MERGE_ABOVE = 20
_ID = re.compile(r"vo-[0-9A-Za-z]{22}")


@dataclass(frozen=True)
class Version:
    """What is committed."""

    number: int = 0
    layers: tuple[str, ...] = ()  #: ids, topmost first


@dataclass
class Session:
    """One mount that writes: its own directories, over the version that it began with."""

    volume_id: str
    session_id: str
    folder: Path
    version: Version
    #: What earlier copies of the writable directory have committed: path -> (inode, size, mtime, ctime).
    copied: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)  #: the layers that they made, oldest first

    @property
    def upper(self) -> Path:
        return self.folder / "upper"


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
        self._pool = pool
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()  # of what follows
        self._used: dict[str, dict[str, int]] = {}  # volume -> layer -> sessions and views that have it mounted
        self._deleted: set[str] = set()

    # -- volumes -----------------------------------------------------------------------------------------------

    def create(self, volume_id: str) -> None:
        """Make an empty volume; nothing happens when it exists."""
        folder = self._folder(volume_id)
        for name in ("layers/empty", "spare", "manifests", "pending", "open"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("layers/empty", "spare"):
            _give(folder / name, self._owner)
        if not (folder / "version.json").exists():
            self._write_version(volume_id, Version())

    def delete(self, volume_id: str) -> None:
        """Delete a volume. What is mounted goes on as it is; the files go with the last mount."""
        with self._guard:
            self._deleted.add(volume_id)
            in_use = bool(self._used.get(volume_id))
        if not in_use:
            self._remove(volume_id)

    def volumes(self) -> list[str]:
        """The ids of all volumes on disk."""
        if not self.root.exists():
            return []
        return sorted(path.name for path in self.root.iterdir() if _ID.fullmatch(path.name))

    def version(self, volume_id: str) -> Version:
        """What is committed now. Raises `NotFoundError`."""
        try:
            found = json.loads((self._folder(volume_id) / "version.json").read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"There is no volume {volume_id}; it was deleted.") from None
        return Version(found["number"], tuple(found["layers"]))

    def layers(self, volume_id: str, version: Version) -> list[Path]:
        """The directories of a version, topmost first, above an empty one."""
        folder = self._folder(volume_id)
        found = []
        for layer in (*version.layers, "empty"):
            path = folder / "layers" / layer
            found.append(path if path.exists() else folder / "pending" / layer)
        return found

    def spare_layer(self, volume_id: str) -> Path:
        """A further empty directory, for a mount that needs two."""
        return self._folder(volume_id) / "spare"

    # -- mounts ------------------------------------------------------------------------------------------------

    def hold(self, volume_id: str) -> Version:
        """The current version, whose layers stay until `let_go`. Raises `NotFoundError`."""
        with self._lock(volume_id):
            if volume_id in self._deleted:
                raise NotFoundError(f"There is no volume {volume_id}; it was deleted.")
            version = self.version(volume_id)
            with self._guard:
                counts = self._used.setdefault(volume_id, {})
                for layer in (*version.layers, "empty"):
                    counts[layer] = counts.get(layer, 0) + 1
        return version

    def let_go(self, volume_id: str, version: Version) -> None:
        """The end of one `hold`. Deletes layers that nothing needs any more."""
        with self._guard:
            counts = self._used.get(volume_id, {})
            for layer in (*version.layers, "empty"):
                counts[layer] -= 1
                if not counts[layer]:
                    del counts[layer]
            if not counts:
                self._used.pop(volume_id, None)
            last = not counts and volume_id in self._deleted
        if last:
            self._remove(volume_id)
        else:
            self.collect(volume_id)

    def open(self, volume_id: str, session_id: str) -> Session:
        """Begin a mount that writes. Raises `NotFoundError`."""
        version = self.hold(volume_id)
        session = Session(volume_id, session_id, self._folder(volume_id) / "open" / session_id, version)
        _make_writable(session.folder, self._owner)
        return session

    def close(self, session: Session) -> None:
        """The mount has ended; what it has not committed is gone."""
        shutil.rmtree(session.folder, ignore_errors=True)
        self._fold_copies(session)
        self.let_go(session.volume_id, session.version)

    # -- commits -----------------------------------------------------------------------------------------------

    def has_changes(self, session: Session) -> bool:
        """Whether there is something that is not committed."""
        if not session.copied:
            return any(True for _ in session.upper.iterdir())
        return self._delta(session) != ([], [])

    def detach(self, session: Session) -> str:
        """Take the writable directory as a pending layer and give the session an empty one; returns the layer's id.

        The layer is the topmost of the session's version then. Nothing may write to the mount meanwhile or afterwards;
        it is mounted anew on the layers of that version.
        """
        layer = self.new_layer(session.volume_id)
        pending = self._folder(session.volume_id) / "pending" / layer
        if session.copied:
            changed, gone = self._delta(session)
            draft = pending.with_name(f"{layer}.draft")
            durable.copy_entries(session.upper, draft, changed, gone)
            self._drop_needless_opaque(session, draft, changed)
            draft.rename(pending)
            shutil.rmtree(session.upper)
        else:
            self._drop_needless_opaque(session, session.upper, (path for path, _ in walk(session.upper)))
            session.upper.rename(pending)
        self._fold_copies(session)
        self._put_on_top(session, layer)
        _make_writable(session.folder, self._owner)
        return layer

    def copy(self, session: Session) -> str | None:
        """Copy what has changed since the last copy as a pending layer; its id, or None when nothing has changed.

        For a mount that is in use: a file that is being written is copied as it is now.
        """
        seen = {path: _print(status) for path, status in walk(session.upper)}
        changed, gone = self._delta(session, seen)
        if not changed and not gone:
            return None
        layer = self.new_layer(session.volume_id)
        pending = self._folder(session.volume_id) / "pending" / layer
        draft = pending.with_name(f"{layer}.draft")
        durable.copy_entries(session.upper, draft, changed, gone)
        self._drop_needless_opaque(session, draft, changed)
        draft.rename(pending)
        session.copied = seen
        session.copies.append(layer)
        self._count(session.volume_id, layer)
        return layer

    def publish(self, volume_id: str, layer: str) -> Version:
        """Make a pending layer the topmost one of the volume; returns when that is durable.

        Raises:
            NotFoundError: the volume was deleted.
            OSError: the disk failed; the version is the one before.
        """
        folder = self._folder(volume_id)
        pending = folder / "pending" / layer
        if volume_id in self._deleted:
            shutil.rmtree(pending, ignore_errors=True)
            raise NotFoundError(f"There is no volume {volume_id}; it was deleted.")
        entries = entries_of(pending, self._pool)
        durable.sync_tree(pending, [entry.path for entry in entries if entry.kind == "file"])
        manifest = json.dumps([entry.to_json() for entry in entries], ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )
        durable.write(folder / "manifests" / layer, manifest)
        with self._lock(volume_id):
            pending.rename(folder / "layers" / layer)
            before = self.version(volume_id)
            version = Version(before.number + 1, (layer, *before.layers))
            self._write_version(volume_id, version)
        return version

    def rebase(self, session: Session) -> list[Path]:
        """Let the session, which is not mounted now, go on from the current version. What is not committed is gone.

        Returns the layers to mount it on, topmost first.
        """
        self._fold_copies(session)
        before = session.version
        _make_writable(session.folder, self._owner)
        session.version = self.hold(session.volume_id)
        self.let_go(session.volume_id, before)
        return self.layers(session.volume_id, session.version)

    def pending(self, volume_id: str, layer: str) -> Path:
        """Where a layer is before it is published."""
        return self._folder(volume_id) / "pending" / layer

    # -- upkeep ------------------------------------------------------------------------------------------------

    def recover(self, volume_id: str) -> int:
        """Commit what a dead server left; returns how many layers that were. Only while nothing is mounted."""
        folder = self._folder(volume_id)
        for draft in folder.glob("pending/*.draft"):
            shutil.rmtree(draft)
        for path in sorted((folder / "open").iterdir()):
            upper = path / "upper"
            if upper.is_dir() and any(upper.iterdir()):
                upper.rename(folder / "pending" / self.new_layer(volume_id))
            shutil.rmtree(path)
        layers = sorted(path.name for path in (folder / "pending").iterdir())
        for layer in layers:
            self.publish(volume_id, layer)
        self.collect(volume_id)
        return len(layers)

    def collect(self, volume_id: str) -> int:
        """Delete layers that neither the version nor a mount needs; returns how many."""
        folder = self._folder(volume_id)
        with self._lock(volume_id):
            try:
                needed = {*self.version(volume_id).layers, "empty"}
            except NotFoundError:
                return 0
            with self._guard:
                needed |= set(self._used.get(volume_id, ()))
            gone = [path for path in (folder / "layers").iterdir() if path.name not in needed]
            for path in gone:
                (folder / "manifests" / path.name).unlink(missing_ok=True)
                path.rename(folder / f"{path.name}.gone")
        for path in folder.glob("*.gone"):
            shutil.rmtree(path, ignore_errors=True)
        return len(gone)

    def manifest(self, volume_id: str, layer: str) -> list[Entry]:
        """The entries of a committed layer, as they were when it was committed. Raises OSError, ValueError."""
        data = (self._folder(volume_id) / "manifests" / layer).read_bytes().decode("utf-8", "surrogateescape")
        return [Entry.from_json(values) for values in json.loads(data)]

    def replace_layers(self, volume_id: str, old: Version, layer: str) -> bool:
        """Let a pending layer with the same files stand for all of `old`; False if there is a newer version."""
        folder = self._folder(volume_id)
        entries = entries_of(folder / "pending" / layer, self._pool)
        durable.sync_tree(folder / "pending" / layer, [entry.path for entry in entries if entry.kind == "file"])
        self._write_manifest(volume_id, layer, entries)
        with self._lock(volume_id):
            if self.version(volume_id) != old:
                shutil.rmtree(folder / "pending" / layer)
                (folder / "manifests" / layer).unlink(missing_ok=True)
                return False
            (folder / "pending" / layer).rename(folder / "layers" / layer)
            self._write_version(volume_id, Version(old.number, (layer,)))
        self.collect(volume_id)
        return True

    @contextlib.contextmanager
    def held(self, volume_id: str) -> Iterator[Version]:
        """The current version, held while the block runs."""
        version = self.hold(volume_id)
        try:
            yield version
        finally:
            self.let_go(volume_id, version)

    # -- parts -------------------------------------------------------------------------------------------------

    def _folder(self, volume_id: str) -> Path:
        if not _ID.fullmatch(volume_id):
            raise NotFoundError(f"There is no volume {volume_id[:60]!r}.")
        return self.root / volume_id

    def _lock(self, volume_id: str) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(volume_id, threading.RLock())

    def new_layer(self, volume_id: str) -> str:
        """An id that no layer has, had, or is about to have, above all before."""
        with self._lock(volume_id):
            folder = self._folder(volume_id)
            counter = folder / "next"
            number = int(counter.read_text()) if counter.exists() else 1
            durable.write(counter, str(number + 1).encode(), sync=False)
            return f"{number:010d}"

    def _count(self, volume_id: str, layer: str) -> None:
        """A mount has this layer: it stays until that is let go."""
        with self._guard:
            counts = self._used.setdefault(volume_id, {})
            counts[layer] = counts.get(layer, 0) + 1

    def _put_on_top(self, session: Session, layer: str) -> None:
        self._count(session.volume_id, layer)
        session.version = Version(session.version.number, (layer, *session.version.layers))

    def _fold_copies(self, session: Session) -> None:
        """The copies are layers of the session's version, now that the directory they are copies of is no more."""
        layers = (*reversed(session.copies), *session.version.layers)
        session.version = Version(session.version.number, layers)
        session.copied, session.copies = {}, []

    def _write_manifest(self, volume_id: str, layer: str, entries: list[Entry]) -> None:
        text = json.dumps([entry.to_json() for entry in entries], ensure_ascii=False)
        durable.write(self._folder(volume_id) / "manifests" / layer, text.encode("utf-8", "surrogateescape"))

    def _write_version(self, volume_id: str, version: Version) -> None:
        content = json.dumps({"number": version.number, "layers": version.layers}).encode()
        durable.write(self._folder(volume_id) / "version.json", content)

    def _remove(self, volume_id: str) -> None:
        folder = self._folder(volume_id)
        gone = self.root / f"{volume_id}.gone"
        with contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _delta(
        self, session: Session, seen: dict[str, tuple[int, int, int, int]] | None = None
    ) -> tuple[list[str], list[str]]:
        """What has changed since the last copy: paths to copy, and paths that were copied then and are gone."""
        if seen is None:
            seen = {path: _print(status) for path, status in walk(session.upper)}
        changed = [path for path, mark in seen.items() if session.copied.get(path) != mark]
        return changed, [path for path in session.copied if path not in seen]

    def _drop_needless_opaque(self, session: Session, root: Path, paths: Iterator[str] | list[str]) -> None:
        """A directory that the version below did not have hides nothing there, and must hide nothing of others.

        The kernel marks new directories as opaque to save itself lookups; with the mark, files that another mount has
        committed to a directory of the same name would be lost.
        """
        below = LayerTree(self.layers(session.volume_id, session.version))
        for path in paths:
            full = root / path
            if full.is_dir() and not full.is_symlink() and is_opaque(full) and below.find_entry(f"/{path}") is None:
                os.removexattr(full, OPAQUE)


def _make_writable(folder: Path, owner: int) -> None:
    for name in ("upper", "work"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    _give(folder / "upper", owner)


def _give(folder: Path, owner: int) -> None:
    folder.chmod(0o755)
    os.chown(folder, owner, owner)


def _print(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells whether an entry is the same as before. A directory's times change with its entries."""
    if kind_of(status) == "directory":
        return status.st_ino, status.st_mode, status.st_uid, status.st_gid
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
