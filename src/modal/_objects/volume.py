"""`modal.Volume`: a file system that functions share and that keeps its content, in versions."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Optional, Union

from .. import _sync
from .._local_files import local_directory
from .._renamed import renamed_parameter
from .._sync import BlockingContext, blocking, generator_in_caller, in_caller, on_loop
from .._wire.messages.named import ObjectKind
from ..exception import InvalidError
from .file_entries import FileEntry, Listing, WithFiles, path_text
from .file_uploads import Upload, local_file_of, send_files, uploads_of

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .client import Client


class Volume(WithFiles):
    """A file system that functions share and that keeps its content.

    What a container writes is seen by others once it is committed, with `commit`, by itself every few seconds, and when
    the container ends. A container sees what others have committed after `reload`, or when it starts. The last commit
    of a file wins.

    volume = modal.Volume.from_name("my-volume", create_if_missing=True)

    @app.function(volumes={"/data": volume})
    def write():
        Path("/data/hello.txt").write_text("hello")
        volume.commit()
    """

    _kind = ObjectKind.VOLUME

    @staticmethod
    @renamed_parameter("label", "name")
    def from_name(
        name: str,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        version: Optional[int] = None,
    ) -> Volume:
        """Refer to a volume by its name; it is looked up when it is first used.

        Args:
            name: its name.
            namespace: no effect.
            environment_name: the environment; default: that of the configuration.
            create_if_missing: make it when there is none.
            version: no effect: there is one kind of volume.
        """
        return Volume._named(name, environment_name, create_if_missing)

    @classmethod
    def ephemeral(
        cls,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        version: Optional[int] = None,
        _heartbeat_sleep: float = 300.0,
    ) -> BlockingContext[Volume]:
        """Make a volume that lives as long as the context, for `with` and `async with`.

        Args:
            client: the connection to use; default: that of the configuration.
            environment_name: the environment; default: that of the configuration.
            version: no effect.
            _heartbeat_sleep: no effect: the connection itself tells that this client is alive.
        """
        return BlockingContext(Volume._ephemeral(client, environment_name))

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def lookup(
        name: str,
        namespace: Any = None,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        version: Optional[int] = None,
    ) -> Volume:
        """Find a volume by its name, now. Arguments as of `from_name`.

        Raises:
            NotFoundError: there is none.
        """
        return await Volume._lookup(Volume.from_name(name, None, environment_name, create_if_missing), client)

    # -- where it is mounted

    def read_only(self) -> Volume:
        """The same volume, for a function that only reads it: there, writing to its files raises an `OSError` (EROFS).

        @app.function(volumes={"/models": volume.read_only()})
        def infer(): ...
        """
        same = type(self)._new(self._what)
        same.__dict__.update(self.__dict__, _is_read_only=True)
        return same

    @in_caller
    async def commit(self) -> None:
        """Make what this container has written durable and visible to others; in a container that has it mounted.

        Raises:
            InvalidError: it is not mounted here.
        """
        from .._wire.messages.files import VOLUME_COMMIT, VolumeRef

        async def commit() -> None:
            rpc, volume_id = await self._bind()
            await rpc.unary(VOLUME_COMMIT, VolumeRef(volume_id))

        await on_loop(commit())

    @in_caller
    async def reload(self) -> None:
        """See what others have committed; in a container that has it mounted. What it has written is committed first.

        Raises:
            RuntimeError: files of the volume are open; the message names them.
            InvalidError: it is not mounted here.
        """
        from .._wire.messages.files import VOLUME_RELOAD, VolumeRef

        async def reload() -> list[str]:
            rpc, volume_id = await self._bind()
            reply, _ = await rpc.unary(VOLUME_RELOAD, VolumeRef(volume_id))
            return reply.open_files

        if open_files := await on_loop(reload()):
            names = ", ".join(open_files[:10]) + (" and more" if len(open_files) > 10 else "")
            raise RuntimeError(f"The volume cannot be reloaded while files of it are open: {names}. Close them first.")

    # -- from anywhere

    @generator_in_caller()
    async def iterdir(self, path: str, *, recursive: bool = True) -> AsyncGenerator[FileEntry, None]:
        """Iterate over the committed entries of a directory, with `for` or `async for`; of a file: its own entry.

        Args:
            path: from the root of the volume.
            recursive: with all that is below.

        Raises:
            NotFoundError: there is no such path.
        """
        listing = Listing(self, path_text(path), recursive=recursive)
        try:
            while part := await on_loop(listing.next()):
                for one in part:
                    yield FileEntry._of(one)
        finally:
            await on_loop(listing.close())

    @in_caller
    async def listdir(self, path: str, *, recursive: bool = False) -> list[FileEntry]:
        """List the committed entries of a directory; of a file: its own entry. Arguments and errors as of `iterdir`."""
        return await on_loop(Listing(self, path_text(path), recursive=recursive).entries())

    @in_caller
    async def copy_files(self, src_paths: Sequence[str], dst_path: str) -> None:
        """Copy files within the volume as `cp -r` does.

        Args:
            src_paths: files and directories, from the root of the volume.
            dst_path: a directory to copy into, or for a single source its new path.

        Raises:
            NotFoundError: there is no such source, or no directory for the target.
            InvalidError: several sources and a target that is no directory, or a copy into itself.
        """
        from .._wire.messages.files import FILES_COPY, FilesCopy

        if isinstance(src_paths, str) or not isinstance(src_paths, Sequence):
            raise InvalidError("Volume.copy_files takes a list of paths as src_paths.")
        sources, target = [path_text(path) for path in src_paths], path_text(dst_path)

        async def copy() -> None:
            rpc, volume_id = await self._bind()
            await rpc.unary(FILES_COPY, FilesCopy(volume_id, sources, target))

        await on_loop(copy())

    def batch_upload(self, force: bool = False) -> VolumeUpload:
        """Upload files and directories, which are committed together when the `with` block ends.

        Args:
            force: replace files that are there; of two files at one path the later wins. A directory is never replaced
                by a file.

        with volume.batch_upload() as batch:
            batch.put_file("local.txt", "/remote.txt")
            batch.put_directory("/local/directory", "/remote/directory")
            batch.put_file(io.BytesIO(b"data"), "/data.bin")
        """
        return VolumeUpload(self, bool(force))

    @staticmethod
    @blocking
    @renamed_parameter("label", "name")
    async def delete(name: str, client: Optional[Client] = None, environment_name: Optional[str] = None) -> None:
        """Delete a volume. Containers that have it mounted keep what they see until they end; they can commit no more.

        Raises:
            NotFoundError: there is none of this name.
        """
        await Volume._delete(name, client, environment_name)

    @staticmethod
    @blocking
    async def rename(
        old_name: str, new_name: str, *, client: Optional[Client] = None, environment_name: Optional[str] = None
    ) -> None:
        """Give a volume another name.

        Raises:
            NotFoundError: there is none of this name.
            InvalidError: the new name is taken, or is none.
        """
        await Volume._rename(old_name, new_name, client, environment_name)


class VolumeUpload:
    """What `Volume.batch_upload` gives: collects files, and sends them when its context ends well."""

    def __init__(self, volume: Volume, force: bool) -> None:
        self._volume = volume
        self._force = force
        self._uploads: list[Upload] = []
        self._places: set[str] = set()

    def put_file(
        self,
        local_file: Union[Path, str, BinaryIO],
        remote_path: Union[PurePosixPath, str],
        mode: Optional[int] = None,
    ) -> None:
        """Add a file.

        Args:
            local_file: its path, or an open binary file.
            remote_path: its path in the volume; one that ends with a slash is the directory to put it in.
            mode: permission bits; default: readable by all, executable if the local file is.

        Raises:
            InvalidError: the local file does not exist, the path is not possible, or the upload has it already and is
                not to replace files.
        """
        remote = _remote(remote_path, is_folder=str(remote_path).endswith("/"))
        if mode is not None and not (isinstance(mode, int) and 0 <= mode <= 0o7777):
            raise InvalidError(f"mode must be permission bits such as 0o644, not {mode!r}.")
        if hasattr(local_file, "read"):
            if remote.endswith("/"):
                raise InvalidError(f"A file object needs the path of a file, not of a directory: {remote!r}.")
            opened: Any = local_file
            self._add([Upload(opened, remote, 0o644 if mode is None else mode)])
            return
        if remote.endswith("/"):
            remote += Path(str(local_file)).name
        path: Any = local_file
        file = local_file_of(path, remote, "put_directory")
        self._add([Upload(file.path, remote, file.mode if mode is None else mode)])

    def put_directory(
        self, local_path: Union[Path, str], remote_path: Union[PurePosixPath, str], recursive: bool = True
    ) -> None:
        """Add the files of a directory.

        Args:
            local_path: the local directory.
            remote_path: the directory in the volume that corresponds to it.
            recursive: with all that is below.

        Raises:
            InvalidError: the local directory does not exist, a file in it cannot be read, or the upload has a path
                already and is not to replace files.
        """
        root, remote = local_directory(local_path, "put_file"), _remote(remote_path, is_folder=True)
        self._add(uploads_of(root, remote, recursive=recursive))

    def _add(self, uploads: list[Upload]) -> None:
        for upload in uploads:
            if upload.source is not None:
                place = posixpath.normpath(f"/{upload.path.lstrip('/')}")
                if place in self._places and not self._force:
                    raise InvalidError(f"{place!r} is in this upload twice; with force=True the later file wins.")
                self._places.add(place)
        self._uploads += uploads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, cls: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if cls is None and self._uploads:
            _sync.run(self._send())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, cls: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if cls is None and self._uploads:
            await _sync.run_async(self._send())

    async def _send(self) -> None:
        rpc, volume_id = await self._volume._bind()
        await send_files(rpc, volume_id, self._uploads, force=self._force)


def _remote(path: Union[PurePosixPath, str], *, is_folder: bool = False) -> str:
    text = path_text(path)
    if ".." in text.split("/") or "\0" in text or not (text.strip("/") or is_folder):
        raise InvalidError(f"{text!r} is not possible as the path of a file in a volume.")
    return text
