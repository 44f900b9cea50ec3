"""Mounted files (`add_local_*`): one more read-only layer above the image's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.layout import NodeLayout
from intermodal.node.trees import TreeStore


class FilesHook(Hook):
    """Puts the tree of `spec.files` on top of `container.layers`."""

    def __init__(self, layout: NodeLayout, blob_path: Callable[[str], Path]) -> None:
        self._trees = TreeStore(layout.trees, blob_path)

    async def open(self) -> None:
        await asyncio.to_thread(self._trees.open)

    async def prepare(self, container: Container) -> None:
        if container.spec.files:
            tree = await self._trees.get(container.spec.image, container.spec.files)
            container.layers.insert(0, tree)
