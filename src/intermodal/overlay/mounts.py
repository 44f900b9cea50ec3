"""Mounts overlays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from intermodal.model.errors import BadImage, RuntimeFailure
from intermodal.runtimes.syscalls import mount

#: The kernel takes the options of a mount in one page.
_OPTIONS_LIMIT = 4095


def mount_overlay(
    layers: Sequence[Path], writable: Path | None, target: Path, *, flags: int = 0, options: str = ""
) -> None:
    """Mount an overlay.

    Args:
        layers: lower directories, topmost first; at least two when there is no `writable`.
        writable: directory with the directories `upper` and `work`; None for an overlay that can only be read.
        options: further options of overlayfs.

    Raises:
        RuntimeFailure: a layer is gone.
        BadImage: there are too many.
        OSError: the kernel refuses.
    """
    descriptors: list[int] = []

    def name(path: Path) -> str:
        # Short whatever the path, and free of the characters that mean something in mount options.
        descriptors.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{descriptors[-1]}"

    try:
        try:
            lower = ":".join(name(layer) for layer in layers)
        except FileNotFoundError as error:
            raise RuntimeFailure(f"A layer of the image is gone: {error.filename}; build the image again.") from error
        data = f"lowerdir={lower}"
        if writable is not None:
            data += f",upperdir={name(writable / 'upper')},workdir={name(writable / 'work')},volatile"
        data += f",{options}" if options else ""
        if len(data) > _OPTIONS_LIMIT:
            raise BadImage(f"The image has {len(layers)} layers, which is more than can be mounted; use fewer.")
        mount("overlay", target, "overlay", flags, data)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
