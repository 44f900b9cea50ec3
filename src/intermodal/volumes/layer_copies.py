"""Copies of what is in layers, as other layers need it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from intermodal.overlay.marks import OPAQUE, ORIGIN, WHITEOUT
from intermodal.volumes.changes import Change, opened
from intermodal.volumes.durable import ONE_BY_ONE, sync_file_system

_COPY = 64 * 1024 * 1024  # bytes the kernel copies at a time


def copy_changes(source: Path, target: Path, found: Sequence[Change], gone: Sequence[str], opaque: set[str]) -> None:
    """Make a layer of some changes of a writable directory, with whiteouts for what is gone. Raises OSError.

    The source may be changed meanwhile by whoever has it mounted: links in it are not followed, and what is not what it
    was when it was looked at is left out.

    Args:
        target: the new layer's root; made.
        found: what to copy, parents first. Parents that are not among them are made like the originals.
        gone: what the new layer deletes from those below.
        opaque: the directories in it that hide what is below.
    """
    target.mkdir()
    take_over(source, target, source.lstat())
    # Once a file is on disk, the next write through a mapping of it is a fault, which changes its time.
    in_turn = len(found) <= ONE_BY_ONE
    if not in_turn:
        sync_file_system(source)
    root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for change in found:
            if not _has_parents(root, target, change.path):
                continue
            if change.below is not None:
                link(change, target / change.path)
                continue
            _copy_from(root, target, change.path, sync=in_turn)
            if change.path in opaque and _is_directory(target / change.path):
                os.setxattr(target / change.path, OPAQUE, b"y")
            if change.is_whiteout:
                _may_have_whiteouts((target / change.path).parent)
        for path in sorted(gone):
            # Else it went with its directory.
            if _has_parents(root, target, path) and not os.path.lexists(target / path):
                os.mknod(target / path, stat.S_IFCHR | 0o600, WHITEOUT)
                _may_have_whiteouts((target / path).parent)
    finally:
        os.close(root)


def _may_have_whiteouts(folder: Path) -> None:
    """Else the kernel lists them as entries, where there is no such directory in the layers below."""
    os.setxattr(folder, ORIGIN, b"")


def link(change: Change, target: Path) -> None:
    """Show at `target` what a layer has elsewhere: a directory by a new one, anything else by a further name."""
    assert change.below is not None
    if not change.is_directory:
        os.link(change.below, target, follow_symlinks=False)
        return
    target.mkdir()
    take_over(change.below, target, change.status)


def _has_parents(root: int, target: Path, path: str) -> bool:
    """Make the parents of a path in `target` like those in the source; False if it cannot have them."""
    folder = ""
    for name in path.split("/")[:-1]:
        folder = f"{folder}/{name}" if folder else name
        if not os.path.lexists(target / folder):
            _copy_from(root, target, folder, sync=False)
        if not _is_directory(target / folder):
            return False
    return True


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _copy_from(root: int, target: Path, path: str, *, sync: bool) -> None:
    folder, _, name = path.rpartition("/")
    with opened(root, folder) as descriptor:
        if descriptor is not None:
            _copy(Path(f"/proc/self/fd/{descriptor}") / name, target / path, sync=sync)


def _copy(source: Path, target: Path, *, sync: bool) -> None:
    """Copy one entry; a directory without what is in it. What is deleted or replaced meanwhile is left out."""
    try:
        status = source.lstat()
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            target.mkdir(exist_ok=True)
        elif stat.S_ISLNK(mode):
            target.symlink_to(source.readlink())
        elif stat.S_ISREG(mode):
            reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(reading)
                if not stat.S_ISREG(status.st_mode):
                    return
                if sync:
                    os.fsync(reading)
                copy_file(reading, target)
            finally:
                os.close(reading)
        elif stat.S_ISSOCK(mode):
            return  # nobody listens at a copy
        else:
            os.mknod(target, mode, status.st_rdev)
        take_over(source, target, status)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
            raise


def copy_file(reading: int, target: Path) -> None:
    """Copy the data of a regular file: shared blocks where the file system can, holes as holes. Raises OSError."""
    writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(reading).st_size
        position = 0
        while position < size:
            try:
                position = os.lseek(reading, position, os.SEEK_DATA)
                end = min(size, os.lseek(reading, position, os.SEEK_HOLE))
            except OSError:  # ENXIO: a hole until the end, or it became shorter
                break
            while position < end:
                copied = os.copy_file_range(reading, writing, min(_COPY, end - position), position, position)
                if not copied:  # it became shorter while it was read
                    end = position
                position += copied
        os.ftruncate(writing, size)
    finally:
        os.close(writing)


def take_over(source: Path, target: Path, status: os.stat_result) -> None:
    """Give the target the owner, mode and times of `status`, and the user's attributes of the source."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        target.chmod(stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if name.startswith("user."):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


__all__ = ["copy_changes", "link", "take_over"]
