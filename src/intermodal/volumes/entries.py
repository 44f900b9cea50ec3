"""What is in one layer of a volume: files, directories, links, and what it deletes from the layers below."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intermodal.overlay.marks import is_opaque, is_whiteout
from intermodal.volumes.digests import digest_of

#: Bytes of a path in a volume: the rest of what Linux allows is for the directories that volumes are kept in.
PATH_LIMIT = 3584


@dataclass(frozen=True)
class Entry:
    """One entry of a layer, by its path relative to the layer's root."""

    path: str
    kind: str  #: "file", "directory", "link", "whiteout" or "special"
    mode: int  #: permission bits
    uid: int
    gid: int
    size: int = 0  #: bytes of a file
    digest: str = ""  #: of a file
    target: str = ""  #: of a link
    opaque: bool = False  #: a directory that hides what lower layers have in it

    def to_json(self) -> list[Any]:
        return list(vars(self).values())

    @classmethod
    def from_json(cls, values: list[Any]) -> Entry:
        return cls(*values)


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below `root`, parents first, with its status. Does not follow links."""
    folders = [""]
    while folders:
        folder = folders.pop()
        below = []
        with os.scandir(root / folder) as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            path = f"{folder}/{name}" if folder else name
            try:
                status = os.lstat(root / path)
            except FileNotFoundError:  # deleted meanwhile
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                below.append(path)
        folders += reversed(below)


def kind_of(status: os.stat_result) -> str:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "link"
    if is_whiteout(status):
        return "whiteout"
    return "special"


def entries_of(root: Path, pool: Executor | None = None, known: Mapping[int, str] | None = None) -> list[Entry]:
    """Every entry of a layer, with the digests of its files.

    Args:
        pool: hashes large files on several cores.
        known: digests of files that need not be read, by their inode number.

    Raises OSError.
    """
    known = known or {}
    found = []
    for path, status in walk(root):
        kind = kind_of(status)
        full = root / path
        found.append(
            Entry(
                path,
                kind,
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_size if kind == "file" else 0,
                (known.get(status.st_ino) or digest_of(full, pool)) if kind == "file" else "",
                str(full.readlink()) if kind == "link" else "",
                kind == "directory" and is_opaque(full),
            )
        )
    return found
