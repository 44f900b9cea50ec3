"""One mount of a volume that writes: its directories, and what is written down of it for a server that finds it dead.

<session>/upper          what was written and is not detached
<session>/work           overlayfs's own
<session>/version.json   the version that it is mounted on
<session>/copied.json    what earlier copies of `upper` have committed
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intermodal.volumes.changes import Change
from intermodal.volumes.durable import remove_tree, write

#: What tells whether a changed entry is the same as before.
Print = tuple[Any, ...]
GONE = ".gone"  # the end of the name of a directory that is being deleted
#: The start of the id of a session of which all is committed at once: what a dead server left of it is half of that.
WHOLE = "server-"


@dataclass(frozen=True)
class Version:
    """What is committed."""

    number: int = 0
    layers: tuple[str, ...] = ()  #: ids, topmost first

    def to_json(self) -> bytes:
        return json.dumps({"number": self.number, "layers": self.layers}).encode()

    @staticmethod
    def from_json(text: bytes) -> Version:
        found = json.loads(text)
        return Version(found["number"], tuple(found["layers"]))


@dataclass
class Session:
    """One mount that writes: its own directories, over the version that it began with."""

    volume_id: str
    session_id: str
    folder: Path
    version: Version
    #: What earlier copies of the writable directory have committed: path -> what tells whether it has changed.
    copied: Mapping[str, Print] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)  #: the layers that they made, oldest first
    unpublished: list[str] = field(default_factory=list)  #: pending layers, oldest first
    #: The lowest layers of the version, and one that stands for them from the next mount on.
    merged: tuple[tuple[str, ...], str] | None = None
    unused: tuple[str, ...] = ()  #: layers that it has held, and needs no more

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    def make_work(self) -> None:
        """The kernel refuses a work directory that was used before."""
        remove_tree(self.folder / "work")
        (self.folder / "work").mkdir()

    def hid(self, path: str) -> bool:
        """Whether the last copy had a directory there that hides what is below it."""
        return self.copied.get(path, ())[:1] == (True,)

    def remember_version(self) -> None:
        """Write down what it is mounted on."""
        write(self.folder / "version.json", self.version.to_json(), sync=False)

    def remember_copied(self) -> None:
        """Write down what was copied: else all of it would be committed again, above what others have since."""
        if self.copied:
            write(self.folder / "copied.json", json.dumps(self.copied).encode(), sync=False)

    def forget_copied(self) -> None:
        """The writable directory is another one."""
        (self.folder / "copied.json").unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete its directory, all at once for whoever looks after a death: half of it would look like changes."""
        remove_session(self.folder)


def remove_session(folder: Path) -> None:
    """Delete the directory of a session; see `Session.remove`."""
    gone = folder if folder.name.endswith(GONE) else folder.with_name(folder.name + GONE)
    with contextlib.suppress(OSError):  # then it stays, whole
        folder.rename(gone)
    remove_tree(gone)


def print_of(change: Change) -> Print:
    """What tells whether an entry is the same as before. A directory's times change with its entries."""
    status = change.status
    if change.is_whiteout:
        return ()  # the kernel makes them names of one file
    if change.is_directory:
        return change.opaque, status.st_mode, status.st_uid, status.st_gid
    ctime = 0 if change.below is not None else status.st_ctime_ns  # a further name of it changes that
    return status.st_ino, status.st_size, status.st_mtime_ns, ctime
