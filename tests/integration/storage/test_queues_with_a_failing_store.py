"""What the store refused has not happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from queue_requests import QueueRequests, client_of, serving

from intermodal.control.loaded import RESIDENT
from intermodal.store.failing import FailingStore
from intermodal.store.interface import StoreError
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


async def test_what_was_to_be_given_back_has_its_place_though_the_disk_was_full(
    queue: QueueRequests, store: FailingStore
) -> None:
    await queue.put(b"1", b"2", b"3")
    assert await queue.get(2, key="taking") == [b"1", b"2"]
    store.fail("the disk is full")
    with pytest.raises(InternalFailure, match="the disk is full"):
        await queue.give_back("taking", b"1", b"2")
    store.recover()
    await queue.give_back("taking", b"1", b"2")
    assert await queue.get(9) == [b"1", b"2", b"3"]
    await queue.give_back("taking", b"late")
    await queue.put(b"4")
    assert await queue.get(9) == [b"late", b"4"], "it was given back once"


class HaltingStore(FailingStore):
    """Reading values waits until `go_on`, and fails while there is an `unreadable`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()
        self.go_on = asyncio.Event()
        self.unreadable = ""

    async def queue_values(self, queue_id: str, partition: str, numbers: Sequence[int]) -> dict[int, bytes]:
        self.reads.set()
        await self.go_on.wait()
        if self.unreadable:
            raise StoreError(self.unreadable)
        return await super().queue_values(queue_id, partition, numbers)


LARGE = bytes(2 * RESIDENT)  #: leaves the memory once it is stored


@pytest.fixture
async def halting(tmp_path: Path) -> AsyncIterator[tuple[QueueRequests, HaltingStore]]:
    store = HaltingStore()
    async with serving(tmp_path, store) as url, client_of(url) as queue:
        yield queue, store


async def test_what_was_cleared_while_it_could_not_be_read_is_gone(
    halting: tuple[QueueRequests, HaltingStore],
) -> None:
    queue, store = halting
    await queue.put(LARGE)
    await queue.put(LARGE, partition="other")
    getting = [await queue.begin_get(), await queue.begin_get(partition="other")]
    await store.reads.wait()
    await queue.clear()
    store.unreadable = "the disk is broken"
    store.go_on.set()
    for one in getting:
        with pytest.raises(InternalFailure, match="the disk is broken"):
            await one
    assert await queue.len() == 0
    assert await queue.len("other") == 1


@pytest.mark.parametrize("fails", ["reading", "writing"])
async def test_what_could_not_be_given_to_one_is_offered_to_the_next(
    fails: str, halting: tuple[QueueRequests, HaltingStore]
) -> None:
    queue, store = halting
    await queue.put(LARGE)
    first = await queue.begin_get()
    await store.reads.wait()
    second = await queue.begin_get(wait=None)
    if fails == "reading":
        store.unreadable = "the disk is broken"
    else:
        store.fail("the disk is broken")
    store.go_on.set()
    for one in (first, second):
        with pytest.raises(InternalFailure, match="the disk is broken"):
            await asyncio.wait_for(one, 10)
    store.unreadable = ""
    if fails == "writing":
        store.recover()
    assert await queue.get() == [LARGE]
