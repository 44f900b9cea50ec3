"""One contender of the call benchmarks, in a process of its own: `contender.py intermodal | ray | dask | pool`.

It reads commands from stdin, one a line, and answers each with a line of JSON on stdout:

    call N    N calls one after the other, each waited for: their times in seconds
    map N     N trivial inputs at once: the time in seconds until the last output is here
    cold N    (intermodal) N first calls, each of an app that has no container: their times in seconds

Every contender is warmed up before it reads its first command.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

CPUS = os.cpu_count() or 1


@dataclass(frozen=True)
class Contender:
    call: Callable[[int], int]
    map: Callable[[int], int]  #: runs the inputs 0 to n - 1 and returns the sum of the outputs
    cold: Callable[[int], list[float]] = lambda n: []


def same(x: int) -> int:
    return x


@contextlib.contextmanager
def intermodal() -> Iterator[Contender]:
    import bench_app

    def cold(n: int) -> list[float]:
        times = []
        for _ in range(n):
            with bench_app.app.run():
                times.append(timed(lambda: bench_app.cold.remote(1)))
        return times

    with contextlib.ExitStack() as stack:
        running = stack.enter_context(bench_app.app.run())

        def cold_first(n: int) -> list[float]:
            stack.close()  # one app object runs once at a time
            return cold(n)

        assert running is not None
        yield Contender(bench_app.same.remote, lambda n: sum(bench_app.same.map(range(n))), cold_first)


@contextlib.contextmanager
def ray() -> Iterator[Contender]:
    import ray

    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="error")

    @ray.remote
    class Actor:
        def same(self, x: int) -> int:
            return x

    task = ray.remote(same)
    actor = Actor.options(num_cpus=0).remote()
    yield Contender(
        lambda x: ray.get(actor.same.remote(x)),
        lambda n: sum(ray.get([task.remote(x) for x in range(n)])),
    )
    ray.shutdown()


@contextlib.contextmanager
def dask() -> Iterator[Contender]:
    from distributed import Client

    # Its workers complain in its log when they are ended.
    options = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    with Client(n_workers=CPUS, threads_per_worker=1, **options) as client:
        yield Contender(
            lambda x: client.submit(same, x, pure=False).result(),
            lambda n: sum(client.gather(client.map(same, range(n), pure=False))),
        )


@contextlib.contextmanager
def pool() -> Iterator[Contender]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(CPUS) as executor:
        yield Contender(
            lambda x: executor.submit(same, x).result(),
            lambda n: sum(executor.map(same, range(n), chunksize=1)),
        )


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def answer(contender: Contender, command: str, n: int) -> object:
    if command == "call":
        return [timed(lambda: contender.call(1)) for _ in range(n)]
    if command == "cold":
        return contender.cold(n)
    started = time.perf_counter()
    total = contender.map(n)
    seconds = time.perf_counter() - started
    assert total == n * (n - 1) // 2, f"the outputs sum to {total}"
    return seconds


def main() -> None:
    make = {"intermodal": intermodal, "ray": ray, "dask": dask, "pool": pool}[sys.argv[1]]
    with make() as contender:
        for _ in range(300):
            contender.call(1)
        contender.map(2_000)
        print(json.dumps("warm"), flush=True)
        for line in sys.stdin:
            command, n = line.split()
            print(json.dumps(answer(contender, command, int(n))), flush=True)


if __name__ == "__main__":
    main()
