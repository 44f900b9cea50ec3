"""Loads objects: each once, its dependencies first, independent ones side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from .object import Object

if TYPE_CHECKING:
    from .._wire.client import RpcClient

T = TypeVar("T")


class Resolver:
    """Loads the objects of one app run. Belongs to the event loop it is used on.

    Args:
        client: the connection.
        app_id: the app that anonymous objects belong to; "" when there is none.
    """

    def __init__(self, client: RpcClient, app_id: str = "") -> None:
        self.client = client
        self.app_id = app_id
        # By identity: equal descriptions may still be two objects. The object is kept so that its id() stays taken.
        self._loading: dict[int, tuple[Object, asyncio.Task[str]]] = {}

    async def load(self, obj: Object) -> str:
        """Return the object's id, loading it unless this resolver has or is about to.

        Raises:
            Error: whatever loading it raises, to everyone who asks for it.
        """
        known = self._loading.get(id(obj))
        if known is None:
            known = (obj, asyncio.ensure_future(self._load(obj)))
            self._loading[id(obj)] = known
        return await asyncio.shield(known[1])

    async def load_all(self, objects: Iterable[Object]) -> list[str]:
        """Load several side by side and return their ids in order. The first error stops the others."""
        return await together(self.load(obj) for obj in objects)

    async def close(self) -> None:
        """Stop what still loads."""
        tasks = [task for _, task in self._loading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, obj: Object) -> str:
        object_id = await obj._load(self)
        obj._object_id = object_id
        return object_id


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side. When one fails, the others are cancelled before its error is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
