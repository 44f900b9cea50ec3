"""What all of an image's methods share: an immutable chain, and making a longer one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .._wire.messages.image import LayerKind
from ..exception import InvalidError
from ..gpu import GPU_T, parse_gpu_config
from .file_sources import FileSource
from .image_layers import Layer

if TYPE_CHECKING:
    from typing_extensions import Self

    from .secret import Secret

_DEFAULT_SHELL = ("/bin/sh", "-c")


class ImageChain(ABC):
    """Layers to build, then files to place when a container starts. Never changes: methods return new images."""

    _layers: tuple[Layer, ...]
    _sources: tuple[FileSource, ...]  #: files that are not built in
    _shell: tuple[str, ...]

    @classmethod
    @abstractmethod
    def _of(
        cls, layers: tuple[Layer, ...], sources: tuple[FileSource, ...] = (), shell: tuple[str, ...] = _DEFAULT_SHELL
    ) -> Self:
        """Make an image; subclasses say how."""

    def _with_layer(self, layer: Layer, method: str) -> Self:
        if self._sources:
            raise InvalidError(
                f"Image.{method} comes after a step that adds local files at container start. Move that step to the "
                "end, or give it copy=True, which copies the files into the image when it is built."
            )
        return self._of((*self._layers, layer), shell=self._shell)

    def _with_source(self, source: FileSource) -> Self:
        return self._of(self._layers, (*self._sources, source), self._shell)

    def _with_shell(self, shell: tuple[str, ...]) -> Self:
        return self._of(self._layers, self._sources, shell)

    def _with_commands(self, commands: Sequence[str], method: str, context: FileSource | None = None) -> Self:
        return self._with_layer(Layer(LayerKind.COMMANDS, commands=tuple(commands), context=context), method)

    def _with_run(self, layer: Layer, method: str, secrets: Sequence[Secret], gpu: GPU_T, force_build: bool) -> Self:
        """Add a layer that has the parameters which all running steps take."""
        config = parse_gpu_config(gpu)
        complete = replace(
            layer,
            secrets=check_secrets(secrets, f"Image.{method}"),
            gpu="" if config is None else str(config),
            force_build=bool(force_build),
        )
        return self._with_layer(complete, method)


def check_secrets(secrets: Sequence[Secret], what: str) -> tuple[Secret, ...]:
    """Refuse what is no sequence of secrets. Raises InvalidError."""
    from .secret import Secret as SecretClass

    if not isinstance(secrets, (list, tuple)) or not all(isinstance(item, SecretClass) for item in secrets):
        raise InvalidError(f"{what}: secrets must be a list of modal.Secret objects.")
    return tuple(secrets)
