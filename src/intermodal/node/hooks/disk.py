"""The writable files of a container: a plain directory, or a file system of limited size when it asks for one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
from pathlib import Path

from intermodal.model.errors import DiskFull, MissingTool, RuntimeFailure
from intermodal.node.container import Container
from intermodal.node.hooks.interface import Hook
from intermodal.node.layout import NodeLayout
from intermodal.runtimes.syscalls import unmount

log = logging.getLogger(__name__)

MIB = 1 << 20
#: What the file system itself needs; smaller disks cannot be formatted.
_SMALLEST_DISK = 8


class DiskHook(Hook):
    """Sets `container.upper` to a fresh directory with `upper` and `work` in it, owned by root of the container."""

    def __init__(self, layout: NodeLayout, uid_base: int) -> None:
        self._layout = layout
        self._uid_base = uid_base
        self._trash: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    async def open(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._layout.scratch, ignore_errors=True)
        self._layout.scratch.mkdir(parents=True, mode=0o700)

    async def prepare(self, container: Container) -> None:
        container.scratch.mkdir(mode=0o700)
        container.upper = container.scratch
        size = container.spec.resources.ephemeral_disk
        if size is not None:
            container.upper = container.scratch / "disk"
            await make_disk(container.scratch / "disk.img", container.upper, size)
        for name in ("upper", "work"):
            directory = container.upper / name
            directory.mkdir(mode=0o755)
            directory.chmod(0o755)  # whatever the umask
            os.chown(directory, self._uid_base, self._uid_base)

    async def release(self, container: Container) -> None:
        if container.spec.resources.ephemeral_disk is not None:
            unmount(container.scratch / "disk")
        # Deleting may take long; nobody needs to wait for it.
        doomed = self._layout.scratch / f".deleted-{next(self._numbers)}"
        with contextlib.suppress(FileNotFoundError):
            container.scratch.rename(doomed)
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True))
            self._trash.add(task)
            task.add_done_callback(self._trash.discard)

    async def close(self) -> None:
        if self._trash:
            await asyncio.gather(*self._trash)
        await asyncio.to_thread(shutil.rmtree, self._layout.scratch, ignore_errors=True)


async def make_disk(image: Path, target: Path, size: int) -> None:
    """Make a file system of `size` MiB in the file `image`, which grows as it is filled, and mount it at `target`."""
    if size < _SMALLEST_DISK:
        raise RuntimeFailure(f"An ephemeral disk of {size} MiB is too small; ask for at least {_SMALLEST_DISK} MiB.")
    target.mkdir(mode=0o755)
    with image.open("wb") as file:
        file.truncate(size * MIB)
    # No journal: the disk never outlives its container.
    await _run(
        "mkfs.ext4", "e2fsprogs", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1", str(image)
    )
    await _run("mount", "mount", "-t", "ext4", "-o", "loop,nosuid,nodev", str(image), str(target))


async def _run(program: str, package: str, *arguments: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise MissingTool(program, package, "make ephemeral disks") from None
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()  # it must not mount anything after this
        raise
    if process.returncode != 0:
        reason = errors.decode(errors="replace").strip()
        if "No space left" in reason:
            raise DiskFull(f"No space is left for an ephemeral disk: {reason}")
        raise RuntimeFailure(f"An ephemeral disk could not be made: {program} said: {reason or process.returncode}")
