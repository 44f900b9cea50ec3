"""RPC: images are built here, with their log streamed to whoever asked."""

from __future__ import annotations

import asyncio
from typing import Any

from intermodal.builder.interface import Builder
from intermodal.control.access import require_user
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.model.container import BuiltImage
from modal._wire.messages.image import IMAGE_BUILD, IMAGE_GET, BuildEvent, ImageInfo, ImageRef, ImageSpec
from modal.exception import NotFoundError


class _StreamLog:
    """Hands what a build says to the stream's task; what piles up meanwhile is joined."""

    def __init__(self) -> None:
        self.events: list[BuildEvent] = []
        self.ready = asyncio.Event()

    def step(self, title: str) -> None:
        self.events.append(BuildEvent(step=title))
        self.ready.set()

    def write(self, text: str) -> None:
        if self.events and self.events[-1].log:
            self.events[-1] = BuildEvent(log=self.events[-1].log + text)
        else:
            self.events.append(BuildEvent(log=text))
        self.ready.set()

    def take(self) -> list[BuildEvent]:
        self.ready.clear()
        taken, self.events = self.events, []
        return taken


class ImageService:
    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(IMAGE_BUILD, self.build)
        dispatcher.register(IMAGE_GET, self.get)

    async def get(self, ctx: Context, request: ImageRef, body: bytes) -> ImageInfo:
        return _info(await self.built(request.image_id), cached=True)

    async def built(self, image_id: str) -> BuiltImage:
        """A finished image. Raises `NotFoundError`."""
        image = await self._builder.get(image_id)
        if image is None:
            raise NotFoundError(f"There is no image {image_id!r} on this server.")
        return image

    async def build(self, ctx: Context, request: ImageSpec, body: bytes, stream: ServerStream[Any, Any]) -> None:
        require_user(ctx)
        forced = request.force_build or any(layer.force_build for layer in request.layers)
        image = None if forced else await self._builder.get(self._builder.image_id(request))
        cached = image is not None
        if image is None:
            image = await self._build(request, stream)
        await stream.send(BuildEvent(done=_info(image, cached)))

    async def _build(self, request: ImageSpec, stream: ServerStream[Any, Any]) -> BuiltImage:
        said = _StreamLog()
        building = asyncio.ensure_future(self._builder.build(request, said))
        building.add_done_callback(lambda _: said.ready.set())
        try:
            while not building.done():
                await said.ready.wait()
                for event in said.take():
                    await stream.send(event)
            for event in said.take():
                await stream.send(event)
            return await building
        finally:
            if not building.done():
                building.cancel()
                await asyncio.wait([building])


def _info(image: BuiltImage, cached: bool) -> ImageInfo:
    return ImageInfo(image.image_id, image.python_version, image.source, cached)
