"""Looks into an image through its overlay layers, without mounting it."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

from intermodal.overlay.layers import Layers

_MAX_LINKS = 40


class LayerTree:
    """The files of an image, for single lookups. Symbolic links are followed inside the image only."""

    def __init__(self, layers: Sequence[Path]) -> None:
        """`layers`: topmost first."""
        self._layers = Layers(layers)

    def find(self, path: str) -> Path | None:
        """The host path of the file that `path` (absolute, in the image) names; None if there is none."""
        resolved = self.resolve(path)
        return None if resolved is None else self._find(resolved)

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
            entry = self._find(posixpath.join(done, part))
            if entry is None:
                return None
            if entry.is_symlink():
                target = str(entry.readlink())
                done = "/" if target.startswith("/") else done
                todo = [piece for piece in target.split("/") if piece not in ("", ".")] + todo
            else:
                done = posixpath.join(done, part)
        return None

    def _find(self, path: str) -> Path | None:
        try:
            return self._layers.find(path.lstrip("/"))
        except OSError:  # no file can have such a name
            return None
