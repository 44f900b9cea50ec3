"""Network file systems: one live directory each, which everybody sees as it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from intermodal.volumes.durable import remove_tree
from modal.exception import NotFoundError


class LiveFolders:
    """Directories below `root`, for `owner`. Its methods may be called from any thread; all but `create` block.

    `drafts` is a directory, to be made, for files that are to be moved into these once they are whole: containers do
    not see it, and the next server deletes what is left in it.
    """

    def __init__(self, root: Path, owner: int = 0) -> None:
        self.root = root
        self._owner = owner
        self._known: set[str] = set()
        self.drafts = root / f".drafts-{os.urandom(4).hex()}"

    def create(self, object_id: str) -> None:
        """Let there be such a network file system; its directory is made when it is first used."""
        self._known.add(object_id)

    def folder(self, object_id: str) -> Path:
        """The directory of a network file system.

        Raises:
            NotFoundError: it was deleted, or never created.
            OSError: it cannot be made.
        """
        if object_id not in self._known:
            raise NotFoundError(f"There is no network file system {object_id}; it was deleted.")
        path = self.root / object_id
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, self._owner, self._owner)
        return path

    def delete(self, object_id: str) -> None:
        """Delete it with its files. Containers that have it see it empty. Raises OSError."""
        self._known.discard(object_id)
        gone = self.root / f".{object_id}-{os.urandom(4).hex()}"
        with contextlib.suppress(FileNotFoundError):
            (self.root / object_id).rename(gone)
            remove_tree(gone)

    def delete_others(self, exists: Callable[[str], bool]) -> None:
        """Delete what deleted ones have left: those that do not exist, and what was being deleted or written.

        Raises OSError.
        """
        for path in self.root.iterdir() if self.root.exists() else ():
            if path.name.startswith("."):
                if path != self.drafts:
                    remove_tree(path)
            elif not exists(path.name):
                self.delete(path.name)
