"""What `modal volume` says of a volume."""

from __future__ import annotations

import json

from acceptance_harness import Platform


def sizes(platform: Platform, volume: str, path: str = "/") -> dict[str, str]:
    """The entries of a directory: sizes by path."""
    rows = json.loads(platform.modal("volume", "ls", volume, path, "--json").succeeded().out)
    return {row["filename"]: row["size"] for row in rows}


def files(platform: Platform, volume: str, path: str = "/") -> list[str]:
    """The paths of the entries of a directory."""
    return list(sizes(platform, volume, path))


def text(platform: Platform, volume: str, path: str) -> str:
    """What a file holds."""
    return platform.modal("volume", "get", volume, path, "-").succeeded().out


def is_sound(platform: Platform, volume: str) -> bool:
    """Whether it has what was committed."""
    return "as it was committed" in platform.intermodal("volume", "verify", volume).succeeded().out
