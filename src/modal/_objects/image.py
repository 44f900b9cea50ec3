"""`modal.Image`: what containers run in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from .._local_files import LocalFile
from .._wire.messages.image import LayerKind
from ..exception import InvalidError
from .file_sources import FileSource, Several
from .image_build import build
from .image_chain import _DEFAULT_SHELL
from .image_files import ImageFiles
from .image_later import ImageLater
from .image_layers import Layer, to_spec
from .image_pip import ImagePip
from .image_steps import ImageSteps
from .object import Object

if TYPE_CHECKING:
    from .client import Client
    from .resolver import Resolver

SUPPORTED_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_FALLBACK_PYTHON = "3.12"


class Image(ImageFiles, ImagePip, ImageSteps, ImageLater, Object):
    """A container image: a base and steps on top of it, built once and cached by content.

    Do not construct this class; begin with `modal.Image.debian_slim()` and add steps. Every method returns a new
    image and leaves this one as it was. Files are looked at, and errors of the local machine raised, when the image is
    built, which happens when an app that uses it runs.
    """

    _import_error: Optional[ImportError] = None  #: held back by `imports`
    _is_of_this_container: bool = False

    @classmethod
    def _of(
        cls, layers: tuple[Layer, ...], sources: tuple[FileSource, ...] = (), shell: tuple[str, ...] = _DEFAULT_SHELL
    ) -> Image:
        image = cls._new("Image()")
        image._layers, image._sources, image._shell = layers, sources, shell
        return image

    @staticmethod
    def debian_slim(python_version: Optional[str] = None, force_build: bool = False) -> Image:
        """A slim Debian with a Python, the default image.

        Args:
            python_version: "3.10", "3.11", "3.12" or "3.13". Default: that of this process if it is one of these, else
                "3.12".
            force_build: build it even if it is cached.

        Raises:
            InvalidError: for another version.
        """
        version = _default_python() if python_version is None else _check_python(python_version)
        layer = Layer(LayerKind.DEBIAN_SLIM, python_version=version, force_build=bool(force_build))
        return Image._of((layer,))

    @staticmethod
    def from_id(image_id: str, client: Optional[Client] = None) -> Image:
        """An image that exists already, by the `object_id` (str, `im-…`) that it has.

        Raises:
            InvalidError: for what is no image id. One that the server does not know is a NotFoundError when it is used.
        """
        if not isinstance(image_id, str) or not image_id.startswith("im-"):
            raise InvalidError(f"{image_id!r} is no image id; they begin with 'im-'.")
        return Image._of((Layer(LayerKind.EXISTING, image_id=image_id),))

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """Import packages that only containers of this image have.

        An ImportError in the block is held back: on this machine, and in containers of functions with another image. A
        container of a function with this image raises it when it starts.
        """
        try:
            yield
        except ImportError as error:
            if self._is_of_this_container:
                raise
            if self._import_error is None:
                self._import_error = error

    def _enter_container(self) -> None:
        """Say that this container runs a function with this image. Raises the ImportError that `imports` held back."""
        self._is_of_this_container = True
        if self._import_error is not None:
            raise self._import_error

    def _mount_files(self) -> list[LocalFile]:
        """The files to place at container start. Looks at the disk; raises InvalidError or ModuleNotMountable."""
        return Several(self._sources).collect()

    async def _hydrate(self, client: Optional[Client]) -> None:
        from .client import default_client
        from .resolver import Resolver

        resolver = Resolver(await (client or default_client())._rpc())
        try:
            await resolver.load(self)
        finally:
            await resolver.close()

    async def _load(self, resolver: Resolver) -> str:
        from ..config import config

        spec = await to_spec(resolver.client, self._layers, resolver.load, force_build=bool(config.get("force_build")))
        info = await build(resolver.client, spec)
        return info.image_id


def _default_python() -> str:
    local = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return local if local in SUPPORTED_PYTHONS else _FALLBACK_PYTHON


def _check_python(version: Any) -> str:
    if version not in SUPPORTED_PYTHONS or not isinstance(version, str):
        hint = ", as a string" if isinstance(version, float) else ""
        raise InvalidError(
            f"Image.debian_slim: Python {version!r} is not available; choose {', '.join(SUPPORTED_PYTHONS)}{hint}."
        )
    return version
