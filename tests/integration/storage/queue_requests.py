"""A server whose store can be made to fail, and the requests of queues as they travel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from intermodal.daemon import running
from intermodal.settings import Settings
from intermodal.store.interface import Store
from modal._wire.client import RpcClient
from modal._wire.messages.named import NAMED_GET, NamedGet, ObjectKind
from modal._wire.messages.queue import (
    QUEUE_CLEAR,
    QUEUE_GET,
    QUEUE_LEN,
    QUEUE_PUT,
    QUEUE_RETURN,
    QueueGet,
    QueuePut,
    QueueReturn,
    QueueSelect,
)


class QueueRequests:
    """Requests about one queue. Those that begin with `begin_` go out at once, in their order, and are tasks."""

    def __init__(self, rpc: RpcClient, queue_id: str) -> None:
        self.rpc = rpc
        self.queue_id = queue_id

    async def put(
        self, *items: bytes, wait: float | None = 0.0, partition: str = "", ttl: float = 3600.0, key: str | None = None
    ) -> bool:
        """Whether they were accepted."""
        request = QueuePut(self.queue_id, partition, [len(item) for item in items], ttl, wait)
        reply, _ = await self.rpc.unary(QUEUE_PUT, request, b"".join(items), key=key)
        return reply.accepted

    async def get(
        self, count: int = 1, wait: float | None = 0.0, partition: str = "", key: str | None = None
    ) -> list[bytes]:
        request = QueueGet(self.queue_id, partition, count, wait)
        reply, body = await self.rpc.unary(QUEUE_GET, request, key=key)
        return reply.cut(bytes(body))

    async def give_back(self, key: str, *items: bytes, partition: str = "", again: str | None = None) -> None:
        """Args: key: of the get; again: that of this request."""
        request = QueueReturn(self.queue_id, partition, key, [len(item) for item in items])
        await self.rpc.unary(QUEUE_RETURN, request, b"".join(items), key=again)

    async def len(self, partition: str = "", every: bool = False) -> int:
        reply, _ = await self.rpc.unary(QUEUE_LEN, QueueSelect(self.queue_id, partition, every))
        return reply.items

    async def clear(self, partition: str = "") -> None:
        await self.rpc.unary(QUEUE_CLEAR, QueueSelect(self.queue_id, partition))

    async def begin_put(self, *items: bytes, **options: Any) -> asyncio.Task[bool]:
        return await self._begun(asyncio.create_task(self.put(*items, **options)))

    async def begin_get(self, count: int = 1, **options: Any) -> asyncio.Task[list[bytes]]:
        return await self._begun(asyncio.create_task(self.get(count, **options)))

    async def _begun(self, task: asyncio.Task[Any]) -> asyncio.Task[Any]:
        """The server takes the requests of a connection in their order: once the next is answered, this one waits."""
        await asyncio.sleep(0)
        await self.len()
        return task


@contextlib.asynccontextmanager
async def serving(folder: Path, store: Store) -> AsyncIterator[str]:
    """A server with this store; gives its address."""
    settings = Settings(
        data_dir=folder / "data",
        runtime="mock",
        builder="memory",
        database_url="memory://",
        port=-1,
        session_grace=0.2,
    )
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    async with running(settings, store=store):
        yield f"unix://{settings.socket}"


@contextlib.asynccontextmanager
async def client_of(url: str, session: str = "se-1") -> AsyncIterator[QueueRequests]:
    """A client, and the queue "q" to it."""
    rpc = RpcClient(url, session=session)
    await rpc.open()
    try:
        found, _ = await rpc.unary(NAMED_GET, NamedGet(ObjectKind.QUEUE, "q", "main", True))
        yield QueueRequests(rpc, found.object_id)
    finally:
        await rpc.close()
