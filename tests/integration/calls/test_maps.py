"""Maps against a real server: how far ahead they read, in what order outputs come, and what ends them early."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from real_server import until

import modal
from modal._calls.feeder import AHEAD, IN_FLIGHT
from modal.exception import InvalidError, SerializationError


def double(x: int, y: int = 0, *, plus: int = 0) -> int:
    return 2 * x + y + plus


def wait_noting(path: str, x: int) -> int:
    """The first inputs return; the one numbered 2 runs for a minute and notes when it is interrupted."""
    if x != 2:
        return x
    try:
        open(path + ".begun", "w").close()  # within, since the interruption may come right after
        for _ in range(6000):
            time.sleep(0.01)
    except BaseException as error:
        with open(path + ".interrupted", "w") as file:
            file.write(type(error).__name__)
        raise
    return x


class Counted:
    """An endless iterator that counts how far it was read."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for value in itertools.count():
            self.count += 1
            yield value


def settled(source: Counted) -> int:
    """How far the source was read, once nobody reads on."""
    last, since = source.count, time.monotonic()
    deadline = since + 30
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline, "it is read on and on"
        time.sleep(0.02)
        if source.count != last:
            last, since = source.count, time.monotonic()
    return last


def test_an_endless_source_is_read_a_bounded_way_ahead_of_a_slow_caller(app: modal.App) -> None:
    function = app.function(serialized=True)(double)
    source = Counted()
    with app.run():
        outputs = iter(function.map(source))
        assert [next(outputs) for _ in range(10)] == list(range(0, 20, 2))
        # Outputs arrive in bunches, and what the caller has been handed counts as read.
        assert settled(source) <= AHEAD + IN_FLIGHT
        outputs.close()  # type: ignore[attr-defined]
        assert settled(source) == source.count


