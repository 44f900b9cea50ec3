"""Finds and removes mounts that a crashed agent left."""

from __future__ import annotations

import re
from pathlib import Path

from intermodal.runtimes.syscalls import unmount

_ESCAPE = re.compile(r"\\([0-7]{3})")


def mounts_below(top: Path, mountinfo: str | None = None) -> list[Path]:
    """Mount points at or below `top`, in the order to unmount them. One point is named as often as it is mounted on."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    points = [Path(_ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split()[4])) for line in text.splitlines()]
    return [point for point in reversed(points) if point == top or top in point.parents]


def unmount_below(top: Path) -> int:
    """Unmount everything at or below `top`; return how many mounts there were. Raises OSError."""
    points = mounts_below(top)
    for point in points:
        unmount(point)
    return len(points)
