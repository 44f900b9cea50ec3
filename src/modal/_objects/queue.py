"""`modal.Queue`. Declared; it comes with storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Optional

from .._later import not_built_yet
from ..exception import InvalidError
from .object import Object

_PARTITION_BYTES = 64


class Queue(Object):
    """A first-in, first-out queue that functions share, in independent partitions."""

    @staticmethod
    def validate_partition_key(partition: Optional[str]) -> bytes:
        """Return a partition's key as bytes; None is the default partition, b"".

        Raises:
            InvalidError: for an empty key or one of more than 64 bytes.
        """
        if partition is None:
            return b""
        key = partition.encode("utf-8")
        if not 0 < len(key) <= _PARTITION_BYTES:
            raise InvalidError(f"A partition key has 1 to {_PARTITION_BYTES} bytes; {partition[:70]!r} has {len(key)}.")
        return key

    @classmethod
    def ephemeral(
        cls, client: Any = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300.0
    ) -> AbstractContextManager[Queue]:
        """A queue that lives as long as the context."""
        _missing("ephemeral")

    @staticmethod
    def from_name(
        name: str, namespace: Any = None, environment_name: Optional[str] = None, create_if_missing: bool = False
    ) -> Queue:
        """A queue by its name."""
        _missing("from_name")

    @staticmethod
    def lookup(
        name: str,
        namespace: Any = None,
        client: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> Queue:
        """A queue by its name, looked up at once."""
        _missing("lookup")

    @staticmethod
    def delete(name: str, *, client: Any = None, environment_name: Optional[str] = None) -> None:
        """Delete a queue."""
        _missing("delete")

    def clear(self, *, partition: Optional[str] = None, all: bool = False) -> None:
        """Remove the items of a partition, or of all."""
        _missing("clear")

    def get(
        self, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> Optional[Any]:
        """Remove and return the first item, waiting for it at most `timeout` seconds."""
        _missing("get")

    def get_many(
        self, n_values: int, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> list[Any]:
        """Remove and return up to `n_values` items, waiting for the first at most `timeout` seconds."""
        _missing("get_many")

    def put(
        self,
        v: Any,
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 24 * 3600,
    ) -> None:
        """Add an item at the end; the partition expires `partition_ttl` seconds later."""
        _missing("put")

    def put_many(
        self,
        vs: list[Any],
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 24 * 3600,
    ) -> None:
        """Add items at the end; the partition expires `partition_ttl` seconds later."""
        _missing("put_many")

    def len(self, *, partition: Optional[str] = None, total: bool = False) -> int:
        """Return the number of items of a partition, or of all."""
        _missing("len")

    def iterate(self, *, partition: Optional[str] = None, item_poll_timeout: float = 0.0) -> Iterator[Any]:
        """Iterate over the items without removing them, waiting for more at most `item_poll_timeout` seconds."""
        _missing("iterate")


def _missing(method: str) -> NoReturn:
    not_built_yet(f"modal.Queue.{method}")
