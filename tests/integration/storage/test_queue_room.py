"""Who waits for room gets in as soon as there is some, however it came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from queue_requests import QueueRequests, client_of, serving

from intermodal.machines import queue as queue_machine
from intermodal.store.entries import EntryChange, QueueWrite
from intermodal.store.front_journal import KeptReply
from intermodal.store.interface import StoreError
from intermodal.store.memory import MemoryStore
from modal._wire.messages.queue import PARTITION_ITEMS, QUEUE_PUT, QueuePut
from modal.exception import Error, InvalidError


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def url(tmp_path: Path, store: MemoryStore) -> AsyncIterator[str]:
    async with serving(tmp_path, store) as url:
        yield url


@pytest.fixture
async def queue(url: str) -> AsyncIterator[QueueRequests]:
    async with client_of(url) as one:
        yield one


async def soon(task: asyncio.Task[bool]) -> bool:
    return await asyncio.wait_for(asyncio.shield(task), 10)


@pytest.mark.parametrize("ends", ["in time", "cancelled", "disconnected"])
async def test_one_that_gives_up_lets_those_behind_it_put(ends: str, url: str, queue: QueueRequests) -> None:
    await queue.put(*[b""] * (PARTITION_ITEMS - 1))
    async with client_of(url, "se-2") as other:
        first = await other.begin_put(*[b"too many"] * 10, wait=0.3 if ends == "in time" else None)
        behind = await queue.begin_put(b"fits", wait=None)
        if ends == "in time":
            assert not await soon(first)
        elif ends == "cancelled":
            first.cancel()
        else:
            await other.rpc.close()
        assert await soon(behind)
        with contextlib.suppress(Error, asyncio.CancelledError):
            await first
    assert await queue.len() == PARTITION_ITEMS


async def test_who_waits_for_a_partition_gets_it_when_another_expires(
    queue: QueueRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_machine, "PARTITIONS", 2)
    await queue.put(b"a", partition="a", ttl=0.3)
    await queue.put(b"b", partition="b", ttl=3600)
    waiting = [await queue.begin_put(b"x", partition=name, wait=None) for name in "cd"]
    assert await soon(waiting[0])
    await queue.put(b"b", partition="b", ttl=0.3)  # expires sooner than was known when the other began to wait
    assert await soon(waiting[1])
    assert [await queue.len(partition=name) for name in "abcd"] == [0, 0, 1, 1]


async def test_who_waits_gets_in_when_what_was_put_before_it_expires_sooner(queue: QueueRequests) -> None:
    await queue.put(*[b""] * (PARTITION_ITEMS - 5), ttl=3600)
    first = await queue.begin_put(*[b"x"] * 10, wait=None, ttl=0.3)
    second = await queue.begin_put(b"in", wait=None)
    await queue.get(5)
    assert await soon(first)
    assert await soon(second)
    assert await queue.get(3) == [b"in"]


async def test_who_waits_gets_in_though_the_store_could_not_clear_what_expired(
    queue: QueueRequests, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_now = store.write_now
    refused: list[EntryChange] = []

    def refuses_once(changes: Sequence[EntryChange], reply: KeptReply | None = None) -> None:
        if isinstance(changes[0], QueueWrite) and changes[0].cleared and not refused:
            refused.append(changes[0])
            raise StoreError("the disk is full")
        write_now(changes, reply)

    monkeypatch.setattr(store, "write_now", refuses_once)
    await queue.put(*[b""] * (PARTITION_ITEMS - 5), ttl=3600)
    first = await queue.begin_put(*[b"x"] * 10, wait=None, ttl=0.3)
    second = await queue.begin_put(b"in", wait=None)
    await queue.get(5)
    assert await soon(first)
    assert await soon(second)
    assert refused
    assert await queue.get(3) == [b"in"]


async def test_what_is_given_back_too_late_waits_for_room(queue: QueueRequests) -> None:
    await queue.put(*[b"x"] * PARTITION_ITEMS)
    late = asyncio.create_task(queue.give_back("unknown", b"late"))
    await asyncio.sleep(0)
    assert await queue.len() == PARTITION_ITEMS
    assert not late.done()
    await queue.get()
    await asyncio.wait_for(late, 10)
    assert (await queue.get(PARTITION_ITEMS))[-1] == b"late"


async def test_what_never_fits_is_refused(queue: QueueRequests) -> None:
    with pytest.raises(InvalidError, match="never fit"):
        await queue.rpc.unary(QUEUE_PUT, QueuePut(queue.queue_id, "", [0] * 3000, wait=0.0, more=3000))
