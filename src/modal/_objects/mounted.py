"""What a function has mounted: volumes, network file systems and buckets, by the path where they are."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union

from ..exception import InvalidError
from .cloud_bucket_mount import CloudBucketMount
from .network_file_system import NetworkFileSystem
from .volume import Volume

#: Where nothing can be mounted: the system's own.
_RESERVED = ("/proc", "/sys", "/dev", "/opt/intermodal")
#: What would be hidden: the user's program, Python, and what they need. Directories within can be mounted.
_HIDING = ("/root", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt")


@dataclass(frozen=True)
class Mounted:
    """An object and its place in containers."""

    path: str
    obj: Union[Volume, NetworkFileSystem, CloudBucketMount]


def check_mounted(volumes: Any, network_file_systems: Any) -> tuple[Mounted, ...]:
    """Check the parameters `volumes` and `network_file_systems`, and put them together.

    Raises:
        InvalidError: a path is not possible or has two objects, or an object is of the wrong kind.
    """
    found = [
        *_checked("volumes", volumes, (Volume, CloudBucketMount)),
        *_checked("network_file_systems", network_file_systems, (NetworkFileSystem,)),
    ]
    paths = [one.path for one in found]
    twice = next((path for number, path in enumerate(paths) if path in paths[:number]), None)
    if twice is not None:
        raise InvalidError(f"Two things are to be mounted at {twice!r}; give each a directory of its own.")
    return merge_mounted((), found)


def merge_mounted(below: Iterable[Mounted], above: Iterable[Mounted]) -> tuple[Mounted, ...]:
    """Both together; where the path is the same, that of `above`.

    Raises:
        InvalidError: one is mounted within another, or one volume at two paths.
    """
    by_path = {one.path: one for one in (*below, *above)}
    paths = sorted(by_path)
    for outer in paths:
        inner = next((path for path in paths if path.startswith(f"{outer}/")), None)
        if inner is not None:
            raise InvalidError(f"{inner!r} cannot be mounted within {outer!r}; use directories that lie side by side.")
    objects = [one.obj for one in by_path.values() if not isinstance(one.obj, CloudBucketMount)]
    twice = next((obj for number, obj in enumerate(objects) if any(obj is other for other in objects[:number])), None)
    if twice is not None:
        raise InvalidError(f"{twice!r} is mounted at two paths; one volume can be mounted once in a container.")
    return tuple(by_path[path] for path in paths)


def _checked(name: str, given: Any, kinds: tuple[type[Any], ...]) -> list[Mounted]:
    if not isinstance(given, Mapping):
        raise InvalidError(f'{name} must be a dict such as {{"/data": volume}}, not {given!r}.')
    found = []
    for path, obj in given.items():
        if not isinstance(obj, kinds):
            wanted = " or ".join(f"modal.{kind.__name__}" for kind in kinds)
            raise InvalidError(f"{name} must hold {wanted}; at {str(path)!r} it has {obj!r}.")
        found.append(Mounted(_path(name, path), obj))
    return found


def _path(name: str, value: Any) -> str:
    text = str(value)
    path = posixpath.normpath(text)
    if not text.startswith("/") or path in ("/", "//") or ".." in text.split("/") or "\0" in text or len(text) > 4000:
        raise InvalidError(
            f"{name} must be mounted at absolute paths of directories, such as '/data', not {text[:100]!r}."
        )
    path = "/" + path.lstrip("/")
    if any(path == reserved or path.startswith(f"{reserved}/") for reserved in _RESERVED):
        raise InvalidError(
            f"{name} cannot be mounted at {path!r}, which belongs to the system; use a path such as '/data'."
        )
    if path in _HIDING:
        what = "your program" if path == "/root" else "parts of the system"
        raise InvalidError(
            f"{name} cannot be mounted at {path!r}, since that would hide {what}; use a directory of its own, such as "
            f"'{path}/data'."
        )
    return path
