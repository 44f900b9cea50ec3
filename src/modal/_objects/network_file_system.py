"""`modal.NetworkFileSystem`: a directory that functions share while they run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Optional, Union

from .._local_files import local_directory
from .._renamed import renamed_parameter
from .._sync import BlockingContext, blocking, generator_in_caller, in_caller, on_loop
from .._wire.messages.named import ObjectKind
from ..exception import InvalidError
from .file_entries import Entries, FileEntry, Listing, WithFiles, path_text
from .file_uploads import Upload, local_file_of, send_files, uploads_of

if TYPE_CHECKING:
    from .client import Client

Progress = Callable[..., Any]


class NetworkFileSystem(WithFiles):
    """A directory that functions share while they run: what one writes, the others see at once.

    nfs = modal.NetworkFileSystem.from_name("my-nfs", create_if_missing=True)

    @app.function(network_file_systems={"/shared": nfs})
    def f():
        ...
    """

    _kind = ObjectKind.NETWORK_FILE_SYSTEM

    @staticmethod
    @renamed_parameter("label", "name")
    def from_name(
        name: str, namespace: Any = None, environment_name: Optional[str] = None, create_if_missing: bool = False
    ) -> NetworkFileSystem:
        """Refer to a network file system by its name; it is looked up when it is first used.

        Args:
            name: its name.
            namespace: no effect.
            environment_name: the environment; default: that of the configuration.
            create_if_missing: make it when there is none.
        """
        return NetworkFileSystem._named(name, environment_name, create_if_missing)

    @classmethod
    def ephemeral(
        cls, client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300.0
    ) -> BlockingContext[NetworkFileSystem]:
        """Make a network file system that lives as long as the context, for `with` and `async with`.

        Args:
            client: the connection to use; default: that of the configuration.
            environment_name: the environment; default: that of the configuration.
            _heartbeat_sleep: no effect: the connection itself tells that this client is alive.
        """
        return BlockingContext(NetworkFileSystem._ephemeral(client, environment_name))

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def lookup(
        name: str,
        namespace: Any = None,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> NetworkFileSystem:
        """Find a network file system by its name, now. Arguments as of `from_name`.

        Raises:
            NotFoundError: there is none.
        """
        found = NetworkFileSystem.from_name(name, None, environment_name, create_if_missing)
        return await NetworkFileSystem._lookup(found, client)

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def delete(name: str, client: Optional[Client] = None, environment_name: Optional[str] = None) -> None:
        """Delete a network file system with its files.

        Raises:
            NotFoundError: there is none of this name.
        """
        await NetworkFileSystem._delete(name, client, environment_name)

    @in_caller
    async def write_file(self, remote_path: str, fp: BinaryIO, progress_cb: Optional[Progress] = None) -> int:
        """Write a file from an open one, atomically: others see the old content or the new. Parents are made.

        Args:
            remote_path: its path; one that ends with a slash is the directory, and the file keeps its name.
            fp: a binary file.
            progress_cb: called with ``advance=<bytes>`` for each piece that was sent, and with ``complete=True``.

        Returns:
            How many bytes were written.

        Raises:
            InvalidError: a directory is there, or `fp` gives no bytes.
        """
        remote = path_text(remote_path)
        if not hasattr(fp, "read"):
            raise InvalidError(f"NetworkFileSystem.write_file takes an open binary file, not {type(fp).__name__}.")
        if not remote.strip("/"):
            raise InvalidError(f"{remote!r} is not possible as the path of a file.")
        if remote.endswith("/"):
            name = getattr(fp, "name", None)
            if not isinstance(name, str):
                raise InvalidError(f"{remote!r} is a directory, and the file object has no name to be kept.")
            remote += Path(name).name
        return await on_loop(self._send([Upload(fp, remote)], progress_cb))

    async def _send(self, uploads: list[Upload], progress: Optional[Progress]) -> int:
        rpc, object_id = await self._bind()
        if progress is None:
            return await send_files(rpc, object_id, uploads, force=True)
        size = await send_files(rpc, object_id, uploads, force=True, sent=lambda count: progress(advance=count))
        progress(complete=True)
        return size

    @generator_in_caller()
    async def iterdir(self, path: str) -> AsyncGenerator[FileEntry, None]:
        """Iterate over entries, with `for` or `async for`.

        Args:
            path: a directory: its entries, with their names; a file: its own entry; a pattern with `*` or `**`: all
                that it matches, with their paths from the root.

        Raises:
            NotFoundError: there is no such path.
        """
        path = path_text(path)
        listing = Listing(self, path, is_glob="*" in path)
        try:
            while part := await on_loop(listing.next()):
                for one in part:
                    yield _as_listed(FileEntry._of(one), path)
        finally:
            await on_loop(listing.close())

    @in_caller
    async def listdir(self, path: str) -> list[FileEntry]:
        """List entries; argument and errors as of `iterdir`."""
        path = path_text(path)
        found = await on_loop(Listing(self, path, is_glob="*" in path).entries())
        return Entries(_as_listed(entry, path) for entry in found)

    @in_caller
    async def add_local_file(
        self,
        local_path: Union[Path, str],
        remote_path: Optional[Union[str, PurePosixPath]] = None,
        progress_cb: Optional[Progress] = None,
    ) -> None:
        """Copy a local file into it.

        Args:
            local_path: the local file.
            remote_path: its path; one that ends with a slash is the directory to put it in; default: the root.
            progress_cb: as of `write_file`.

        Raises:
            InvalidError: the local file does not exist.
        """
        remote = "/" if remote_path is None else path_text(remote_path)
        if remote.endswith("/"):
            remote += Path(local_path).name
        file = local_file_of(local_path, remote, "add_local_dir")
        await on_loop(self._send([Upload(file.path, remote, file.mode)], progress_cb))

    @in_caller
    async def add_local_dir(
        self,
        local_path: Union[Path, str],
        remote_path: Optional[Union[str, PurePosixPath]] = None,
        progress_cb: Optional[Progress] = None,
    ) -> None:
        """Copy a local directory into it, with all that is below.

        Args:
            local_path: the local directory.
            remote_path: the directory that corresponds to it; default: one of the same name in the root directory.
            progress_cb: as of `write_file`.

        Raises:
            InvalidError: the local directory does not exist.
        """
        root = local_directory(local_path)
        remote = f"/{root.name}" if remote_path is None else path_text(remote_path)
        await on_loop(self._send(uploads_of(root, remote), progress_cb))


def _as_listed(entry: FileEntry, path: str) -> FileEntry:
    """Entries of a directory go by their names, those of a pattern by their paths."""
    if "*" in path:
        return entry
    base = str(PurePosixPath("/" + path.strip("/"))).strip("/")
    name = entry.path[len(base) :].strip("/") if base and entry.path != base else entry.path
    return FileEntry(name, entry.type, entry.mtime, entry.size)
