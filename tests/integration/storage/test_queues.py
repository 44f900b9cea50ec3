"""`modal.Queue` against a real server, with an SQLite database."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from real_server import RealServer, until

import modal
from modal._sync import run
from modal.exception import InvalidError, NotFoundError, RequestSizeError, SerializationError


def test_first_in_first_out(shared: modal.Queue) -> None:
    shared.put("some value")
    shared.put_many([1, [2], None])
    assert shared.len() == 4
    assert list(shared.iterate()) == ["some value", 1, [2], None]
    assert shared.get() == "some value"
    assert shared.get_many(2) == [1, [2]]
    assert shared.get_many(10) == [None]
    assert shared.len() == 0


def test_what_an_empty_queue_gives(shared: modal.Queue) -> None:
    assert shared.get(block=False) is None
    assert shared.get(block=False, timeout=60) is None
    assert shared.get_many(3, block=False) == []
    for timeout in (0, 0.05):
        with pytest.raises(queue.Empty, match=f"No item came within {timeout:g} s"):
            shared.get(timeout=timeout)
        with pytest.raises(queue.Empty):
            shared.get_many(3, timeout=timeout)
    assert list(shared.iterate()) == []


def test_partitions_are_independent(shared: modal.Queue) -> None:
    shared.put(0)
    shared.put(1, partition="foo")
    shared.put_many([2, 3], partition="bar")
    assert shared.get(partition="bar") == 2
    assert [shared.len(), shared.len(partition="bar"), shared.len(total=True)] == [1, 1, 3]
    assert list(shared.iterate(partition="foo")) == [1]
    shared.clear(partition="bar")
    assert shared.get(partition="bar", block=False) is None
    assert shared.len(total=True) == 2
    shared.clear(all=True)
    assert shared.len(total=True) == 0


@pytest.mark.parametrize("partition", ["", "x" * 65, "é" * 33, "a\0b", 5])
def test_bad_partitions(shared: modal.Queue, partition: Any) -> None:
    with pytest.raises(InvalidError, match="partition key"):
        shared.put(1, partition=partition)


def test_bad_arguments(shared: modal.Queue) -> None:
    with pytest.raises(InvalidError, match="partition_ttl"):
        shared.put(1, partition_ttl=0)
    with pytest.raises(InvalidError, match="partition_ttl"):
        shared.put(1, partition_ttl=8 * 24 * 3600)
    with pytest.raises(InvalidError, match="timeout"):
        shared.get(timeout=-1)
    with pytest.raises(InvalidError, match="get_many"):
        shared.get_many(0)
    with pytest.raises(InvalidError, match="not both"):
        shared.clear(partition="x", all=True)
    with pytest.raises(InvalidError, match="not both"):
        shared.len(partition="x", total=True)
    with pytest.raises(InvalidError, match="5001 never fit"):
        shared.put_many([0] * 5001)
    with pytest.raises(RequestSizeError, match="256 KiB"):
        shared.put(bytes(256 * 1024))
    with pytest.raises(SerializationError):
        shared.put(threading.Lock())
    shared.put_many([])
    assert shared.len(total=True) == 0


def test_a_full_partition(shared: modal.Queue) -> None:
    shared.put_many(list(range(4999)))
    with pytest.raises(queue.Full):
        shared.put_many(["a", "b"], block=False)
    assert shared.len() == 4999, "all or none"
    shared.put("a")
    with pytest.raises(queue.Full):
        shared.put("b", block=False)
    with pytest.raises(queue.Full):
        shared.put("b", timeout=0.05)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared.put, "b")
        assert shared.get() == 0
        waiting.result(20)
    assert shared.len() == 5000
    assert list(shared.iterate())[-2:] == ["a", "b"]


def test_a_waiting_put_gets_in_when_the_partition_is_cleared(shared: modal.Queue) -> None:
    shared.put_many([0] * 5000)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared.put_many, [1, 2])
        shared.clear()
        waiting.result(20)
    assert shared.get_many(5) == [1, 2]


def test_a_waiting_get_gets_what_comes(shared: modal.Queue) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(shared.get, partition="p") for _ in range(8)]
        shared.put_many(list(range(3)), partition="p")
        for number in range(3, 8):
            shared.put(number, partition="p")
        assert sorted(one.result(20) for one in waiting) == list(range(8))


def test_an_interrupted_get_takes_nothing(shared: modal.Queue) -> None:
    import asyncio

    async def interrupt() -> None:
        task = asyncio.ensure_future(shared.get.aio())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupt())
    shared.put("kept")
    assert shared.get(timeout=20) == "kept"


def test_many_producers_and_consumers_lose_and_double_nothing(shared: modal.Queue) -> None:
    producers, items = 6, 300
    taken: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def produce(number: int) -> None:
        for item in range(0, items, 3):
            shared.put((number, item))
            shared.put_many([(number, item + 1), (number, item + 2)])

    def consume(mine: list[tuple[int, int]]) -> None:
        while True:
            for item in shared.get_many(5):
                if item is None:
                    return
                mine.append(item)

    consumers = [threading.Thread(target=consume, args=(mine,)) for mine in taken]
    for one in consumers:
        one.start()
    with ThreadPoolExecutor(producers) as pool:
        list(pool.map(produce, range(producers)))
    until(lambda: shared.len() == 0, "the queue to be emptied")
    for _ in consumers:
        shared.put(None)
        until(lambda: shared.len() == 0, "a consumer to take its end")
    for one in consumers:
        one.join(20)
    assert sorted(item for mine in taken for item in mine) == [(p, i) for p in range(producers) for i in range(items)]
    for mine in taken:  # each consumer sees each producer's items in their order
        for producer in range(producers):
            seen = [item for number, item in mine if number == producer]
            assert seen == sorted(seen)


@pytest.mark.parametrize("size", [9_000, 200_000])
def test_large_items_leave_the_memory_and_come_back(shared: modal.Queue, size: int) -> None:
    values = [bytes([number]) * size for number in range(100)]
    shared.put_many(values)
    assert list(shared.iterate()) == values
    assert shared.get() == values[0]
    assert shared.get_many(200) == values[1:]


def test_a_partition_expires_after_its_last_put(shared: modal.Queue) -> None:
    shared.put_many([1, 2], partition="short", partition_ttl=3600)
    shared.put(3, partition="short", partition_ttl=1)
    shared.put("stays")
    until(lambda: shared.len(partition="short") == 0, "the partition to expire")
    assert shared.get(block=False, partition="short") is None
    assert shared.len(total=True) == 1
    shared.put(4, partition="short")
    assert shared.get(partition="short") == 4


def test_a_waiting_put_gets_in_when_the_partition_expires(shared: modal.Queue) -> None:
    shared.put_many([0] * 5000, partition_ttl=1)
    shared.put("in", timeout=20)
    assert shared.get() == "in"


def test_iterate_waits_for_more(shared: modal.Queue) -> None:
    shared.put(1)
    seen = []

    def follow() -> None:
        for item in shared.iterate(item_poll_timeout=2.0):
            seen.append(item)
            if item == 3:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    until(lambda: seen == [1], "the first item")
    assert shared.get() == 1
    shared.put_many([2, 3])
    follower.join(20)
    assert not follower.is_alive()
    assert seen == [1, 2, 3]
    assert shared.get_many(5) == [2, 3]
    started = time.monotonic()
    assert list(shared.iterate(item_poll_timeout=0.05)) == []
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("timeout", [float("inf"), 1e9, 1e12, 10**400])
def test_iterate_may_wait_for_ever(timeout: float, shared: modal.Queue) -> None:
    shared.put(1)
    iterating = shared.iterate(item_poll_timeout=timeout)
    assert next(iterating) == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, iterating, "no more")
        shared.put(2)
        assert waiting.result(20) == 2


@pytest.mark.parametrize("timeout", [None, -1, float("nan"), "1"])
def test_iterate_refuses_what_is_no_time(timeout: Any, shared: modal.Queue) -> None:
    shared.put(1)
    with pytest.raises(InvalidError, match="timeout"):
        next(iter(shared.iterate(item_poll_timeout=timeout)))


def test_names(real_server: RealServer) -> None:
    with pytest.raises(NotFoundError, match="modal queue create nobody"):
        modal.Queue.lookup("nobody")
    made = modal.Queue.from_name("mine", create_if_missing=True)
    made.put(1)
    assert modal.Queue.lookup("mine").object_id == made.object_id
    with pytest.raises(NotFoundError):
        modal.Dict.lookup("mine")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.get, partition="empty")
        until(lambda: not waiting.done() and made.len() == 1, "the queue to be used")
        modal.Queue.delete("mine")
        with pytest.raises(NotFoundError, match="deleted"):
            waiting.result(20)


def test_a_client_that_is_gone_takes_nothing(real_server: RealServer, shared: modal.Queue) -> None:
    client = modal.Client(real_server.url)
    other = modal.Queue._named("x", None, False)
    other._object_id, other._client = shared.object_id, client

    def wait() -> None:
        with pytest.raises(modal.exception.ClientClosed):
            other.get()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert other.len() == 0
    run(client._close())
    waiting.join(20)
    shared.put("kept")
    assert shared.get(timeout=20) == "kept"


def test_functions_use_queues(real_server: RealServer, shared: modal.Queue) -> None:
    import sys

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    app = modal.App("queue-user", image=modal.Image.debian_slim(python_version=python))

    @app.function(serialized=True)
    def echo(asked: Any) -> int:
        done = 0
        while (item := asked.get()) is not None:
            asked.put(item * 2, partition="answers")
            done += 1
        return done

    with app.run():
        call = echo.spawn(shared)
        for number in range(5):
            shared.put(number)
            assert shared.get(partition="answers", timeout=30) == number * 2
        shared.put(None)
        assert call.get(timeout=30) == 5
