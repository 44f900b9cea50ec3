"""The base of `debian_slim`: from a registry when it answers, else made here from the host's Debian mirror.

What is made here is kept as tar files in a cache directory that servers of one machine share: a lock file lets one of
them work while the others wait, and a file appears under its name only when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import socket
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from intermodal.builder import python_source
from intermodal.builder.apt_mirror import DEFAULT_MIRROR, host_mirror, read_sources
from intermodal.builder.buildah import NAMESPACE, CommandFailed, run_command
from intermodal.builder.dockerfile import Recipe
from intermodal.builder.interface import BuildLog
from intermodal.builder.python_source import Interpreter
from intermodal.model.errors import DiskFull, MissingTool, RuntimeFailure
from modal.exception import InvalidError

SUITE = "bookworm"
SUPPORTED = ("3.9", "3.10", "3.11", "3.12", "3.13")
REGISTRY = "docker.io/library/python"
_REGISTRY_API = "https://registry-1.docker.io/v2/"
_SOURCES = f"""Types: deb
URIs: {DEFAULT_MIRROR[0]}
Suites: {SUITE} {SUITE}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {DEFAULT_MIRROR[1]}
Suites: {SUITE}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_INCLUDE = ("ca-certificates", "netbase", "tzdata")
#: Debian's own Python, for machines that have no other.
_DEBIAN_PYTHON = ("python3", "python3-pip", "python3-venv")
DEBIAN_SERIES = "3.11"
_LIBRARY_DIRS = ("./lib/", "./usr/lib/", "./lib64/")
#: Part of the names of cached files. Raise it when what is in them changes.
_FORMAT = 2


@dataclass(frozen=True)
class Base:
    """How to build a `debian_slim`, and what to tell people about it."""

    recipe: Recipe
    context: Path
    source: str


