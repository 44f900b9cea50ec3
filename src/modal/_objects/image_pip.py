"""The steps of an image that install Python packages."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from .._wire.messages.image import LayerKind, PipInstall
from ..exception import InvalidError
from ..gpu import GPU_T
from .file_sources import FileAt, local
from .image_chain import ImageChain
from .image_layers import Layer, words

if TYPE_CHECKING:
    from typing_extensions import Self

    from .secret import Secret

_REQUIREMENTS = ".requirements.txt"  #: in the root of the image


class ImagePip(ImageChain):
    """Python packages."""

    def pip_install(
        self,
        *packages: Union[str, list[str]],
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
    ) -> Self:
        """Install Python packages.

        Args:
            packages: requirement specifiers (str) such as `"numpy>=1.26"`, or lists of them.
            find_links: URL or path of a page with archives (`--find-links`).
            index_url: package index instead of the default one.
            extra_index_url: package index beside the default one.
            pre: also take pre-releases.
            extra_options: further options as on pip's command line, e.g. `"--no-build-isolation"`.
            force_build: build this step even if it is cached.
            secrets: environment of the step; not kept in the image.
            gpu: GPU that the step needs.

        Raises:
            InvalidError: for a bad value, or after files added without `copy=True`.
        """
        names = _check_packages(words(packages, "Image.pip_install"))
        if not names:
            return self
        pip = _pip(names, find_links, index_url, extra_index_url, pre, extra_options)
        return self._with_run(Layer(LayerKind.PIP_INSTALL, pip=pip), "pip_install", secrets, gpu, force_build)

    def pip_install_from_requirements(
        self,
        requirements_txt: str,
        find_links: Optional[str] = None,
        *,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
    ) -> Self:
        """Install what a local requirements file (path, str) lists. Other parameters as in `pip_install`.

        Raises:
            InvalidError: for a bad value, or after files added without `copy=True`. A missing file is found when the
                image is built.
        """
        method = "pip_install_from_requirements"
        file = FileAt(local(requirements_txt), _REQUIREMENTS)
        image = self._with_commands([f"COPY {_REQUIREMENTS} /{_REQUIREMENTS}"], method, file)
        options = f"-r /{_REQUIREMENTS} {extra_options}".rstrip()
        pip = _pip([], find_links, index_url, extra_index_url, pre, options)
        return image._with_run(Layer(LayerKind.PIP_INSTALL, pip=pip), method, secrets, gpu, force_build)

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str,
        optional_dependencies: list[str] = [],
        *,
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
    ) -> Self:
        """Install the dependencies that a local `pyproject.toml` lists. Other parameters as in `pip_install`.

        Args:
            pyproject_toml: path of the file.
            optional_dependencies: names of sections of `project.optional-dependencies` to install as well.

        Raises:
            InvalidError: for a bad value, or after files added without `copy=True`. A missing file or section is found
                when the image is built.
        """
        pip = _pip([], find_links, index_url, extra_index_url, pre, extra_options)
        reader = _PyprojectDependencies(local(pyproject_toml), tuple(optional_dependencies), pip)
        layer = Layer(LayerKind.PIP_INSTALL, pip=reader)
        return self._with_run(layer, "pip_install_from_pyproject", secrets, gpu, force_build)


@dataclass(frozen=True)
class _PyprojectDependencies:
    """Reads the dependencies when the image is built."""

    path: str
    sections: tuple[str, ...]
    pip: PipInstall

    def __call__(self) -> PipInstall:
        project = _load_toml(self.path).get("project")
        if not isinstance(project, dict) or "dependencies" not in project:
            raise InvalidError(f"{self.path!r} has no [project] table with dependencies.")
        packages = list(project["dependencies"])
        optional = project.get("optional-dependencies", {})
        for section in self.sections:
            if section not in optional:
                known = ", ".join(sorted(optional)) or "none"
                raise InvalidError(f"{self.path!r} has no optional dependencies {section!r}; it has: {known}.")
            packages += optional[section]
        if not packages:
            raise InvalidError(f"{self.path!r} lists no dependencies to install.")
        return replace(self.pip, packages=_check_packages(words(packages, self.path)))


def _load_toml(path: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidError(f"The local file {path!r} does not exist.") from None
    except (OSError, ValueError) as error:
        raise InvalidError(f"{path!r} cannot be read as TOML: {error}.") from None


def _pip(
    packages: list[str],
    find_links: Optional[str],
    index_url: Optional[str],
    extra_index_url: Optional[str],
    pre: bool,
    extra_options: str,
) -> PipInstall:
    named = {"find_links": find_links, "index_url": index_url, "extra_index_url": extra_index_url}
    for name, value in (*named.items(), ("extra_options", extra_options)):
        if value is not None and (not isinstance(value, str) or "\n" in value):
            raise InvalidError(f"pip_install: {name} must be a string of one line, not {value!r}.")
    return PipInstall(packages, find_links, index_url, extra_index_url, bool(pre), extra_options.strip())


def _check_packages(packages: list[str]) -> list[str]:
    for package in packages:
        if "\n" in package or "\0" in package:
            raise InvalidError(f"pip_install: {package!r} has several lines; pass each requirement as its own string.")
        if package.lstrip().startswith("-"):
            raise InvalidError(f"pip_install: {package!r} is an option; pass it in extra_options.")
    return [package.strip() for package in packages]
