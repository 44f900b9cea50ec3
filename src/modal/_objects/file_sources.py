"""Descriptions of local files that are looked at only when they are sent.

A description is made wherever the user's module is imported, in containers too, where the files do not exist. So making
one touches no file: paths are made absolute, patterns are compiled, and no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Callable, Protocol, Union

from .._local_files import LocalFile, local_directory, local_file, remote_path, walk
from .._local_modules import python_source_files
from ..exception import InvalidError
from ..file_pattern_matcher import FilePatternMatcher

Predicate = Callable[[Path], bool]


class FileSource(Protocol):
    """Where files come from."""

    def collect(self) -> list[LocalFile]:
        """Look at the disk and list the files. Raises `InvalidError` or `ModuleNotMountable`."""
        ...


@dataclass(frozen=True)
class FileAt:
    """One file."""

    path: str
    remote: str

    def collect(self) -> list[LocalFile]:
        return [local_file(self.path, self.remote)]


@dataclass(frozen=True)
class DirectoryAt:
    """The files below a directory, at their places below `remote`; "" keeps them relative."""

    path: str
    remote: str
    ignore: Predicate
    recursive: bool = True

    def collect(self) -> list[LocalFile]:
        return list(walk(local_directory(self.path), self.remote, self.ignore, recursive=self.recursive))


@dataclass(frozen=True)
class PythonSource:
    """Local Python modules and packages below `remote`."""

    modules: tuple[str, ...]
    remote: str
    ignore: Predicate

    def collect(self) -> list[LocalFile]:
        return python_source_files(self.modules, self.remote, self.ignore)


@dataclass(frozen=True)
class Several:
    """Files of several sources; of two at one place the later wins."""

    sources: tuple[FileSource, ...]

    def collect(self) -> list[LocalFile]:
        return unique(file for source in self.sources for file in source.collect())


@dataclass(frozen=True)
class Relative:
    """The files of another source with their places made relative: absolute ones lose their first slash."""

    source: FileSource

    def collect(self) -> list[LocalFile]:
        return [replace(file, remote_path=file.remote_path.lstrip("/")) for file in self.source.collect()]


@dataclass(frozen=True)
class NamedInCommands:
    """The files below `path` that COPY and ADD sources name, relative to it."""

    path: str
    names: tuple[str, ...]
    ignore: Predicate

    def collect(self) -> list[LocalFile]:
        files: list[LocalFile] = []
        root = Path(self.path)
        for name in self.names:
            relative = os.path.normpath(name.lstrip("/") or ".")
            if relative.startswith(".."):
                raise InvalidError(f"COPY {name}: the source lies outside the build context {self.path!r}.")
            if (root / relative).is_dir():
                below = walk(root / relative, "" if relative == "." else relative, self._ignored_below(relative))
                files += below
            elif (root / relative).is_file():
                if not self.ignore(Path(relative)):
                    files.append(local_file(root / relative, PurePath(relative).as_posix()))
            else:
                files += self._matching(root, relative, name)
        return unique(files)

    def _ignored_below(self, relative: str) -> Predicate:
        return lambda path: self.ignore(Path(relative) / path)

    def _matching(self, root: Path, pattern: str, name: str) -> list[LocalFile]:
        matcher = FilePatternMatcher(pattern)
        found = list(walk(root, "", lambda path: not matcher(path) or self.ignore(path)))
        if not found:
            raise InvalidError(f"COPY {name}: no such file in the build context {self.path!r}.")
        return found


def unique(files: Iterable[LocalFile]) -> list[LocalFile]:
    """One file for each place, the last; sorted by place."""
    by_place = {file.remote_path: file for file in files}
    return [by_place[place] for place in sorted(by_place)]


def local(path: Union[str, os.PathLike[str]]) -> str:
    """Make a local path absolute without looking at the disk; `~` is the home directory.

    Raises:
        InvalidError: for a value that is no path.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise InvalidError(f"A local path must be a non-empty string or a pathlib.Path, not {path!r}.")
    expanded = os.path.expanduser(os.fspath(path))  # noqa: PTH111  (Path.expanduser fails where there is no home)
    return os.path.abspath(expanded)  # noqa: PTH100  (Path.resolve would look at the disk)


def file_target(path: str, remote: Union[str, os.PathLike[str]]) -> str:
    """Where a file goes: a remote path that ends with `/` names the directory that it goes into."""
    text = os.fspath(remote)
    return remote_path(text + PurePath(path).name if text.endswith("/") else text)


def check_modules(modules: Sequence[str]) -> tuple[str, ...]:
    """Refuse what is no list of module names. Raises InvalidError."""
    for module in modules:
        if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
            raise InvalidError(f"{module!r} is no module name; write it as in an import statement.")
    return tuple(modules)
