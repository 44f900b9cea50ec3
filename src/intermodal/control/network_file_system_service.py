"""The life of network file systems, and their files for the RPC of files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from intermodal.control.file_deletion import FileDeletion
from intermodal.control.named_service import NamedService
from intermodal.volumes.live_folders import LiveFolders
from modal._wire.messages.named import ObjectKind


class NetworkFileSystemService:
    """Holds the live directories of network file systems, as a `Holder` and a `Space`."""

    def __init__(self, named: NamedService, folders: LiveFolders) -> None:
        self._named = named
        self._folders = folders
        self._deletion = FileDeletion()
        self.drafts = folders.drafts
        named.holders[ObjectKind.NETWORK_FILE_SYSTEM] = self

    @contextlib.contextmanager
    def reading(self, object_id: str) -> Iterator[Path]:
        yield self._folders.folder(object_id)

    @contextlib.contextmanager
    def writing(self, object_id: str, only_new: bool) -> Iterator[Path]:
        """Everybody sees each change at once, and none is undone."""
        folder = self._folders.folder(object_id)
        self.drafts.mkdir(mode=0o700, exist_ok=True)
        yield folder

    def created(self, object_id: str) -> None:
        self._folders.create(object_id)

    def deleted(self, object_id: str) -> None:
        self._deletion.start(self._folders.delete, object_id)

    def forget_others(self) -> None:
        """Delete what deleted network file systems left, since the server died while it deleted them."""
        self._deletion.start(self._folders.delete_others, self._named.exists)
