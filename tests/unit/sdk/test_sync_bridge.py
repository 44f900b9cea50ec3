"""The bridge from async to blocking."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modal import _event_loop
from modal._sync import (
    blocking,
    blocking_context,
    blocking_method,
    generator_in_caller,
    in_caller,
    on_loop,
    run,
)
from modal.exception import InvalidError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Thing:
    def __init__(self) -> None:
        self.events: list[str] = []

    @blocking_method
    async def where(self, value: int, *, factor: int = 2) -> tuple[int, int]:
        """Say where it runs."""
        await asyncio.sleep(0)
        return value * factor, threading.get_ident()

    @in_caller
    async def split(self, value: int) -> tuple[int, int, int]:
        caller = threading.get_ident()
        doubled, loop = await on_loop(self._on_loop(value))
        return doubled, caller, loop

    async def _on_loop(self, value: int) -> tuple[int, int]:
        if value < 0:
            raise ValueError("negative")
        return 2 * value, threading.get_ident()

    @generator_in_caller("nobody looked")
    async def numbers(self, n: int) -> AsyncGenerator[int, None]:
        try:
            for i in range(n):
                doubled, _ = await on_loop(self._on_loop(i))
                yield doubled
        finally:
            await on_loop(self._closed())

    async def _closed(self) -> None:
        self.events.append("closed")

    @blocking_context
    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[str]:
        self.events.append(f"open {name}")
        try:
            yield name
        except ValueError:
            self.events.append("failed")
            raise
        finally:
            self.events.append("left")


def test_a_method_runs_on_one_background_thread() -> None:
    thing = Thing()
    value, thread = thing.where(3)
    assert value == 6
    assert thread != threading.get_ident()
    assert thing.where(3, factor=5) == (15, thread)


async def test_the_async_form_runs_on_the_same_thread() -> None:
    thing = Thing()
    assert await thing.where.aio(3) == thing.where(3)


def test_work_of_the_caller_stays_in_its_thread() -> None:
    doubled, caller, loop = Thing().split(4)
    assert doubled == 8
    assert caller == threading.get_ident()
    assert loop != caller


async def test_exceptions_travel_both_ways() -> None:
    thing = Thing()
    with pytest.raises(ValueError, match="negative"):
        thing.split(-1)
    with pytest.raises(ValueError, match="negative"):
        await thing.split.aio(-1)


def test_tracebacks_skip_the_bridge() -> None:
    with pytest.raises(ValueError, match="negative") as caught:
        Thing().split(-1)
    files = [frame.filename for frame in traceback.extract_tb(caught.tb)]
    assert sum(name.endswith("_sync.py") for name in files) <= 1
    assert not any("asyncio" in name for name in files)


def test_generators_iterate_in_both_ways_and_close() -> None:
    thing = Thing()
    assert list(thing.numbers(3)) == [0, 2, 4]
    assert thing.events == ["closed"]
    half = iter(thing.numbers(3))
    assert next(half) == 0
    half.close()  # type: ignore[attr-defined]
    assert thing.events == ["closed", "closed"]


async def test_generators_iterate_asynchronously() -> None:
    thing = Thing()
    assert [value async for value in thing.numbers(3)] == [0, 2, 4]
    assert [value async for value in thing.numbers.aio(3)] == [0, 2, 4]


def test_a_generator_that_nobody_looks_at_warns() -> None:
    with pytest.warns(RuntimeWarning, match="nobody looked"):
        Thing().numbers(3)


async def test_contexts_work_in_both_ways() -> None:
    thing = Thing()
    with thing.open("a") as name:
        assert name == "a"
    async with thing.open("b"):
        pass
    async with thing.open.aio("b"):
        pass
    assert list(inspect.signature(thing.open).parameters) == ["name"]
    with pytest.raises(ValueError, match="mine"), thing.open("c"):
        raise ValueError("mine")
    assert thing.events == ["open a", "left", "open b", "left", "open b", "left", "open c", "failed", "left"]


def test_signatures_and_documentation_are_those_of_the_function() -> None:
    assert str(inspect.signature(Thing.where)) == "(self, value: 'int', *, factor: 'int' = 2) -> 'tuple[int, int]'"
    assert list(inspect.signature(Thing().where).parameters) == ["value", "factor"]
    assert Thing().where.__doc__ == "Say where it runs."
    assert Thing().where.__name__ == "where"


def test_context_variables_of_the_caller_are_seen() -> None:
    async def read() -> str:
        return variable.get()

    token = variable.set("mine")
    try:
        assert blocking(read)() == "mine"
    finally:
        variable.reset(token)


def test_a_blocking_call_from_the_loop_itself_is_refused() -> None:
    async def inner() -> int:
        return 1

    async def outer() -> int:
        return run(inner())

    with pytest.raises(InvalidError, match=r"\.aio"):
        run(outer())


def test_an_interrupt_cancels_the_call_and_goes_on_at_once() -> None:
    cancelled = threading.Event()
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupt() -> None:
        begun.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        blocking(wait)()
    thread.join()
    assert cancelled.is_set()
    assert time.monotonic() - started < 30


async def test_cancelling_the_async_form_cancels_the_coroutine() -> None:
    cancelled = threading.Event()
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.ensure_future(blocking(wait).aio())
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.wait(10)


def test_many_threads_share_the_loop() -> None:
    thing = Thing()
    results: list[int] = []
    threads = [threading.Thread(target=lambda i=i: results.append(thing.where(i)[0])) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2 * i for i in range(20)]


_FORKS = """
import os, sys
from modal._sync import run
async def pid(): return os.getpid()
assert run(pid()) == os.getpid()
child = os.fork()
if child == 0:
    ok = run(pid()) == os.getpid()
    sys.exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert run(pid()) == os.getpid()
