"""Objects with a name in an environment (dicts, queues and later kinds), and their nameless, ephemeral kin."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from .common import Empty, Method
from .dict import DictEntry


class ObjectKind(enum.Enum):
    DICT = "dict"
    QUEUE = "queue"
    VOLUME = "volume"
    NETWORK_FILE_SYSTEM = "nfs"  #: as its command is called


@dataclass(frozen=True)
class NamedGet:
    """Find an object by its name; NotFoundError when there is none, unless it shall be made.

    A dict that is made begins with `entries`, whose keys and values are in the body: nobody finds it without them.
    """

    kind: ObjectKind
    name: str
    environment: str
    create_if_missing: bool = False
    entries: list[DictEntry] = field(default_factory=list)


@dataclass(frozen=True)
class NamedHandle:
    object_id: str
    created: bool = False  #: by this request


@dataclass(frozen=True)
class EphemeralCreate:
    """Make an object without a name. It is deleted when it is released, or its client's session is over."""

    kind: ObjectKind
    environment: str


@dataclass(frozen=True)
class EphemeralRelease:
    object_id: str


@dataclass(frozen=True)
class NamedDelete:
    """Delete an object with its content; NotFoundError when there is none."""

    kind: ObjectKind
    name: str
    environment: str


@dataclass(frozen=True)
class NamedRename:
    """Give an object another name; InvalidError when that is taken."""

    kind: ObjectKind
    name: str
    new_name: str
    environment: str


@dataclass(frozen=True)
class NamedList:
    kind: ObjectKind
    environment: str


@dataclass(frozen=True)
class NamedInfo:
    name: str
    object_id: str
    created_at: float  #: seconds since the epoch


@dataclass(frozen=True)
class NamedListed:
    objects: list[NamedInfo] = field(default_factory=list)  #: by name


NAMED_GET = Method("named.get", NamedGet, NamedHandle, mutating=True)
NAMED_FIND = Method("named.find", NamedGet, NamedHandle)  #: as `named.get`, but makes nothing
NAMED_DELETE = Method("named.delete", NamedDelete, Empty, mutating=True)
NAMED_RENAME = Method("named.rename", NamedRename, Empty, mutating=True)
NAMED_LIST = Method("named.list", NamedList, NamedListed)
EPHEMERAL_CREATE = Method("ephemeral.create", EphemeralCreate, NamedHandle, mutating=True)
EPHEMERAL_RELEASE = Method("ephemeral.release", EphemeralRelease, Empty, mutating=True)
