"""`@modal.batched` through the public API."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import modal
from modal.exception import InvalidError


def add(xs: list[int], ys: Any = 100) -> Any:
    return [(x + y, len(xs)) for x, y in zip(xs, ys)]


async def add_later(xs: list[int], ys: Any = 100) -> Any:
    import asyncio

    await asyncio.sleep(0)
    return [(x + y, len(xs)) for x, y in zip(xs, ys)]


BOTH = pytest.mark.parametrize("function", [add, add_later], ids=["sync", "async"])


def batched(app: modal.App, function: Any, size: int, wait_ms: int, **options: Any) -> Any:
    return app.function(serialized=True, **options)(modal.batched(max_batch_size=size, wait_ms=wait_ms)(function))


@BOTH
def test_inputs_of_a_map_run_in_full_batches(app: modal.App, function: Any) -> None:
    adding = batched(app, function, 4, 20_000, concurrency_limit=1)
    with app.run():
        assert list(adding.map(range(12))) == [(100 + x, 4) for x in range(12)]


@BOTH
def test_a_batch_that_is_not_full_waits_and_then_runs(app: modal.App, function: Any) -> None:
    adding = batched(app, function, 4, 300)
    with app.run():
        adding.remote(0)
        began = time.monotonic()
        assert adding.remote(1, ys=2) == (3, 1)
        assert time.monotonic() - began >= 0.29


@BOTH
async def test_single_calls_that_come_soon_after_each_other_share_a_batch(app: modal.App, function: Any) -> None:
    adding = batched(app, function, 3, 20_000, keep_warm=2)
    async with app.run():
        assert [total async for total in adding.map.aio(range(3))] == [(100, 3), (101, 3), (102, 3)]
        calls = [asyncio.create_task(adding.remote.aio(1))]
        await asyncio.sleep(0.1)
        calls += [asyncio.create_task(adding.remote.aio(x, ys=1)) for x in (2, 3)]
        assert await asyncio.gather(*calls) == [(101, 3), (3, 3), (4, 3)]


def test_inputs_behind_a_running_batch_get_another_container(app: modal.App) -> None:
    def work(seconds: list[float]) -> list[float]:
        time.sleep(max(seconds))
        return seconds

    working = batched(app, work, 4, 0, keep_warm=2)
    with app.run():
        list(working.map([0.0] * 4))
        slow = working.spawn(60.0)
        time.sleep(0.1)
        assert working.remote(0.0) == 0.0
        with pytest.raises(TimeoutError):
            slow.get(timeout=0)
        slow.cancel(terminate_containers=True)


def test_a_wrong_result_is_an_error_for_its_batch_only(app: modal.App) -> None:
    def odd(xs: list[int]) -> Any:
        return xs if 2 not in xs else tuple(xs) if 3 in xs else xs[:-1]

    wrong = batched(app, odd, 2, 300, concurrency_limit=1)
    with app.run():
        assert list(wrong.map([0, 1, 4, 5])) == [0, 1, 4, 5]
        results = list(wrong.map([0, 1, 2, 3, 4, 5], return_exceptions=True))
        assert [results[n] for n in (0, 1, 4, 5)] == [0, 1, 4, 5]
        for error in results[2:4]:
            assert isinstance(error, InvalidError)
            assert "each of the 2 inputs" in str(error)
            assert "returned a tuple." in str(error)
        assert "returned one of 1." in str(next(iter(wrong.map([2, 2], return_exceptions=True))))


@BOTH
def test_an_exception_reaches_every_input_of_its_batch(app: modal.App, function: Any) -> None:
    adding = batched(app, function, 3, 300)
    with app.run():
        results = list(adding.map([1, None, 3], return_exceptions=True))
        assert [type(one) for one in results] == [TypeError] * 3


def test_arguments_that_do_not_fit_fail_their_own_input(app: modal.App) -> None:
    adding = batched(app, add, 3, 300)
    with app.run():
        results = list(adding.starmap([(1, 2), (), (3, 4)], return_exceptions=True))
        assert [results[0], results[2]] == [(3, 2), (7, 2)]
        assert isinstance(results[1], TypeError)


def test_a_batch_that_fails_is_retried(app: modal.App) -> None:
    seen: list[int] = []

    def flaky(xs: list[int]) -> list[int]:
        seen.append(len(xs))
        if len(seen) == 1:
            raise ValueError("the first time")
        return [x * 2 for x in xs]

    trying = batched(app, flaky, 4, 200, retries=modal.Retries(max_retries=1, initial_delay=0.0))
    with app.run():
        assert list(trying.map(range(4))) == [0, 2, 4, 6]


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_batch_that_takes_too_long_times_out_for_each_input(app: modal.App, stubborn: bool) -> None:
    def slow(seconds: list[float]) -> list[float]:
        until = time.monotonic() + max(seconds)
        while time.monotonic() < until:
            try:
                time.sleep(0.01)
            except BaseException:
                if not stubborn:
                    raise
        return seconds

    slowing = batched(app, slow, 2, 100, timeout=1)
    with app.run():
        results = list(slowing.map([20.0, 20.0], return_exceptions=True))
        assert [type(one).__name__ for one in results] == ["FunctionTimeoutError"] * 2
        assert slowing.remote(0.0) == 0.0


def test_batches_and_concurrent_inputs_clash(app: modal.App) -> None:
    with pytest.raises(InvalidError, match=r"'add'.*@modal\.batched and allow_concurrent_inputs"):
        batched(app, add, 2, 10, allow_concurrent_inputs=2)


def test_a_generator_cannot_be_batched(app: modal.App) -> None:
    def count(xs: list[int]) -> Any:
        yield from xs

    with pytest.raises(InvalidError, match="'count' is a generator"):
        batched(app, count, 2, 10)


def test_the_decorators_in_the_wrong_order_say_so(app: modal.App) -> None:
    function = app.function(serialized=True)(add)
    with pytest.raises(InvalidError, match=r"below @app\.function\(\)"):
        modal.batched(max_batch_size=2, wait_ms=1)(function)


def test_local_calls_the_plain_function_with_lists(app: modal.App) -> None:
    adding = batched(app, add, 2, 10)
    assert adding.local([1, 2], [3, 4]) == [(4, 2), (6, 2)]