print("ok")
"""


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


_EXITS = """
import asyncio
from modal import _sync
async def begin():
    asyncio.ensure_future(asyncio.sleep(1000))
async def goodbye():
    print("goodbye")
_sync.at_exit(goodbye)
_sync.run(begin())
"""


def test_the_process_ends_cleanly_with_work_under_way() -> None:
    done = subprocess.run([sys.executable, "-c", _EXITS], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("goodbye\n", "", 0)


def test_the_bridge_is_one_thread() -> None:
    run(Thing()._closed())
    assert sum(thread.name == "modal" for thread in threading.enumerate()) == 1
    assert _event_loop._bridge is not None


def test_a_value_that_arrives_with_an_interrupt_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Lock

    class InterruptedLock:
        """The lock of the first call: an interrupt comes in the moment in which it has been waited for."""

        acquired = 0

        def __init__(self) -> None:
            self._lock = real()

        def acquire(self, timeout: float = -1) -> bool:
            got = self._lock.acquire(timeout=timeout)
            InterruptedLock.acquired += 1
            if InterruptedLock.acquired == 2:
                raise KeyboardInterrupt
            return got

        def release(self) -> None:
            self._lock.release()

    unclaimed, given = [], []

    async def give() -> None:
        given.append("value")

    async def clean_up() -> None:
        unclaimed.append(given.pop())

    async def take() -> None:
        try:
            await _event_loop.on_loop(give())
        except KeyboardInterrupt:
            await _event_loop.on_loop(_event_loop.undone(clean_up()))
            raise

    monkeypatch.setattr(_event_loop.threading, "Lock", InterruptedLock)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _event_loop.drive(take())
    assert time.monotonic() - began < 4  # it has not waited for what it had
    assert unclaimed == ["value"]


async def test_a_value_that_arrives_with_a_cancellation_is_not_lost() -> None:
    unclaimed, given, began = [], [], threading.Event()

    async def give() -> str:
        given.append("value")
        began.set()
        return "value"

    async def clean_up() -> None:
        unclaimed.append(given.pop())

    async def take() -> str:
        try:
            value: str = await _event_loop.on_loop(give())
        except asyncio.CancelledError:
            await _event_loop.on_loop(_event_loop.undone(clean_up()))
            raise
        return value

    task = asyncio.ensure_future(_event_loop.adrive(take()))
    await asyncio.sleep(0)
    began.wait(10)
    task.cancel()
    await asyncio.wait([task])
    assert unclaimed == (["value"] if task.cancelled() else [])
    assert task.cancelled() or task.result() == "value"