class Bases:
    """Makes bases; remembers for this process whether the registry answers and which Pythons there are."""

    def __init__(self, cache: Path, environ: dict[str, str] | None = None, *, registry: bool = True) -> None:
        """`cache`: where made bases are kept. `registry`: whether to try one at all."""
        self._cache = cache / "bases"
        self._pythons = cache / "pythons"
        self._environ = dict(os.environ) if environ is None else environ
        self._registry: bool | None = None if registry else False
        self._interpreters: list[Interpreter] | None = None

    async def debian_slim(self, version: str, log: BuildLog) -> Base:
        """Prepare the base for a Python version (X.Y or X.Y.Z).

        Raises:
            InvalidError: there is no such Python to be had here; names those that are.
            RuntimeFailure: the machine failed.
        """
        series = ".".join(version.split(".")[:2])
        if series not in SUPPORTED:
            raise InvalidError(f"Python {version} is not supported; use one of {', '.join(SUPPORTED)}.")
        if await self._registry_answers():
            reference = f"{REGISTRY}:{version}-slim-{SUITE}"
            log.write(f"Base: {reference}\n")
            recipe = Recipe(f"FROM {reference}\nRUN python --version && pip --version\n", ("python --version",))
            return Base(recipe, self._empty_context(), reference)
        interpreter = await self._interpreter(version, log)
        if interpreter is None:
            rootfs = await self._rootfs(log, "-python", _DEBIAN_PYTHON)
            source = f"Debian {SUITE} (mmdebstrap) with Debian's Python {DEBIAN_SERIES}"
            log.write(f"Base: {source}\n")
            return Base(_debian_recipe(rootfs.name), self._cache, source)
        rootfs = await self._rootfs(log)
        python = await self._python(interpreter, rootfs, log)
        source = f"Debian {SUITE} (mmdebstrap), Python {interpreter.version} of this machine ({interpreter.origin})"
        log.write(f"Base: {source}\n")
        return Base(_local_recipe(rootfs.name, python.name), self._cache, source)

    async def _registry_answers(self) -> bool:
        if self._registry is None:
            self._registry = await asyncio.to_thread(_answers, _REGISTRY_API)
        return self._registry

    async def _interpreter(self, version: str, log: BuildLog) -> Interpreter | None:
        """An interpreter to copy; None to take Debian's own."""
        if self._interpreters is None:
            self._interpreters = await asyncio.to_thread(python_source.find_interpreters, self._environ, self._pythons)
        found = [interpreter for interpreter in self._interpreters if interpreter.answers(version)]
        if not found and await self._download(version, log):
            self._interpreters = await asyncio.to_thread(python_source.find_interpreters, self._environ, self._pythons)
            found = [interpreter for interpreter in self._interpreters if interpreter.answers(version)]
        if found:
            return found[0]
        if version == DEBIAN_SERIES:
            return None
        series = {found.series for found in self._interpreters} & set(SUPPORTED) | {DEBIAN_SERIES}
        there = ", ".join(sorted(series, key=lambda text: int(text.split(".")[1])))
        raise InvalidError(
            f"Python {version} is not available on this machine, and no image registry can be reached. "
            f"Available: {there}. Install another with: uv python install {version}"
        )

    async def _download(self, version: str, log: BuildLog) -> bool:
        """Let uv fetch an interpreter; whether it could."""
        uv = python_source.find_uv()
        if uv is None:
            return False
        log.write(f"No Python {version} that can be copied is on this machine; trying to download one\n")
        command = [*NAMESPACE, str(uv), "python", "install", "--no-bin", "--install-dir", str(self._pythons), version]
        environment = {**self._environ, "UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}
        try:
            await run_command(command, environment, lambda line: None)
        except CommandFailed as failure:
            log.write(f"It cannot be downloaded here: {(failure.output.strip().splitlines() or ['?'])[-1].strip()}\n")
            return False
        return True

    async def _rootfs(self, log: BuildLog, suffix: str = "", packages: tuple[str, ...] = ()) -> Path:
        target = self._cache / f"debian-{SUITE}{suffix}-{_FORMAT}.tar"
        async with self._made_once(target, log) as temporary:
            if temporary is not None:
                await _mmdebstrap(temporary, (*_INCLUDE, *packages), log)
        return target

    async def _python(self, interpreter: Interpreter, rootfs: Path, log: BuildLog) -> Path:
        identity = f"{interpreter.path} {interpreter.path.stat().st_mtime_ns}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        target = self._cache / f"python-{interpreter.version}-{digest}-{_FORMAT}.tar"
        async with self._made_once(target, log) as temporary:
            if temporary is not None:
                log.write(f"Copying Python {interpreter.version} from {interpreter.prefix}\n")
                await asyncio.to_thread(_pack, interpreter, rootfs, temporary)
        return target

    @contextlib.asynccontextmanager
    async def _made_once(self, target: Path, log: BuildLog) -> AsyncIterator[Path | None]:
        """Give a path to write `target` to, or None when it is there. Others on this machine wait meanwhile."""
        if target.exists():
            yield None
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        with open(self._cache / f".{target.name}.lock", "w") as lock:
            await _lock(lock.fileno(), log)
            if target.exists():
                yield None
                return
            prefix = f".making-{target.name}-"
            for abandoned in self._cache.glob(prefix + "*"):  # its maker is dead: we have the lock
                shutil.rmtree(abandoned, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=prefix, dir=self._cache) as directory:
                Path(directory).chmod(0o755)  # apt downloads as a user of its own
                temporary = Path(directory) / target.name
                yield temporary
                _publish(temporary, target)

    def _empty_context(self) -> Path:
        path = self._cache / "empty"
        path.mkdir(parents=True, exist_ok=True)
        return path


def _local_recipe(rootfs: str, python: str) -> Recipe:
    text = (
        f"FROM scratch\nADD {rootfs} {python} /\n"
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8\n"
        'CMD ["python3"]\n'
        "RUN ldconfig && python -c 'import ssl, sqlite3, ctypes, zlib, bz2, lzma' && "
        "python --version && pip --version\n"
    )
    return Recipe(text, ("Debian and Python", "", "", "python --version"))


def _debian_recipe(rootfs: str) -> Recipe:
    text = (
        f"FROM scratch\nADD {rootfs} /\n"
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8\n"
        'CMD ["python3"]\n'
        "RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s /usr/bin/python3 /usr/local/bin/python && "
        "python --version && pip --version\n"
    )
    return Recipe(text, ("Debian and Python", "", "", "python --version"))


async def _lock(descriptor: int, log: BuildLog) -> None:
    """Take a file lock without blocking the loop; it is dropped when the file is closed or the process dies."""
    waiting = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waiting:
                log.write("Waiting for another server on this machine that makes the same base\n")
            waiting = True
            await asyncio.sleep(0.2)


def _publish(temporary: Path, target: Path) -> None:
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


async def _mmdebstrap(target: Path, packages: tuple[str, ...], log: BuildLog) -> None:
    if shutil.which("mmdebstrap") is None:
        raise MissingTool("mmdebstrap", "mmdebstrap", "make Debian images without an image registry")
    started = time.monotonic()
    log.write(f"Making a Debian {SUITE} base from the host's mirror; this happens once and takes about a minute\n")
    main, security = host_mirror(read_sources())
    sources = target.with_name("debian.sources")
    sources.write_text(_SOURCES)
    command = [*NAMESPACE, "mmdebstrap", "--variant=minbase", "--mode=root", "--format=tar"]
    # The mirror is this machine's business; images name Debian's own.
    command += [f'--customize-hook=cp {shlex.quote(str(sources))} "$1/etc/apt/sources.list.d/debian.sources"']
    command += ['--customize-hook=rm -f "$1/etc/apt/sources.list" "$1/etc/hostname" "$1/etc/resolv.conf"']
    command += [f"--include={','.join(packages)}", '--aptopt=Acquire::Languages "none"']
    for pattern in ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"):
        command += [f"--dpkgopt=path-exclude={pattern}"]
    command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", SUITE, str(target)]
    command += [f"deb {main} {SUITE} main", f"deb {main} {SUITE}-updates main", f"deb {security} {SUITE}-security main"]
    environment = {**os.environ, "TMPDIR": str(target.parent)}
    try:
        await run_command(command, environment, log.write)
    except CommandFailed as failure:
        raise RuntimeFailure(f"mmdebstrap could not make a Debian base: {failure.output.strip()[-2000:]}") from None
    log.write(f"Made the Debian base in {time.monotonic() - started:.0f} s\n")


def _pack(interpreter: Interpreter, rootfs: Path, temporary: Path) -> None:
    libraries = _library_names(rootfs)
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=temporary.parent) as stage:
        try:
            python_source.pack(interpreter, libraries, Path(stage), temporary)
        except OSError as error:
            raise DiskFull(f"The base could not be written: {error}.") from error


def _library_names(rootfs: Path) -> set[str]:
    with tarfile.open(rootfs) as tar:
        return {Path(name).name for name in tar.getnames() if ".so" in name and name.startswith(_LIBRARY_DIRS)}


def _answers(url: str) -> bool:
    """Whether a registry is there: an answer that asks for credentials is one."""
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (200, 401)
    except (OSError, socket.timeout, ssl.SSLError, ValueError):
        return False
