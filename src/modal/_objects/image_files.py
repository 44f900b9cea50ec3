"""The steps of an image that bring local files along."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

import os
import warnings
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Union

from .._local_files import remote_path as check_remote_path
from .._local_modules import ROOT_DIR
from ..exception import DeprecationError, InvalidError
from ..file_pattern_matcher import NON_PYTHON_FILES, Ignore, as_ignore
from .file_sources import DirectoryAt, FileAt, PythonSource, Relative, check_modules, file_target, local
from .image_chain import ImageChain
from .image_layers import copy_all

if TYPE_CHECKING:
    from typing_extensions import Self

    from .mount import Mount


class ImageFiles(ImageChain):
    """Local files, built in or placed at container start."""

    def add_local_file(self, local_path: Union[str, Path], remote_path: str, *, copy: bool = False) -> Self:
        """Add a local file.

        Args:
            local_path: the file; `~` is the home directory.
            remote_path: absolute path in the container; one that ends with `/` is a directory to put the file into.
            copy: True copies the file into the image when it is built, so that later steps can use it; False places
                it when a container starts, which needs no rebuild when it changes.

        Raises:
            InvalidError: for a bad path; with `copy=True`, after files added without it. A missing file is found when
                the image is built.
        """
        path = local(local_path)
        target = file_target(path, remote_path)
        if not copy:
            return self._with_source(FileAt(path, target))
        directory, _, name = target.rpartition("/")
        return self._with_commands([copy_all(f"{directory}/")], "add_local_file", FileAt(path, name))

    def add_local_dir(
        self, local_path: Union[str, Path], remote_path: str, *, copy: bool = False, ignore: Ignore = []
    ) -> Self:
        """Add the content of a local directory.

        Args:
            local_path: the directory; `~` is the home directory.
            remote_path: absolute path in the container that the content is put below.
            copy: as in `add_local_file`.
            ignore: files to leave out: patterns in the syntax of `.dockerignore`, a `FilePatternMatcher`, or a callable
                that gets a path relative to the directory and returns True for a file to leave out.

        Raises:
            InvalidError: as in `add_local_file`.
            ValueError: for an illegal pattern.
        """
        path, target, predicate = local(local_path), check_remote_path(remote_path), as_ignore(ignore)
        if not copy:
            return self._with_source(DirectoryAt(path, target, predicate))
        return self._with_commands(
            [copy_all(target.rstrip("/") + "/")], "add_local_dir", DirectoryAt(path, "", predicate)
        )

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignore = NON_PYTHON_FILES) -> Self:
        """Add local Python modules or packages, found as `import` finds them, below `/root`: containers import from it.

        Dot-files, dot-directories, `__pycache__` and `.pyc` files are left out always.

        Args:
            modules: names, e.g. `"mypackage"`.
            copy: as in `add_local_file`.
            ignore: as in `add_local_dir`, relative to the package; by default everything but `.py` files.

        Raises:
            InvalidError: for what is no module name; otherwise as in `add_local_file`.
            ValueError: for an illegal pattern.
        """
        names, predicate = check_modules(modules), as_ignore(ignore)
        if not names:
            return self
        source = PythonSource(names, ROOT_DIR, predicate)
        if not copy:
            return self._with_source(source)
        return self._with_commands([copy_all("/")], "add_local_python_source", Relative(source))

    def copy_mount(self, mount: Mount, remote_path: Union[str, Path] = ".") -> Self:
        """Deprecated: use `add_local_dir(..., copy=True)`. Copy the files of a mount below `remote_path`."""
        _deprecated("Image.copy_mount", "Image.add_local_dir(..., copy=True)")
        return self._with_commands([copy_all(_copy_target(remote_path))], "copy_mount", Relative(mount._files))

    def copy_local_file(self, local_path: Union[str, Path], remote_path: Union[str, Path] = "./") -> Self:
        """Copy a file into the image when it is built. A relative `remote_path` starts at the working directory."""
        path, target = local(local_path), os.fspath(remote_path)
        directory, _, name = target.rpartition("/")
        if name in ("", ".", ".."):
            directory, name = target, PurePath(path).name
        elif target == f"/{name}":
            directory = "/"
        return self._with_commands([copy_all(_copy_target(directory or "."))], "copy_local_file", FileAt(path, name))

    def copy_local_dir(
        self, local_path: Union[str, Path], remote_path: Union[str, Path] = ".", ignore: Ignore = []
    ) -> Self:
        """Deprecated: use `add_local_dir`. Copy the content of a directory into the image when it is built."""
        _deprecated("Image.copy_local_dir", "Image.add_local_dir(..., copy=True)")
        source = DirectoryAt(local(local_path), "", as_ignore(ignore))
        return self._with_commands([copy_all(_copy_target(remote_path))], "copy_local_dir", source)


def _copy_target(path: Union[str, Path]) -> str:
    text: Any = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidError(f"remote_path must be a path in the image, not {path!r}.")
    return text.rstrip("/") + "/"


def _deprecated(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated; use {new}.", DeprecationError, stacklevel=3)
