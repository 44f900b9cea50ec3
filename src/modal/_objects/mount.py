"""`modal.Mount`: local files that are placed when a container starts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Callable, Optional, Union

from .._local_files import LocalFile, remote_path
from .._local_modules import ROOT_DIR
from .._wire.codec import encode
from .._wire.messages.common import FileEntry
from .._wire.messages.mount import MOUNT_CREATE, MountCreate
from ..exception import DeprecationError, InvalidError
from ..file_pattern_matcher import Ignore, as_ignore
from .file_sources import DirectoryAt, FileAt, FileSource, Predicate, PythonSource, Several, check_modules, local
from .object import Object

if TYPE_CHECKING:
    from .._upload import Client
    from .resolver import Resolver

_REQUEST_BYTES = 512 * 1024  #: of one request's header, whose limit is 1 MiB

Condition = Optional[Callable[[str], bool]]


class Mount(Object):
    """Deprecated: use `Image.add_local_*`. Local files for the containers of functions with `mounts=[...]`."""

    _files: Several

    @classmethod
    def _of(cls, *sources: FileSource) -> Mount:
        mount = cls._new("Mount()")
        mount._files = Several(sources)
        return mount

    def add_local_dir(
        self,
        local_path: Union[str, Path],
        *,
        remote_path: Union[str, PurePosixPath, None] = None,
        condition: Condition = None,
        recursive: bool = True,
    ) -> Mount:
        """Return a mount that has the files of a directory as well.

        Args:
            local_path: the directory; `~` is the home directory.
            remote_path: where its content goes; default: its name below `/`.
            condition: gets the local path of a file (str) and says whether to take it.
            recursive: take files of subdirectories too.

        Raises:
            InvalidError: for a bad path. A missing directory is found when the files are sent.
        """
        path = local(local_path)
        source = DirectoryAt(path, _place(path, remote_path), _from_condition(condition), recursive)
        return Mount._of(*self._files.sources, source)

    @staticmethod
    def from_local_dir(
        local_path: Union[str, Path],
        *,
        remote_path: Union[str, PurePosixPath, None] = None,
        condition: Condition = None,
        recursive: bool = True,
    ) -> Mount:
        """Deprecated: use `Image.add_local_dir`. Make a mount of a directory; parameters as in `add_local_dir`."""
        _deprecated("from_local_dir", "add_local_dir")
        return Mount._of().add_local_dir(local_path, remote_path=remote_path, condition=condition, recursive=recursive)

    def add_local_file(
        self, local_path: Union[str, Path], remote_path: Union[str, PurePosixPath, None] = None
    ) -> Mount:
        """Return a mount that has a file as well; without `remote_path` it goes to its name below `/`.

        Raises:
            InvalidError: for a bad path. A missing file is found when the files are sent.
        """
        path = local(local_path)
        return Mount._of(*self._files.sources, FileAt(path, _place(path, remote_path)))

    @staticmethod
    def from_local_file(local_path: Union[str, Path], remote_path: Union[str, PurePosixPath, None] = None) -> Mount:
        """Deprecated: use `Image.add_local_file`. Make a mount of one file."""
        _deprecated("from_local_file", "add_local_file")
        return Mount._of().add_local_file(local_path, remote_path)

    @staticmethod
    def from_local_python_packages(
        *module_names: str,
        remote_dir: Union[str, PurePosixPath] = ROOT_DIR,
        condition: Condition = None,
        ignore: Optional[Ignore] = None,
    ) -> Mount:
        """Deprecated: use `Image.add_local_python_source`. Make a mount of local modules below `remote_dir`.

        Args:
            module_names: names as in an import statement.
            remote_dir: directory in the container.
            condition: gets the local path of a file (str) and says whether to take it.
            ignore: as in `Image.add_local_python_source`; not together with `condition`.

        Raises:
            InvalidError: for what is no module name. A missing module is found when the files are sent.
        """
        _deprecated("from_local_python_packages", "add_local_python_source")
        if condition is not None and ignore is not None:
            raise InvalidError("Mount.from_local_python_packages takes condition or ignore, not both.")
        predicate = _from_condition(condition) if ignore is None else as_ignore(ignore)
        names = check_modules(module_names)
        return Mount._of(PythonSource(names, remote_path(remote_dir), predicate))

    def _mount_files(self) -> list[LocalFile]:
        """Look at the disk and list what travels. Raises InvalidError or ModuleNotMountable."""
        return self._files.collect()

    async def _load(self, resolver: Resolver) -> str:
        """The id of the first of the server's mounts that hold the files; a function takes all (`create_mounts`)."""
        from asyncio import to_thread

        ids = await create_mounts(resolver.client, await to_thread(self._mount_files))
        return ids[0]


async def create_mounts(client: Client, files: Sequence[LocalFile]) -> list[str]:
    """Upload files and create the mounts that hold them: one, or several when one request could not list them all.

    Raises:
        InvalidError: if a file cannot be read or changes meanwhile.
    """
    from .._upload import upload_files  # not what `import modal` should cost

    for file in files:
        remote_path(file.remote_path)
    ids: list[str] = []
    for part in _parts(await upload_files(client, files)):
        reply, _ = await client.unary(MOUNT_CREATE, MountCreate(part))
        ids.append(reply.mount_id)
    return ids


def _parts(entries: list[FileEntry]) -> list[list[FileEntry]]:
    import json

    parts: list[list[FileEntry]] = [[]]
    size = 0
    for entry in entries:
        bytes_of_entry = len(json.dumps(encode(entry)))
        if size + bytes_of_entry > _REQUEST_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += bytes_of_entry
    return parts


def _place(path: str, remote: Union[str, PurePosixPath, None]) -> str:
    return remote_path(PurePosixPath("/", PurePath(path).name if remote is None else remote))


def _from_condition(condition: Condition) -> Predicate:
    if condition is None:
        return lambda path: False
    takes = condition
    return lambda path: not takes(os.fspath(path))


def _deprecated(old: str, new: str) -> None:
    warnings.warn(f"Mount.{old} is deprecated; use Image.{new}.", DeprecationError, stacklevel=3)
