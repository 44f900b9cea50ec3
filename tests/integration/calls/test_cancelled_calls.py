"""`FunctionCall.cancel`, both forms, and what becomes of everybody involved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal
from modal.exception import NotFoundError, RemoteError


def wait_noting(path: str) -> str:
    """Runs for a minute; notes that it began, and how it was interrupted."""
    try:
        with open(path + ".begun", "a") as file:  # within, since the interruption may come right after
            file.write("x")
        for _ in range(6000):
            time.sleep(0.01)
    except BaseException as error:
        with open(path + ".interrupted", "a") as file:
            file.write(type(error).__name__)
        raise
    return "done"


def begun(path: Path) -> Any:
    return lambda: path.with_name(path.name + ".begun").exists()


def interrupted(path: Path) -> str:
    file = path.with_name(path.name + ".interrupted")
    return file.read_text() if file.exists() else ""


def test_a_running_input_is_interrupted_and_get_says_so(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True)(wait_noting)
    with app.run():
        call = wait.spawn(str(tmp_path / "one"))
        until(begun(tmp_path / "one"), "the input to begin")
        call.cancel()
        with pytest.raises(RemoteError, match=r"^The function call was cancelled\.$"):
            call.get(timeout=10)
        until(lambda: interrupted(tmp_path / "one"), "the input to be interrupted")
        assert interrupted(tmp_path / "one") == "InputCancellation"
        call.cancel()  # again: nothing happens
        with pytest.raises(RemoteError, match="cancelled"):
            call.get()


def test_the_container_of_a_cancelled_input_goes_on_with_others(app: modal.App, tmp_path: Path) -> None:
    @app.function(serialized=True, concurrency_limit=1)
    def wait_or_answer(path: str) -> int:
        import os

        if path:
            open(path + ".begun", "w").close()
            time.sleep(60)
        return os.getpid()

    with app.run():
        first = wait_or_answer.remote("")
        call = wait_or_answer.spawn(str(tmp_path / "one"))
        until(begun(tmp_path / "one"), "the input to begin")
        call.cancel()
        assert wait_or_answer.remote("") == first


def test_an_input_that_waits_for_a_container_never_begins(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    with app.run():
        running = wait.spawn(str(tmp_path / "running"))
        until(begun(tmp_path / "running"), "the first to begin")
        queued = wait.spawn(str(tmp_path / "queued"))
        queued.cancel()
        running.cancel()
        for call in (queued, running):
            with pytest.raises(RemoteError, match="cancelled"):
                call.get(timeout=10)
        assert not begun(tmp_path / "queued")()


def test_terminating_containers_runs_their_other_inputs_again(app: modal.App, tmp_path: Path) -> None:
    @app.function(serialized=True, allow_concurrent_inputs=2, concurrency_limit=1)
    def stubborn(path: str, seconds: float) -> int:
        import os

        with open(path + ".begun", "a") as file:
            file.write("x")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(0.05)
            except BaseException:
                pass
        return os.getpid()

    with app.run():
        victim = stubborn.spawn(str(tmp_path / "victim"), 60.0)
        until(begun(tmp_path / "victim"), "the first to begin")
        bystander = stubborn.spawn(str(tmp_path / "bystander"), 1.0)
        until(begun(tmp_path / "bystander"), "the other to begin")
        started = time.monotonic()
        victim.cancel(terminate_containers=True)
        with pytest.raises(RemoteError, match="cancelled"):
            victim.get(timeout=10)
        # It has no retries: the container that was killed under it does not count as its failure.
        assert bystander.get(timeout=40) > 0
        assert time.monotonic() - started < 40
        assert (tmp_path / "bystander.begun").read_text() == "xx"
        assert (tmp_path / "victim.begun").read_text() == "x"


def test_a_finished_call_stays_as_it_is(app: modal.App) -> None:
    @app.function(serialized=True)
    def seven() -> int:
        return 7

    with app.run():
        call = seven.spawn()
        assert call.get(timeout=20) == 7
        call.cancel()
        call.cancel(terminate_containers=True)
        assert call.get(timeout=5) == 7


async def test_cancel_can_be_awaited(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True)(wait_noting)
    async with app.run():
        call = await wait.spawn.aio(str(tmp_path / "one"))
        await call.cancel.aio()
        with pytest.raises(RemoteError, match="cancelled"):
            await call.get.aio(timeout=10)


def test_a_function_in_a_container_cancels_a_call_of_another(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True, name="wait")(wait_noting)

    @app.function(serialized=True)
    def canceller(path: str) -> str:
        import os
        import time

        call = wait.spawn(path)
        while not os.path.exists(path + ".begun"):
            time.sleep(0.01)
        call.cancel()
        try:
            call.get(timeout=10)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    with app.run():
        assert canceller.remote(str(tmp_path / "one")) == "RemoteError: The function call was cancelled."
        until(lambda: interrupted(tmp_path / "one"), "the input to be interrupted")


def test_cancelling_the_outer_call_cancels_what_it_waits_for(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True, name="wait")(wait_noting)

    @app.function(serialized=True)
    def outer(path: str) -> str:
        return wait.remote(path)

    with app.run():
        call = outer.spawn(str(tmp_path / "inner"))
        until(begun(tmp_path / "inner"), "the inner call to begin")
        call.cancel()
        assert until(lambda: interrupted(tmp_path / "inner"), "the inner call to end") == "InputCancellation"


def test_a_call_that_does_not_exist_cannot_be_cancelled(app: modal.App) -> None:
    call = modal.FunctionCall.from_id("fc-" + "0" * 22)
    with pytest.raises(NotFoundError, match="no function call"):
        call.cancel()


def test_an_app_that_stops_ends_its_queued_calls(app: modal.App, tmp_path: Path) -> None:
    wait = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    with app.run():
        calls = [wait.spawn(str(tmp_path / "one")) for _ in range(20)]
        until(begun(tmp_path / "one"), "the first to begin")
    for call in calls:
        with pytest.raises(modal.exception.ExecutionError, match=r"^The app ap-\w+ was stopped \(finished\)\.$"):
            modal.FunctionCall.from_id(call.object_id).get(timeout=10)


def test_every_kind_of_function_is_interrupted(app: modal.App, tmp_path: Path) -> None:
    @app.function(serialized=True, allow_concurrent_inputs=2)
    def thread(path: str) -> str:
        return wait_noting(path)

    @app.function(serialized=True)
    async def coroutine(path: str) -> None:
        import asyncio

        open(path + ".begun", "w").close()
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            with open(path + ".interrupted", "w") as file:
                file.write(type(error).__name__)
            raise

    @app.function(serialized=True)
    def generator(path: str) -> Any:
        yield wait_noting(path)

    expected = {"thread": "InputCancellation", "coroutine": "CancelledError", "generator": "InputCancellation"}
    with app.run():
        for function in (thread, coroutine, generator):
            path = tmp_path / function.object_id
            call = function.spawn(str(path))
            until(begun(path), "the input to begin")
            call.cancel()
            with pytest.raises(RemoteError, match="cancelled"):
                list(call.get_gen()) if function.is_generator else call.get(timeout=10)
            seen = until(lambda path=path: interrupted(path), "the input to be interrupted")  # type: ignore[misc]
            assert seen == expected[function._tag]


def test_an_input_that_waits_for_its_retry_is_not_tried_again(app: modal.App, tmp_path: Path) -> None:
    @app.function(serialized=True, retries=modal.Retries(max_retries=5, initial_delay=0.3, backoff_coefficient=1.0))
    def fail(path: str) -> None:
        with open(path + ".begun", "a") as file:
            file.write("x")
        raise ValueError("always")

    @app.function(serialized=True)
    def later() -> None:
        time.sleep(1)

    with app.run():
        call = fail.spawn(str(tmp_path / "one"))
        until(begun(tmp_path / "one"), "the first attempt")
        call.cancel()
        with pytest.raises(RemoteError, match="cancelled"):
            call.get(timeout=10)
        tried = (tmp_path / "one.begun").read_text()
        later.remote()  # longer than the delay
        assert (tmp_path / "one.begun").read_text() == tried
        assert fail.get_current_stats().backlog == 0
