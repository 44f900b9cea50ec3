"""Streams of the server that a generator in the caller asks for part by part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar, Union

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.messages.common import Method
    from .named import Named

Part = TypeVar("Part", bound="Union[list[Any], bytes]")


class Pulled(ABC, Generic[Part]):
    """A server stream about an object, opened when its first part is asked for. Its methods run on the loop.

    Args:
        obj: the object.
        method: the streaming method.
        make: makes its request of the object's id.
        end: what `next` gives at the end; something empty.
    """

    def __init__(self, obj: Named, method: Method[Any, Any], make: Callable[[str], Any], end: Part) -> None:
        self._obj = obj
        self._method = method
        self._make = make
        self._end = end
        self._stack: Optional[AsyncExitStack] = None
        self._stream: Any = None

    async def next(self) -> Part:
        """The next part; an empty one at the end."""
        if self._stack is None:
            rpc, object_id = await self._obj._bind()
            self._stack = AsyncExitStack()
            opened = rpc.stream(self._method, self._make(object_id))
            self._stream = await self._stack.enter_async_context(opened)
            self._rpc: RpcClient = rpc
        async for message, body in self._stream:
            return await self._part(message, bytes(body))
        return self._end

    @abstractmethod
    async def _part(self, message: Any, body: bytes) -> Part:
        """What an item of the stream means."""

    async def close(self) -> None:
        """Ask for no more. Idempotent."""
        if self._stack is not None:
            await self._stack.aclose()

    async def rest(self) -> list[Part]:
        """All parts that are left; closes it."""
        parts = []
        try:
            while part := await self.next():
                parts.append(part)
        finally:
            await self.close()
        return parts
