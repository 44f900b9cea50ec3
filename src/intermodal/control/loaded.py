"""Dicts or queues that are in memory while they are used: read when they are first asked for, let go when idle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context
from intermodal.store.interface import Store
from modal._wire.messages.named import ObjectKind
from modal.exception import NotFoundError

RESIDENT = 8 * 1024  #: bytes of a value that stays in memory
_IDLE = 3600.0  # seconds after which an unused one leaves the memory

T = TypeVar("T")


class Loaded(Generic[T]):
    """The objects of one kind that are in memory.

    Args:
        read: reads an object by its id.
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self, kind: ObjectKind, named: NamedService, read: Callable[[str], Awaitable[T]], now: Callable[[], float]
    ) -> None:
        self._kind = kind
        self._named = named
        self._read = read
        self._now = now
        self._objects: dict[str, T] = {}
        self._used_at: dict[str, float] = {}
        self._loading: dict[str, asyncio.Task[T]] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def find_for(self, ctx: Context, object_id: str) -> T | None:
        """One that the caller may use, if it is in memory. Raises `NotFoundError` and `AuthError`."""
        self._named.require_object(ctx, self._kind, object_id)
        found = self._objects.get(object_id)
        if found is not None:
            self._used_at[object_id] = self._now()
        return found

    def is_current(self, object_id: str, one: T) -> bool:
        """Whether `one` is still what is in memory: it was not deleted, nor let go."""
        return self._objects.get(object_id) is one

    async def load(self, object_id: str) -> T:
        """One by its id, read if need be. Raises `NotFoundError` when it is deleted, and StoreError."""
        found = self._objects.get(object_id)
        if found is None:
            task = self._loading.get(object_id)
            if task is None:
                task = self._loading[object_id] = asyncio.create_task(self._load(object_id))
                task.add_done_callback(lambda _: self._loading.pop(object_id, None))
            found = await asyncio.shield(task)
        return found

    async def _load(self, object_id: str) -> T:
        found = await self._read(object_id)
        if not self._named.exists(object_id):
            raise NotFoundError(f"The {self._kind.value} {object_id} was deleted.")
        self._objects[object_id] = found
        self._used_at[object_id] = self._now()
        return found

    async def again(
        self,
        object_id: str,
        handler: Callable[[Context, Any, bytes], Any],
        ctx: Context,
        request: Any,
        body: bytes,
    ) -> Any:
        """Call a handler that has not found the object in memory once more, when it is there."""
        await self.load(object_id)
        result = handler(ctx, request, body)
        return await result if isinstance(result, Awaitable) else result

    def forget(self, object_id: str) -> T | None:
        """Let go of one that is deleted, and return it."""
        self._used_at.pop(object_id, None)
        return self._objects.pop(object_id, None)

    def forget_idle(self, is_idle: Callable[[T], bool] = lambda one: True) -> None:
        """Let go of those that nobody has asked for in a long time, as far as they are idle."""
        before = self._now() - _IDLE
        for object_id in [object_id for object_id, at in self._used_at.items() if at < before]:
            if is_idle(self._objects[object_id]):
                self.forget(object_id)


class HasValue(Protocol):
    """An entry of a dict or an item of a queue."""

    value: bytes | None


def drop_when_stored(store: Store, large: Sequence[HasValue]) -> None:
    """Let values leave the memory once the store can give them back."""
    stored = asyncio.ensure_future(store.write([]))

    def drop(done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is None:  # else it is the store that says why
            for one in large:
                one.value = None

    stored.add_done_callback(drop)
