"""A container that is told to end by a signal: its inputs are interrupted, and run again elsewhere."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"stop_grace": 2.0}


def first_waits(path: str) -> tuple[str, int]:
    """The first attempt runs for a minute and notes how it was interrupted; the next one ends at once."""
    first = not os.path.exists(path + ".pid")
    if first:
        with open(path + ".pid.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".pid.new", path + ".pid")
        try:
            for _ in range(6000):
                time.sleep(0.01)
        except BaseException as error:
            with open(path + ".interrupted", "w") as file:
                file.write(type(error).__name__)
            raise
    return ("first" if first else "again"), os.getpid()


async def first_waits_async(path: str) -> tuple[str, int]:
    import asyncio

    first = not os.path.exists(path + ".pid")
    if first:
        with open(path + ".pid.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".pid.new", path + ".pid")
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            with open(path + ".interrupted", "w") as file:
                file.write(type(error).__name__)
            raise
    return ("first" if first else "again"), os.getpid()


def pid_of(path: Path) -> int:
    file = path.with_suffix(".pid")
    until(file.exists, "the input to begin")
    return int(file.read_text())


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("function", "options", "raised"),
    [
        (first_waits, {}, "KeyboardInterrupt"),
        (first_waits, {"allow_concurrent_inputs": 2}, "KeyboardInterrupt"),
        (first_waits_async, {}, "CancelledError"),
    ],
    ids=["main thread", "threads", "tasks"],
)
def test_a_signal_interrupts_the_input_which_runs_elsewhere_without_retries(
    app: modal.App, mark: Path, number: signal.Signals, function: Any, options: dict[str, Any], raised: str
) -> None:
    waiting = app.function(serialized=True, **options)(function)
    with app.run():
        call = waiting.spawn(str(mark))
        pid = pid_of(mark)
        os.kill(pid, number)
        attempt, where = call.get(timeout=20)
    assert (attempt, where != pid) == ("again", True)
    assert mark.with_suffix(".interrupted").read_text() == raised


def test_a_batch_is_retried_elsewhere_as_well(app: modal.App, mark: Path) -> None:
    @app.function(serialized=True)
    @modal.batched(max_batch_size=2, wait_ms=1000)
    def waiting(paths: list[str]) -> list[int]:
        if not os.path.exists(paths[0]):
            with open(paths[0], "w") as file:
                file.write(str(os.getpid()))
            time.sleep(60)
        return [os.getpid() for _ in paths]

    with app.run():
        outputs = waiting.map([str(mark)] * 2)
        import threading

        found: list[int] = []
        thread = threading.Thread(target=lambda: found.extend(outputs))
        thread.start()
        until(lambda: mark.exists() and mark.read_text(), "the batch to begin")
        pid = int(mark.read_text())
        os.kill(pid, signal.SIGTERM)
        thread.join(20)
    assert len(found) == 2
    assert pid not in found


def test_an_input_may_finish_in_the_time_of_grace(app: modal.App, mark: Path) -> None:
    @app.function(serialized=True)
    def finishing(path: str) -> str:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.5)
        return "in time"

    with app.run():
        call = finishing.spawn(str(mark))
        until(lambda: mark.exists() and mark.read_text(), "the input to begin")
        os.kill(int(mark.read_text()), signal.SIGTERM)
        assert call.get(timeout=20) == "in time"


def test_code_that_does_not_give_way_is_killed_after_the_grace(app: modal.App, mark: Path) -> None:
    @app.function(serialized=True)
    def stubborn(path: str) -> int:
        if not os.path.exists(path):
            with open(path, "w") as file:
                file.write(str(os.getpid()))
            while True:
                try:
                    time.sleep(60)
                except KeyboardInterrupt:
                    pass
        return os.getpid()

    with app.run():
        call = stubborn.spawn(str(mark))
        until(lambda: mark.exists() and mark.read_text(), "the input to begin")
        pid = int(mark.read_text())
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert call.get(timeout=20) != pid
        assert time.monotonic() - began > 1.0


def test_new_inputs_do_not_wait_for_a_container_that_leaves(app: modal.App, mark: Path) -> None:
    @app.function(serialized=True, allow_concurrent_inputs=4)
    def working(path: str) -> int:
        if path:
            with open(path, "w") as file:
                file.write(str(os.getpid()))
            try:
                time.sleep(60)
            except BaseException:
                time.sleep(1.5)
        return os.getpid()

    with app.run():
        call = working.spawn(str(mark))
        until(lambda: mark.exists() and mark.read_text(), "the input to begin")
        pid = int(mark.read_text())
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        assert working.remote("") != pid
        call.cancel()


def test_simulate_preemption_interrupts_and_the_input_runs_again(app: modal.App, mark: Path) -> None:
    @app.function(serialized=True)
    def preempted(path: str) -> str:
        from modal.exception import simulate_preemption

        if os.path.exists(path):
            with open(path) as file:
                return file.read()
        simulate_preemption(1)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            with open(path, "w") as file:
                file.write("got preempted")
            raise
        return "never"

    with app.run():
        assert preempted.remote(str(mark)) == "got preempted"


def test_simulate_preemption_works_in_threads_and_in_async_functions(app: modal.App, tmp_path: Path) -> None:
    def preempted(path: str) -> str:
        from modal.exception import simulate_preemption

        if not os.path.exists(path):
            with open(path, "w"):
                pass
            simulate_preemption(1)
            for _ in range(6000):
                time.sleep(0.01)
        return "again"

    async def preempted_async(path: str) -> str:
        import asyncio

        from modal.exception import simulate_preemption

        if not os.path.exists(path):
            with open(path, "w"):
                pass
            simulate_preemption(1)
            await asyncio.sleep(60)
        return "again"

    in_threads = app.function(serialized=True, allow_concurrent_inputs=2)(preempted)
    in_tasks = app.function(serialized=True)(preempted_async)
    with app.run():
        calls = [in_threads.spawn(str(tmp_path / "a")), in_tasks.spawn(str(tmp_path / "b"))]
        assert [call.get(timeout=20) for call in calls] == ["again", "again"]
