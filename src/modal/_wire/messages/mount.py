"""Mounts and secrets: what a container gets besides its image."""

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


@dataclass(frozen=True)
class SecretCreate:
    """An anonymous secret that lives as long as its app."""

    app_id: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SecretRef:
    secret_id: str


MOUNT_CREATE = Method("mount.create", MountCreate, MountRef, mutating=True)
SECRET_CREATE = Method("secret.create", SecretCreate, SecretRef, mutating=True)
