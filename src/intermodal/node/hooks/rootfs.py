"""The root file system: the image's layers and the mount tree below, the container's own files on top (overlayfs).

The layers belong to uid 0 on disk, but root of a container is another uid. So `<data>/storage` is shown a second time
with its owners shifted (an idmapped mount), and the layers are taken from there: nothing is copied, all containers
share.
"""

from __future__ import annotations

from pathlib import Path

from intermodal.model.errors import RuntimeFailure
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.layout import NodeLayout
from intermodal.node.network.namespaces import NamespaceMaker
from intermodal.overlay.mounts import mount_overlay
from intermodal.runtimes.syscalls import bind_idmapped, unmount


class RootfsHook(Hook):
    """Mounts `container.rootfs` from `spec.image.layers`, `container.layers` (above them) and `container.upper`."""

    def __init__(self, layout: NodeLayout, maker: NamespaceMaker) -> None:
        self._layout = layout
        self._maker = maker

    async def open(self) -> None:
        self._layout.storage.mkdir(parents=True, exist_ok=True)
        self._layout.layers_view.mkdir(parents=True, exist_ok=True, mode=0o700)
        namespaces = self._maker.make({})
        try:
            bind_idmapped(self._layout.storage, self._layout.layers_view, namespaces.user)
        except OSError as error:
            raise RuntimeFailure(
                f"The file system of {self._layout.storage} cannot be shown with shifted owners ({error.strerror}); "
                "that needs Linux 5.19 and a file system such as ext4, xfs or btrfs. Choose another data directory."
            ) from error
        finally:
            namespaces.close()

    async def prepare(self, container: Container) -> None:
        layers = [*container.layers, *container.spec.image.layers]
        container.rootfs.mkdir(mode=0o755)
        mount_overlay([self._shifted(layer) for layer in layers], container.upper, container.rootfs)

    async def release(self, container: Container) -> None:
        unmount(container.rootfs)

    async def close(self) -> None:
        unmount(self._layout.layers_view)

    def _shifted(self, layer: Path) -> Path:
        try:
            return self._layout.layers_view / layer.relative_to(self._layout.storage)
        except ValueError:
            raise RuntimeFailure(f"The layer {layer} is not below {self._layout.storage}.") from None
