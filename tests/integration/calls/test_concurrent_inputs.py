"""Several inputs in one container, timeouts among them, and containers that are replaced."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal
from modal.exception import FunctionTimeoutError


def meet(n: int) -> tuple[int, int, Any, Any]:
    """Waits until three inputs are in it at the same time."""
    import threading

    barrier = vars(os).setdefault("_barrier_for_test", threading.Barrier(3))
    barrier.wait(20)
    return n, os.getpid(), modal.current_input_id(), modal.current_function_call_id()


async def meet_async(n: int) -> tuple[int, int, Any, Any]:
    import asyncio

    waiting = vars(os).setdefault("_waiting_for_test", [])
    waiting.append(n)
    while len(waiting) % 3:
        await asyncio.sleep(0.001)
    return n, os.getpid(), modal.current_input_id(), modal.current_function_call_id()


def size(data: bytes) -> int:
    return len(data)


@modal.batched(max_batch_size=24, wait_ms=20_000)
def sizes(data: list[bytes]) -> list[int]:
    return [len(one) for one in data]


BOTH = pytest.mark.parametrize("function", [meet, meet_async], ids=["threads", "tasks"])


@BOTH
def test_inputs_run_side_by_side_and_know_who_they_are(app: modal.App, function: Any) -> None:
    meeting = app.function(serialized=True, allow_concurrent_inputs=3, concurrency_limit=1)(function)
    with app.run():
        calls = [meeting.spawn(n) for n in range(3)]
        results = [call.get(timeout=20) for call in calls]
    assert [one[0] for one in results] == [0, 1, 2]
    assert len({one[1] for one in results}) == 1
    assert [one[3] for one in results] == [call.object_id for call in calls]
    assert [one[2] for one in results] == [f"in-{call.object_id[3:]}-0" for call in calls]


def test_ids_are_right_in_each_input_of_a_map(app: modal.App) -> None:
    @app.function(serialized=True, allow_concurrent_inputs=8)
    def who(n: int) -> tuple[Any, Any]:
        before = modal.current_input_id()
        time.sleep(0.001)
        return before, modal.current_input_id()

    with app.run():
        results = list(who.map(range(100)))
    assert all(before == after for before, after in results)
    assert [int(before.rpartition("-")[2]) for before, _ in results] == list(range(100))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_a_timeout_ends_one_input_and_leaves_its_neighbours(app: modal.App, tmp_path: Path, asynchronous: bool) -> None:
    """The neighbour begins when half of the other's time is over, and ends when the other has ended."""

    def work(kind: str, ended: str) -> int:
        try:
            for _ in range(10_000):
                if kind == "quick" or (kind == "neighbour" and os.path.exists(ended)):
                    break
                time.sleep(0.01)
        finally:
            if kind == "late":
                open(ended, "w").close()
        return os.getpid()

    async def work_async(kind: str, ended: str) -> int:
        import asyncio

        try:
            while not (kind == "quick" or (kind == "neighbour" and os.path.exists(ended))):
                await asyncio.sleep(0.01)
        finally:
            if kind == "late":
                open(ended, "w").close()
        return os.getpid()

    working = app.function(serialized=True, allow_concurrent_inputs=3, concurrency_limit=1, timeout=3)(
        work_async if asynchronous else work
    )
    ended = str(tmp_path / "ended")
    with app.run():
        pid = working.remote("quick", ended)
        late = working.spawn("late", ended)
        time.sleep(1.5)
        neighbour = working.spawn("neighbour", ended)
        with pytest.raises(FunctionTimeoutError, match="timeout of 3 s"):
            late.get(timeout=30)
        assert neighbour.get(timeout=30) == pid
        assert working.remote("quick", ended) == pid


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_an_input_that_cannot_be_interrupted_is_ended_with_its_container(
    app: modal.App, tmp_path: Path, asynchronous: bool
) -> None:
    """The others in that container run again elsewhere, without a retry of theirs."""

    def work(kind: str, path: str) -> tuple[str, int]:
        with open(path, "a") as file:
            file.write("x")
        if kind == "hang":
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        if len(open(path).read()) == 1:
            for _ in range(6000):
                time.sleep(0.01)
        return kind, os.getpid()

    async def work_async(kind: str, path: str) -> tuple[str, int]:
        import asyncio

        with open(path, "a") as file:
            file.write("x")
        if kind == "hang":
            while True:
                try:
                    await asyncio.sleep(60)
                except BaseException:
                    pass
        if len(open(path).read()) == 1:
            await asyncio.sleep(60)
        return kind, os.getpid()

    working = app.function(serialized=True, allow_concurrent_inputs=2, concurrency_limit=1, timeout=2)(
        work_async if asynchronous else work
    )
    with app.run():
        hung = working.spawn("hang", str(tmp_path / "hang"))
        until((tmp_path / "hang").exists, "the first input to begin")
        time.sleep(3)  # so that the other one is well within its own time when the container is killed
        other = working.spawn("wait", str(tmp_path / "other"))
        with pytest.raises(FunctionTimeoutError):
            hung.get(timeout=20)
        assert other.get(timeout=20)[0] == "wait"
        assert (tmp_path / "other").read_text() == "xx"
        assert working.remote("next", str(tmp_path / "hang"))[0] == "next"


