"""The SDK as containers see it: a copy outside of the server's own installation, precompiled for their Python.

Containers mount it read-only, so Python could not cache its bytecode there; without a cache, each start would compile
the SDK again. The copy is named by its content, so servers of two versions may use a data directory in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from intermodal.model.errors import DiskFull, RuntimeFailure
from intermodal.runtimes.syscalls import bind_read_only, unmount

log = logging.getLogger(__name__)

_COMPILE_TIMEOUT = 120.0
_PACKAGES = (("sdk", "modal"), ("vendor", "cloudpickle"))
_INIT = Path(__file__).with_name("init.py")


@dataclass(frozen=True)
class RuntimeCopy:
    """Directories for `sys.path`, and the script of a container's first process."""

    sdk: Path
    vendor: Path
    init: Path


class RuntimeCopies(Protocol):
    async def open(self) -> None:
        """Once, before `get`."""

    async def get(self, python_version: str) -> RuntimeCopy:
        """The copy for a Python such as ``3.11.7``. Raises RuntimeFailure."""

    async def close(self) -> None:
        """Idempotent."""


class CompiledCopies:
    """Keeps copies below `home` and shows them to containers at `view`."""

    def __init__(self, home: Path, view: Path) -> None:
        self._home = home
        self._view = view
        self._content = ""
        self._making: dict[str, asyncio.Task[str]] = {}

    async def open(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o755)
        for leftover in self._home.glob(".new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._content = await asyncio.to_thread(content_hash)
        self._view.mkdir(parents=True, exist_ok=True)
        bind_read_only(self._home, self._view)

    async def get(self, python_version: str) -> RuntimeCopy:
        minor = ".".join(python_version.split(".")[:2])
        task = self._making.get(minor)
        if task is None or (task.done() and task.exception() is not None):
            task = self._making[minor] = asyncio.create_task(asyncio.to_thread(self._make, minor))
        top = self._view / await asyncio.shield(task)
        return RuntimeCopy(top / "sdk", top / "vendor", top / "init.py")

    async def close(self) -> None:
        await asyncio.gather(*self._making.values(), return_exceptions=True)
        unmount(self._view)

    def _make(self, minor: str) -> str:
        interpreter = find_interpreter(minor)
        suffix = minor if interpreter else "source"
        name = f"{self._content}-{suffix}"
        if (self._home / name).is_dir():
            return name
        try:
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._home))
            try:
                copy_packages(new)
                if interpreter:
                    compile_tree(interpreter, new)
                else:
                    log.warning(
                        "No Python %s on this machine compiles the SDK for images with it; starts are slower", minor
                    )
                new.chmod(0o755)
                with contextlib.suppress(FileExistsError):
                    new.rename(self._home / name)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        except OSError as error:
            failure = DiskFull if error.errno == 28 else RuntimeFailure
            raise failure(f"The SDK could not be copied for containers: {error}.") from error
        return name


class SourceCopies:
    """The server's own installation, for the mock runtime: nothing is copied."""

    async def open(self) -> None:
        return

    async def get(self, python_version: str) -> RuntimeCopy:
        return RuntimeCopy(package_directory("modal").parent, package_directory("cloudpickle").parent, _INIT)

    async def close(self) -> None:
        return


def package_directory(name: str) -> Path:
    """Where an importable package lives. Raises RuntimeFailure."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeFailure(f"The Python package {name} is not installed; install intermodal again.")
    return Path(spec.origin).parent


def _sources() -> Iterator[tuple[Path, Path]]:
    """Each file to copy, with its place in the copy; in a fixed order."""
    for directory, package in _PACKAGES:
        top = package_directory(package)
        for path in sorted(top.rglob("*.py")):
            yield path, Path(directory) / package / path.relative_to(top)
    yield _INIT, Path("init.py")


def content_hash() -> str:
    """Name the content of a copy."""
    digest = hashlib.sha256()
    for path, place in _sources():
        data = path.read_bytes()
        digest.update(f"{place}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def copy_packages(target: Path) -> None:
    """Copy the SDK, its one dependency and the init script into `target`, readable for everyone. Raises OSError."""
    for path, place in _sources():
        copied = target / place
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
        copied.chmod(0o644)
    _open_to_all(target)


def compile_tree(interpreter: Path, top: Path) -> None:
    """Write bytecode that is used without looking at the source again. A file that does not compile is left out."""
    command = [
        str(interpreter),
        "-I",
        "-m",
        "compileall",
        "-q",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        str(top),
    ]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMPILE_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s could not compile the SDK: %s", interpreter, error)
    _open_to_all(top)


def _open_to_all(top: Path) -> None:
    for directory, _, files in os.walk(top):
        Path(directory).chmod(0o755)
        for name in files:
            (Path(directory) / name).chmod(0o644)


def find_interpreter(minor: str) -> Path | None:
    """A Python of version `minor` (such as ``3.11``) installed on this machine, else None. Never one of an image's."""
    if minor == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    home = Path.home()
    candidates = [Path(place) / f"python{minor}" for place in ("/usr/local/bin", "/usr/bin")]
    for parent, pattern in (
        (home / ".pyenv/versions", f"{minor}.*/bin/python{minor}"),
        (home / ".local/share/uv/python", f"cpython-{minor}.*/bin/python{minor}"),
    ):
        candidates += sorted(parent.glob(pattern))
    return next((candidate for candidate in candidates if _is_version(candidate, minor)), None)


def _is_version(interpreter: Path, minor: str) -> bool:
    if not interpreter.exists():
        return False
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [str(interpreter), "-I", "-c", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.decode().strip() == minor
