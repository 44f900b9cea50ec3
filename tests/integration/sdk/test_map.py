"""Maps through the SDK."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
from sdk_server import SdkServer

import modal
from modal._calls.feeder import IN_FLIGHT
from modal.exception import SerializationError

app = modal.App("maps")


@app.function()
def double(x: int, plus: int = 0) -> int:
    return 2 * x + plus


@app.function()
def picky(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


@app.function()
def big(x: int) -> bytes:
    return bytes(3_000_000)


@pytest.fixture
def running(server: SdkServer) -> Iterator[SdkServer]:
    for function in (double, picky, big):
        server.functions[function._tag] = function.get_raw_f()
    with app.run():
        yield server


def test_outputs_come_in_the_order_of_the_inputs(running: SdkServer) -> None:
    assert list(double.map(range(5_000))) == [2 * i for i in range(5_000)]
    assert max(running.batches) > 1


def test_several_iterables_keyword_arguments_and_starmap(running: SdkServer) -> None:
    assert list(double.map([1, 2, 3], [10, 20])) == [12, 24]
    assert list(double.map([1, 2], kwargs={"plus": 5})) == [7, 9]
    assert list(double.starmap([(1, 2), (3, 4)])) == [4, 10]
    assert list(double.map([])) == []


def test_unordered_outputs_are_complete(running: SdkServer) -> None:
    assert sorted(double.map(range(100), order_outputs=False)) == [2 * i for i in range(100)]


def test_the_first_failure_is_raised_at_its_place(running: SdkServer) -> None:
    outputs = iter(picky.map(range(10)))
    assert list(itertools.islice(outputs, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(outputs)


def test_failures_can_be_outputs(running: SdkServer) -> None:
    outputs = list(picky.map(range(5), return_exceptions=True))
    assert isinstance(outputs[3], ValueError)
    assert [one for one in outputs if isinstance(one, int)] == [0, 1, 2, 4]


def test_for_each_raises_unless_told_not_to(running: SdkServer) -> None:
    picky.for_each(range(5), ignore_exceptions=True)
    with pytest.raises(ValueError, match="three"):
        picky.for_each(range(5))


def test_an_endless_source_is_consumed_a_bounded_way_ahead_and_a_break_cancels(running: SdkServer) -> None:
    consumed = 0

    def endless() -> Iterator[int]:
        nonlocal consumed
        for value in itertools.count():
            consumed += 1
            yield value

    outputs = iter(double.map(endless()))
    assert next(outputs) == 0
    outputs.close()  # type: ignore[attr-defined]
    assert running.cancelled
    assert consumed < 50_000


def test_unfinished_inputs_are_bounded(running: SdkServer) -> None:
    consumed = 0
    reached = threading.Event()

    def endless() -> Iterator[int]:
        nonlocal consumed
        for value in itertools.count():
            consumed += 1
            if consumed >= IN_FLIGHT:
                reached.set()
            yield value

    running.hold = True
    outputs = double.map(endless())
    thread = threading.Thread(target=next, args=(outputs,), daemon=True)
    thread.start()
    assert reached.wait(10)
    assert consumed <= IN_FLIGHT + 1
    running.hold = False
    running.release()
    thread.join(10)
    outputs.close()


def test_an_error_of_the_source_is_raised(running: SdkServer) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(double.map(broken()))
    with pytest.raises(SerializationError, match="argument 1 of double cannot be sent"):
        list(double.map([1, threading.Lock()]))


def test_a_slow_source_does_not_hold_back_what_it_gave(running: SdkServer) -> None:
    release = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        assert release.wait(10)
        yield 2

    outputs = iter(double.map(slow()))
    assert next(outputs) == 2
    release.set()
    assert list(outputs) == [4]


def test_async_sources_work_in_blocking_code(running: SdkServer) -> None:
    async def numbers() -> AsyncIterator[int]:
        for value in range(3_000):
            yield value

    assert list(double.map(numbers())) == [2 * i for i in range(3_000)]
    assert list(double.map(numbers(), [1, 2])) == [1, 4]


async def test_async_sources_and_outputs_in_async_code(running: SdkServer) -> None:
    async def numbers() -> AsyncIterator[int]:
        for value in range(3_000):
            yield value

    assert [one async for one in double.map(numbers())] == [2 * i for i in range(3_000)]
    assert [one async for one in double.map.aio([1, 2])] == [2, 4]
    await double.for_each.aio([1, 2])


@pytest.mark.parametrize("after", [1, 300, 2_999])
def test_a_lost_connection_loses_and_repeats_nothing(running: SdkServer, after: int) -> None:
    running.drop_after = after
    assert list(double.map(range(3_000))) == [2 * i for i in range(3_000)]
    assert running.drop_after is None
    assert sorted(running.seen) == list(range(3_000))


def test_large_results_of_a_map_go_through_the_blob_store(running: SdkServer) -> None:
    assert [len(one) for one in big.map(range(3))] == [3_000_000] * 3


def test_a_map_that_is_never_consumed_warns(running: SdkServer) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        double.map([1])
    assert "nothing runs" in str(caught[0].message)


def test_a_call_in_the_source_of_a_map_works(running: SdkServer) -> None:
    assert list(double.map(double.remote(i) for i in range(3))) == [0, 4, 8]
    assert list(double.map(double.map([1, 2]))) == [4, 8]


def test_a_map_may_be_long(running: SdkServer) -> None:
    assert sum(double.map(range(20_000))) == 2 * sum(range(20_000))
