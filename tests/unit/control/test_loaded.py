"""What is in memory while it is used."""

from __future__ import annotations

import asyncio
import random

import pytest

from intermodal.control.environments import Environments
from intermodal.control.loaded import Loaded
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import LOCAL, Context
from intermodal.store.entries import NamedRecord
from intermodal.store.memory import MemoryStore
from modal._wire.messages.named import ObjectKind
from modal.exception import NotFoundError

CTX = Context("se-1", LOCAL, None, "", None)


class Kept:
    """Objects whose content is a list, and what reads them."""

    def __init__(self) -> None:
        store, self.now = MemoryStore(), 1000.0
        self.named = NamedService(
            store, Environments(store, random.Random(1), lambda: 1.0), random.Random(1), lambda: 1.0
        )
        self.named.holders[ObjectKind.QUEUE] = self
        self.named.restore([NamedRecord(f"qu-{name}", "queue", "en-1", name, "", 1.0) for name in "ab"], 1.0)
        self.reads: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.loaded: Loaded[list[str]] = Loaded(ObjectKind.QUEUE, self.named, self.read, lambda: self.now)

    async def read(self, object_id: str) -> list[str]:
        self.reads.append(object_id)
        await self.go_on.wait()
        return []

    def created(self, object_id: str) -> None:
        return

    def deleted(self, object_id: str) -> None:
        self.loaded.forget(object_id)


async def test_it_is_read_once_by_all_who_ask_for_it() -> None:
    kept = Kept()
    assert kept.loaded.find_for(CTX, "qu-a") is None
    first, second = await asyncio.gather(kept.loaded.load("qu-a"), kept.loaded.load("qu-a"))
    assert first is second
    assert kept.loaded.find_for(CTX, "qu-a") is first, "empty, but there"
    assert await kept.loaded.load("qu-a") is first
    assert kept.reads == ["qu-a"]
    assert list(kept.loaded) == [first]


async def test_one_that_is_deleted_while_it_is_read_does_not_stay() -> None:
    kept = Kept()
    kept.go_on.clear()
    loading = asyncio.create_task(kept.loaded.load("qu-a"))
    while not kept.reads:
        await asyncio.sleep(0)
    kept.named._delete(kept.named._by_id["qu-a"])
    kept.go_on.set()
    with pytest.raises(NotFoundError, match="The queue qu-a was deleted"):
        await loading
    assert list(kept.loaded) == []
    with pytest.raises(NotFoundError, match="no queue"):
        kept.loaded.find_for(CTX, "qu-a")


async def test_those_that_nobody_uses_are_let_go() -> None:
    kept = Kept()
    a, b = await kept.loaded.load("qu-a"), await kept.loaded.load("qu-b")
    kept.now += 3000
    assert kept.loaded.find_for(CTX, "qu-b") is b
    kept.now += 1000
    kept.loaded.forget_idle(lambda one: one is not a)
    assert list(kept.loaded) == [a, b]
    kept.loaded.forget_idle()
    assert list(kept.loaded) == [b]
    assert not kept.loaded.is_current("qu-a", a)
    again = await kept.loaded.load("qu-a")
    assert kept.loaded.is_current("qu-a", again)
    assert not kept.loaded.is_current("qu-a", a)


async def test_a_handler_is_called_again_with_what_was_read() -> None:
    kept = Kept()

    def at_once(ctx: Context, request: str, body: bytes) -> str:
        return f"{request} {kept.loaded.find_for(ctx, 'qu-a')}"

    async def later(ctx: Context, request: str, body: bytes) -> str:
        return at_once(ctx, request, body)

    assert await kept.loaded.again("qu-a", at_once, CTX, "found", b"") == "found []"
    assert await kept.loaded.again("qu-a", later, CTX, "found", b"") == "found []"
