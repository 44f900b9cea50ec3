"""Writing files so that a death at any moment leaves the old content or the new, and copying parts of a layer."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from intermodal.volumes.entries import OPAQUE, WHITEOUT

_libc = ctypes.CDLL(None, use_errno=True)
#: More files than this are made durable together with everything else on their file system.
_ONE_BY_ONE = 64
_REDIRECT = "trusted.overlay.redirect"  # where a directory that was renamed has its content
_COPY = 64 * 1024 * 1024  # bytes the kernel copies at a time


def write(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file. Raises OSError, with the old content in place."""
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if sync:
        _sync(path.parent)


def sync_tree(root: Path, files: Sequence[str]) -> None:
    """Make a tree durable, whose regular files these are. Raises OSError."""
    if len(files) > _ONE_BY_ONE:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(descriptor) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"sync {root}: {os.strerror(code)}")
        finally:
            os.close(descriptor)
        return
    for path in files:
        _sync(root / path)
    for folder in {root, *((root / path).parent for path in files)}:
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_entries(source: Path, target: Path, paths: Sequence[str], gone: Sequence[str]) -> None:
    """Make a layer of some entries of another, with whiteouts for what is gone. Raises OSError.

    Args:
        target: the new layer's root; made.
        paths: what to copy, parents first. Parents that are not among them are made like the originals, but without
            the marks of overlayfs: those are in the layer that they were committed with.
        gone: what the new layer deletes from those below.
    """
    target.mkdir()
    _take_over(source, target)
    for path in paths:
        _parents(source, target, path)
        _copy(source / path, target / path)
    for path in sorted(gone):
        try:
            _parents(source, target, path)
            os.mknod(target / path, stat.S_IFCHR | 0o600, WHITEOUT)
        except (FileNotFoundError, FileExistsError, NotADirectoryError):
            continue  # it went with its directory


def _parents(source: Path, target: Path, path: str) -> None:
    folder = ""
    for name in path.split("/")[:-1]:
        folder = f"{folder}/{name}" if folder else name
        if not (target / folder).exists():
            _copy(source / folder, target / folder, marks=False)


def _copy(source: Path, target: Path, *, marks: bool = True) -> None:
    """Copy one entry; a directory without what is in it. What is deleted meanwhile is left out."""
    try:
        status = source.lstat()
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            target.mkdir(exist_ok=True)
        elif stat.S_ISLNK(mode):
            target.symlink_to(source.readlink())
        elif stat.S_ISREG(mode):
            copy_file(source, target)
        elif stat.S_ISSOCK(mode):
            return  # nobody listens at a copy
        else:
            os.mknod(target, mode, status.st_rdev)
        _take_over(source, target, marks=marks)
    except FileNotFoundError:
        return


def copy_file(source: Path, target: Path) -> None:
    """Copy the data of a regular file: shared blocks where the file system can, holes as holes. Raises OSError."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(reading).st_size
        position = 0
        while position < size:
            try:
                position = os.lseek(reading, position, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole until the end
                break
            end = min(size, os.lseek(reading, position, os.SEEK_HOLE))
            while position < end:
                copied = os.copy_file_range(reading, writing, min(_COPY, end - position), position, position)
                if not copied:  # it became shorter while it was read
                    end = position
                position += copied
        os.ftruncate(writing, size)
    finally:
        os.close(reading)
        os.close(writing)


def _take_over(source: Path, target: Path, *, marks: bool = True) -> None:
    """Give the target the owner, mode, times and (with `marks`) overlay marks of the source."""
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        target.chmod(stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        # The origin names the entry below that this one was copied from, by its inode: of no use elsewhere.
        if name.startswith("user.") or (marks and name in (OPAQUE, _REDIRECT)):
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


__all__ = ["copy_entries", "copy_file", "sync_tree", "write"]
