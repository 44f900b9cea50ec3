"""A builder that builds nothing: for the mock runtime, and for tests that need builds which are slow or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from intermodal.builder import graph
from intermodal.builder.bases import SUPPORTED
from intermodal.builder.graph import Link
from intermodal.builder.interface import BuildLog
from intermodal.builder.single_flight import SingleFlight
from intermodal.model.container import BuiltImage
from intermodal.model.errors import DiskFull
from modal._wire.messages.image import ImageLayer, ImageSpec, LayerKind
from modal.exception import InvalidError, NotFoundError, RemoteError


@dataclass(frozen=True)
class Behaviour:
    """How a layer's build goes."""

    seconds: float = 0.0
    hangs: bool = False  #: never ends until it is cancelled
    error: str = ""  #: the step fails with this output
    disk_full: bool = False


def well_behaved(layer: ImageLayer) -> Behaviour:
    """Every layer builds at once."""
    return Behaviour()


class MemoryBuilder:
    """`intermodal.builder.interface.Builder` without a disk."""

    def __init__(
        self,
        behave: Callable[[ImageLayer], Behaviour] = well_behaved,
        *,
        python: str = "",
        python_version: str = "",
        layers: tuple[Path, ...] = (),
        kept: Path | None = None,
    ) -> None:
        """Args:
        behave: how each layer's build goes.
        python, python_version, layers: what every built image has.
        kept: a file that remembers which images were built; None: they are forgotten with this object.
        """
        self.built: list[str] = []  #: ids of layers, each time one was built
        self._behave = behave
        self._python = python
        self._python_version = python_version
        self._layers = layers
        self._kept = kept
        self._images: dict[str, BuiltImage] = {}
        self._flights: SingleFlight[BuiltImage] = SingleFlight()

    async def open(self) -> None:
        """Bring back what was built before."""
        if self._kept is not None and self._kept.exists():
            self._images = {image_id: self._image(image_id) for image_id in self._kept.read_text().split()}

    async def close(self) -> None:
        await self._flights.close()

    def image_id(self, spec: ImageSpec) -> str:
        return graph.chain(spec)[-1].image_id

    async def get(self, image_id: str) -> BuiltImage | None:
        return self._images.get(image_id)

    async def build(self, spec: ImageSpec, log: BuildLog) -> BuiltImage:
        image: BuiltImage | None = None
        for link in graph.chain(spec):
            image = await self._layer(link, log)
        assert image is not None
        return image

    async def _layer(self, link: Link, log: BuildLog) -> BuiltImage:
        finished = self._images.get(link.image_id)
        if link.layer.kind is LayerKind.EXISTING and finished is None:
            raise NotFoundError(f"There is no image {link.image_id} on this server.")
        if finished is not None and (not link.forced or link.layer.kind is LayerKind.EXISTING):
            return finished

        async def work(broadcast: BuildLog) -> BuiltImage:
            return await self._build_layer(link, broadcast)

        return await self._flights.run((link.image_id, link.forced), log, work)

    async def _build_layer(self, link: Link, log: BuildLog) -> BuiltImage:
        layer = link.layer
        if layer.kind is LayerKind.DEBIAN_SLIM:
            if not layer.python_version.startswith(SUPPORTED):
                raise InvalidError(
                    f"Python {layer.python_version} is not supported; use one of {', '.join(SUPPORTED)}."
                )
            title = f"debian_slim (Python {layer.python_version})"
        else:
            title = layer.commands[0] if layer.commands else layer.kind.value
        log.step(title)
        behaviour = self._behave(layer)
        await asyncio.sleep(behaviour.seconds)
        if behaviour.hangs:
            await asyncio.Event().wait()
        if behaviour.disk_full:
            raise DiskFull("No space is left for images.")
        if behaviour.error:
            log.write(behaviour.error + "\n")
            raise RemoteError(f"Image build failed at: {title}\n{behaviour.error}")
        log.write("built in memory\n")
        image = self._images[link.image_id] = self._image(link.image_id)
        self.built.append(link.image_id)
        if self._kept is not None:
            with self._kept.open("a") as file:
                file.write(f"{link.image_id}\n")
        return image

    def _image(self, image_id: str) -> BuiltImage:
        return BuiltImage(
            image_id=image_id,
            layers=self._layers,
            python=self._python,
            python_version=self._python_version,
            source="memory",
        )
