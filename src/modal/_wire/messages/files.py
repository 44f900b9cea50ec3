"""Files of volumes and network file systems. Paths are relative to the root of one, and may begin with a slash."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional

from .common import Empty, Method, Shape


class FileKind(enum.Enum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    FIFO = "fifo"
    SOCKET = "socket"
    DEVICE = "device"


FILES_AT_ONCE = 1_000  #: in one request to read


@dataclass(frozen=True)
class FileInfo:
    path: str  #: without a slash before it
    kind: FileKind
    size: int  #: bytes
    mtime: int  #: seconds since the epoch
    target: str = ""  #: of a link: what it says
    leads_to: Optional[FileKind] = None  #: of a link: the kind of what it leads to; None: nothing that is there


@dataclass(frozen=True)
class FilesList:
    """What is in a directory; the entry of anything else; with `is_glob` all that a pattern matches."""

    object_id: str
    path: str
    recursive: bool = False
    is_glob: bool = False


@dataclass(frozen=True)
class FilesListed:
    entries: list[FileInfo] = field(default_factory=list)


@dataclass(frozen=True)
class FilesRead:
    """Files, one after the other: each begins with an item that has its path, as given here. Of a volume all are read
    from one version."""

    object_id: str
    paths: list[str]  #: up to FILES_AT_ONCE


@dataclass(frozen=True)
class FilesPut:
    """Write files, all or none (of a network file system: each whole or not at all)."""

    object_id: str
    force: bool = False  #: replace files that are there


@dataclass(frozen=True)
class FilePart:
    """The beginning of a file, with its path, or more of the last one. The body is the bytes."""

    path: str = ""
    mode: int = 0o644
    is_folder: bool = False  #: a directory to be made, without a body


@dataclass(frozen=True)
class FilesPutDone:
    existing: str = ""  #: a file that is there and was not to be replaced: nothing was written


@dataclass(frozen=True)
class FileRemove:
    object_id: str
    path: str
    recursive: bool = False


@dataclass(frozen=True)
class FilesCopy:
    object_id: str
    sources: list[str]
    target: str


@dataclass(frozen=True)
class VolumeRef:
    """A volume that is mounted in the container that asks."""

    volume_id: str


@dataclass(frozen=True)
class VolumeReloaded:
    open_files: list[str] = field(default_factory=list)  #: which kept it from being reloaded


@dataclass(frozen=True)
class VolumeProblem:
    """Something in a volume that is not as it was committed."""

    text: str


FILES_LIST = Method("files.list", FilesList, FilesListed, Shape.SERVER_STREAM)
FILES_READ = Method("files.read", FilesRead, FilePart, Shape.SERVER_STREAM)
FILES_PUT = Method("files.put", FilesPut, FilesPutDone, Shape.CLIENT_STREAM, mutating=True, item=FilePart)
FILE_REMOVE = Method("file.remove", FileRemove, Empty, mutating=True)
FILES_COPY = Method("files.copy", FilesCopy, Empty, mutating=True)
VOLUME_COMMIT = Method("volume.commit", VolumeRef, Empty, mutating=True)
VOLUME_RELOAD = Method("volume.reload", VolumeRef, VolumeReloaded, mutating=True)
VOLUME_VERIFY = Method("volume.verify", VolumeRef, VolumeProblem, Shape.SERVER_STREAM)
