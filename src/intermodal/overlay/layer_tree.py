"""Looks into an image through its overlay layers, without mounting it."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path

_MAX_LINKS = 40


class LayerTree:
    """The merged view of overlay layers, for single lookups. Symbolic links are followed inside the image only."""

    def __init__(self, layers: Sequence[Path]) -> None:
        """`layers`: topmost first."""
        self._layers = layers

    def find(self, path: str) -> Path | None:
        """The host path of the file that `path` (absolute, in the image) names; None if there is none."""
        resolved = self.resolve(path)
        return None if resolved is None else self.find_entry(resolved)

    def resolve(self, path: str) -> str | None:
        """`path` with every symbolic link followed, as an absolute path in the image."""
        todo = [part for part in path.split("/") if part not in ("", ".")]
        done = "/"
        for _ in range(_MAX_LINKS * 10):
            if not todo:
                return done
            part = todo.pop(0)
            if part == "..":
                done = posixpath.dirname(done)
                continue
            entry = self.find_entry(posixpath.join(done, part))
            if entry is None:
                return None
            if entry.is_symlink():
                target = str(entry.readlink())
                done = "/" if target.startswith("/") else done
                todo = [piece for piece in target.split("/") if piece not in ("", ".")] + todo
            else:
                done = posixpath.join(done, part)
        return None

    def find_entry(self, path: str) -> Path | None:
        """The topmost layer's entry for a path whose parents are no links; honours whiteouts."""
        for layer in self._layers:
            candidate = layer / path.lstrip("/")
            try:
                status = candidate.lstat()
            except OSError:
                if self._hides_below(layer, path):
                    return None
                continue
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                return None
            return candidate
        return None

    @staticmethod
    def _hides_below(layer: Path, path: str) -> bool:
        """Whether a parent of `path` is replaced or deleted in this layer, so that lower layers do not count."""
        parent = posixpath.dirname(path)
        while parent != "/":
            candidate = layer / parent.lstrip("/")
            try:
                status = candidate.lstat()
            except OSError:
                parent = posixpath.dirname(parent)
                continue
            return not stat.S_ISDIR(status.st_mode) or _is_opaque(candidate)
        return False


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
