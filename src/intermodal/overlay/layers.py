"""The merged view of overlay layers, without mounting them."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Sequence
from pathlib import Path

from intermodal.overlay.marks import is_opaque, is_whiteout


class Layers:
    """What an overlay of layers shows, of layers that do not change and have no renamed directories.

    Paths are relative to their root; links are not followed. Methods raise OSError.
    """

    def __init__(self, layers: Sequence[Path]) -> None:
        """`layers`: topmost first."""
        self._folders: dict[str, list[Path]] = {"": list(layers)}

    def find(self, path: str) -> Path | None:
        """Where the entry of a path is; None if there is none."""
        parent, _, name = path.rpartition("/")
        for folder in self.folders(parent):
            with contextlib.suppress(FileNotFoundError):
                return None if is_whiteout((folder / name).lstat()) else folder / name
        return None

    def folders(self, path: str) -> list[Path]:
        """The directories that make up one, topmost first; none if it is no directory."""
        if path in self._folders:
            return self._folders[path]
        parent, _, name = path.rpartition("/")
        found: list[Path] = []
        for folder in self.folders(parent):
            one = folder / name
            try:
                mode = one.lstat().st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(mode):
                break
            found.append(one)
            if is_opaque(one):
                break
        self._folders[path] = found
        return found

    def entries(self, path: str) -> dict[str, Path]:
        """What is in a directory, by name."""
        found: dict[str, Path] = {}
        for folder in self.folders(path):
            for entry in folder.iterdir():
                found.setdefault(entry.name, entry)
        return {name: one for name, one in found.items() if not is_whiteout(one.lstat())}
