"""What dicts and queues hold, as changes and as it is read back.

Changes of one object apply in the order written; applying some of them once more, in order, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NamedRecord:
    """A dict or a queue. Put again it replaces the one of its id; `deleted`, it and all it holds go."""

    object_id: str
    kind: str  #: modal._wire.messages.named.ObjectKind value
    environment_id: str
    name: str  #: "" for an ephemeral one
    session_id: str  #: of the client that an ephemeral one belongs to
    created_at: float
    deleted: bool = False


@dataclass(slots=True)
class StoredEntry:
    """An entry of a dict. `value` is None when it is a blob, or was too large to be read along."""

    key: bytes
    value: bytes | None
    expires_at: float
    blob_digest: str = ""
    blob_size: int = 0


@dataclass(slots=True)
class DictWrite:
    """First `cleared`, then `removed`, then `puts`."""

    dict_id: str
    puts: list[StoredEntry] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    cleared: bool = False


@dataclass(slots=True)
class StoredItem:
    """An item of a queue. `value` is None when it was too large to be read along."""

    partition: str
    number: int  #: increasing within the partition
    value: bytes | None
    expires_at: float  #: that of the partition since this item was put


@dataclass(slots=True)
class QueueWrite:
    """First `cleared`, then `removed`, then `puts`."""

    queue_id: str
    puts: list[StoredItem] = field(default_factory=list)
    removed: list[tuple[str, int]] = field(default_factory=list)  #: partition, number
    cleared: tuple[str, ...] = ()  #: partitions
    cleared_all: bool = False


EntryChange = NamedRecord | DictWrite | QueueWrite


def to_plain(change: EntryChange) -> tuple[Any, ...]:
    """A change as tuples and lists of plain values, the quickest form to write down."""
    if isinstance(change, DictWrite):
        puts = [(one.key, one.value, one.expires_at, one.blob_digest, one.blob_size) for one in change.puts]
        return "dict", change.dict_id, puts, change.removed, change.cleared
    if isinstance(change, QueueWrite):
        items = [(one.partition, one.number, one.value, one.expires_at) for one in change.puts]
        return "queue", change.queue_id, items, change.removed, change.cleared, change.cleared_all
    return "named", *vars(change).values()


def from_plain(plain: tuple[Any, ...]) -> EntryChange:
    """The change that `to_plain` wrote down. Raises what its constructors raise for something else."""
    kind, *rest = plain
    if kind == "dict":
        dict_id, puts, removed, cleared = rest
        return DictWrite(dict_id, [StoredEntry(*one) for one in puts], removed, cleared)
    if kind == "queue":
        queue_id, items, removed, cleared_partitions, cleared_all = rest
        return QueueWrite(queue_id, [StoredItem(*one) for one in items], removed, cleared_partitions, cleared_all)
    return NamedRecord(*rest)
