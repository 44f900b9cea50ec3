"""Finds Python interpreters on this machine and packs one for an image.

A packed Python is a tar of /usr/local: the interpreter, its standard library with bytecode, the shared libraries it
needs and the base system lacks, and pip; without the host's own packages, test suites and build paths.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from intermodal.model.errors import RuntimeFailure

_QUERY = """
import json, sys, sysconfig
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3], "prefix": sys.base_prefix, "implementation": sys.implementation.name,
    "final": sys.version_info.releaselevel == "final", "stdlib": sysconfig.get_path("stdlib"),
    "include": sysconfig.get_config_var("INCLUDEPY") or "",
    "scheme": (getattr(sysconfig, "get_default_scheme", None) or (lambda: ""))(),
}))
"""
#: In the standard library, what nobody needs in a container. Paths relative to it.
_JUNK_DIRS = frozenset(
    ["test", "idlelib", "turtledemo", "tkinter", "ctypes/test", "unittest/test", "sqlite3/test"]
    + ["site-packages", "dist-packages"]
)
_JUNK_NAMES = frozenset({"__pycache__", "tests"})
_JUNK_FILES = re.compile(
    r"(\.a|\.pyc|EXTERNALLY-MANAGED|turtle\.py)\Z"
    r"|/(_tkinter|_test\w*|_ctypes_test|xxlimited\w*|xxsubtype)\.[^/]*\.so\Z"
)
_LDD_LINE = re.compile(r"\s*(\S+) => (/\S+) \(0x")
_LAUNCHER = """#!/usr/local/bin/python{series}
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python on this machine."""

    path: Path  #: the real binary
    version: str  #: "3.11.7"
    prefix: Path
    stdlib: Path
    include: Path | None
    origin: str  #: for people, e.g. "pyenv"

    @property
    def series(self) -> str:
        return ".".join(self.version.split(".")[:2])

    def answers(self, wanted: str) -> bool:
        """Whether it is of the version `wanted`, given as X.Y or X.Y.Z."""
        return wanted in (self.version, self.series)


def find_uv() -> Path | None:
    """The uv program that came with this server, or one on PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    return None if found is None else Path(found).resolve()


