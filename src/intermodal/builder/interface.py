"""The seam between the image service and what builds images.

`tests/contract/test_builder.py` holds every implementation to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from intermodal.model.container import BuiltImage
from modal._wire.messages.image import ImageSpec


class BuildLog(Protocol):
    """Where a build says what it does. Called on the event loop's thread."""

    def step(self, title: str) -> None:
        """A layer begins, e.g. ``pip install scikit-learn``."""

    def write(self, text: str) -> None:
        """Output of the layer, with its line ends."""


class SecretSource(Protocol):
    def env(self, secret_id: str) -> dict[str, str]:
        """The variables of a secret. Raises `modal.exception.NotFoundError`."""

    def note_use(self, secret_ids: Iterable[str]) -> None:
        """A build step gets these now."""


class Builder(Protocol):
    """Builds images; keeps what it built."""

    async def open(self) -> None:
        """Prepare the image store and remove what an interrupted build left. Called once, first."""

    async def close(self) -> None:
        """Stop running builds and free mounts. Idempotent."""

    def image_id(self, spec: ImageSpec) -> str:
        """The im-… id: a hash of the layers. Raises `modal.exception.InvalidError` for a spec that can never build."""

    async def get(self, image_id: str) -> BuiltImage | None:
        """A finished image, else None."""

    async def build(self, spec: ImageSpec, log: BuildLog) -> BuiltImage:
        """Build what is missing and return the image. Concurrent builds of one id build once, and each caller's log
        gets the whole output. Cancelling one caller does not stop a build that another waits for.

        Raises:
            modal.exception.InvalidError: the spec cannot build here (unknown Python version, unsafe path, …).
            modal.exception.RemoteError: a step failed; the message holds the command and the end of its output.
            intermodal.model.errors.RuntimeFailure: the machine failed (disk full, tool missing).
        """


class BlobReader(Protocol):
    """The part of a blob store that builders and nodes read."""

    def path(self, digest: str) -> object:
        """Local path of a blob's bytes (pathlib.Path). Raises `modal.exception.NotFoundError`."""
