"""Servers and containers are killed during direct calls: every call returns its result, and none is run needlessly."""

from __future__ import annotations

import random

import pytest
from killable_server import ROUNDS, Executions, KillableServer

import modal

CALLS = 400


def counted(retries: int) -> tuple[modal.App, modal.Function]:
    app = modal.App("direct")

    @app.function(serialized=True, concurrency_limit=1, retries=modal.Retries(max_retries=retries, initial_delay=0.0))
    def square(path: str, x: int) -> int:
        import os
        import time

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"%d\n" % x)
        os.close(descriptor)
        open(f"{path}.{os.getpid()}", "w").close()  # this container has loaded the function
        if x % 10 == 0:
            time.sleep(0.02)  # long enough to be handed over
        return x * x

    return app, square


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_server_is_killed(server: KillableServer, client: modal.Client, executions: Executions, seed: int) -> None:
    app, square = counted(0)
    rng = random.Random(seed)
    direct = 0
    with app.run(client=client), server.killed_at_random(rng, (0.3, 1.0), times=3):
        for x in range(CALLS):
            assert square.remote(executions.path, x) == x * x
            direct += square._direct is not None and square._direct._line is not None
    assert direct
    counts = executions.counts()
    assert set(counts) == set(range(CALLS))
    # What runs again: the call under way, and one that the server was told of and whose result is not on disk yet.
    assert sum(counts.values()) - CALLS <= 2 * server.kills


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_containers_are_killed(server: KillableServer, client: modal.Client, executions: Executions, seed: int) -> None:
    app, square = counted(10)
    rng = random.Random(seed)
    kills = 0
    with app.run(client=client):
        for x in range(CALLS):
            if rng.random() < 0.02:
                kills += server.kill_a_container(rng, executions)
            assert square.remote(executions.path, x) == x * x
    assert kills
    counts = executions.counts()
    assert set(counts) == set(range(CALLS))
    assert sum(counts.values()) - CALLS <= kills
