"""What the store refused has not happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from queue_requests import QueueRequests, client_of, serving

from intermodal.store.failing import FailingStore
from modal.exception import InternalFailure


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
async def queue(tmp_path: Path, store: FailingStore) -> AsyncIterator[QueueRequests]:
    async with serving(tmp_path, store) as url, client_of(url) as one:
        yield one


@pytest.mark.parametrize("every", [False, True])
async def test_what_expired_while_the_disk_was_full_does_not_come_back(
    every: bool, queue: QueueRequests, store: FailingStore
) -> None:
    await queue.put(b"old", ttl=0.2)
    over = time.time() + 0.2
    store.fail("the disk is full")
    while time.time() <= over:
        await asyncio.sleep(0.01)
    with pytest.raises(InternalFailure, match="the disk is full"):
        await queue.len(every=every)
    store.recover()
    await queue.put(b"new", ttl=3600)
    assert await queue.len() == 1
    # What a server that is started now reads:
    assert [item.value for item in await store.queue_items(queue.queue_id, 99)] == [b"new"]
