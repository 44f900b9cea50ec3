"""What a get took and nobody got: it is in the queue again, where it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from real_server import RealServer, until

import modal
from intermodal.control import given_items
from intermodal.machines import queue as queue_machine
from intermodal.store.entries import QueueWrite
from intermodal.store.interface import StoreError
from intermodal.store.sql import SqlStore
from modal._objects import client as client_module
from modal._objects.taking import Taking
from modal._serialization import deserialize
from modal._sync import run
from modal._wire import quick
from modal.exception import DeserializationError, NotFoundError


def unreadable() -> Any:
    """An item that can be pickled and not unpickled."""

    class Broken:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise ModuleNotFoundError('no such module')",)

    return Broken()


@pytest.mark.parametrize("ends", ["wait_for", "cancel"])
def test_cancelled_gets_lose_and_double_nothing(ends: str, shared: modal.Queue) -> None:
    count, chance = 150, random.Random(1)

    async def consume() -> list[int]:
        found: list[int] = []
        while len(found) < count:
            seconds = chance.random() * 0.01
            if ends == "wait_for":
                with contextlib.suppress(asyncio.TimeoutError):
                    found.append(await asyncio.wait_for(shared.get.aio(), seconds))
                continue
            task = asyncio.ensure_future(shared.get.aio())
            await asyncio.sleep(seconds)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found.append(await task)
        return found

    def produce() -> None:
        for number in range(count):
            shared.put(number)
            time.sleep(chance.random() * 0.01)

    producer = threading.Thread(target=produce)
    producer.start()
    found = asyncio.run(asyncio.wait_for(consume(), 60))
    producer.join()
    assert found == list(range(count))
    assert shared.len() == 0


def test_a_waiter_that_has_died_is_given_nothing(
    real_server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put is before the end of the dead one's connection in what the server has to read."""
    sent, flush = threading.Event(), quick._Line._flush

    def flush_and_say(line: quick._Line) -> None:
        flush(line)
        sent.set()

    monkeypatch.setattr(quick._Line, "_flush", flush_and_say)
    shared = modal.Queue.lookup("of-the-dead", create_if_missing=True)
    program = tmp_path / "waits.py"
    program.write_text(
        textwrap.dedent(
            """
            import asyncio
            import modal

            async def main():
                shared = modal.Queue.lookup("of-the-dead")
                getting = asyncio.ensure_future(shared.get.aio())
                await asyncio.sleep(0)
                await shared.len.aio()  # the server takes the requests of a connection in order: now it waits
                print("waits", flush=True)
                await getting

            asyncio.run(main())
            """
        )
    )
    for number in range(5):
        process = subprocess.Popen([sys.executable, program], env={**os.environ}, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        shared.len()  # from here on there is a quick connection
        sent.clear()
        putting = threading.Thread(target=shared.put, args=(number,))
        with real_server.halted():
            putting.start()
            assert sent.wait(20)
            process.kill()
            process.wait()
        putting.join(20)
        process.stdout.close()
        assert shared.get(timeout=20) == number


def test_items_around_one_that_cannot_be_read(shared: modal.Queue) -> None:
    shared.put_many([1, 2, unreadable(), 4, 5])
    assert shared.get_many(10) == [1, 2]
    assert shared.len() == 3
    with pytest.raises(DeserializationError):
        shared.get_many(10)
    assert shared.get_many(10) == [4, 5]
    shared.put_many([unreadable(), 7])
    with pytest.raises(DeserializationError):
        shared.get()
    assert shared.get() == 7


def test_what_is_given_back_is_where_it_was_and_for_who_waits(shared: modal.Queue) -> None:
    shared.put_many([unreadable(), *range(20)])
    with pytest.raises(DeserializationError):
        shared.get_many(15)
    assert list(shared.iterate()) == list(range(20))
    assert shared.get_many(30) == list(range(20))

    async def give_up() -> Any:
        """Be the first in line, be given an item, and give it back to the second."""
        first, second = asyncio.ensure_future(shared.get.aio()), asyncio.ensure_future(shared.get.aio(timeout=20))
        await asyncio.sleep(0)
        await shared.len.aio()  # the server takes the requests of a connection in order: now both wait
        put = asyncio.ensure_future(shared.put.aio("x"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(put, first, return_exceptions=True)
        if not first.cancelled():
            await shared.put.aio(first.result())
        return await second

    assert asyncio.run(give_up()) == "x"


def test_large_items_are_taken_whole_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"database_url": f"sqlite:///{tmp_path}/state.db"}
    items = [bytes([number]) * 250_000 for number in range(90)]
    for turn in range(2):
        with RealServer(tmp_path, **settings) as server:
            monkeypatch.setenv("MODAL_SERVER_URL", server.url)
            monkeypatch.setattr(client_module, "_default", None)
            shared = modal.Queue.lookup("large", create_if_missing=True)
            if not turn:
                shared.put_many(items)
            else:
                assert shared.get_many(100) == items
                assert shared.len() == 0
            run(client_module._default._close())


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_taken_is_returned_though_the_rest_cannot_be_taken(
    is_async: bool, shared: modal.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [bytes([number]) * 250_000 for number in range(60)]
    shared.put_many(items)
    gets: list[int] = []
    write_now = SqlStore.write_now

    def fails_once(store: SqlStore, changes: Sequence[Any], reply: Any = None) -> None:
        """The disk is full when a second part is taken."""
        if isinstance(changes[0], QueueWrite) and changes[0].removed:
            gets.append(len(changes[0].removed))
            if len(gets) == 2:
                raise StoreError("the disk is full")
        write_now(store, changes, reply)

    monkeypatch.setattr(SqlStore, "write_now", fails_once)
    found = asyncio.run(shared.get_many.aio(100)) if is_async else shared.get_many(100)
    assert 0 < len(found) < len(items)
    assert len(gets) == 2
    assert found + shared.get_many(100) == items
    assert shared.len() == 0


def test_many_large_items_are_added_all_or_not_at_all(shared: modal.Queue) -> None:
    shared.put_many(list(range(4_950)))
    with pytest.raises(queue.Full, match="no room for 60 more"):
        shared.put_many([bytes(250_000)] * 60, block=False)
    assert shared.len() == 4_950
    assert shared.get_many(100) == list(range(100))
    shared.put_many([bytes(250_000)] * 60, block=False)
    assert shared.len() == 4_910


def test_who_waits_for_a_partition_gets_it(shared: modal.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_machine, "PARTITIONS", 3)
    for name in "abc":
        shared.put(name, partition=name)
    with pytest.raises(queue.Full):
        shared.put("d", partition="d", block=False)
    waiting = [threading.Thread(target=shared.put, args=(name,), kwargs={"partition": name}) for name in "de"]
    for one in waiting:
        one.start()
    until(lambda: sum(one.is_alive() for one in waiting) == 2, "both to wait")
    shared.get(partition="a")
    until(lambda: sum(one.is_alive() for one in waiting) == 1, "one to get in")
    shared.clear(partition="b")
    for one in waiting:
        one.join(20)
    assert sorted(name for name in "abcde" if shared.len(partition=name)) == ["c", "d", "e"]


def test_who_iterates_a_queue_that_is_deleted_is_told(real_server: RealServer) -> None:
    shared = modal.Queue.lookup("doomed", create_if_missing=True)
    shared.put(1)
    found: list[Any] = []

    def iterate() -> None:
        try:
            found.extend(iter(shared.iterate(item_poll_timeout=60)))
        except NotFoundError as error:
            found.append(error)

    iterating = threading.Thread(target=iterate)
    iterating.start()
    shared.put(2)
    until(lambda: iterating.is_alive(), "it to begin")
    modal.Queue.delete("doomed")
    iterating.join(20)
    assert isinstance(found[-1], NotFoundError)


def test_what_is_given_back_late_is_put_at_the_end(shared: modal.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_items, "_GIVEN", 1)
    other = modal.Queue.lookup("other", create_if_missing=True)
    other.put_many([1, 2])
    shared.put_many(["late", unreadable(), "last"])
    taking = Taking(shared, "", 1, None)
    assert run(taken_of(taking)) == ["late"]
    assert other.get_many(2) == [1, 2]
    run(taking.give_back())
    with pytest.raises(DeserializationError):
        shared.get()
    assert shared.get_many(3) == ["last", "late"]
    modal.Queue.delete("other")


async def taken_of(taking: Taking) -> list[Any]:
    """Take on the loop, as a waiting call does."""
    await taking._take_slowly()
    return [deserialize(value) for _, values in taking._taken for value in values]
