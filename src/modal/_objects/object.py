"""What all objects share: a description here, and an identity at the server once it is loaded."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from .._sync import Blocking
from ..exception import InvalidError

if TYPE_CHECKING:
    from typing_extensions import Self

    from .client import Client
    from .resolver import Resolver

O = TypeVar("O", bound="Object")  # noqa: E741


async def hydrate(self: O, client: Optional[Client] = None) -> O:
    """Load the object, so that it has its `object_id`; most operations do that by themselves.

    Args:
        client: the connection to use; default: that of the configuration.

    Raises:
        InvalidError: the object exists only in a running app.
    """
    if self._object_id is None:
        await self._hydrate(client)
    return self


class _Hydrate:
    """Makes `hydrate` give back the class it was called on."""

    def __get__(self, obj: Optional[O], owner: Any = None) -> Blocking[..., O]:
        bound: Any = hydrate if obj is None else functools.partial(hydrate, obj)
        return Blocking(bound)


class Object:
    """Base class of the objects that live at the server."""

    _object_id: Optional[str] = None
    _what: str = "the object"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise InvalidError(f"{type(self).__name__} is not constructed directly; use one of its factory methods.")

    @classmethod
    def _new(cls, what: str) -> Self:
        obj = cls.__new__(cls)
        obj._what = what
        return obj

    @property
    def object_id(self) -> str:
        """The id at the server. Raises InvalidError before the object is loaded."""
        if self._object_id is None:
            raise InvalidError(f"{self._what} has no id before it is hydrated or its app runs.")
        return self._object_id

    hydrate = _Hydrate()

    async def _hydrate(self, client: Optional[Client]) -> None:
        """Find the identity outside of a starting app. Overridden by objects that can."""
        raise InvalidError(f"{self._what} cannot be hydrated outside a running app.")

    async def _load(self, resolver: Resolver) -> str:
        """Create the object at the server and return its id. Called once a resolver; a part of an app overrides it."""
        raise InvalidError(f"{self._what} cannot be a part of an app.")

    def __repr__(self) -> str:
        return f"modal.{self._what}" if self._object_id is None else f"modal.{self._what} ({self._object_id})"
