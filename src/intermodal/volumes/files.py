"""Operations on a tree of files that comes from users: links in it lead nowhere but into it.

Every path is resolved below the root as if that were the whole file system, whatever links the tree has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from intermodal.runtimes.syscalls import open_in_root
from intermodal.volumes.durable import remove_tree
from intermodal.volumes.entries import PATH_LIMIT
from intermodal.volumes.globs import Glob
from modal.exception import InvalidError, NotFoundError

_SHOWN_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")
_NAME_LIMIT = 255  # bytes, as Linux has it


@dataclass(frozen=True)
class Found:
    """An entry, by its path from the root without a leading slash."""

    path: str
    kind: str  #: "file", "directory", "link", "fifo", "socket" or "device"
    size: int
    mtime: int  #: seconds since the epoch
    target: str = ""  #: of a link: what it says
    leads_to: str | None = None  #: of a link: the kind of what it leads to; None: nothing in the tree


def shown(path: str) -> str:
    """A path as text: bytes of it that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Tree:
    """The files below a directory of the machine. Raises `NotFoundError` and `InvalidError`, and OSError.

    Use it in a `with` block.

    Args:
        owner: who owns what is made.
        name: what messages call it.
        drafts: a directory on the same file system for files that are not whole yet; without one they are beside what
            they replace.
    """

    def __init__(self, root: Path, owner: int = 0, name: str = "the volume", drafts: Path | None = None) -> None:
        self._owner = owner
        self._name = name
        self._drafts = drafts
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._root)

    # -- reading

    def find(self, path: str) -> Found | None:
        """The entry at a path, a link not followed; None if there is none."""
        path = clean(path)
        with self._parent(path) as (folder, name):
            if folder is None:
                return None
            status = _status(folder, name)
        return None if status is None else _found(path, status)

    def entries(self, path: str, recursive: bool) -> Iterator[Found]:
        """What is in a directory, by name; for anything else its own entry. Raises `NotFoundError`."""
        path = self._named(clean(path))
        top = self._follow(path)
        if top is None:
            link = self.find(path)
            if link is None:
                raise NotFoundError(f"There is no {'/' + path!r} in {self._name}.")
            yield self._with_target(link)  # it leads nowhere
            return
        if not stat.S_ISDIR(top.st_mode):
            yield _found(path, top)
            return
        folders = [path]
        while folders:
            folder = folders.pop()
            below = []
            for name, status in self._entries(folder):
                full = f"{folder}/{name}" if folder else name
                yield self._with_target(_found(full, status))
                if recursive and stat.S_ISDIR(status.st_mode):
                    below.append(full)
            folders += reversed(below)

    def match(self, pattern: str) -> Iterator[Found]:
        """The entries whose path matches a glob: `*` within a name, `**` over any number of directories."""
        glob = Glob(clean(pattern))
        if glob.top and self._follow(glob.top) is None:
            return
        for entry in self.entries(glob.top, True):
            if glob.matches(entry.path):
                yield entry

    def open(self, path: str) -> int:
        """A descriptor of a regular file, links followed. Raises `NotFoundError`, `InvalidError`."""
        path = self._named(clean(path))
        try:
            descriptor = open_in_root(self._root, path or ".", os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"There is no file {'/' + path!r} in {self._name}.") from None
        except OSError as error:
            raise _refused(path, error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidError(f"{'/' + path!r} is not a file.")
        return descriptor

    # -- writing

    def make_folder(self, path: str) -> None:
        """Make a directory and its parents, as far as there are none. Raises `InvalidError`."""
        made = ""
        for name in clean(path).split("/"):
            made = f"{made}/{name}" if made else name
            status = self._follow(made)
            if status is None and name:
                with self._parent(made) as (folder, last):
                    if folder is None:
                        raise InvalidError(f"{'/' + made!r} cannot be made: a link on the way leads nowhere.")
                    try:
                        os.mkdir(last, 0o755, dir_fd=folder)
                        self._give(folder, last)
                    except FileExistsError:  # a link that leads nowhere
                        raise InvalidError(f"{'/' + made!r} is there and is no directory.") from None
            elif status is not None and not stat.S_ISDIR(status.st_mode):
                raise InvalidError(f"{'/' + made!r} is there and is no directory.")

    @contextlib.contextmanager
    def replacing(self, path: str, mode: int) -> Iterator[int]:
        """A descriptor of a new file that takes the place of `path`, whole, when the block ends well.

        Raises:
            InvalidError: a directory is there, or a file where a parent directory would be.
        """
        path = clean(path)
        if not path:
            raise InvalidError("A file needs a name.")
        self.make_folder(posixpath.dirname(path))
        with self._parent(path) as (folder, name):
            if folder is None:
                raise InvalidError(f"{'/' + path!r} cannot be made: its directory was deleted meanwhile.")
            there = _status(folder, name)
            if there is not None and stat.S_ISDIR(there.st_mode):
                raise InvalidError(f"{'/' + path!r} is a directory and cannot be overwritten by a file.")
            at = Path(f"/proc/{os.getpid()}/fd/{folder}") if self._drafts is None else self._drafts
            draft = at / f".intermodal-{os.urandom(8).hex()}"
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                yield descriptor
                os.fchown(descriptor, self._owner, self._owner)
                os.fchmod(descriptor, mode)
                os.rename(draft, name, dst_dir_fd=folder)
            finally:
                os.close(descriptor)
                draft.unlink(missing_ok=True)

    def remove(self, path: str, recursive: bool) -> None:
        """Delete an entry. Raises `NotFoundError`; `InvalidError` for a directory unless `recursive`."""
        path = self._named(clean(path))
        if not path:
            raise InvalidError("The root directory cannot be removed.")
        with self._parent(path) as (folder, name):
            there = _status(folder, name) if folder is not None else None
            if folder is None or there is None:
                raise NotFoundError(f"There is no {'/' + path!r} in {self._name}.")
            if not stat.S_ISDIR(there.st_mode):
                os.unlink(name, dir_fd=folder)
            elif recursive:
                try:
                    shutil.rmtree(name, dir_fd=folder)
                except RecursionError:
                    remove_tree(Path(f"/proc/{os.getpid()}/fd/{folder}") / name)
            else:
                raise InvalidError(f"{'/' + path!r} is a directory; remove it with recursive=True (`--recursive`).")

    def copy(self, sources: list[str], target: str) -> None:
        """Copy files as `cp -r` does; directories with what is in them.

        Raises:
            NotFoundError: a source does not exist, or no directory for the target.
            InvalidError: several are copied to what is no directory, one into itself, onto what is of another kind, or
                onto a link that leads nowhere.
        """
        wants_folder, target = target.endswith("/"), clean(target)
        into = self._follow(target)
        is_folder = into is not None and stat.S_ISDIR(into.st_mode)
        if len(sources) > 1 and not is_folder:
            raise InvalidError(f"{'/' + target!r} is not a directory, so several files cannot be copied there.")
        for given in sources:
            source, is_content = clean(given), posixpath.basename(given.rstrip("/")) in ("", ".")
            there = self._follow(source)
            if there is None:
                raise NotFoundError(f"There is no {'/' + source!r} in {self._name}.")
            if wants_folder and not is_folder and not stat.S_ISDIR(there.st_mode):
                raise NotFoundError(f"There is no directory {'/' + target!r} in {self._name} to copy into.")
            into_folder = is_folder and not is_content
            destination = posixpath.join(target, posixpath.basename(source)) if into_folder else target
            if self._is_within(destination, source):
                raise InvalidError(f"{'/' + source!r} cannot be copied onto or into itself.")
            if not is_folder and self._follow(posixpath.dirname(destination)) is None:
                raise NotFoundError(f"There is no directory {'/' + posixpath.dirname(destination)!r} in {self._name}.")
            if stat.S_ISDIR(there.st_mode):
                self._copy_folder(source, destination if into_folder else self._real(destination) or destination)
            else:
                self._copy_file(source, destination, there)

    def _copy_folder(self, source: str, target: str) -> None:
        entries = list(self.entries(source, True))
        self._make_no_link(target)
        for entry in entries:
            destination = target + entry.path[len(source) :] if source else posixpath.join(target, entry.path)
            status = self._follow(entry.path)
            if status is None or entry.kind == "link":
                self._copy_link(entry.path, destination)
            elif entry.kind == "directory":
                self._make_no_link(destination)
            elif entry.kind == "file":
                self._copy_file(entry.path, destination, status)

    def _copy_link(self, source: str, target: str) -> None:
        with self._parent(source) as (folder, name), self._parent(target) as (to_folder, to_name):
            if folder is None or to_folder is None:
                return
            there = _status(to_folder, to_name)
            if there is not None and stat.S_ISDIR(there.st_mode):
                raise InvalidError(f"{'/' + target!r} is a directory and cannot be overwritten by a link.")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(to_name, dir_fd=to_folder)
            os.symlink(os.readlink(name, dir_fd=folder), to_name, dir_fd=to_folder)
            self._give(to_folder, to_name)

    def _make_no_link(self, path: str) -> None:
        """Make a directory, unless it is there itself."""
        there = self.find(path)
        if there is not None and there.kind == "link":
            raise InvalidError(f"{'/' + path!r} is a link and cannot be overwritten by a directory.")
        self.make_folder(path)

    def _copy_file(self, source: str, target: str, status: os.stat_result) -> None:
        """Through a link at the target to what it leads to; a file that is there keeps its mode."""
        onto = self._follow(target)
        if onto is None and self.find(target) is not None:
            raise InvalidError(f"{'/' + target!r} is a link that leads nowhere; nothing is copied through it.")
        mode = onto.st_mode if onto is not None and stat.S_ISREG(onto.st_mode) else status.st_mode
        reading = self.open(source)
        try:
            with self.replacing(self._real(target) or target, stat.S_IMODE(mode)) as writing:
                while os.copy_file_range(reading, writing, 1 << 30):
                    continue
        finally:
            os.close(reading)

    # -- parts

    def _with_target(self, entry: Found) -> Found:
        """The entry; a link with what it says and leads to."""
        if entry.kind != "link":
            return entry
        target, leads_to = "", None
        with self._parent(entry.path) as (folder, name), contextlib.suppress(OSError):  # replaced meanwhile
            if folder is not None:
                target = os.readlink(name, dir_fd=folder)
        with contextlib.suppress(InvalidError):  # a circle
            status = self._follow(entry.path)
            leads_to = None if status is None else _kind(status)
        return replace(entry, target=target, leads_to=leads_to)

    def _named(self, path: str) -> str:
        """The path that is meant: one may be as it was shown, with bytes that are no text as ``\\xff``."""
        if "\\x" not in path or self.find(path) is not None:
            return path
        return os.fsdecode(_SHOWN_BYTE.sub(lambda byte: bytes([int(byte[1], 16)]), path.encode()))

    def _give(self, folder: int, name: str) -> None:
        os.chown(name, self._owner, self._owner, dir_fd=folder, follow_symlinks=False)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int | None, str]]:
        """A descriptor of the directory that has the last name of `path` (None if there is none), and that name."""
        folder, name = posixpath.split(path)
        if not name:
            folder, name = "", "."
        try:
            descriptor = open_in_root(self._root, folder or ".", os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            yield None, name
            return
        except OSError as error:
            raise _refused(path, error) from None
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)

    def _follow(self, path: str) -> os.stat_result | None:
        """The status of what a path leads to; None if it leads nowhere."""
        with self._reached(path) as descriptor:
            return None if descriptor is None else os.fstat(descriptor)

    def _real(self, path: str) -> str | None:
        """The path without links of what a path leads to; None if it leads nowhere."""
        with self._reached(path) as descriptor:
            if descriptor is None:
                return None
            root, place = (os.readlink(f"/proc/self/fd/{one}") for one in (self._root, descriptor))  # noqa: PTH115
            return clean(posixpath.relpath(place, root))

    def _is_within(self, path: str, top: str) -> bool:
        """Whether a path, or where it would be made, is `top` or below it, wherever links lead."""
        inner, outer = self._real(path), self._real(top)
        if inner is None:
            inner = self._real(posixpath.dirname(path))
        return inner is not None and (not outer or f"{inner}/".startswith(f"{outer}/"))

    @contextlib.contextmanager
    def _reached(self, path: str) -> Iterator[int | None]:
        """A descriptor, for asking only, of what a path leads to; None if it leads nowhere."""
        try:
            descriptor = open_in_root(self._root, path or ".", os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            raise _refused(path, error) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _entries(self, path: str) -> list[tuple[str, os.stat_result]]:
        try:
            descriptor = open_in_root(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
            return []
        except OSError as error:
            raise _refused(path, error) from None
        try:
            found = []
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name for entry in entries)
            for name in names:
                status = _status(descriptor, name)
                if status is not None:
                    found.append((name, status))
            return found
        finally:
            os.close(descriptor)


def clean(path: str) -> str:
    """A path from the root, without ``.``, ``..`` and double slashes; "" is the root. Raises `InvalidError`."""
    if "\0" in path:
        raise InvalidError(f"{path[:100]!r} is no path: it has a zero byte.")
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise InvalidError(f"The path {path[:100]!r}… is too long: it may have {PATH_LIMIT:,} bytes.")
    if any(len(os.fsencode(name)) > _NAME_LIMIT for name in path.split("/")):
        raise InvalidError(f"{path[:100]!r}… has a name that is too long: one may have {_NAME_LIMIT} bytes.")
    if ".." in path.split("/"):
        raise InvalidError(f"A path may not contain '..': {path[:100]!r}.")
    return posixpath.normpath(f"/{path}").lstrip("/")


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _found(path: str, status: os.stat_result) -> Found:
    return Found(path, _kind(status), status.st_size, int(status.st_mtime))


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), "device")


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def _refused(path: str, error: OSError) -> InvalidError:
    if error.errno == errno.ELOOP:
        return InvalidError(f"{'/' + path[:100]!r} leads through links in a circle.")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidError(f"{'/' + path[:100]!r} has a name that is too long.")
    return InvalidError(f"{'/' + path[:100]!r} cannot be used: {error.strerror}.")
