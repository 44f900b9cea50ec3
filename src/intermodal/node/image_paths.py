"""Looks up paths in an image that is still a stack of layers, as the overlay will show it.

Layers hold whatever their builder wrote: symbolic links are followed within the image only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from intermodal.model.errors import BadImage
from intermodal.overlay.layers import Layers

_MOST_LINKS = 40


class ImagePaths:
    """The files of an image, from its layers (topmost first)."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = Layers(layers)

    def lstat(self, path: PurePosixPath) -> tuple[Path, os.stat_result] | None:
        """The file at `path`, whose parents are no links, and its place on this machine; None when there is none."""
        place = self._layers.find("/".join(path.parts[1:]))
        return None if place is None else (place, place.lstat())

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
                    raise BadImage(f"Nothing can be mounted at {str(path)!r}: links in the image go round in circles.")
                target = PurePosixPath(found[0].readlink())
                if target.is_absolute():
                    resolved = PurePosixPath("/")
                pending += [piece for piece in reversed(target.parts) if piece not in ("/", ".")]
            elif found is not None and not stat.S_ISDIR(found[1].st_mode):
                at = str(resolved / part)
                raise BadImage(f"Nothing can be mounted at {str(path)!r}: {at!r} is a file in the image.")
            else:
                resolved = resolved / part
        return resolved
