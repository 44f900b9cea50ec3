"""Looks up paths in an image that is still a stack of layers, as the overlay will show it.

Layers hold whatever their builder wrote: symbolic links are followed within the image only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from intermodal.model.errors import BadImage

_MOST_LINKS = 40
_OPAQUE = "trusted.overlay.opaque"


class ImagePaths:
    """The files of an image, from its layers (topmost first)."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = layers

    def lstat(self, path: PurePosixPath) -> tuple[Path, os.stat_result] | None:
        """The file at `path`, whose parents are no links, and its place on this machine; None when there is none."""
        for layer in self._layers:
            place, status = layer, layer.lstat()
            hides_lower = False
            for part in path.parts[1:]:
                if not stat.S_ISDIR(status.st_mode):
                    return None  # (a link above is never followed here: it may lead out of the image)
                hides_lower = hides_lower or (place != layer and _is_opaque(place))
                place = place / part
                try:
                    status = place.lstat()
                except FileNotFoundError:
                    break
                if _is_whiteout(status):
                    return None
            else:
                return place, status
            if hides_lower:
                return None
        return None

    def resolve_directory(self, path: PurePosixPath) -> PurePosixPath:
        """Follow the links in `path`, which need not exist; the result has none.

        Raises BadImage when a part of it is a file, or links go round in circles.
        """
        pending = list(reversed(path.parts[1:]))
        resolved = PurePosixPath("/")
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                resolved = resolved.parent
                continue
            found = self.lstat(resolved / part)
            if found is not None and stat.S_ISLNK(found[1].st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise BadImage(f"The links at {path} in the image go round in circles.")
                target = PurePosixPath(found[0].readlink())
                if target.is_absolute():
                    resolved = PurePosixPath("/")
                pending += [piece for piece in reversed(target.parts) if piece not in ("/", ".")]
            elif found is not None and not stat.S_ISDIR(found[1].st_mode):
                raise BadImage(f"Nothing can be mounted below {resolved / part}: it is a file in the image.")
            else:
                resolved = resolved / part
        return resolved


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
