"""RPC: the files of volumes and network file systems, for whoever has them not mounted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from intermodal.control.named_service import PREFIXES, NamedService, word_of
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.model.errors import DiskFull, RuntimeFailure
from intermodal.threads import in_thread
from intermodal.volumes.conflicts import Exists
from intermodal.volumes.files import Found, Tree, shown
from modal._wire.messages.common import Empty
from modal._wire.messages.files import (
    FILE_REMOVE,
    FILES_AT_ONCE,
    FILES_COPY,
    FILES_LIST,
    FILES_PUT,
    FILES_READ,
    FileInfo,
    FileKind,
    FilePart,
    FileRemove,
    FilesCopy,
    FilesList,
    FilesListed,
    FilesPut,
    FilesPutDone,
    FilesRead,
)
from modal._wire.messages.named import ObjectKind
from modal.exception import InvalidError, NotFoundError

CHUNK = 1024 * 1024  #: bytes sent at a time
_PART_COST = 1024  # bytes that a small file costs, as it were
_ENTRIES, _CHARACTERS = 1_000, 100_000  # in one part of a listing; a character takes up to six bytes there


class Space(Protocol):
    """Where the files of one kind of object are. Its context managers block."""

    @property
    def drafts(self) -> Path | None:
        """Where files are until they are whole; None: beside what they replace, as nobody sees them there."""

    def reading(self, object_id: str) -> AbstractContextManager[Path]:
        """The files, to be read."""

    def writing(self, object_id: str, only_new: bool) -> AbstractContextManager[Path]:
        """The files, to be changed; an exception in the block undoes what the kind of object can undo.

        With `only_new`, of an object that can: the end raises `Exists` rather than replace what others made meanwhile.
        """


class FileService:
    """Lists, reads and changes files.

    Args:
        spaces: by kind of object.
        owner: who owns what is made: the user that is root in containers.
    """

    def __init__(self, named: NamedService, spaces: dict[ObjectKind, Space], owner: int) -> None:
        self._named = named
        self._owner = owner
        self._spaces = spaces

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(FILES_LIST, self.list)
        dispatcher.register(FILES_READ, self.read)
        dispatcher.register(FILES_PUT, self.put)
        dispatcher.register(FILE_REMOVE, self.remove)
        dispatcher.register(FILES_COPY, self.copy)

    # -- requests ----------------------------------------------------------------------------------------------

    async def list(self, ctx: Context, request: FilesList, body: bytes, stream: ServerStream[Any, Any]) -> None:
        async with self._tree(ctx, request.object_id) as tree:
            found = tree.match(request.path) if request.is_glob else tree.entries(request.path, request.recursive)
            while part := await _do(_take, found):
                await stream.send(FilesListed(part))

    async def read(self, ctx: Context, request: FilesRead, body: bytes, stream: ServerStream[Any, Any]) -> None:
        async with self._tree(ctx, request.object_id) as tree:
            if len(request.paths) > FILES_AT_ONCE:
                raise InvalidError(f"At most {FILES_AT_ONCE} files are read at once, not {len(request.paths)}.")
            with contextlib.closing(_parts(tree, request.paths)) as parts:
                while some := await _do(_take_bytes, parts):
                    for part, data in some:
                        await stream.send(part, data)

    async def put(self, ctx: Context, request: FilesPut, body: bytes, stream: ServerStream[Any, Any]) -> FilesPutDone:
        try:
            async with self._tree(ctx, request.object_id, writing=True, only_new=not request.force) as tree:
                await _Writer(tree, request.force).write(stream)
        except Exists as error:
            return FilesPutDone(existing=str(error))
        return FilesPutDone()

    async def remove(self, ctx: Context, request: FileRemove, body: bytes) -> Empty:
        async with self._tree(ctx, request.object_id, writing=True) as tree:
            await _do(tree.remove, request.path, request.recursive)
        return Empty()

    async def copy(self, ctx: Context, request: FilesCopy, body: bytes) -> Empty:
        async with self._tree(ctx, request.object_id, writing=True) as tree:
            if not request.sources:
                raise InvalidError("There is nothing to copy: give one source or more.")
            await _do(tree.copy, request.sources, request.target)
        return Empty()

    @contextlib.asynccontextmanager
    async def _tree(
        self, ctx: Context, object_id: str, *, writing: bool = False, only_new: bool = False
    ) -> AsyncIterator[Tree]:
        """The files of an object; changes are committed when the block ends well."""
        space, name = self._space(ctx, object_id)
        entering = space.writing(object_id, only_new) if writing else space.reading(object_id)
        async with _entered(entering) as root:
            with await _do(Tree, root, self._owner, name, space.drafts) as tree:
                yield tree

    def _space(self, ctx: Context, object_id: str) -> tuple[Space, str]:
        """Where the files of an object are, and what messages call it."""
        for kind, space in self._spaces.items():
            if object_id.startswith(f"{PREFIXES[kind]}-"):
                record = self._named.require_object(ctx, kind, object_id)
                return space, f"the {word_of(kind)} {record.name or object_id!r}"
        raise NotFoundError(f"{object_id[:60]!r} is no volume and no network file system.")


class _Writer:
    """Writes the files of a stream, one after the other."""

    def __init__(self, tree: Tree, force: bool) -> None:
        self._tree = tree
        self._force = force
        self._file: AbstractContextManager[int] | None = None
        self._descriptor = -1

    async def write(self, stream: ServerStream[Any, Any]) -> None:
        try:
            async for part, data in stream:
                if part.path:
                    await self._begin(part)
                elif self._file is None:
                    raise InvalidError("Bytes of a file came before its path.")
                if data:
                    await _do(_write_all, self._descriptor, data)
            await self._end()
        except BaseException as error:
            if self._file is not None:
                file, self._file = self._file, None
                file.__exit__(type(error), error, error.__traceback__)
            raise

    async def _begin(self, part: FilePart) -> None:
        await self._end()
        if part.is_folder:
            await _do(self._tree.make_folder, part.path)
            return
        if not self._force:
            there = await _do(self._tree.find, part.path)
            if there is not None and there.kind != "directory":
                raise Exists(part.path)
        file = self._tree.replacing(part.path, part.mode & 0o7777)
        self._descriptor = await _do(file.__enter__)
        self._file = file

    async def _end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            await _do(file.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def _entered(space: AbstractContextManager[Path]) -> Any:
    """Enter and leave in a thread; also when the request is cancelled meanwhile, else a mount would stay."""
    roots: list[Path] = []
    try:
        await _do(lambda: roots.append(space.__enter__()))
        yield roots[0]
    except BaseException as error:
        if not roots or not await _do(space.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await _do(space.__exit__, None, None, None)


async def _do(work: Any, *args: Any) -> Any:
    """Do blocking work in a thread; the machine's failures become typed errors."""
    try:
        return await in_thread(work, *args)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise DiskFull(f"The disk of volumes is full: {error.strerror}.") from error
        raise RuntimeFailure(f"The files cannot be used: {error}.") from error


def _parts(tree: Tree, paths: list[str]) -> Generator[tuple[FilePart, bytes], None, None]:
    for path in paths:
        descriptor = tree.open(path)
        try:
            part = FilePart(path)
            while (data := os.read(descriptor, CHUNK)) or part.path:
                yield part, data
                part = FilePart()
        finally:
            os.close(descriptor)


def _take_bytes(parts: Iterator[tuple[FilePart, bytes]]) -> list[tuple[FilePart, bytes]]:
    """Parts of some 1 MiB together: small files cost a step in a thread together."""
    taken, size = [], 0
    for part, data in parts:
        taken.append((part, data))
        size += len(data) + _PART_COST
        if size >= CHUNK:
            break
    return taken


def _take(found: Iterator[Found]) -> list[FileInfo]:
    part: list[FileInfo] = []
    characters = 0
    for entry in found:
        leads_to = None if entry.leads_to is None else FileKind(entry.leads_to)
        kind, target = FileKind(entry.kind), shown(entry.target)
        part.append(FileInfo(shown(entry.path), kind, entry.size, entry.mtime, target, leads_to))
        characters += len(part[-1].path) + len(target)
        if len(part) == _ENTRIES or characters > _CHARACTERS:
            break
    return part


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
