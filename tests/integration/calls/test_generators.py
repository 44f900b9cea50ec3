"""Generators in containers: sync, async, and functions that only return one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from real_server import until

import modal
from modal.exception import FunctionTimeoutError


def count(n: int, bad: int = -1) -> Any:
    for i in range(n):
        if i == bad:
            raise ValueError(f"no {i}")
        yield i


async def count_async(n: int, bad: int = -1) -> Any:
    import asyncio

    for i in range(n):
        await asyncio.sleep(0)
        if i == bad:
            raise ValueError(f"no {i}")
        yield i


def returned(n: int, bad: int = -1) -> Any:
    def inner() -> Any:
        for i in range(n):
            if i == bad:
                raise ValueError(f"no {i}")
            yield i

    return inner()


def returned_async(n: int, bad: int = -1) -> Any:
    async def inner() -> Any:
        import asyncio

        for i in range(n):
            await asyncio.sleep(0)
            if i == bad:
                raise ValueError(f"no {i}")
            yield i

    return inner()


async def awaited(n: int, bad: int = -1) -> Any:
    def inner() -> Any:
        for i in range(n):
            if i == bad:
                raise ValueError(f"no {i}")
            yield i

    return inner()


async def awaited_async(n: int, bad: int = -1) -> Any:
    async def inner() -> Any:
        for i in range(n):
            if i == bad:
                raise ValueError(f"no {i}")
            yield i

    return inner()


GENERATORS = pytest.mark.parametrize(
    "function", [count, count_async, returned, returned_async, awaited, awaited_async], ids=lambda one: one.__name__
)
CONCURRENCY = pytest.mark.parametrize("concurrency", [1, 2])


@GENERATORS
@CONCURRENCY
def test_values_stream_and_an_error_midway_follows_them(app: modal.App, function: Any, concurrency: int) -> None:
    counting = app.function(serialized=True, is_generator=True, allow_concurrent_inputs=concurrency)(function)
    with app.run():
        assert list(counting.remote_gen(300)) == list(range(300))
        values = counting.remote_gen(10, bad=3)
        assert [next(values) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match=r"^no 3$"):
            next(values)
        assert list(counting.remote_gen(2)) == [0, 1]


async def test_generators_can_be_iterated_from_async_code(app: modal.App) -> None:
    sync, asynchronous = app.function(serialized=True)(count), app.function(serialized=True)(count_async)
    async with app.run():
        assert [value async for value in sync.remote_gen.aio(5)] == list(range(5))
        assert [value async for value in asynchronous.remote_gen.aio(5)] == list(range(5))


def test_what_returns_no_iterable_is_an_error(app: modal.App) -> None:
    def wrong() -> Any:
        return 7

    function = app.function(serialized=True, is_generator=True)(wrong)
    with app.run(), pytest.raises(TypeError, match="not iterable"):
        list(function.remote_gen())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_loop_that_ends_early_ends_the_generator(app: modal.App, tmp_path: Path, asynchronous: bool) -> None:
    def endless(path: str) -> Any:
        try:
            while True:
                yield 1
        finally:
            open(path, "w").close()

    async def endless_async(path: str) -> Any:
        try:
            while True:
                yield 1
        finally:
            open(path, "w").close()

    function = app.function(serialized=True)(endless_async if asynchronous else endless)
    with app.run():
        for _ in function.remote_gen(str(tmp_path / "ended")):
            break
        until((tmp_path / "ended").exists, "the generator to be closed")


def test_a_generator_that_takes_too_long_times_out_after_its_values(app: modal.App) -> None:
    def slow() -> Any:
        yield 1
        time.sleep(60)

    function = app.function(serialized=True, timeout=1)(slow)
    with app.run():
        values = function.remote_gen()
        assert next(values) == 1
        with pytest.raises(FunctionTimeoutError):
            next(values)


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
def test_a_generator_is_watched_after_it_waited_for_its_consumer(app: modal.App, tmp_path: Path, end: str) -> None:
    """Whoever watches user code goes to sleep when none has run for a second."""

    def slow(noted: str) -> Any:
        import time
        from pathlib import Path

        for number in range(2_000):  # more than it may run ahead of its consumer
            yield number, b" " * 4096
        Path(noted).touch()
        try:
            for _ in range(6000):
                time.sleep(0.01)
        except BaseException as error:
            Path(noted).write_text(type(error).__name__)
            raise

    noted = tmp_path / "noted"
    function = app.function(serialized=True, timeout=60 if end == "cancelled" else 4)(slow)
    with app.run():
        values = function.remote_gen(str(noted))
        assert next(values)[0] == 0
        time.sleep(3.0)
        if end == "cancelled":
            for value, _ in values:
                if value == 1_999:
                    break
            until(noted.exists, "the generator to go on")
            values.close()
        else:
            with pytest.raises(FunctionTimeoutError):
                list(values)
        until(lambda: noted.read_text() != "", "the generator to be interrupted", 5)