def candidates(environ: dict[str, str], downloaded: Path) -> Iterator[tuple[Path, str]]:
    """Places where interpreters usually are, with what to call each place; the best first."""
    home = Path(environ.get("HOME", "/root"))
    managed = Path(environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local" / "share" / "uv" / "python")
    for directory in (downloaded, managed):
        for path in sorted(directory.glob("cpython-3.*/bin/python3.*"), reverse=True):
            yield path, "uv"
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    for path in sorted(pyenv.glob("versions/3.*/bin/python3.*"), reverse=True):
        yield path, "pyenv"
    for name in environ.get("PATH", "").split(os.pathsep):
        if name and "shims" not in Path(name).parts:
            for path in sorted(Path(name).glob("python3.*")):
                yield path, str(path)


def find_interpreters(environ: dict[str, str], downloaded: Path) -> list[Interpreter]:
    """Every usable CPython on this machine, the best first. Starts each once; blocking."""
    found: list[Interpreter] = []
    seen: set[Path] = set()
    for path, origin in candidates(environ, downloaded):
        real = path.resolve()
        if not re.fullmatch(r"python3\.\d+", path.name) or real in seen or not os.access(real, os.X_OK):
            continue
        seen.add(real)
        interpreter = _query(real, origin)
        if interpreter is not None:
            found.append(interpreter)
    return found


def _query(path: Path, origin: str) -> Interpreter | None:
    try:
        done = subprocess.run([str(path), "-I", "-c", _QUERY], capture_output=True, text=True, timeout=20, check=True)
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # a broken interpreter is as good as none
    if answer["implementation"] != "cpython" or not answer["final"]:
        return None
    stdlib = Path(answer["stdlib"])
    # Debian moves things about in its own Python; it belongs to the system it is part of. A Python without the wheel
    # of pip cannot make an image that has pip.
    if answer["scheme"] in ("posix_local", "deb_system") or not list(_pip_wheels(stdlib)):
        return None
    include = Path(answer["include"]) if answer["include"] else None
    return Interpreter(path, answer["version"], Path(answer["prefix"]), stdlib, include, origin)


def pack(interpreter: Interpreter, has_library: Iterable[str], stage: Path, target: Path) -> None:
    """Write the tar of `interpreter` to `target`. Takes some seconds; blocking.

    Args:
        interpreter: what to pack.
        has_library: file names of shared libraries that the base system has.
        stage: an empty directory to work in.
        target: the tar file to write.

    Raises:
        RuntimeFailure: the interpreter cannot be copied.
    """
    local = stage / "usr" / "local"
    library = local / "lib" / f"python{interpreter.series}"
    try:
        _copy_stdlib(interpreter, library)
        _copy_program(interpreter, local)
        _copy_shared_libraries(interpreter, set(has_library), local / "lib")
        _install_pip(interpreter, library, local / "bin")
        _rewrite_prefix(interpreter, library)
        _compile(interpreter, stage, library)
        with tarfile.open(target, "w") as tar:
            tar.add(local, arcname="usr/local", filter=_owned_by_root)
    except (OSError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise RuntimeFailure(f"The Python at {interpreter.path} could not be copied into an image: {error}.") from error


def _copy_stdlib(interpreter: Interpreter, library: Path) -> None:
    def is_junk(path: Path) -> bool:
        text = path.as_posix()
        return path.name in _JUNK_NAMES or text in _JUNK_DIRS or _JUNK_FILES.search(f"/{text}") is not None

    def ignore(directory: str, names: list[str]) -> set[str]:
        relative = Path(directory).relative_to(interpreter.stdlib)
        return {name for name in names if is_junk(relative / name)}

    shutil.copytree(interpreter.stdlib, library, ignore=ignore, symlinks=True)
    (library / "site-packages").mkdir()


def _copy_program(interpreter: Interpreter, local: Path) -> None:
    binaries = local / "bin"
    binaries.mkdir()
    name = f"python{interpreter.series}"
    shutil.copy2(interpreter.path, binaries / name)
    (binaries / name).chmod(0o755)
    for alias in ("python3", "python"):
        (binaries / alias).symlink_to(name)
    for path in interpreter.prefix.glob("lib/libpython3*.so*"):
        if path.name == "libpython3.so" or f"python{interpreter.series}." in path.name:
            shutil.copy2(path, local / "lib" / path.name, follow_symlinks=False)
    if interpreter.include is not None and interpreter.include.is_dir():
        shutil.copytree(interpreter.include, local / "include" / name)


def _copy_shared_libraries(interpreter: Interpreter, has_library: set[str], target: Path) -> None:
    """Copy what the interpreter and its extension modules link to and nobody else brings."""
    modules = sorted((target / f"python{interpreter.series}" / "lib-dynload").glob("*.so"))
    for name, path in shared_libraries([interpreter.path, *modules]).items():
        if name not in has_library and not (target / name).exists():
            shutil.copy2(path.resolve(), target / name)
            (target / name).chmod(0o755)


def shared_libraries(paths: Sequence[Path]) -> dict[str, Path]:
    """The shared libraries that `paths` load: name to file."""
    done = subprocess.run(["ldd", *map(str, paths)], capture_output=True, text=True, timeout=60)
    return {match[1]: Path(match[2]) for line in done.stdout.splitlines() if (match := _LDD_LINE.match(line))}


def _pip_wheels(stdlib: Path) -> Iterator[Path]:
    yield from sorted((stdlib / "ensurepip" / "_bundled").glob("pip-*.whl"))


def _install_pip(interpreter: Interpreter, library: Path, binaries: Path) -> None:
    bundled = library / "ensurepip" / "_bundled"
    for wheel in [*_pip_wheels(library), *sorted(bundled.glob("setuptools-*.whl"))]:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(library / "site-packages")
    for installed in (library / "site-packages").glob("*.dist-info"):
        (installed / "INSTALLER").write_text("pip\n")
    for name in ("pip", "pip3", f"pip{interpreter.series}"):
        (binaries / name).write_text(_LAUNCHER.format(series=interpreter.series))
        (binaries / name).chmod(0o755)


def _rewrite_prefix(interpreter: Interpreter, library: Path) -> None:
    """Let the recorded build settings name /usr/local, so that C extensions build in the image."""
    old = str(interpreter.prefix).encode()
    paths = [*library.glob("_sysconfigdata*.py"), *library.glob("config-*/Makefile"), *library.glob("config-*/*.py")]
    for path in paths:
        content = path.read_bytes()
        if old in content:
            path.write_bytes(content.replace(old, b"/usr/local"))


def _compile(interpreter: Interpreter, stage: Path, library: Path) -> None:
    argv = [str(interpreter.path), "-I", "-m", "compileall", "-q", "-s", str(stage), "-p", "/", str(library)]
    # Some files of the library are meant not to compile (templates of lib2to3); that is no failure.
    subprocess.run(argv, capture_output=True, timeout=600)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    with contextlib.suppress(ValueError):
        member.mode &= 0o755
    return member
