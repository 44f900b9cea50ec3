"""What the writable directory of an overlay changes, without the marks that only make sense over the layers it has.

A directory that was renamed is in an overlay's writable directory without its content, with a mark that says where the
layers below have that. As a layer over anything else the mark would lead to what others made of the old name. So here
such a directory has its content, from those layers.

A container may change the directory meanwhile: it is read without following links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from intermodal.overlay.layers import Layers
from intermodal.overlay.marks import REDIRECT, is_opaque, is_whiteout
from intermodal.runtimes.syscalls import open_in_root
from intermodal.volumes.entries import PATH_LIMIT

#: What the system says of a path that is not what it was a moment ago.
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


class PathTooLong(OSError):
    """A path is longer than paths of volumes can be."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENAMETOOLONG, f"a path has more than {PATH_LIMIT:,} bytes", path[:100])
        self.path = path


@dataclass(frozen=True)
class Change:
    """One entry of a writable directory, or of what a renamed directory has brought along."""

    path: str
    status: os.stat_result
    below: Path | None = None  #: where it is in a layer below, if it is not in the writable directory
    opaque: bool = False  #: a directory that has nothing of what is below its path

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_whiteout(self) -> bool:
        return is_whiteout(self.status)


def changes(upper: Path, below: Layers) -> Iterator[Change]:
    """Everything that `upper`, mounted over `below`, changes there; parents first.

    Raises:
        PathTooLong: a path has more than `PATH_LIMIT` bytes.
        OSError: the disk failed.
    """
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A directory; whether it is in `upper`; and where its further content is below, if it has been renamed.
        folders: list[tuple[str, bool, str | None]] = [("", True, None)]
        while folders:
            path, is_above, source = folders.pop()
            found, origins = _changes_in(root, path, is_above, source, below)
            for change in found:
                if len(os.fsencode(change.path)) > PATH_LIMIT:
                    raise PathTooLong(change.path)
            yield from found
            folders += [
                (change.path, change.below is None, origins.get(change.path))
                for change in reversed(found)
                if change.is_directory
            ]
    finally:
        os.close(root)


def _changes_in(
    root: int, path: str, is_above: bool, source: str | None, below: Layers
) -> tuple[list[Change], dict[str, str]]:
    """What is in a directory, by name; and of the directories in it, where further content of theirs is below."""
    found: dict[str, Change] = {}
    origins: dict[str, str] = {}
    if source is not None:
        for name, entry in below.entries(source).items():
            full = _join(path, name)
            found[full] = Change(full, entry.lstat(), entry)
            origins[full] = _join(source, name)
    here = path if source is None else source
    for change, redirect in _above(root, path) if is_above else ():
        usual = _join(here, change.path.rpartition("/")[2])
        at = usual if redirect is None else _redirected(here, redirect)
        # A rename that failed has left the mark of one to where it is.
        if at != usual and not change.opaque:
            origins[change.path] = at
            change = Change(change.path, change.status, None, True)
        elif change.opaque or not change.is_directory:
            origins.pop(change.path, None)
        found[change.path] = change
    return [found[full] for full in sorted(found)], origins


def _redirected(folder: str, redirect: str) -> str:
    """Where a directory is below whose parent is there at `folder`."""
    return redirect[1:] if redirect.startswith("/") else _join(folder, redirect)


def _above(root: int, path: str) -> Iterator[tuple[Change, str | None]]:
    """The entries of a directory of the writable one; and of those which were renamed, where they are below."""
    with opened(root, path) as folder:
        if folder is None:
            return
        for name in os.listdir(folder):  # noqa: PTH208 - it is a descriptor
            full = _join(path, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                opaque, redirect = False, None
                if stat.S_ISDIR(status.st_mode):
                    here = f"/proc/self/fd/{folder}/{name}"
                    opaque = is_opaque(here)
                    redirect = _mark(here, REDIRECT)
                yield Change(full, status, None, opaque), redirect


@contextlib.contextmanager
def opened(root: int, path: str) -> Iterator[int | None]:
    """A descriptor of a directory, reached without following links; None if there is no such directory any more."""
    try:
        folder = open_in_root(root, path or ".", os.O_RDONLY | os.O_DIRECTORY, links=False)
    except OSError as error:
        if error.errno not in _CHANGED:
            raise
        yield None
        return
    try:
        yield folder
    finally:
        os.close(folder)


def _mark(path: str, name: str) -> str | None:
    try:
        return os.fsdecode(os.getxattr(path, name, follow_symlinks=False))
    except OSError:
        return None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


__all__ = ["Change", "PathTooLong", "changes", "opened"]
