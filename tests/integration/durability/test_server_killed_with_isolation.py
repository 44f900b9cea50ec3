"""The same with containers that are isolated: what a killed server leaves behind is cleaned up, and its work done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_server import KillableServer

import modal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
INPUTS = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KillableServer]:
    one = KillableServer(tmp_path, RUNTIME="runc", BUILDER="buildah")
    one.start()
    yield one
    one.stop()


def test_every_spawned_input_gets_its_result_over_kills_of_the_server(
    server: KillableServer, client: modal.Client
) -> None:
    app = modal.App("isolated", image=modal.Image.debian_slim("3.11"))

    @app.function(serialized=True, concurrency_limit=2)
    def square(x: int) -> int:
        import time

        time.sleep(0.02)
        return x * x

    async def all_results() -> list[int]:
        calls = await asyncio.gather(*(square.spawn.aio(x) for x in range(INPUTS)))
        results: list[int] = await asyncio.gather(*(call.get.aio(timeout=120) for call in calls))
        return results

    with app.run(client=client, detach=True):
        assert square.remote(2) == 4
        with server.killed_at_random(random.Random(), (0.2, 1.0), times=2):
            assert asyncio.run(all_results()) == [x * x for x in range(INPUTS)]
