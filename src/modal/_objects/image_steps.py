"""The steps of an image that run commands or set metadata."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Union

from .._local_files import relative_path
from .._wire.messages.image import LayerKind
from ..exception import InvalidError
from ..file_pattern_matcher import AUTO_DOCKERIGNORE, Ignore, as_ignore
from ..gpu import GPU_T
from .file_sources import FileAt, FileSource, NamedInCommands, Relative, Several, local
from .image_chain import ImageChain
from .image_layers import Layer, copy_sources, quote, run, words

if TYPE_CHECKING:
    from typing_extensions import Self

    from .mount import Mount
    from .secret import Secret

_APT_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.\-]*(:[a-z0-9\-]+)?([=/][A-Za-z0-9.+:~\-]+)?[+\-]?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ImageSteps(ImageChain):
    """Commands and metadata."""

    def apt_install(
        self,
        *packages: Union[str, list[str]],
        force_build: bool = False,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
    ) -> Self:
        """Install Debian packages with apt.

        Args:
            packages: names (str), or lists of them; `name=version` pins.
            force_build: build this step even if it is cached.
            secrets: environment of the step; not kept in the image.
            gpu: GPU that the step needs.

        Raises:
            InvalidError: for a name that is no Debian package's, or after files added without `copy=True`.
        """
        names = words(packages, "Image.apt_install")
        for name in names:
            if not _APT_PACKAGE.fullmatch(name):
                raise InvalidError(f"Image.apt_install: {name!r} is no name of a Debian package.")
        if not names:
            return self
        command = f"apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y {shlex.join(names)}"
        layer = Layer(LayerKind.COMMANDS, commands=(f"RUN {command}",))
        return self._with_run(layer, "apt_install", secrets, gpu, force_build)

    def run_commands(
        self,
        *commands: Union[str, list[str]],
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
        force_build: bool = False,
    ) -> Self:
        """Run shell commands in the image, each in a shell of its own.

        Args:
            commands: commands (str), or lists of them. One of several lines is run as one script.
            secrets: environment of the step; not kept in the image.
            gpu: GPU that the step needs.
            force_build: build this step even if it is cached.

        Raises:
            InvalidError: for a value that is no string, or after files added without `copy=True`.
        """
        texts = words(commands, "Image.run_commands")
        if not texts:
            return self
        layer = Layer(LayerKind.COMMANDS, commands=tuple(run(text, self._shell) for text in texts))
        return self._with_run(layer, "run_commands", secrets, gpu, force_build)

    def dockerfile_commands(
        self,
        *dockerfile_commands: Union[str, list[str]],
        context_files: dict[str, str] = {},
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
        context_mount: Union[Mount, None] = None,
        force_build: bool = False,
        ignore: Ignore = AUTO_DOCKERIGNORE,
    ) -> Self:
        """Run instructions as in a Dockerfile.

        Args:
            dockerfile_commands: instructions (str), or lists of them.
            context_files: path in the build context -> local path, for COPY to name.
            secrets: environment of RUN; not kept in the image.
            gpu: GPU that the step needs.
            context_mount: deprecated: a mount whose files COPY may name.
            force_build: build this step even if it is cached.
            ignore: files of the working directory that COPY does not get; by default those of its `.dockerignore`.

        Raises:
            InvalidError: for a value that is no string, or after files added without `copy=True`. A missing source of
                a COPY is found when the image is built.
        """
        instructions = words(dockerfile_commands, "Image.dockerfile_commands")
        if not instructions:
            return self
        sources: list[FileSource] = [
            FileAt(local(path), relative_path(place, what="A key of context_files"))
            for place, path in context_files.items()
        ]
        if context_mount is not None:
            sources.append(Relative(context_mount._files))
        elif not context_files:
            names = copy_sources(instructions)
            if names:
                sources.append(NamedInCommands(local("."), names, as_ignore(ignore)))
        context = Several(tuple(sources)) if sources else None
        layer = Layer(LayerKind.COMMANDS, commands=tuple(instructions), context=context)
        return self._with_run(layer, "dockerfile_commands", secrets, gpu, force_build)

    def env(self, vars: dict[str, str]) -> Self:
        """Set environment variables (str to str) for later steps and for containers. Values are taken literally.

        Raises:
            InvalidError: for a bad name, a value that is no string or has several lines, or after files added without
                `copy=True`.
        """
        settings = []
        for name, value in vars.items():
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                raise InvalidError(f"Image.env: {name!r} is no name of an environment variable.")
            if not isinstance(value, str):
                raise InvalidError(f"Image.env: the value of {name} must be a string, not {value!r}.")
            settings.append(f"{name}={quote(value, f'Image.env: the value of {name}')}")
        if not settings:
            return self
        return self._with_commands([f"ENV {' '.join(settings)}"], "env")

    def workdir(self, path: Union[str, PurePosixPath]) -> Self:
        """Set the working directory of later steps and of containers; it is made if it does not exist.

        Raises:
            InvalidError: for an empty path, or after files added without `copy=True`.
        """
        text = str(path)
        if not isinstance(path, (str, PurePosixPath)) or not text.strip():
            raise InvalidError(f"Image.workdir takes a path (str), not {path!r}.")
        return self._with_commands([f"WORKDIR {quote(text, 'Image.workdir: the path')}"], "workdir")

    def entrypoint(self, entrypoint_commands: list[str]) -> Self:
        """Set the program, with its first arguments (list of str), that starts before a container's own command.

        Raises:
            InvalidError: for a value that is no list of strings, or after files added without `copy=True`.
        """
        return self._with_commands([f"ENTRYPOINT {_exec_form(entrypoint_commands, 'entrypoint')}"], "entrypoint")

    def shell(self, shell_commands: list[str]) -> Self:
        """Set the shell (list of str, e.g. `["/bin/bash", "-c"]`) that later steps run their commands with.

        Raises:
            InvalidError: for a value that is no list of strings, or after files added without `copy=True`.
        """
        image = self._with_commands([f"SHELL {_exec_form(shell_commands, 'shell')}"], "shell")
        return image._with_shell(tuple(shell_commands))


def _exec_form(value: list[str], method: str) -> str:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise InvalidError(f"Image.{method} takes a list of strings, not {value!r}.")
    if method == "shell" and not value:
        raise InvalidError("Image.shell takes at least one string.")
    return json.dumps(list(value))
