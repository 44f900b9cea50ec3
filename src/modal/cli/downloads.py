"""Writes what is downloaded: whole files, several at a time, and nothing through links that a volume has brought."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .. import _sync
from .._objects.file_entries import FilesReading
from .download_plan import Plan
from .errors import CliError
from .request import pull

_Parts = list[tuple[str, bytes]]
_AT_ONCE, _IN_A_REQUEST = 4, 100  #: requests under way, and files of one
_CHARACTERS = 100_000  #: of the paths of one request, about
_ZEROS = bytes(64 * 1024)  #: what becomes a hole


def is_stdout(local: str) -> bool:
    """Whether a path such as /dev/stdout is where stdout goes: a file would be overwritten if it were opened anew."""
    try:
        return os.path.samestat(Path(local).stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def can_link(folder: Path) -> bool:
    """Whether symbolic links can be made in a directory, or in what it will be made in."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    draft = _draft(folder / "link")
    try:
        draft.symlink_to("target")
        return True
    except (OSError, NotImplementedError) as error:
        return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS)  # which will be said
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def write_file(obj: Any, path: str, target: Path, force: bool) -> None:
    """Download a file to a place that the user has named: a link there is the user's own, and is followed.

    What is no regular file there, as a device or a pipe, is written into.

    Raises:
        CliError: a file is there and `force` is not set, or it cannot be written.
    """
    try:
        status = target.stat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise _unwritable(target, error) from None
    if status is not None and not stat.S_ISREG(status.st_mode):
        _write_into(obj, path, target)
        return
    if status is not None and not force:
        raise _is_there(target)
    _make_folder(target.parent)
    _sync.run(_download_all(obj, [(path, Path(os.path.realpath(target)))], force))


def _write_into(obj: Any, path: str, target: Path) -> None:
    try:
        with open(os.open(target, os.O_WRONLY), "wb") as file:
            for _, data in pull(FilesReading(obj, [path])):
                file.write(data)
    except OSError as error:
        raise _unwritable(target, error) from None


def make(obj: Any, plan: Plan, root: Path, force: bool) -> None:
    """Make what is planned below a directory. Links come last, so that nothing is written through one.

    Raises:
        CliError: something is in the way, or cannot be written.
    """
    folders = [root / path for path in sorted(plan.folders)]
    files = [(path, root / place) for path, place in plan.files]
    links = [(root / place, target) for place, target in plan.links]
    for folder in folders:
        _refuse_link(folder)
    for place in [*(place for _, place in files), *(place for place, _ in links)]:
        _refuse_existing(place, force)
    for folder in [root, *folders]:
        _make_folder(folder)
    _sync.run(_download_all(obj, files, force))
    for place, target in links:
        with _replacing(place, force) as draft:
            draft.symlink_to(target)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"The local directory {str(folder)!r} cannot be made: {error.strerror}.") from None


def _refuse_link(folder: Path) -> None:
    """Raise CliError when a link, perhaps of an earlier download, is where a directory is to be made."""
    try:
        is_link = folder.is_symlink()
    except OSError as error:
        raise _unwritable(folder, error) from None
    if is_link:
        raise CliError(f"{str(folder)!r} is a link, and no files are written through it into a directory.")


def _refuse_existing(place: Path, force: bool) -> None:
    """Raise CliError when something is at a place that is not to be replaced."""
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unwritable(place, error) from None
    if stat.S_ISDIR(mode):
        raise CliError(f"{str(place)!r} is a directory, and is not replaced by a file.")
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise CliError(f"{str(place)!r} is no regular file, and is written into only when it is the destination.")
    if not force:
        raise _is_there(place)


def _is_there(place: Path) -> CliError:
    return CliError(f"{str(place)!r} is there already; overwrite it with --force.")


def _unwritable(place: Path, error: OSError) -> CliError:
    return CliError(f"{str(place)!r} cannot be written: {error.strerror}.")


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
    with _replacing(place, force) as draft, _opened(draft, place) as file:
        _write(file, parts[0][1])
        while (parts := await reading.next()) and not parts[0][0]:
            _write(file, parts[0][1])
        file.truncate()  # the end may be a hole
    return parts


@contextlib.contextmanager
def _replacing(place: Path, force: bool) -> Iterator[Path]:
    """A path for what takes the place of `place`, whole, when the block ends well."""
    draft = _draft(place)
    try:
        yield draft
        _refuse_existing(place, force)  # it may have come meanwhile
        draft.replace(place)
    except OSError as error:
        raise _unwritable(place, error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _draft(place: Path) -> Path:
    return place.with_name(f".modal-{os.urandom(8).hex()}")  # not of the file's name, which may be as long as can be


def _opened(draft: Path, place: Path) -> BinaryIO:
    """A new file, with the owner and permissions of the one whose place it will take."""
    there = place.lstat() if place.is_file() and not place.is_symlink() else None
    mode = 0o666 if there is None else stat.S_IMODE(there.st_mode) & 0o777
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    if there is not None:
        with contextlib.suppress(OSError):  # others than root own what they make
            os.fchown(descriptor, there.st_uid, there.st_gid)
        os.fchmod(descriptor, mode)
    return open(descriptor, "wb")


def _write(file: BinaryIO, data: bytes) -> None:
    """Write `data`, with holes in place of blocks of zeros."""
    begin = 0  # of what is not written yet
    for block in range(0, len(data), len(_ZEROS)):
        if data.startswith(_ZEROS, block):
            file.write(data[begin:block])
            begin = block + len(_ZEROS)
            file.seek(len(_ZEROS), os.SEEK_CUR)
    file.write(data[begin:])
