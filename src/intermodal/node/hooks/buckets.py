"""Buckets in containers: one FUSE process for each, which lives as long as the container.

It is mounted before the container starts, so a bucket that is not there, or keys that are wrong, fail the start with
the reason. It ends because its mount goes: after the container's process, or, with the agent, by the kernel's doing.
The agent's child is its launcher, which ends it when it is told to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from intermodal.model.container import MountedBucket
from intermodal.model.errors import BadImage, MissingTool
from intermodal.node.bucket_programs import MOUNT_S3, S3FS, failure_of, fuse_command
from intermodal.node.container import Container
from intermodal.node.fuse_launcher import Plan, command
from intermodal.node.hooks.interface import Hook
from intermodal.node.layout import NodeLayout
from intermodal.node.mount_table import unmount_below
from intermodal.runtimes.interface import BindMount
from intermodal.runtimes.syscalls import make_shared_point, unmount

log = logging.getLogger(__name__)
_DEVICE = Path("/dev/fuse")
_USERS = 65_536  #: of containers, from `uid_base` on; FUSE processes are the user after these
_MOUNT_TIMEOUT = 60.0  #: seconds
_POLL = 0.02
_END_TIMEOUT = 20.0  #: seconds for a process whose mount is gone, which may still be writing
_LINES = 20  #: of what a process says that are kept
_LINE_BYTES = 4000


@dataclass(eq=False)
class _Mount:
    """One bucket in one container."""

    bucket: MountedBucket
    home: Path
    process: asyncio.subprocess.Process | None = None
    listening: asyncio.Task[None] | None = None
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    is_mounted: bool = False
    is_ending: bool = False

    @property
    def point(self) -> Path:
        return self.home / "bucket"


class BucketsHook(Hook):
    """Mounts `spec.buckets` outside and binds them into the container. Comes after the network, which it uses.

    Args:
        layout: where things are.
        uid_base: root in containers, to whom all files belong.
        say: tells people something about a container.
        device: of FUSE.
    """

    def __init__(
        self, layout: NodeLayout, uid_base: int, say: Callable[[str, str], None], device: Path = _DEVICE
    ) -> None:
        self._layout = layout
        self._uid_base = uid_base
        self._say = say
        self._device = device
        self._mounts: dict[str, list[_Mount]] = {}

    async def open(self) -> None:
        await asyncio.to_thread(self._clean)
        self._layout.buckets.mkdir(mode=0o711, exist_ok=True)
        self._layout.buckets.chmod(0o711)

    async def close(self) -> None:
        await asyncio.to_thread(self._clean)

    def _clean(self) -> None:
        unmount_below(self._layout.buckets)
        with contextlib.suppress(FileNotFoundError):
            for home in self._layout.buckets.iterdir():
                _remove(home)
            self._layout.buckets.rmdir()

    async def prepare(self, container: Container) -> None:
        if not container.spec.buckets:
            return
        program = shutil.which(MOUNT_S3) or shutil.which(S3FS)
        if program is None:
            raise MissingTool(S3FS, "s3fs", "mount buckets")
        self._open_device()
        mounts = self._mounts[container.id] = [
            _Mount(bucket, self._layout.buckets / f"{container.id}-{number}")
            for number, bucket in enumerate(container.spec.buckets)
        ]
        starts = [asyncio.ensure_future(self._mount(container, one, program)) for one in mounts]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
        container.mounts += [BindMount(one.point, one.bucket.path, one.bucket.read_only) for one in mounts]

    def _open_device(self) -> None:
        """Any user may open it on Debian; where no udev runs, nobody has said so."""
        try:
            mode = self._device.stat().st_mode
        except FileNotFoundError:
            raise BadImage(
                f"Buckets cannot be mounted, since this machine has no {self._device}; load the module: modprobe fuse"
            ) from None
        if stat.S_IMODE(mode) & 0o006 != 0o006:
            self._device.chmod(0o666)

    async def _mount(self, container: Container, one: _Mount, program: str) -> None:
        if container.netns is None:
            raise BadImage("A bucket cannot be mounted in a container whose network is blocked.")
        user = self._uid_base + _USERS
        shown = self._make_home(container, one, user)
        wanted = fuse_command(program, one.bucket, one.point, self._uid_base)
        plan = Plan(
            argv=list(wanted.argv),
            point=str(one.point),
            network=str(container.netns),
            hidden=[
                str(self._layout.run),
                str(self._layout.buckets),
                str(self._layout.volumes),
                str(self._layout.scratch),
            ],
            shown=shown,
            user=user,
        )
        before = one.point.stat().st_dev
        one.process = await asyncio.create_subprocess_exec(
            *command(plan),
            env=wanted.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        one.listening = asyncio.create_task(self._listen(container, one), name=f"bucket of {container.id}")
        if not await _is_mounted(one, before):
            await _end(one)  # then all that it said is there
            raise failure_of(one.bucket, "\n".join(one.said))
        one.is_mounted = True

    def _make_home(self, container: Container, one: _Mount, user: int) -> dict[str, str]:
        """Make the directories of a mount; return which files its process sees, where."""
        one.home.mkdir(mode=0o711)
        one.home.chmod(0o711)
        files = container.scratch / one.home.name
        files.mkdir(mode=0o711)
        texts = {
            "passwd": f"root:x:0:0::/:/bin/false\nbucket:x:{user}:{user}::/:/bin/false\n",
            "fuse.conf": "user_allow_other\n",
        }
        for name, text in texts.items():
            (files / name).write_text(text)
            (files / name).chmod(0o644)
        (files / "tmp").mkdir(mode=0o700)
        os.chown(files / "tmp", user, user)
        one.point.mkdir(mode=0o700)
        os.chown(one.point, user, user)
        make_shared_point(one.point)
        return {
            "/etc/passwd": str(files / "passwd"),
            "/etc/fuse.conf": str(files / "fuse.conf"),
            "/etc/resolv.conf": str(container.home / "etc" / "resolv.conf"),
            "/tmp": str(files / "tmp"),
        }

    async def _listen(self, container: Container, one: _Mount) -> None:
        """Keep the last that the process says; tell people when it ends although its container has not."""
        assert one.process is not None
        assert one.process.stdout is not None
        rest = b""
        while data := await one.process.stdout.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            one.said.extend(line[:_LINE_BYTES].decode(errors="replace") for line in lines)
            rest = rest[:_LINE_BYTES]
        if rest:
            one.said.append(rest.decode(errors="replace"))
        await one.process.wait()
        if not one.is_ending and container.process is not None:
            reason = one.said[-1] if one.said else "it gave no reason"
            log.error("the FUSE process of %s in %s ended: %s", one.bucket.name, container.id, reason)
            self._say(container.id, f"The bucket at {one.bucket.path} is gone, since its process ended: {reason}\n")

    def end_waits(self, container: Container) -> None:
        # A process that waits for its bucket cannot be killed. Without the program that serves it, it waits no more.
        for one in self._mounts.get(container.id, []):
            if one.process is not None and one.process.returncode is None:
                one.is_ending = True
                one.process.terminate()

    async def release(self, container: Container) -> None:
        mounts = self._mounts.pop(container.id, [])
        await asyncio.gather(*(self._release(one) for one in mounts))

    async def _release(self, one: _Mount) -> None:
        try:
            await _end(one)
        finally:
            _remove(one.home)


async def _is_mounted(one: _Mount, before: int) -> bool:
    """Wait until the mount answers; False when the process ends without, or takes too long."""
    # A thread of its own, since a question may hang: shared threads would soon all be taken, for whatever needs one.
    asker = ThreadPoolExecutor(1, "bucket")
    try:
        return await _answers(one, before, asker)
    finally:
        asker.shutdown(wait=False)


async def _answers(one: _Mount, before: int, asker: ThreadPoolExecutor) -> bool:
    assert one.process is not None
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + _MOUNT_TIMEOUT
    while one.process.returncode is None:
        # The first question is answered once the program has asked the service whether the bucket is there.
        asking = loop.run_in_executor(asker, os.stat, one.point)
        done, _ = await asyncio.wait([asking], timeout=max(0.1, deadline - time.monotonic()))
        if not done or time.monotonic() > deadline:
            one.process.terminate()  # which ends the question, too
            one.said.append("it timed out")
            await asyncio.gather(asking, return_exceptions=True)
            return False
        if asking.exception() is not None:
            # It was mounted, and is no more. What the process has to say of that it says as it ends.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(one.process.wait(), _END_TIMEOUT)
            return False
        if asking.result().st_dev != before:
            return True
        await asyncio.sleep(_POLL)
    return False


async def _end(one: _Mount) -> None:
    """Unmount it, and wait for the process to end of that; else it is ended."""
    one.is_ending = True
    if one.process is not None and not one.is_mounted:
        with contextlib.suppress(ProcessLookupError):
            one.process.terminate()
        await one.process.wait()  # it must not mount anything after this
    while unmount(one.point):
        pass
    if one.process is None:
        return
    try:
        await asyncio.wait_for(one.process.wait(), _END_TIMEOUT)
    except asyncio.TimeoutError:
        log.warning("the FUSE process of the bucket %s did not end by itself", one.bucket.name)
        with contextlib.suppress(ProcessLookupError):
            one.process.terminate()
        await one.process.wait()
    if one.listening is not None:
        await asyncio.gather(one.listening, return_exceptions=True)


def _remove(home: Path) -> None:
    """Remove the empty directories of a mount, and nothing else: below may be somebody's bucket."""
    with contextlib.suppress(FileNotFoundError):
        for directory in home.iterdir():
            directory.rmdir()
        home.rmdir()
