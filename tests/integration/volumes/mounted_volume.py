"""A mount of a volume as a container has one."""

from __future__ import annotations

from pathlib import Path

from intermodal.overlay.mounts import mount_overlay
from intermodal.runtimes.syscalls import unmount
from intermodal.volumes.mounts import FLAGS, OPTIONS
from intermodal.volumes.session import Session
from intermodal.volumes.store import VolumeStore

VOLUME = "vo-" + "0" * 22


class Mounted:
    """A mount as a container has one."""

    def __init__(self, store: VolumeStore, name: str, folder: Path) -> None:
        self.store, self.root = store, folder / name
        self.root.mkdir()
        self.session: Session = store.open(VOLUME, name)
        self.mount()

    def mount(self) -> None:
        self.session.make_work()
        layers = self.store.layers(VOLUME, self.session.version)
        mount_overlay(layers, self.session.folder, self.root, flags=FLAGS, options=OPTIONS)

    def commit(self) -> None:
        """By taking the writable directory."""
        unmount(self.root)
        self.store.detach(self.session)
        self.mount()
        self.store.commit(self.session)

    def copy(self) -> bool:
        """By copying, with the mount in use."""
        has_copied = self.store.copy(self.session)
        self.store.commit(self.session)
        return has_copied

    def reload(self) -> None:
        unmount(self.root)
        if self.store.has_changes(self.session):
            self.store.detach(self.session)
            self.store.commit(self.session)
        self.store.rebase(self.session)
        self.mount()

    def close(self) -> None:
        unmount(self.root)
        self.store.close(self.session)
