"""Servers, containers and clients are killed at random moments: nothing accepted is lost or delivered twice."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killable_server import ROUNDS, Executions, KillableServer, until

import modal

INPUTS = 500
CONTAINERS = 2
RETRIES = modal.Retries(max_retries=10, initial_delay=0.0)
PROGRAM = """
    import asyncio, os, sys, time
    import modal

    app = modal.App("counted")

    @app.function(serialized=True, concurrency_limit=2, retries=modal.Retries(max_retries=10, initial_delay=0.0))
    def square(path, x):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"%d\\n" % x)
        os.close(descriptor)
        time.sleep(0.002)
        return x * x

    if __name__ == "__main__":
        with app.run(detach=True):
            for x in range(int(sys.argv[2])):
                print(square.spawn(sys.argv[1], x).object_id, flush=True)
            time.sleep(600)
"""
FETCH = """
    import asyncio, json, sys
    import modal

    async def main():
        calls = [modal.FunctionCall.from_id(line.strip()) for line in sys.stdin]
        print(json.dumps(await asyncio.gather(*(call.get.aio(timeout=60) for call in calls))))

    asyncio.run(main())
"""


def counted_app() -> tuple[modal.App, modal.Function]:
    """An app whose function notes each execution."""
    app = modal.App("counted")

    @app.function(
        serialized=True, concurrency_limit=CONTAINERS, retries=modal.Retries(max_retries=10, initial_delay=0.0)
    )
    def square(path: str, x: int) -> int:
        import os
        import time

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"%d\n" % x)
        os.close(descriptor)
        open(f"{path}.{os.getpid()}", "w").close()  # this container has loaded the function
        time.sleep(0.002)
        return x * x

    return app, square


async def spawn_all(square: modal.Function, path: str, inputs: range) -> list[modal.FunctionCall]:
    gate = asyncio.Semaphore(50)

    async def one(x: int) -> modal.FunctionCall:
        async with gate:
            return await square.spawn.aio(path, x)

    return await asyncio.gather(*(one(x) for x in inputs))


async def results_of(calls: list[modal.FunctionCall]) -> list[int]:
    return await asyncio.gather(*(call.get.aio(timeout=60) for call in calls))


@pytest.fixture
def rng() -> random.Random:
    return random.Random()


@pytest.mark.parametrize("round", range(ROUNDS))
def test_every_spawned_input_gets_its_result_once_over_kills_of_the_server(
    round: int, server: KillableServer, client: modal.Client, executions: Executions, rng: random.Random
) -> None:
    app, square = counted_app()
    with app.run(client=client, detach=True):
        with server.killed_at_random(rng, (0.02, 0.7), times=3):
            calls = asyncio.run(spawn_all(square, executions.path, range(INPUTS)))
            results = asyncio.run(results_of(calls))
        assert len({call.object_id for call in calls}) == INPUTS
        assert results == [x * x for x in range(INPUTS)]
        assert asyncio.run(results_of(calls)) == results, "results can be fetched again"
    assert set(executions.counts()) == set(range(INPUTS))


@pytest.mark.parametrize("round", range(ROUNDS))
def test_every_spawned_input_gets_its_result_once_over_kills_of_containers(
    round: int, server: KillableServer, client: modal.Client, executions: Executions, rng: random.Random
) -> None:
    app, square = counted_app()
    with app.run(client=client, detach=True):
        with containers_killed(server, executions, rng) as kills:
            calls = asyncio.run(spawn_all(square, executions.path, range(INPUTS)))
            results = asyncio.run(results_of(calls))
        assert results == [x * x for x in range(INPUTS)]
    counts = executions.counts()
    assert set(counts) == set(range(INPUTS))
    # One input runs in a container at a time, so each kill costs one execution at most.
    assert counts.total() - INPUTS <= len(kills)


@contextmanager
def containers_killed(server: KillableServer, executions: Executions, rng: random.Random) -> Iterator[list[float]]:
    """While the block runs, kill a container every now and then, once it has run something.

    One that dies three times in a row before that cannot start, and fails its inputs with that reason.
    """
    stop = threading.Event()
    kills: list[float] = []

    def work() -> None:
        while not stop.wait(pause := rng.uniform(0.02, 0.3)):
            if len(kills) < 8 and server.kill_a_container(rng, executions):
                kills.append(pause)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield kills
    finally:
        stop.set()
        thread.join()
    assert kills


@pytest.mark.parametrize("round", range(ROUNDS))
def test_another_process_gets_the_results_of_a_killed_client(
    round: int, server: KillableServer, executions: Executions, rng: random.Random, tmp_path: Path
) -> None:
    program = tmp_path / "spawner.py"
    program.write_text(textwrap.dedent(PROGRAM))
    environ = {**server.environ, "MODAL_SERVER_URL": server.target, "MODAL_AUTOMOUNT": "0"}
    with subprocess.Popen(
        [sys.executable, str(program), executions.path, str(INPUTS)], env=environ, stdout=subprocess.PIPE, text=True
    ) as spawner:
        wanted = rng.randint(1, 60)
        assert spawner.stdout is not None
        ids = [spawner.stdout.readline() for _ in range(wanted)]
        spawner.send_signal(signal.SIGKILL)
        ids += [line for line in spawner.stdout if line.endswith("\n")]
    server.kill()
    server.start()
    got = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FETCH)],
        env=environ,
        input="".join(ids),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout) == [x * x for x in range(len(ids))]


def test_a_remote_call_under_way_outlives_a_kill_of_the_server(
    server: KillableServer, client: modal.Client, executions: Executions
) -> None:
    app = modal.App("remote")

    @app.function(serialized=True)
    def wait(path: str, x: int) -> int:
        import time

        with open(path, "a") as file:
            file.write(f"{x}\n")
        time.sleep(1)
        return x

    async def call() -> int:
        task = asyncio.ensure_future(wait.remote.aio(executions.path, 7))
        await asyncio.to_thread(until, lambda: executions.counts()[7] == 1, "the call to run")
        await asyncio.sleep(0.1)  # its record is committed
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        return await task

    with app.run(client=client):
        assert asyncio.run(call()) == 7
    assert executions.counts()[7] == 2


@pytest.mark.parametrize("round", range(ROUNDS))
def test_a_map_gives_each_output_once_over_kills_of_the_server(
    round: int, server: KillableServer, client: modal.Client, executions: Executions, rng: random.Random
) -> None:
    app, square = counted_app()
    with app.run(client=client):
        with server.killed_at_random(rng, (0.05, 0.7), times=3):
            outputs = list(square.map([executions.path] * INPUTS, range(INPUTS), order_outputs=False))
    assert sorted(outputs) == [x * x for x in range(INPUTS)]
    assert set(executions.counts()) == set(range(INPUTS))
