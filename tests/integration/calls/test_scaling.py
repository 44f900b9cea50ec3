"""How many containers there are: the scaling parameters of `@app.function()`, seen from outside."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal

Busy = Callable[[Any, int], AbstractContextManager[None]]


def wait_for(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


def containers(function: Any) -> int:
    count: int = function.get_current_stats().num_total_runners
    return count


def reaches(function: Any, count: int) -> None:
    until(lambda: containers(function) == count, f"{count} containers")


def stays(function: Any, count: int, seconds: float = 0.4) -> None:
    """The number of containers gets to `count`, and still is that for a while."""
    reaches(function, count)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert containers(function) == count
        time.sleep(0.02)


def settles(function: Any, count: int, seconds: float = 0.4) -> None:
    """The number of containers may come and go, and then is `count` for a while."""
    since = time.monotonic()

    def settled() -> bool:
        nonlocal since
        if containers(function) != count:
            since = time.monotonic()
        return time.monotonic() - since > seconds

    until(settled, f"{count} containers to stay")


@pytest.fixture
def busy(tmp_path: Path) -> Busy:
    """Keeps a function (of `wait_for`) busy with a number of inputs for the time of a block."""
    gates = iter(range(100))

    @contextmanager
    def keep(function: Any, inputs: int) -> Iterator[None]:
        gate = tmp_path / f"gate-{next(gates)}"
        thread = threading.Thread(target=function.for_each, args=([str(gate)] * inputs,))
        thread.start()
        try:
            yield
        finally:
            gate.touch()
            thread.join(30)

    return keep


def test_containers_grow_with_the_inputs_and_go_after_the_idle_timeout(app: modal.App, busy: Busy) -> None:
    working = app.function(serialized=True, container_idle_timeout=1)(wait_for)
    with app.run():
        assert containers(working) == 0
        with busy(working, 4):
            stays(working, 4)
            at_work = time.monotonic()
        reaches(working, 0)
        assert time.monotonic() - at_work > 1.0


def test_an_idle_container_stays_for_the_next_input(app: modal.App) -> None:
    @app.function(serialized=True, container_idle_timeout=30)
    def pid() -> int:
        return os.getpid()

    with app.run():
        first = pid.remote()
        stays(pid, 1)
        assert pid.remote() == first


def test_scale_down_never_interrupts_running_inputs(app: modal.App, tmp_path: Path) -> None:
    working = app.function(serialized=True, container_idle_timeout=1)(wait_for)
    with app.run():
        long = working.spawn(str(tmp_path / "long"))
        list(working.map([__file__] * 3))
        stays(working, 1, seconds=2.0)  # the others have gone
        (tmp_path / "long").touch()
        assert long.get(timeout=10)
        reaches(working, 0)


def test_concurrency_limit_is_never_exceeded(app: modal.App, busy: Busy) -> None:
    working = app.function(serialized=True, concurrency_limit=2)(wait_for)
    with app.run(), busy(working, 6):
        stays(working, 2, seconds=1.0)
        assert working.get_current_stats().backlog == 4


def test_concurrent_inputs_share_a_container(app: modal.App, busy: Busy) -> None:
    working = app.function(serialized=True, allow_concurrent_inputs=4)(wait_for)
    with app.run():
        with busy(working, 4):
            stays(working, 1)
        with busy(working, 5):
            stays(working, 2)


def test_keep_warm_containers_are_there_before_and_after_inputs(app: modal.App, busy: Busy) -> None:
    working = app.function(serialized=True, keep_warm=2, container_idle_timeout=1)(wait_for)
    with app.run():
        stays(working, 2)
        with busy(working, 1):
            stays(working, 2)
        with busy(working, 4):
            stays(working, 4)
        reaches(working, 2)
        stays(working, 2, seconds=1.5)


def test_a_kept_warm_container_that_dies_is_replaced(app: modal.App) -> None:
    @app.function(serialized=True, keep_warm=1)
    def pid() -> int:
        return os.getpid()

    with app.run():
        first = pid.remote()
        os.kill(first, 9)
        until(lambda: not Path(f"/proc/{first}").exists(), "its end")
        settles(pid, 1)  # the server may count the one that is gone for a moment
        assert pid.remote() != first


def test_buffer_containers_come_on_top_of_what_the_inputs_need(app: modal.App, busy: Busy) -> None:
    working = app.function(serialized=True, _experimental_buffer_containers=2, container_idle_timeout=1)(wait_for)
    with app.run():
        settles(working, 2)
        with busy(working, 2):
            settles(working, 4)
        settles(working, 2)


def test_a_scaling_factor_makes_it_fewer(app: modal.App, busy: Busy) -> None:
    working = app.function(serialized=True, _experimental_custom_scaling_factor=0.5)(wait_for)
    with app.run(), busy(working, 6):
        stays(working, 3, seconds=1.0)


def test_batches_count_as_one_input_of_a_container(app: modal.App, tmp_path: Path) -> None:
    def wait_for_all(paths: list[str]) -> list[int]:
        while not os.path.exists(paths[0]):
            time.sleep(0.01)
        return [os.getpid()] * len(paths)

    working = app.function(serialized=True)(modal.batched(max_batch_size=4, wait_ms=200)(wait_for_all))
    with app.run():
        gate = tmp_path / "gate"
        calls = [working.spawn(str(gate)) for _ in range(8)]
        stays(working, 2)
        gate.touch()
        assert sorted([call.get(timeout=10) for call in calls].count(pid) for pid in {c.get() for c in calls}) == [4, 4]
