"""Where volumes and buckets are mounted once the links of the image are followed: each at a directory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from intermodal.model.container import RESERVED_PLACES
from intermodal.model.errors import BadImage
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.image_paths import ImagePaths
from intermodal.threads import in_thread
from modal.exception import InvalidError


class PlacesHook(Hook):
    """Refuses what cannot be mounted in this image. Comes after the files, which may bring links."""

    async def prepare(self, container: Container) -> None:
        spec = container.spec
        paths = [*(one.path for one in spec.volumes), *(one.path for one in spec.buckets)]
        if paths:  # most containers have none, and are to start without a turn of a thread
            image = ImagePaths([*container.layers, *spec.image.layers])
            await in_thread(check_places, image, paths)


def check_places(image: ImagePaths, paths: Sequence[str]) -> None:
    """Raise `InvalidError` if something cannot be mounted at each of these paths of an image."""
    places: list[tuple[PurePosixPath, str]] = []
    for path in paths:
        try:
            place = image.resolve_directory(PurePosixPath(path))
        except BadImage as error:
            raise InvalidError(str(error)) from None
        if place == PurePosixPath("/") or any(place.is_relative_to(reserved) for reserved in RESERVED_PLACES):
            raise InvalidError(
                f"Nothing can be mounted at {path!r}: links in the image lead to {str(place)!r}, which belongs to the "
                "system."
            )
        places.append((place, path))
    places.sort()
    for (outer_place, outer), (place, inner) in zip(places, places[1:], strict=False):
        if place == outer_place:
            raise InvalidError(
                f"{outer!r} and {inner!r} are the same directory, {str(place)!r}, by links in the image; mount one "
                "thing there."
            )
        if place.is_relative_to(outer_place):
            raise InvalidError(
                f"{inner!r} cannot be mounted within {outer!r}, where links in the image lead ({str(place)!r} and "
                f"{str(outer_place)!r}); use directories that lie side by side."
            )
