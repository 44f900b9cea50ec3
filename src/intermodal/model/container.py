"""What it takes to run one container, and how it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from modal._wire.messages.common import FileEntry
from modal._wire.messages.function import Resources
from modal._wire.messages.runner import Start


@dataclass(frozen=True)
class BuiltImage:
    """An image ready to be run on this node."""

    image_id: str
    layers: tuple[Path, ...]  #: directories for overlayfs, topmost first
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""  #: "" when the image names none
    python: str = ""  #: absolute path of the interpreter in the image, "" when there is none
    python_version: str = ""  #: "3.11.7"
    entrypoint: tuple[str, ...] = ()
    source: str = ""  #: where the base came from, for people


#: Directories of containers where nothing of people's can be mounted.
RESERVED_PLACES = ("/proc", "/sys", "/dev", "/opt/intermodal")


@dataclass(frozen=True)
class MountedObject:
    """A volume or network file system in a container."""

    path: str  #: absolute
    object_id: str  #: vo-… or sr-…
    read_only: bool = False

    @property
    def is_volume(self) -> bool:
        return self.object_id.startswith("vo-")


@dataclass(frozen=True)
class MountedBucket:
    """A bucket of an S3-compatible service in a container."""

    path: str  #: absolute
    name: str
    endpoint_url: str = ""  #: "": Amazon's
    key_prefix: str = ""  #: ends with a slash
    read_only: bool = False
    requester_pays: bool = False
    #: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and maybe AWS_SESSION_TOKEN, AWS_REGION; none for a public bucket
    credentials: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ContainerSpec:
    """One container to start. Mount files are named by digest; the node finds the bytes in the blob store."""

    container_id: str  #: ta-…
    image: BuiltImage
    start: Start  #: what the runner is told
    start_body: bytes = b""  #: the serialized function, if any
    files: tuple[FileEntry, ...] = ()  #: mounts, merged: later entries win
    env: dict[str, str] = field(default_factory=dict)  #: over the image's; secrets are in `start.variables`
    resources: Resources = field(default_factory=Resources)
    block_network: bool = False
    volumes: tuple[MountedObject, ...] = ()
    buckets: tuple[MountedBucket, ...] = ()


class ExitCause(enum.Enum):
    """Why a container ended: whose doing it was."""

    FINISHED = "finished"  #: exit status 0 after it was asked to stop
    EXITED = "exited"  #: the process ended by itself (os._exit, sys.exit, crash)
    SIGNALED = "signaled"  #: killed by a signal that was not ours
    OUT_OF_MEMORY = "out_of_memory"
    STOPPED = "stopped"  #: killed by us
    START_FAILED = "start_failed"  #: never came up: no interpreter, broken image, crash before Ready


@dataclass(frozen=True)
class ContainerExit:
    cause: ExitCause
    code: int | None = None  #: exit status, when the process exited
    signal: int | None = None
    detail: str = ""  #: one sentence for people, naming the limit, signal or status
