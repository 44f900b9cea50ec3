"""Files of a container that is not isolated: a plain directory with the mounted files in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.image_paths import ImagePaths
from intermodal.node.trees import write_tree


class PlainFilesHook(Hook):
    """Fills `container.rootfs` with copies of `spec.files`; it is deleted with the container's directory."""

    def __init__(self, blob_path: Callable[[str], Path]) -> None:
        self._blob_path = blob_path

    async def prepare(self, container: Container) -> None:
        container.rootfs.mkdir(mode=0o755)
        await asyncio.to_thread(self._write, container)

    def _write(self, container: Container) -> None:
        # Copies: what runs here could write to a link's target.
        write_tree(container.rootfs, ImagePaths(()), container.spec.files, self._blob_path, may_link=False)
        (container.rootfs / "root").mkdir(exist_ok=True)
