"""Which local Python modules travel to containers, and where they go.

A module is *local* when its source is the user's: not the standard library, not installed in `site-packages` or a
virtual environment, not built in. A local module travels whole: a single file as `/root/<name>.py`, a package as
the tree of its `.py` files below `/root/<package>/`. `/root` is on the path of every container.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Callable, Optional

from ._local_files import LocalFile, local_file, walk
from .exception import InvalidError, ModuleNotMountable
from .file_pattern_matcher import NON_PYTHON_FILES

#: Where user code lives in containers.
ROOT_DIR = "/root"

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_OWN = frozenset({"modal", "intermodal", "__main__", "__mp_main__"})
_MOST_NAMES = 200  #: of modules named in an error message's material


@dataclass(frozen=True)
class EntryModule:
    """The module that the user started: a script (`name` its stem) or the target of `-m` (its dotted name)."""

    name: str
    path: Optional[Path]  #: None when there is no file, as in a notebook or an interactive session


@dataclass(frozen=True)
class LocalModule:
    """A module or package on this machine."""

    name: str  #: dotted
    path: Path  #: the `.py` file, or the directory of a package
    is_package: bool

    def files(self, remote_root: str, ignore: Callable[[Path], bool] = NON_PYTHON_FILES) -> Iterator[LocalFile]:
        """What travels of it; `ignore` gets paths relative to the package's directory, or the name of the file."""
        place = f"{remote_root.rstrip('/')}/{self.name.replace('.', '/')}"
        if not self.is_package:
            if not ignore(self.path):
                yield local_file(self.path, f"{place}.py")
            return
        for file in walk(self.path, place, ignore, skip_directory=_is_clutter):
            if not file.path.name.startswith(".") and file.path.suffix != ".pyc":
                yield file


def automount_entries(entry: Optional[EntryModule], *, automount: bool = True) -> list[LocalFile]:
    """The files of the entry module and, with `automount`, of every local module that this process has imported.

    Raises:
        InvalidError: if a file of a local module cannot be read.
    """
    modules = [] if entry is None else _entry_modules(entry)
    if automount:
        modules += imported_local_modules()
    files = {file.remote_path: file for module in reversed(modules) for file in module.files(ROOT_DIR)}
    return [files[place] for place in sorted(files)]


def imported_local_modules() -> list[LocalModule]:
    """The local top-level modules and packages in `sys.modules`, by name."""
    found: dict[Path, LocalModule] = {}
    for name, module in sorted(sys.modules.items()):
        if "." in name or name in _OWN or not isinstance(module, ModuleType):
            continue
        for local in _locate(name, _file_of(module), _package_paths(module)):
            found.setdefault(local.path, local)
    return sorted(found.values(), key=lambda local: (local.name, local.path))


def python_source_files(
    names: Sequence[str], remote_root: str, ignore: Callable[[Path], bool] = NON_PYTHON_FILES
) -> list[LocalFile]:
    """The files of modules named by the user, imported or not. `pkg.sub` brings the `__init__.py` of `pkg` along.

    Raises:
        ModuleNotMountable: if a module is not found here, or has no Python source (built-in, extension module).
    """
    files: dict[str, LocalFile] = {}
    for name in names:
        for module in _named_modules(name):
            files.update((file.remote_path, file) for file in module.files(remote_root, ignore))
        parents = name.split(".")[:-1]
        for count in range(1, len(parents) + 1):
            package = ".".join(parents[:count])
            for module in _named_modules(package):
                init = module.path / "__init__.py"
                if module.is_package and init.is_file():
                    place = f"{remote_root.rstrip('/')}/{'/'.join(parents[:count])}/__init__.py"
                    files.setdefault(place, local_file(init, place))
    return [files[place] for place in sorted(files)]


def unsent_modules(entry: Optional[EntryModule], files: Iterable[LocalFile]) -> list[str]:
    """Top-level modules that exist beside the entry module or in the working directory but are not among `files`.

    For the message of a ModuleNotFoundError in a container. At most 200 names, sorted.
    """
    sent = {_top_level_name(file.remote_path) for file in files}
    directories = {Path.cwd()}
    if entry is not None and entry.path is not None:
        directory = entry.path.absolute().parent
        directories.add(directory.parents[entry.name.count(".") - 1] if "." in entry.name else directory)
    names: set[str] = set()
    for directory in directories:
        names.update(_modules_in(directory))
    return sorted(names - sent - _OWN)[:_MOST_NAMES]


