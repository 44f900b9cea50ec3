"""`modal.Dict`. Declared; it comes with storage."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Optional

from .._later import not_built_yet
from .object import Object


class Dict(Object):
    """A dictionary that functions share."""

    @classmethod
    def ephemeral(
        cls,
        data: Optional[builtins.dict[Any, Any]] = None,
        client: Any = None,
        environment_name: Optional[str] = None,
        _heartbeat_sleep: float = 300.0,
    ) -> AbstractContextManager[Dict]:
        """A dictionary that lives as long as the context."""
        _missing("ephemeral")

    @staticmethod
    def from_name(
        name: str,
        data: Optional[builtins.dict[Any, Any]] = None,
        namespace: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> Dict:
        """A dictionary by its name."""
        _missing("from_name")

    @staticmethod
    def lookup(
        name: str,
        data: Optional[builtins.dict[Any, Any]] = None,
        namespace: Any = None,
        client: Any = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> Dict:
        """A dictionary by its name, looked up at once."""
        _missing("lookup")

    @staticmethod
    def delete(name: str, *, client: Any = None, environment_name: Optional[str] = None) -> None:
        """Delete a dictionary."""
        _missing("delete")

    def clear(self) -> None:
        """Remove all entries."""
        _missing("clear")

    def get(self, key: Any, default: Optional[Any] = None) -> Any:
        """Return the value of a key, or `default`."""
        _missing("get")

    def contains(self, key: Any) -> bool:
        """Return whether there is such a key."""
        _missing("contains")

    def len(self) -> int:
        """Return the number of entries."""
        _missing("len")

    def update(self, **kwargs: Any) -> None:
        """Set several entries."""
        _missing("update")

    def put(self, key: Any, value: Any) -> None:
        """Set an entry."""
        _missing("put")

    def pop(self, key: Any) -> Any:
        """Remove an entry and return its value."""
        _missing("pop")

    def keys(self) -> Iterator[Any]:
        """Iterate over the keys, in no order."""
        _missing("keys")

    def values(self) -> Iterator[Any]:
        """Iterate over the values, in no order."""
        _missing("values")

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over the entries, in no order."""
        _missing("items")


def _missing(method: str) -> NoReturn:
    not_built_yet(f"modal.Dict.{method}")
