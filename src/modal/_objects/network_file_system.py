"""`modal.NetworkFileSystem`. Declared; it comes with storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Callable, NoReturn, Optional, Union

from .._later import not_built_yet
from .object import Object


class NetworkFileSystem(Object):
    """A directory that functions share while they run."""

    @staticmethod
    def from_name(
        name: str, namespace: Any = None, environment_name: Optional[str] = None, create_if_missing: bool = False
    ) -> NetworkFileSystem:
        """A network file system by its name."""
        _missing("from_name")

    @classmethod
    def ephemeral(
        cls, client: Any = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300.0
    ) -> AbstractContextManager[NetworkFileSystem]:
        """A network file system that lives as long as the context."""
        _missing("ephemeral")

    @staticmethod
    def lookup(
        name: str,
        namespace: Any = None,
        client: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> NetworkFileSystem:
        """A network file system by its name, looked up at once."""
        _missing("lookup")

    @staticmethod
    def delete(name: str, client: Any = None, environment_name: Optional[str] = None) -> None:
        """Delete a network file system."""
        _missing("delete")

    def write_file(self, remote_path: str, fp: BinaryIO, progress_cb: Optional[Callable[..., Any]] = None) -> int:
        """Write a file from an open one; return its size in bytes."""
        _missing("write_file")

    def read_file(self, path: str) -> Iterator[bytes]:
        """Read a file in pieces."""
        _missing("read_file")

    def iterdir(self, path: str) -> Iterator[Any]:
        """Iterate over the entries of a directory."""
        _missing("iterdir")

    def add_local_file(
        self,
        local_path: Union[Path, str],
        remote_path: Optional[Union[str, PurePosixPath]] = None,
        progress_cb: Optional[Callable[..., Any]] = None,
    ) -> None:
        """Copy a local file into it."""
        _missing("add_local_file")

    def add_local_dir(
        self,
        local_path: Union[Path, str],
        remote_path: Optional[Union[str, PurePosixPath]] = None,
        progress_cb: Optional[Callable[..., Any]] = None,
    ) -> None:
        """Copy a local directory into it."""
        _missing("add_local_dir")

    def listdir(self, path: str) -> list[Any]:
        """List the entries of a directory."""
        _missing("listdir")

    def remove_file(self, path: str, recursive: bool = False) -> None:
        """Remove a file or directory."""
        _missing("remove_file")


def _missing(method: str) -> NoReturn:
    not_built_yet(f"modal.NetworkFileSystem.{method}")