def describe_files(files: Iterable[LocalFile]) -> list[str]:
    """Lines for people that say what travels: each top-level module or directory with its source and file count."""
    groups: dict[str, list[LocalFile]] = {}
    for file in files:
        parts = file.remote_path.strip("/").split("/")
        depth = 2 if len(parts) > 2 or (len(parts) == 2 and parts[0] != ROOT_DIR[1:]) else len(parts)
        groups.setdefault("/" + "/".join(parts[:depth]), []).append(file)
    lines = []
    for place, members in sorted(groups.items()):
        if len(members) == 1 and members[0].remote_path == place:
            lines.append(f"{place} from {_short(members[0].path)}")
        else:
            source = os.path.commonpath([str(member.path.parent) for member in members])
            noun = "file" if len(members) == 1 else "files"
            lines.append(f"{place}/ ({len(members)} {noun}) from {_short(Path(source))}")
    return lines


def _entry_modules(entry: EntryModule) -> list[LocalModule]:
    if entry.path is None:
        return []
    path = entry.path.absolute()
    top = entry.name.partition(".")[0]
    is_init = path.name == "__init__.py"
    depth = entry.name.count(".") + is_init
    if depth == 0:
        return [LocalModule(entry.name, path, is_package=False)]
    package = path.parents[depth - 1]
    if package.name != top:
        raise InvalidError(f"The module {entry.name} is not at its place in a package: {str(path)!r}.")
    return [LocalModule(top, package, is_package=True)]


def _named_modules(name: str) -> list[LocalModule]:
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ModuleNotMountable(f"{name!r} is no module name.")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = _spec_of_imported(name)
    if spec is None:
        raise ModuleNotMountable(f"The module {name!r} is not found on this machine; check its name and sys.path.")
    if spec.submodule_search_locations is not None:
        paths = [Path(path) for path in spec.submodule_search_locations]
        return [LocalModule(name, path.absolute(), is_package=True) for path in paths if path.is_dir()]
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ModuleNotMountable(
            f"The module {name!r} has no Python source file ({spec.origin or 'built in'}); "
            "install it in the image instead, for example with pip_install."
        )
    return [LocalModule(name, Path(spec.origin).absolute(), is_package=False)]


def _spec_of_imported(name: str) -> Optional[ModuleSpec]:
    """A spec made from a module that has none of its own, such as a script loaded by path."""
    file = _file_of(sys.modules[name]) if name in sys.modules else None
    return None if file is None else importlib.util.spec_from_file_location(name, file)


def _locate(name: str, file: Optional[str], package_paths: list[str]) -> Iterator[LocalModule]:
    if package_paths:
        for path in package_paths:
            directory = Path(path).absolute()
            if directory.name == name and directory.is_dir() and is_local(directory):
                yield LocalModule(name, directory, is_package=True)
    elif file is not None and file.endswith(".py"):
        path_of_file = Path(file).absolute()
        if path_of_file.is_file() and is_local(path_of_file):
            yield LocalModule(name, path_of_file, is_package=False)


def _file_of(module: ModuleType) -> Optional[str]:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _package_paths(module: ModuleType) -> list[str]:
    try:
        return [path for path in module.__dict__.get("__path__", ()) if isinstance(path, str)]
    except (TypeError, KeyError, AttributeError):  # a lazy or broken namespace path
        return []


def is_local(path: Path) -> bool:
    """Whether source at `path` is the user's own, by where it lies, and where it is linked to."""
    places = (path, Path(os.path.realpath(path)), Path(os.path.realpath(path.parent)) / path.name)
    if any(not _INSTALLED.isdisjoint(place.parts) for place in places):
        return False
    # Debian links modules of the standard library to /etc.
    return not any(root == place or root in place.parents for root in _foreign_roots() for place in places[1:])


def _foreign_roots() -> set[Path]:
    """Directories of the standard library, of installed packages and of the active virtual environment."""
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if sys.prefix != sys.base_prefix:
        roots.add(sys.prefix)
    return {Path(os.path.realpath(root)) for root in roots if root}


def _is_clutter(directory: Path) -> bool:
    """Directories inside a package that never travel with it."""
    if directory.name.startswith(".") or directory.name in ("__pycache__", "node_modules"):
        return True
    return (directory / "pyvenv.cfg").exists()


def _modules_in(directory: Path) -> Iterator[str]:
    try:
        entries = list(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.suffix == ".py" and entry.stem.isidentifier():
            yield entry.stem
        elif entry.name.isidentifier() and (entry / "__init__.py").is_file():
            yield entry.name


def _top_level_name(remote: str) -> str:
    if not remote.startswith(ROOT_DIR + "/"):
        return ""
    first = remote[len(ROOT_DIR) + 1 :].split("/")[0]
    return first[:-3] if first.endswith(".py") else first


def _short(path: Path) -> str:
    """The path relative to the working directory when that is shorter."""
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)
