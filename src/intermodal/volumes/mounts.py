"""A volume's files on this machine: mounted to be read, mounted to be changed, and merged into one layer."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from intermodal.overlay.mounts import mount_overlay
from intermodal.runtimes.syscalls import MS_NODEV, MS_NOSUID, MS_RDONLY, unmount
from intermodal.volumes.durable import remove_tree
from intermodal.volumes.entries import kind_of, walk
from intermodal.volumes.layer_copies import take_over
from intermodal.volumes.session import WHOLE, Session, Version
from intermodal.volumes.store import MERGE_ABOVE, VolumeStore
from modal.exception import Error

log = logging.getLogger(__name__)

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
            with self._read_only(layers) as root:
                yield root

    @contextlib.contextmanager
    def writing(self, volume_id: str, only_new: bool = False) -> Iterator[Path]:
        """The files, to be changed; what was changed is committed when the block ends well, all of it or nothing.

        Args:
            only_new: no file may be replaced, also none that others have committed meanwhile.

        Raises `NotFoundError`, and what `VolumeStore.commit_whole` does.
        """
        with contextlib.ExitStack() as stack:
            session = self._store.open(volume_id, f"{WHOLE}{os.urandom(8).hex()}")
            stack.callback(self._store.close, session)
            with self._mount_point() as target:
                layers = self._store.layers(volume_id, session.version)
                mount_overlay(layers, session.folder, target, flags=FLAGS, options=OPTIONS)
                try:
                    yield target
                finally:
                    unmount(target)
            if self._store.has_writes(session):
                self._store.commit_whole(session, only_new)
        self.tidy(volume_id)

    def tidy(self, volume_id: str, session: Session | None = None) -> None:
        """Merge what is due to be merged, of the version and of what a session is mounted on. That may fail."""
        try:
            self.merge_if_due(volume_id)
            if session is not None:
                self.merge_below_if_due(session)
        except (OSError, Error) as error:
            log.warning("the layers of volume %s could not be merged: %s", volume_id, error)

    def merge_if_due(self, volume_id: str, above: int = MERGE_ABOVE) -> bool:
        """Merge the layers of a version that has more than `above` into one, without copying data."""
        with contextlib.ExitStack() as stack:
            version = stack.enter_context(self._store.held(volume_id))
            if len(version.layers) <= above:
                return False
            layer = self._store.new_layer(volume_id)
            draft = stack.enter_context(self._merged(volume_id, version, layer))
            return self._store.replace_layers(volume_id, version, layer, draft)

    def merge_below_if_due(self, session: Session, above: int = MERGE_ABOVE) -> bool:
        """The same with the layers that a session is mounted on: there are more with each of its commits."""
        version = session.version
        if len(version.layers) <= above or session.merged is not None or session.unpublished:
            return False
        layer = self._store.new_layer(session.volume_id)
        with self._merged(session.volume_id, version, layer) as draft:
            self._store.adopt(session, layer, draft)
        return True

    @contextlib.contextmanager
    def _merged(self, volume_id: str, version: Version, layer: str) -> Iterator[Path]:
        """A draft of a layer with the files of a version. What is not taken away while the block runs is deleted."""
        draft = self._store.draft(volume_id, layer)
        layers = self._store.layers(volume_id, version)
        sources = {
            status.st_ino: path / name for path in layers for name, status in walk(path) if stat.S_ISREG(status.st_mode)
        }
        try:
            with self._read_only(layers) as root:
                _link_tree(root, draft, sources)
            yield draft
        finally:
            remove_tree(draft)

    @contextlib.contextmanager
    def _read_only(self, layers: list[Path]) -> Iterator[Path]:
        with self._mount_point() as target:
            mount_overlay(layers, None, target, flags=FLAGS | MS_RDONLY, options=OPTIONS)
            try:
                yield target
            finally:
                unmount(target)

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
    folders = [(root, target, root.stat())]
    for path, status in walk(root):
        made = target / path
        kind = kind_of(status)
        if kind == "file":
            made.hardlink_to(sources[status.st_ino])
            continue
        if kind == "directory":
            made.mkdir()
            folders.append((root / path, made, status))
            continue
        if kind == "link":
            made.symlink_to((root / path).readlink())
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(made)
        else:
            continue  # a socket that nobody listens at
        take_over(root / path, made, status)
    for source, made, status in reversed(folders):
        take_over(source, made, status)


__all__ = ["FLAGS", "OPTIONS", "VolumeMounts"]
