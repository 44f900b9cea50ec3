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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from intermodal.runtimes.syscalls import open_in_root
from intermodal.volumes.entries import OPAQUE, PATH_LIMIT, WHITEOUT, is_opaque

REDIRECT = "trusted.overlay.redirect"
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
        return stat.S_ISCHR(self.status.st_mode) and self.status.st_rdev == WHITEOUT


class Layers:
    """The merged view of committed layers, topmost first. They have no renamed directories."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._folders: dict[str, list[Path]] = {"": list(layers)}

    def find(self, path: str) -> Path | None:
        """The entry that a path has, whose parents are directories."""
        parent, _, name = path.rpartition("/")
        for folder in self.folders(parent):
            with contextlib.suppress(FileNotFoundError):
                return None if _is_whiteout((folder / name).lstat()) else folder / name
        return None

    def folders(self, path: str) -> list[Path]:
        """The directories that make up one, topmost first; none if it is no directory."""
        if path in self._folders:
            return self._folders[path]
        parent, _, name = path.rpartition("/")
        found: list[Path] = []
        for folder in self.folders(parent):
            one = folder / name
            try:
                mode = one.lstat().st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(mode):
                break
            found.append(one)
            if is_opaque(one):
                break
        self._folders[path] = found
        return found

    def entries(self, path: str) -> dict[str, Path]:
        """What is in a directory, by name."""
        found: dict[str, Path] = {}
        for folder in self.folders(path):
            for entry in folder.iterdir():
                found.setdefault(entry.name, entry)
        return {name: one for name, one in found.items() if not _is_whiteout(one.lstat())}


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
            found: dict[str, Change] = {}
            if source is not None:
                for name, entry in below.entries(source).items():
                    found[name] = Change(_join(path, name), entry.lstat(), entry)
            origins = {name: _join(source or "", name) for name in found}
            if is_above:
                for change, redirect in _above(root, path):
                    name = change.path.rpartition("/")[2]
                    here = path if source is None else source
                    at = _join(here, name) if redirect is None else _redirected(here, redirect)
                    # A rename that failed has left the mark of one to where it is.
                    if at != _join(here, name) and not change.opaque:
                        origins[name] = at
                        change = Change(change.path, change.status, None, True)
                    elif change.opaque or not change.is_directory:
                        origins.pop(name, None)
                    found[name] = change
            ordered = sorted(found)
            for name in ordered:
                if len(os.fsencode(found[name].path)) > PATH_LIMIT:
                    raise PathTooLong(found[name].path)
            yield from (found[name] for name in ordered)
            folders += [
                (found[name].path, found[name].below is None, origins.get(name))
                for name in reversed(ordered)
                if found[name].is_directory
            ]
    finally:
        os.close(root)


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


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == WHITEOUT


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


__all__ = ["OPAQUE", "REDIRECT", "Change", "Layers", "PathTooLong", "changes", "opened"]