@pytest.mark.parametrize("how", ["loop", "C"])
def test_code_that_cannot_be_interrupted_is_killed_and_the_next_input_is_unaffected(app: modal.App, how: str) -> None:
    def work(how: str) -> int:
        while how == "loop":
            try:
                time.sleep(1)
            except BaseException:
                continue
        if how == "C":
            import ctypes

            ctypes.PyDLL(None).sleep(60)  # holds the interpreter lock
        return os.getpid()

    working = app.function(serialized=True, concurrency_limit=1, timeout=1)(work)
    with app.run():
        first = working.remote("")
        hung = working.spawn(how)
        following = working.spawn("")
        with pytest.raises(FunctionTimeoutError):
            hung.get(timeout=20)
        assert following.get(timeout=20) != first


@pytest.mark.parametrize("max_inputs", [1, 3])
def test_a_container_is_replaced_after_its_number_of_inputs(app: modal.App, max_inputs: int) -> None:
    @app.function(serialized=True, max_inputs=max_inputs, concurrency_limit=1)
    def pid() -> int:
        return os.getpid()

    with app.run():
        pids = [pid.remote() for _ in range(6)]
    assert [pids.count(one) for one in dict.fromkeys(pids)] == [max_inputs] * (6 // max_inputs)


def test_the_inputs_of_a_map_are_spread_over_single_use_containers(app: modal.App) -> None:
    @app.function(serialized=True, max_inputs=1)
    def pid(n: int) -> int:
        return os.getpid()

    with app.run():
        assert len(set(pid.map(range(5)))) == 5


def test_a_sync_function_may_return_an_awaitable(app: modal.App) -> None:
    def deferred(x: int) -> Any:
        async def later() -> int:
            return 2 * x

        return later()

    class Later:
        def __init__(self, x: int) -> None:
            self.x = x

        def __await__(self) -> Any:
            import asyncio

            yield from asyncio.sleep(0).__await__()
            return 3 * self.x

    def awaitable(x: int) -> Any:
        return Later(x)

    alone = app.function(serialized=True)(deferred)
    in_threads = app.function(serialized=True, name="threads", allow_concurrent_inputs=2)(deferred)
    other = app.function(serialized=True)(awaitable)
    with app.run():
        assert (alone.remote(1), in_threads.remote(2), other.remote(3)) == (2, 4, 9)


@pytest.mark.parametrize("function", [size, sizes], ids=["side by side", "batch"])
def test_a_container_gets_inputs_at_once_that_are_large_together(app: modal.App, function: Any) -> None:
    sized = app.function(serialized=True, allow_concurrent_inputs=1 if function is sizes else 24)(function)
    data = b"x" * 1_900_000
    with app.run():
        assert list(sized.map([data] * 24)) == [len(data)] * 24
