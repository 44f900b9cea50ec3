"""Which files of a mount a container's processes have open. To be asked while they are paused: else it may change.

Nothing is asked of other file systems: one that hangs, such as a bucket, would keep the answer from coming.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from intermodal.node.mount_table import mounts, proc_lines

_WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Use:
    """One way in which a process uses a mount."""

    name: str  #: of the file, as the process knows it; bytes that are no text are surrogates
    writes: bool  #: it may still change the mount


def uses_of(pid: int, device: int, path: str) -> list[Use]:
    """How the processes of the container of process `pid` use a file system that is mounted in it.

    Args:
        device: of the file system, wherever it is mounted there: links may have led elsewhere than people think.
        path: what its mount point is called.

    Raises OSError.
    """
    named = f"{os.major(device)}:{os.minor(device)}"
    places = {
        one.mount_id: one.path for one in mounts(proc_lines(Path(f"/proc/{pid}/mountinfo"))) if one.device == named
    }
    namespace = Path(f"/proc/{pid}/ns/mnt").readlink()
    found: list[Use] = []
    for process in _processes(namespace):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found += _uses(process, places, path)
    return list(dict.fromkeys(found))


def _processes(namespace: Path) -> Iterator[int]:
    """Every process in a mount namespace."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "ns/mnt").readlink() == namespace:
                    yield int(folder.name)


def _uses(pid: int, places: Mapping[str, str], path: str) -> Iterator[Use]:
    """`places`: where the file system is mounted, by the ids of the mounts."""
    for link in ("cwd", "root"):
        if _mount_of(f"/proc/{pid}/{link}") in places:
            yield Use(f"{path} (the working directory of process {pid})", True)
    for about in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            facts = _facts(about)
            if facts.get("mnt_id") in places:
                opened = Path(f"/proc/{pid}/fd/{about.name}")
                # A directory that is open is where files can be made, by names relative to it.
                yield Use(str(opened.readlink()), bool(int(facts["flags"], 8) & _WRITES) or opened.is_dir())
    for line in proc_lines(Path(f"/proc/{pid}/maps")):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and any(fields[5].startswith(f"{place}/") for place in places.values()):
            yield Use(fields[5], fields[1][1] == "w" and fields[1][3] == "s")


def _mount_of(link: str) -> str:
    """The id of the mount that a directory is on. Its file system is not asked, as by `os.stat`."""
    descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        return _facts(Path(f"/proc/self/fdinfo/{descriptor}"))["mnt_id"]
    finally:
        os.close(descriptor)


def _facts(about: Path) -> dict[str, str]:
    """What the kernel tells of a descriptor."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in proc_lines(about))}
