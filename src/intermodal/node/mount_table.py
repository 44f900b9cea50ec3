"""The kernel's table of mounts; finds and removes those that a crashed agent left."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from intermodal.runtimes.syscalls import unmount

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class MountPoint:
    """One line of the table."""

    mount_id: str
    device: str  #: "major:minor"
    path: str


def mounts(mountinfo: Iterable[str]) -> Iterator[MountPoint]:
    """What the lines of a ``/proc/<pid>/mountinfo`` list, oldest first."""
    for line in mountinfo:
        fields = line.split(" ")
        path = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4])
        yield MountPoint(fields[0], fields[2], path)


def proc_lines(path: Path) -> list[str]:
    """The lines of a file of /proc. Users name files as they like: what is no UTF-8 becomes surrogates. Raises OSError.

    Only the kernel's line ends count: `str.splitlines` has others, which may be in names.
    """
    return path.read_text("utf-8", "surrogateescape").removesuffix("\n").split("\n")


def mounts_below(top: Path, mountinfo: list[str] | None = None) -> list[Path]:
    """Mount points at or below `top`, in the order to unmount them. One point is named as often as it is mounted on."""
    lines = proc_lines(Path("/proc/self/mountinfo")) if mountinfo is None else mountinfo
    points = [Path(one.path) for one in mounts(lines)]
    return [point for point in reversed(points) if point == top or top in point.parents]


def unmount_below(top: Path) -> int:
    """Unmount everything at or below `top`; return how many mounts there were. Raises OSError."""
    points = mounts_below(top)
    for point in points:
        unmount(point)
    return len(points)
