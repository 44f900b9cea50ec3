"""Network file systems: one live directory each, which everybody sees as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class LiveFolders:
    """Directories below `root`, made when they are first used, for `owner`. Its methods block."""

    def __init__(self, root: Path, owner: int = 0) -> None:
        self.root = root
        self._owner = owner

    def folder(self, object_id: str) -> Path:
        """The directory of a network file system."""
        path = self.root / object_id
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, self._owner, self._owner)
        return path

    @contextlib.contextmanager
    def reading(self, object_id: str) -> Iterator[Path]:
        yield self.folder(object_id)

    @contextlib.contextmanager
    def writing(self, object_id: str) -> Iterator[Path]:
        yield self.folder(object_id)

    def delete(self, object_id: str) -> None:
        """Delete it with its files. Containers that have it see it empty."""
        gone = self.root / f".{object_id}-{os.urandom(4).hex()}"
        with contextlib.suppress(FileNotFoundError):
            (self.root / object_id).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
