"""What the groups `volume` and `nfs` share: listing files and getting them."""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable

import click

from .. import _sync
from .._objects.file_entries import FileEntry, FileEntryType, FilesReading, Listing
from ..exception import NotFoundError
from .errors import CliError
from .tables import print_table, utc_time

_Parts = list[tuple[str, bytes]]
_AT_ONCE, _IN_A_REQUEST = 4, 100  #: requests under way, and files of one
_CHARACTERS = 100_000  #: of the paths of one request, about
_ZEROS = bytes(64 * 1024)  #: what becomes a hole
_KINDS = {
    FileEntryType.FILE: "file",
    FileEntryType.DIRECTORY: "dir",
    FileEntryType.SYMLINK: "link",
    FileEntryType.FIFO: "fifo",
    FileEntryType.SOCKET: "socket",
    FileEntryType.DEVICE: "device",
}


def show_files(obj: Any, path: str, as_json: bool) -> None:
    """List the entries of a directory, or what a pattern with `*` matches."""
    found = _sync.run(_find(obj, path))
    rows = [
        [one.path, _KINDS[one.type], utc_time(one.mtime), str(one.size) if as_json else _size(one)]
        for one in found.entries
    ]
    print_table(["Filename", "Type", "Modified", "Size"], rows, as_json)


def get_files(obj: Any, remote: str, local: str, force: bool) -> None:
    """Download a file, a directory, or what a pattern with `*` matches; `-` writes a file to stdout.

    Raises:
        CliError: a local file is in the way, or the pattern matches nothing.
        NotFoundError: there is no such path.
    """
    found = _sync.run(_find(obj, remote, recursive=True))
    if local == "-":
        _to_stdout(obj, remote, found)
        return
    target = Path(local)
    if not found.is_pattern and (target.is_dir() or local.endswith("/")):
        target = target / posixpath.basename(found.base)
    folders = {} if found.is_file else {target: True}  # a dict keeps their order
    files: list[tuple[str, Path]] = []
    for entry in found.entries:
        place = target if found.is_file else target / posixpath.relpath(f"/{entry.path}", f"/{found.base}")
        if entry.type is FileEntryType.DIRECTORY:
            folders[place] = True
        elif entry.type is FileEntryType.FILE:
            folders[place.parent] = True
            files.append((entry.path, place))
        else:
            click.echo(f"Left out {entry.path!r}, which is a {_KINDS[entry.type]}.", err=True)
    if not force:
        for _, place in files:
            _refuse_existing(place)
    for folder in folders:
        _make_folder(folder)
    _sync.run(_download_all(obj, files, force))
    click.echo(f"Wrote {len(files)} {'file' if len(files) == 1 else 'files'} to {target}.", err=True)


@dataclass(frozen=True)
class _Found:
    """What a path stands for: a directory's entries, or one file, or what a pattern matches."""

    entries: list[FileEntry]
    base: str  #: the path of the directory or file; of a pattern: its leading directories without wildcards
    is_pattern: bool = False

    @property
    def is_file(self) -> bool:
        return len(self.entries) == 1 and self.entries[0].path == self.base


async def _find(obj: Any, path: str, recursive: bool = False) -> _Found:
    """Look up a path; only if there is none it is a pattern, since names may have `*` in them.

    Args:
        recursive: with all that is in the directory, or in directories that the pattern matches.

    Raises:
        NotFoundError: there is no such path, and it is no pattern.
        CliError: the pattern matches nothing.
    """
    clean = posixpath.normpath(f"/{path}").strip("/")
    try:
        return _Found(await Listing(obj, path, recursive=recursive).entries(), clean)
    except NotFoundError:
        if "*" not in path:
            raise
    base = posixpath.dirname(re.split(r"[*?\[]", clean, maxsplit=1)[0])
    pattern = f"{clean}/**" if recursive else clean
    found = [one for one in await Listing(obj, pattern, is_glob=True).entries() if one.path != base]
    if not found:
        raise CliError(f"Nothing matches the pattern {path!r}; `ls` without a pattern shows what is there.")
    return _Found(found, base, is_pattern=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"The local directory {str(folder)!r} cannot be made: {error.strerror}.") from None


def _refuse_existing(place: Path) -> None:
    if os.path.lexists(place):
        raise CliError(f"{str(place)!r} is there already; overwrite it with --force.")


async def _download_all(obj: Any, files: list[tuple[str, Path]], force: bool) -> None:
    """Download files, some at a time. The first error ends it, and is raised once the other downloads have ended."""
    left = _batches(files)

    async def work() -> None:
        for some in left:
            await _download(obj, some, force)

    workers = [asyncio.ensure_future(work()) for _ in range(_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _batches(files: list[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    """The files of one request each: their paths have to fit in it."""
    batch: list[tuple[str, Path]] = []
    characters = 0
    for file in files:
        batch.append(file)
        characters += len(file[0])
        if len(batch) == _IN_A_REQUEST or characters > _CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


async def _download(obj: Any, files: list[tuple[str, Path]], force: bool) -> None:
    reading = FilesReading(obj, [path for path, _ in files])
    try:
        parts = await reading.next()
        for _, place in files:
            parts = await _download_one(reading, parts, place, force)
    finally:
        await reading.close()


async def _download_one(reading: FilesReading, parts: _Parts, place: Path, force: bool) -> _Parts:
    """Write the file that begins with `parts`; returns what the next one begins with."""
    draft = place.with_name(f".modal-{os.urandom(8).hex()}")  # not of the file's name, which may be as long as can be
    try:
        with draft.open("xb") as file:
            _write(file, parts[0][1])
            while (parts := await reading.next()) and not parts[0][0]:
                _write(file, parts[0][1])
            file.truncate()  # the end may be a hole
        if not force:
            _refuse_existing(place)  # it may have come meanwhile
        draft.replace(place)
    except OSError as error:
        raise CliError(f"{str(place)!r} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
    return parts


def _write(file: BinaryIO, data: bytes) -> None:
    """Write `data`, with holes in place of blocks of zeros."""
    begin = 0  # of what is not written yet
    for block in range(0, len(data), len(_ZEROS)):
        if data.startswith(_ZEROS, block):
            file.write(data[begin:block])
            begin = block + len(_ZEROS)
            file.seek(len(_ZEROS), os.SEEK_CUR)
    file.write(data[begin:])


def _to_stdout(obj: Any, remote: str, found: _Found) -> None:
    if not found.is_file:
        raise CliError(f"{remote!r} is not one file; only one file can be written to stdout.")
    _sync.run(_copy(obj, found.base, sys.stdout.buffer.write))
    sys.stdout.buffer.flush()


async def _copy(obj: Any, path: str, write: Callable[[bytes], object]) -> None:
    reading = FilesReading(obj, [path])
    try:
        while parts := await reading.next():
            write(parts[0][1])
    finally:
        await reading.close()


def _size(entry: FileEntry) -> str:
    if entry.type is not FileEntryType.FILE:
        return ""
    size = float(entry.size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
