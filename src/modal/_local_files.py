"""Local files that will travel: what they are, where they go, and how directories are walked."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable, Optional, Union

from .exception import InvalidError
from .file_pattern_matcher import _AbstractPatternMatcher

#: A directory with more files or bytes than this is sent, but with a warning: it is rarely what was meant.
MANY_FILES = 20_000
MANY_BYTES = 2 * 1024**3

_PATH_LIMIT = 4095  #: bytes of a path, as Linux allows
_NAME_LIMIT = 255  #: bytes of one part of a path


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine and its place in the container, or relative to the root of a build context."""

    path: Path
    remote_path: str
    mode: int = 0o644  #: permission bits


class RelativePath(type(Path())):  # type: ignore[misc]
    """What an `ignore` callable gets: it compares as the path relative to the directory that is being added, and
    opens, stats and resolves as the file itself, wherever the process is."""

    _absolute: Optional[str] = None

    @classmethod
    def make(cls, relative: str, absolute: str) -> RelativePath:
        path: RelativePath = cls(relative)
        path._absolute = absolute
        return path

    def __fspath__(self) -> str:
        return str(self) if self._absolute is None else self._absolute

    def absolute(self) -> Path:
        return Path(self.__fspath__()).absolute()


def remote_path(value: Union[str, os.PathLike[str]], *, what: str = "remote_path") -> str:
    """Check a path in the container and return it normalised: absolute, no `..`, no trailing slash.

    Raises:
        InvalidError: if the path is relative, climbs out of the root or cannot exist on Linux.
    """
    text = os.fspath(value)
    if not text.startswith("/"):
        raise InvalidError(f"{what} must be an absolute path in the container, not {text!r}.")
    return "/" + _check_parts(text.strip("/"), text, what)


def relative_path(text: str, *, what: str = "path") -> str:
    """Check a path relative to a root and return it normalised. Raises InvalidError as `remote_path` does."""
    if text.startswith("/"):
        raise InvalidError(f"{what} must be a relative path, not {text!r}.")
    return _check_parts(text, text, what)


def _check_parts(path: str, shown: str, what: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise InvalidError(f"{what} {shown!r} is not valid Unicode; rename it.") from None
    if ".." in parts:
        raise InvalidError(f"{what} must not contain '..': {shown!r}.")
    if "\0" in path or any(size > _NAME_LIMIT for size in sizes) or sum(sizes) + len(sizes) > _PATH_LIMIT:
        raise InvalidError(f"{what} is no possible path on Linux (too long, or a zero byte): {shown[:80]!r}.")
    return "/".join(parts)


def local_file(path: Union[str, os.PathLike[str]], remote: str, for_folders: str = "add_local_dir") -> LocalFile:
    """Describe one file. Raises InvalidError if it does not exist or is no regular file.

    Args:
        for_folders: the method to be used for a directory.
    """
    local = Path(path).expanduser()
    try:
        status = local.stat()
    except FileNotFoundError:
        raise InvalidError(f"The local file {str(local)!r} does not exist.") from None
    except OSError as error:
        raise InvalidError(f"The local file {str(local)!r} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        kind = f"a directory; use {for_folders}" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InvalidError(f"{str(local)!r} is {kind}.")
    return LocalFile(local.absolute(), remote, _permissions(status.st_mode))


def local_directory(path: Union[str, os.PathLike[str]], for_files: str = "add_local_file") -> Path:
    """Check that a directory exists and return its absolute path. Raises InvalidError otherwise.

    Args:
        for_files: the method to be used for a file.
    """
    local = Path(path).expanduser().absolute()
    if not local.exists():
        raise InvalidError(f"The local directory {str(local)!r} does not exist.")
    if not local.is_dir():
        raise InvalidError(f"{str(local)!r} is no directory; use {for_files} for a single file.")
    return local


def walk(
    root: Path,
    remote_root: str,
    ignore: Callable[[Path], bool],
    *,
    skip_directory: Callable[[Path], bool] = lambda path: False,
    recursive: bool = True,
) -> Iterator[LocalFile]:
    """Every file below `root` that `ignore` does not claim, in a stable order, with its place below `remote_root`.

    `ignore` gets a `RelativePath`. Symbolic links are followed; one that leads back to a directory that is being walked
    is left out, so a loop ends. Sockets, pipes and devices are left out. `skip_directory` gets the path of a directory
    and says whether to leave it out whole.

    Raises:
        InvalidError: if a file or directory cannot be read.
    """
    prunes = ignore.covers_directory if isinstance(ignore, _AbstractPatternMatcher) else None

    def descend(directory: str, relative: str, above: frozenset[tuple[int, int]]) -> Iterator[LocalFile]:
        try:
            status = Path(directory).stat()
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            raise InvalidError(f"The local directory {directory!r} cannot be read: {error.strerror}.") from None
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        for entry in entries:
            name = f"{relative}{entry.name}"
            if entry.is_dir():
                pruned = prunes is not None and prunes(PurePosixPath(name))
                if recursive and not skip_directory(Path(entry.path)) and not pruned:
                    yield from descend(entry.path, f"{name}/", above | {identity})
            elif entry.is_file() and not ignore(RelativePath.make(name, entry.path)):
                place = relative_path(name, what="The file name")
                mode = _permissions(entry.stat().st_mode)
                yield LocalFile(Path(entry.path), f"{remote_root.rstrip('/')}/{place}" if remote_root else place, mode)

    guard = _SizeGuard(root)
    for file in descend(str(root), "", frozenset()):
        guard.count(file)
        yield file


def directories(root: Path, *, recursive: bool) -> Iterator[str]:
    """Directories below `root`, by their paths relative to it, and itself as "". Links are followed as by `walk`."""

    def descend(directory: str, relative: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        status = Path(directory).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        yield relative.rstrip("/")
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name) if recursive else ():
            if entry.is_dir():
                yield from descend(entry.path, f"{relative}{entry.name}/", above | {identity})

    return descend(str(root), "", frozenset())


class _SizeGuard:
    """Warns once when a directory turns out to be very large."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = 0
        self._bytes = 0
        self._warned = False

    def count(self, file: LocalFile) -> None:
        self._files += 1
        self._bytes += file.path.stat().st_size
        if not self._warned and (self._files > MANY_FILES or self._bytes > MANY_BYTES):
            self._warned = True
            warnings.warn(
                f"{self._root} holds more than {self._files - 1:,} files or {self._bytes / 1024**3:.1f} GiB, and all "
                "of it is being sent; leave out what the container does not need with `ignore=`.",
                UserWarning,
                stacklevel=3,
            )


def _permissions(mode: int) -> int:
    """Readable by everybody, executable if the owner can execute it: a container's user need not be the owner."""
    return 0o755 if mode & stat.S_IXUSR else 0o644