def test_an_input_that_does_not_end_bounds_how_far_the_source_is_read(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    source = Counted()
    with app.run():
        path = str(tmp_path / "mark")
        outputs = iter(function.starmap((path, x) for x in source))
        assert [next(outputs), next(outputs)] == [0, 1]
        assert settled(source) <= IN_FLIGHT + 4
        outputs.close()  # type: ignore[attr-defined]
        until((tmp_path / "mark.interrupted").exists, "the running input to be interrupted")


def test_outputs_come_in_order_or_as_they_complete(app: modal.App) -> None:
    @app.function(serialized=True, concurrency_limit=2)
    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    with app.run():
        sleep.keep_warm(2)
        until(lambda: sleep.get_current_stats().num_total_runners == 2, "two containers")
        assert list(sleep.map([1.0, 0.0])) == [1.0, 0.0]
        assert list(sleep.map([1.0, 0.0], order_outputs=False)) == [0.0, 1.0]


def test_leaving_the_loop_interrupts_what_runs(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    path = tmp_path / "mark"
    with app.run():
        for value in function.starmap((str(path), x) for x in range(500)):
            if value == 1:
                until(path.with_name("mark.begun").exists, "the long input to begin")
                break
        interrupted = path.with_name("mark.interrupted")
        assert until(lambda: interrupted.exists() and interrupted.read_text(), "it to end") == "InputCancellation"
        until(lambda: function.get_current_stats().backlog == 0, "nothing to be left")


async def test_leaving_an_async_loop_interrupts_what_runs(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    path = tmp_path / "mark"
    async with app.run():
        async for value in function.starmap.aio((str(path), x) for x in range(500)):
            if value == 1:
                break
        async with asyncio.timeout(20):
            while (await function.get_current_stats.aio()).backlog:
                await asyncio.sleep(0.01)


def test_a_failure_ends_the_map_or_is_an_output(app: modal.App) -> None:
    @app.function(serialized=True)
    def picky(x: int) -> int:
        if x == 2:
            raise ValueError("two")
        return x

    with app.run():
        outputs = iter(picky.map(range(5)))
        assert [next(outputs), next(outputs)] == [0, 1]
        with pytest.raises(ValueError, match="two"):
            next(outputs)
        assert list(outputs) == []
        kept = list(picky.map(range(5), return_exceptions=True))
        assert [kept[0], kept[1], kept[3], kept[4]] == [0, 1, 3, 4]
        assert (type(kept[2]), str(kept[2])) == (ValueError, "two")
        with pytest.raises(ValueError, match="two"):
            picky.for_each(range(5))
        picky.for_each(range(5), ignore_exceptions=True)


def test_several_iterables_are_read_to_the_end_of_the_shortest(app: modal.App) -> None:
    function = app.function(serialized=True)(double)
    with app.run():
        assert list(function.map([1, 2, 3], itertools.count(10))) == [12, 15, 18]
        assert list(function.map([1, 2, 3], [1])) == [3]
        assert list(function.map([1, 2], kwargs={"plus": 100})) == [102, 104]
        assert list(function.starmap([(1,), (1, 2)], kwargs={"plus": 1})) == [3, 5]
        assert list(function.map([])) == []
        function.for_each([1], [2], kwargs={"plus": 1})


async def test_async_iterables_are_sources_too(app: modal.App) -> None:
    async def numbers(n: int) -> AsyncIterator[int]:
        for value in range(n):
            await asyncio.sleep(0)
            yield value

    async def pairs() -> AsyncIterator[tuple[int, int]]:
        yield 1, 2
        yield 3, 4

    function = app.function(serialized=True)(double)
    async with app.run():
        assert [one async for one in function.map.aio(numbers(50))] == [2 * x for x in range(50)]
        assert [one async for one in function.map.aio(numbers(50), [1, 2])] == [1, 4]
        assert [one async for one in function.starmap.aio(pairs())] == [4, 10]
        await function.for_each.aio(numbers(3))
        assert [one async for one in function.map(numbers(3), order_outputs=True)] == [0, 2, 4]


def test_an_error_of_the_source_ends_the_map_and_cancels_it(app: modal.App, tmp_path: Path) -> None:
    function = app.function(serialized=True, concurrency_limit=1)(wait_noting)
    path = tmp_path / "mark"

    def broken() -> Iterator[tuple[str, int]]:
        yield str(path), 2
        until(path.with_name("mark.begun").exists, "the input to run")
        raise OSError("the disk is gone")

    with app.run():
        with pytest.raises(OSError, match="the disk is gone"):
            list(function.starmap(broken()))
        until(path.with_name("mark.interrupted").exists, "the running input to be interrupted")
        with pytest.raises(ZeroDivisionError):
            function.for_each([str(path)] * 3, (1 // x for x in (1, 1, 0)))
        with pytest.raises(SerializationError, match="argument 2 of wait_noting"):
            list(function.map([str(path)], [threading.Lock()]))


async def test_an_error_of_an_async_source_ends_the_map(app: modal.App) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise OSError("the disk is gone")

    function = app.function(serialized=True)(double)
    async with app.run():
        with pytest.raises(OSError, match="disk is gone"):
            _ = [one async for one in function.map.aio(broken())]


def test_wrong_sources_are_named(app: modal.App) -> None:
    function = app.function(serialized=True)(double)

    @app.function(serialized=True)
    def generate() -> Iterator[int]:
        yield 1

    with app.run():
        with pytest.raises(InvalidError, match="takes iterables, but got 3"):
            list(function.map(3))  # type: ignore[arg-type]
        with pytest.raises(InvalidError, match="an iterable for each argument"):
            list(function.map())
        with pytest.raises(InvalidError, match="an input is 3"):
            list(function.starmap([3]))  # type: ignore[list-item]
        with pytest.raises(InvalidError, match="kwargs must be a dict"):
            list(function.map([1], kwargs=[1]))  # type: ignore[arg-type]
        with pytest.raises(InvalidError, match="not mapped"):
            list(generate.map([]))
        with pytest.raises(InvalidError, match="not mapped"):
            generate.for_each([])
    with pytest.raises(InvalidError, match="not running"):
        list(function.map([1]))


@pytest.mark.parametrize("form", ["map", "starmap"])
async def test_a_map_that_nobody_consumes_warns(app: modal.App, form: str) -> None:
    function = app.function(serialized=True)(double)
    for method in (getattr(function, form), getattr(function, form).aio):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method([(1,)])
        assert [str(one.message).split(":")[0] for one in caught] == [
            f"The outputs of Function.{form} were never asked for, so nothing runs"
        ]
    async with app.run():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs = getattr(function, form).aio([] if form == "map" else [(1,)])
            await outputs.aclose()
            outputs = function.map.aio([1])
            assert await outputs.__anext__() == 2
            await outputs.aclose()


def test_a_map_in_a_container_is_the_same(app: modal.App) -> None:
    function = app.function(serialized=True, name="double")(double)

    @app.function(serialized=True)
    def inside() -> list[object]:
        import itertools

        first = list(itertools.islice(function.map(itertools.count()), 5))
        summed = sum(function.map(range(100), order_outputs=False))
        function.for_each([1])
        return [first, summed, list(function.starmap([(1, 2)]))]

    @app.function(serialized=True)
    async def inside_async() -> list[int]:
        return [one async for one in function.map.aio([1, 2])]

    with app.run():
        assert inside.remote() == [[0, 2, 4, 6, 8], 9900, [4]]
        assert inside_async.remote() == [2, 4]
