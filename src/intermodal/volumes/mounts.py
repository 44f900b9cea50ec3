"""A volume's files on this machine: mounted to be read, mounted to be changed, and merged into one layer."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from intermodal.overlay.mounts import mount_overlay
from intermodal.runtimes.syscalls import MS_NODEV, MS_NOSUID, MS_RDONLY, unmount
from intermodal.volumes.entries import kind_of, walk
from intermodal.volumes.store import MERGE_ABOVE, VolumeStore

#: A new directory's name must not be looked for below it later; renames of directories must work; layers are moved.
OPTIONS = "redirect_dir=on,index=off,metacopy=off,xino=off"
FLAGS = MS_NOSUID | MS_NODEV


class VolumeMounts:
    """Mounts below a directory of the server.

    Args:
        run: where mount points are made.
    """

    def __init__(self, store: VolumeStore, run: Path) -> None:
        self._store = store
        self._run = run

    def clean_up(self) -> None:
        """Undo what a dead server left."""
        if self._run.exists():
            for path in self._run.iterdir():
                unmount(path)
                path.rmdir()

    @contextlib.contextmanager
    def reading(self, volume_id: str) -> Iterator[Path]:
        """The committed files, read-only, while the block runs. Raises `NotFoundError`."""
        with self._store.held(volume_id) as version:
            layers = self._store.layers(volume_id, version)
            if len(layers) == 1:
                yield layers[0]
                return
            with self._mount_point() as target:
                mount_overlay(layers, None, target, flags=FLAGS | MS_RDONLY, options=OPTIONS)
                try:
                    yield target
                finally:
                    unmount(target)

    @contextlib.contextmanager
    def writing(self, volume_id: str) -> Iterator[Path]:
        """The files, to be changed; what was changed is committed when the block ends well. Raises `NotFoundError`."""
        session = self._store.open(volume_id, f"server-{os.urandom(8).hex()}")
        try:
            with self._mount_point() as target:
                layers = self._store.layers(volume_id, session.version)
                mount_overlay(layers, session.folder, target, flags=FLAGS, options=OPTIONS)
                try:
                    yield target
                finally:
                    unmount(target)
            if self._store.has_changes(session):
                self._store.publish(volume_id, self._store.detach(session))
        finally:
            self._store.close(session)
        self.merge_if_due(volume_id)

    def merge_if_due(self, volume_id: str) -> bool:
        """Merge the layers of a version that has many into one, without copying data."""
        with contextlib.ExitStack() as stack:
            version = stack.enter_context(self._store.held(volume_id))
            if len(version.layers) <= MERGE_ABOVE:
                return False
            root = stack.enter_context(self.reading(volume_id))
            if self._store.version(volume_id) != version:
                return False  # next time
            layer = self._store.new_layer(volume_id)
            draft = self._store.pending(volume_id, f"{layer}.draft")
            sources = {
                status.st_ino: path / name
                for path in self._store.layers(volume_id, version)
                for name, status in walk(path)
                if stat.S_ISREG(status.st_mode)
            }
            _link_tree(root, draft, sources)
            draft.rename(self._store.pending(volume_id, layer))
            return self._store.replace_layers(volume_id, version, layer)

    @contextlib.contextmanager
    def _mount_point(self) -> Iterator[Path]:
        target = self._run / os.urandom(8).hex()
        target.mkdir(parents=True, mode=0o700)
        try:
            yield target
        finally:
            target.rmdir()


def _link_tree(root: Path, target: Path, sources: dict[int, Path]) -> None:
    """Make a layer that holds what the mount `root` shows, its files as further names of those in `sources`.

    The overlay shows a file under the inode number that it has in its layer, as all layers are on one file system.
    """
    target.mkdir()
    top = root.stat()
    os.chown(target, top.st_uid, top.st_gid)
    target.chmod(stat.S_IMODE(top.st_mode))
    folders = []
    for path, status in walk(root):
        made = target / path
        kind = kind_of(status)
        if kind == "file":
            made.hardlink_to(sources[status.st_ino])
            continue
        if kind == "directory":
            made.mkdir()
            folders.append((made, status))
        elif kind == "link":
            made.symlink_to((root / path).readlink())
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(made)
        else:
            continue  # a socket that nobody listens at
        os.chown(made, status.st_uid, status.st_gid, follow_symlinks=False)
        if kind != "link":
            made.chmod(stat.S_IMODE(status.st_mode))
    for made, status in reversed(folders):
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


__all__ = ["FLAGS", "OPTIONS", "VolumeMounts"]
