"""Calls through the SDK to a server that runs them."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from sdk_server import SdkServer

import modal
from modal._wire.messages.app import AppState, AppStopReason
from modal.exception import InvalidError, NotFoundError
from modal.functions import gather

app = modal.App("calls")


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def fail(x: int) -> int:
    if x == 3:
        raise ValueError(f"no {x}")
    return x


@app.function()
def count(n: int) -> Any:
    for i in range(n):
        if i == 100:
            raise ValueError("that is far enough")
        yield i


@app.function()
def size(data: bytes) -> bytes:
    return data[:-1]


@pytest.fixture
def running(server: SdkServer) -> Any:
    for function in (square, fail, count, size):
        server.functions[function._tag] = function.get_raw_f()
    with app.run():
        yield server


def test_remote_returns_the_result(running: SdkServer) -> None:
    assert square.remote(7) == 49
    assert square.remote(x=8) == 64


async def test_remote_can_be_awaited_from_any_event_loop(running: SdkServer) -> None:
    results = await asyncio.gather(*(square.remote.aio(i) for i in range(20)))
    assert results == [i * i for i in range(20)]


async def test_a_blocking_call_works_inside_a_running_event_loop(running: SdkServer) -> None:
    assert square.remote(3) == 9


def test_a_remote_exception_has_the_class_and_shows_none_of_our_frames(running: SdkServer) -> None:
    with pytest.raises(ValueError, match="no 3") as caught:
        fail.remote(3)
    names = [frame.filename for frame in traceback.extract_tb(caught.tb)]
    ours = [name for name in names if "/modal/" in name]
    assert len(ours) <= 1
    assert not any("asyncio" in name for name in names)


def test_large_arguments_and_results_go_through_the_blob_store(running: SdkServer) -> None:
    data = bytes(5_000_000)
    running.blobs.clear()
    assert size.remote(data) == data[:-1]
    assert len(running.blobs) == 2


def test_a_generator_streams_and_ends_with_its_exception(running: SdkServer) -> None:
    assert list(count.remote_gen(5)) == [0, 1, 2, 3, 4]
    values = iter(count.remote_gen(200))
    assert list(itertools.islice(values, 100)) == list(range(100))
    with pytest.raises(ValueError, match="far enough"):
        next(values)


async def test_a_generator_can_be_iterated_over_asynchronously(running: SdkServer) -> None:
    assert [value async for value in count.remote_gen.aio(3)] == [0, 1, 2]
    assert [value async for value in count.remote_gen(3)] == [0, 1, 2]


def test_spawned_calls_are_waited_for_and_gathered(running: SdkServer) -> None:
    call = square.spawn(5)
    assert call.object_id.startswith("fc-")
    assert call.get() == 25
    assert modal.FunctionCall.from_id(call.object_id).get(timeout=1) == 25
    assert gather(square.spawn(1), square.spawn(2)) == [1, 4]
    with pytest.raises(ValueError, match="no 3"):
        gather(square.spawn(1), fail.spawn(3))


def test_polling_a_call_without_result_is_a_timeout_of_python_too(running: SdkServer) -> None:
    running.hold = True
    call = square.spawn(5)
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    with pytest.raises(modal.exception.TimeoutError):
        call.get(timeout=0)
    call.cancel()
    assert running.cancelled == [call.object_id]


def test_statistics(running: SdkServer) -> None:
    assert square.get_current_stats() == modal.functions.FunctionStats(3, 4)


def test_wrong_ways_to_call_say_which_is_right(running: SdkServer) -> None:
    with pytest.raises(InvalidError, match="remote_gen"):
        count.remote(3)
    with pytest.raises(InvalidError, match=r"remote\(\)"):
        list(square.remote_gen(3))
    with pytest.raises(InvalidError, match=r"\.local"):
        square(3)
    with pytest.raises(InvalidError, match="not mapped"):
        list(count.map([1]))


def test_local_runs_here() -> None:
    assert square.local(4) == 16


def test_a_function_of_an_app_that_is_not_running_says_so() -> None:
    with pytest.raises(InvalidError, match="not running"):
        square.remote(1)


def test_the_app_is_created_published_and_stopped(server: SdkServer) -> None:
    with app.run():
        assert app.app_id is not None
        assert set(server.published) == {"square", "fail", "count", "size"}
        assert square.object_id == server.published["square"]
        with pytest.raises(InvalidError, match="running already"):
            app.run().__enter__()
    assert server.stopped == [AppStopReason.FINISHED]
    assert server.created[0].name == "calls"
    assert not any("object_id" in vars(function) for function in app.registered_functions.values())


def test_how_the_block_ends_is_why_the_app_stops(server: SdkServer) -> None:
    with pytest.raises(RuntimeError), app.run():
        raise RuntimeError("mine")
    with pytest.raises(KeyboardInterrupt), app.run():
        raise KeyboardInterrupt
    assert server.stopped == [AppStopReason.FAILED, AppStopReason.INTERRUPTED]


def test_a_detached_app_is_not_stopped(server: SdkServer) -> None:
    with app.run(detach=True):
        pass
    assert server.stopped == []
    assert server.created[0].state is AppState.DETACHED


def test_an_app_that_cannot_start_is_stopped_as_failed(server: SdkServer) -> None:
    server.wrong_image = True
    with pytest.raises(NotFoundError, match="cannot be had"), app.run():
        pass
    assert server.stopped == [AppStopReason.FAILED]


async def test_an_app_runs_in_async_code(server: SdkServer) -> None:
    server.functions["square"] = square.get_raw_f()
    async with app.run():
        assert await square.remote.aio(6) == 36
    assert server.stopped == [AppStopReason.FINISHED]


_FORKS = """
import os
import modal

app = modal.App()

@app.function()
def square(x):
    return x * x

if __name__ == "__main__":
    with app.run():
        assert square.remote(2) == 4
        child = os.fork()
        if child == 0:
            os._exit(square.remote(3))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        print(square.remote(4))
"""


def test_a_forked_child_can_call_as_well(server: SdkServer, tmp_path: Path) -> None:
    server.functions["square"] = square.get_raw_f()
    script = tmp_path / "forks.py"
    script.write_text(_FORKS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("16\n", 0), done.stderr
    assert server.stopped == [AppStopReason.FINISHED]
