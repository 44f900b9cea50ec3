"""The documented ways to make and extend an image that are not built yet."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .._later import not_built_yet
from ..file_pattern_matcher import AUTO_DOCKERIGNORE, Ignore
from ..gpu import GPU_T
from .image_chain import ImageChain

if TYPE_CHECKING:
    from typing_extensions import Self

    from .cloud_bucket_mount import CloudBucketMount
    from .mount import Mount
    from .network_file_system import NetworkFileSystem
    from .secret import Secret
    from .volume import Volume

_BASE = "Start from modal.Image.debian_slim()."


class ImageLater(ImageChain):
    """Each method raises `InvalidError` and names itself."""

    @staticmethod
    def micromamba(python_version: Optional[str] = None, force_build: bool = False) -> Any:
        """A base with the micromamba package manager."""
        not_built_yet("modal.Image.micromamba", _BASE)

    def micromamba_install(
        self,
        *packages: Union[str, list[str]],
        spec_file: Optional[str] = None,
        channels: list[str] = [],
        force_build: bool = False,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
    ) -> Self:
        """Install packages with micromamba."""
        not_built_yet("modal.Image.micromamba_install", "Use pip_install.")

    @staticmethod
    def from_registry(
        tag: str,
        *,
        secret: Optional[Secret] = None,
        setup_dockerfile_commands: list[str] = [],
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Any:
        """An image of a registry."""
        not_built_yet("modal.Image.from_registry", _BASE)

    @staticmethod
    def from_gcp_artifact_registry(
        tag: str,
        secret: Optional[Secret] = None,
        *,
        setup_dockerfile_commands: list[str] = [],
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Any:
        """An image of a Google Cloud registry."""
        not_built_yet("modal.Image.from_gcp_artifact_registry", _BASE)

    @staticmethod
    def from_aws_ecr(
        tag: str,
        secret: Optional[Secret] = None,
        *,
        setup_dockerfile_commands: list[str] = [],
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Any:
        """An image of an AWS registry."""
        not_built_yet("modal.Image.from_aws_ecr", _BASE)

    @staticmethod
    def from_dockerfile(
        path: Union[str, Path],
        context_mount: Optional[Mount] = None,
        force_build: bool = False,
        *,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
        add_python: Optional[str] = None,
        ignore: Ignore = AUTO_DOCKERIGNORE,
    ) -> Any:
        """An image built from a local Dockerfile."""
        not_built_yet("modal.Image.from_dockerfile", f"{_BASE} dockerfile_commands runs instructions on top.")

    def pip_install_private_repos(
        self,
        *repositories: str,
        git_user: str,
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        gpu: GPU_T = None,
        secrets: Sequence[Secret] = [],
        force_build: bool = False,
    ) -> Self:
        """Install packages from private git repositories."""
        not_built_yet("modal.Image.pip_install_private_repos", "Use pip_install.")

    def poetry_install_from_file(
        self,
        poetry_pyproject_toml: str,
        poetry_lockfile: Optional[str] = None,
        ignore_lockfile: bool = False,
        old_installer: bool = False,
        force_build: bool = False,
        with_: list[str] = [],
        without: list[str] = [],
        only: list[str] = [],
        *,
        secrets: Sequence[Secret] = [],
        gpu: GPU_T = None,
    ) -> Self:
        """Install the dependencies of a Poetry project."""
        not_built_yet("modal.Image.poetry_install_from_file", "Use pip_install_from_pyproject.")

    def run_function(
        self,
        raw_f: Callable[..., Any],
        secrets: Sequence[Secret] = (),
        gpu: Union[GPU_T, list[GPU_T]] = None,
        mounts: Sequence[Mount] = (),
        volumes: dict[Union[str, PurePosixPath], Union[Volume, CloudBucketMount]] = {},
        network_file_systems: dict[Union[str, PurePosixPath], NetworkFileSystem] = {},
        cpu: Optional[float] = None,
        memory: Optional[int] = None,
        timeout: Optional[int] = 60 * 60,
        force_build: bool = False,
        cloud: Optional[str] = None,
        region: Optional[Union[str, Sequence[str]]] = None,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] = {},
    ) -> Self:
        """Run a Python function as a step."""
        not_built_yet("modal.Image.run_function", "Use run_commands.")
