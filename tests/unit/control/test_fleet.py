from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from live_parts import Live, call_of


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    live = Live(tmp_path)
    yield live
    live.close()


async def test_a_container_that_is_stopped_before_its_start_has_begun_is_not_started(live: Live) -> None:
    call = call_of(live.calls)
    live.fleet.queue_inputs(call, ["in-1-0"])
    assert len(live.fleet.containers) == 1
    async with asyncio.timeout(10):
        await live.fleet.remove_functions([live.function], at_once=True)
    assert not live.fleet.containers
    assert not live.node.running
    assert (live.function.starting, live.function.running) == (0, 0)
