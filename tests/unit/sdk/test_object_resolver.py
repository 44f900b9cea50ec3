"""Loading objects once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modal._objects.object import Object
from modal._objects.resolver import Resolver, together
from modal.exception import InvalidError, RemoteError


class Part(Object):
    def __init__(self, *needs: Part, error: bool = False) -> None:
        self.needs = needs
        self.loads = 0
        self.error = error
        self._what = "Part()"

    async def _load(self, resolver: Resolver) -> str:
        await resolver.load_all(self.needs)
        self.loads += 1
        await asyncio.sleep(0)
        if self.error:
            raise RemoteError("it broke")
        return f"im-{id(self)}"


def make_resolver() -> Resolver:
    client: Any = None
    return Resolver(client)


async def test_a_shared_dependency_is_loaded_once() -> None:
    base = Part()
    left, right = Part(base), Part(base)
    ids = await make_resolver().load_all([left, right, left])
    assert ids == [left.object_id, right.object_id, left.object_id]
    assert (base.loads, left.loads) == (1, 1)


async def test_independent_objects_load_side_by_side() -> None:
    meeting = asyncio.Event()

    class Waits(Part):
        async def _load(self, resolver: Resolver) -> str:
            await asyncio.wait_for(meeting.wait(), 10)
            return "a"

    class Comes(Part):
        async def _load(self, resolver: Resolver) -> str:
            meeting.set()
            return "b"

    assert await make_resolver().load_all([Waits(), Comes()]) == ["a", "b"]


async def test_a_failure_reaches_everyone_who_needs_the_object() -> None:
    broken = Part(error=True)
    resolver = make_resolver()
    for needs in (Part(broken), Part(broken)):
        with pytest.raises(RemoteError, match="broke"):
            await resolver.load(needs)
    assert broken.loads == 1


async def test_the_first_failure_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise RemoteError("first")

    with pytest.raises(RemoteError, match="first"):
        await together([wait(), fail()])
    assert cancelled.is_set()


def test_an_object_has_no_id_before_it_is_loaded_and_no_constructor() -> None:
    with pytest.raises(InvalidError, match="no id"):
        _ = Part().object_id
    with pytest.raises(InvalidError, match="factory"):
        Object()
    with pytest.raises(InvalidError, match="hydrated"):
        Part().hydrate()
