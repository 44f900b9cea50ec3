"""Mounts: files that a container gets besides its image."""

from __future__ import annotations

from dataclasses import dataclass, field

from .common import FileEntry, Method


@dataclass(frozen=True)
class MountCreate:
    """Files placed at container start. Every blob must have been uploaded; a missing one is a NotFoundError."""

    files: list[FileEntry] = field(default_factory=list)


@dataclass(frozen=True)
class MountRef:
    mount_id: str  #: mo-… derived from the content


MOUNT_CREATE = Method("mount.create", MountCreate, MountRef, mutating=True)
