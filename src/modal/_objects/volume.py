"""`modal.Volume`. Declared; it comes with storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Optional

from .._later import not_built_yet
from .object import Object


class Volume(Object):
    """A file system that functions share and that keeps its content."""

    @staticmethod
    def from_name(
        name: str,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        version: Optional[int] = None,
    ) -> Volume:
        """A volume by its name."""
        not_built_yet("modal.Volume.from_name")

    @classmethod
    def ephemeral(
        cls,
        client: Any = None,
        environment_name: Optional[str] = None,
        version: Optional[int] = None,
        _heartbeat_sleep: float = 300.0,
    ) -> AbstractContextManager[Volume]:
        """A volume that lives as long as the context."""
        not_built_yet("modal.Volume.ephemeral")

    @staticmethod
    def lookup(
        name: str,
        namespace: Any = None,
        client: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        version: Optional[int] = None,
    ) -> Volume:
        """A volume by its name, looked up at once."""
        not_built_yet("modal.Volume.lookup")

    def commit(self) -> None:
        """Make changes durable and visible to others."""
        _missing("commit")

    def reload(self) -> None:
        """See what others have committed."""
        _missing("reload")

    def iterdir(self, path: str, *, recursive: bool = True) -> Iterator[Any]:
        """Iterate over the entries below a path."""
        _missing("iterdir")

    def listdir(self, path: str, *, recursive: bool = False) -> list[Any]:
        """List the entries of a directory."""
        _missing("listdir")

    def read_file(self, path: str) -> Iterator[bytes]:
        """Read a file in pieces."""
        _missing("read_file")

    def remove_file(self, path: str, recursive: bool = False) -> None:
        """Remove a file or directory."""
        _missing("remove_file")

    def copy_files(self, src_paths: Sequence[str], dst_path: str) -> None:
        """Copy files as `cp` does."""
        _missing("copy_files")

    def batch_upload(self, force: bool = False) -> Any:
        """Upload files and directories in one go."""
        _missing("batch_upload")

    @staticmethod
    def delete(name: str, client: Any = None, environment_name: Optional[str] = None) -> None:
        """Delete a volume."""
        _missing("delete")

    @staticmethod
    def rename(old_name: str, new_name: str, *, client: Any = None, environment_name: Optional[str] = None) -> None:
        """Rename a volume."""
        _missing("rename")


def _missing(method: str) -> NoReturn:
    not_built_yet(f"modal.Volume.{method}")
