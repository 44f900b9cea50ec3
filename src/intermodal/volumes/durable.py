"""Writing files so that a death at any moment leaves the old content or the new, and copying parts of a layer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from intermodal.volumes.changes import Change, opened
from intermodal.volumes.entries import OPAQUE, PATH_LIMIT, WHITEOUT

log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
#: More files than this are made durable together with everything else on their file system.
_ONE_BY_ONE = 64
_ORIGIN = "trusted.overlay.origin"  # what a directory was copied from; empty: that is not known
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
        _sync_file_system(root)
        return
    for path in files:
        _sync(root / path)
    for folder in {root, *((root / path).parent for path in files)}:
        _sync(folder)


def _sync_file_system(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"sync {path}: {os.strerror(code)}")
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    in_turn = len(found) <= _ONE_BY_ONE
    if not in_turn:
        _sync_file_system(source)
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
    os.setxattr(folder, _ORIGIN, b"")


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


def remove_tree(path: Path) -> None:
    """Delete a tree, however deep; what cannot be deleted stays, and the log says so."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        subprocess.run(["rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)
    if os.path.lexists(path):
        log.warning("%s could not be deleted", path)


def remove_long(top: Path) -> None:
    """Delete what is below `top` at paths of more than `PATH_LIMIT` bytes, while nobody uses that. Raises OSError."""
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folders = [""]
        while folders:
            path = folders.pop()
            with opened(root, path) as folder:
                here = Path(f"/proc/{os.getpid()}/fd/{folder}")
                for entry in [] if folder is None else list(os.scandir(folder)):
                    full = f"{path}/{entry.name}" if path else entry.name
                    if len(os.fsencode(full)) <= PATH_LIMIT:
                        folders += [full] if entry.is_dir(follow_symlinks=False) else []
                    elif entry.is_dir(follow_symlinks=False):
                        remove_tree(here / entry.name)
                    else:
                        (here / entry.name).unlink()
    finally:
        os.close(root)


__all__ = ["copy_changes", "link", "remove_long", "remove_tree", "sync_tree", "take_over", "write"]
