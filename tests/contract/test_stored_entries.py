"""Every store gives back what dicts and queues held."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from intermodal.store.entries import DictWrite, NamedRecord, QueueWrite, StoredEntry, StoredItem
from intermodal.store.failing import FailingStore
from intermodal.store.front_journal import KeptReply
from intermodal.store.interface import Store, StoreError
from intermodal.store.sql import SqlStore

DICT = NamedRecord("di-1", "dict", "en-main", "mine", "", 10.0)
QUEUE = NamedRecord("qu-1", "queue", "en-main", "", "se-1", 11.0)


def entry(key: bytes, value: bytes | None, expires_at: float = 99.0) -> StoredEntry:
    return StoredEntry(key, value, expires_at)


async def test_named_objects_are_loaded_until_they_are_deleted(store: Store) -> None:
    store.write_now([DICT, QUEUE])
    store.write_now([DictWrite("di-1", [entry(b"k", b"v")]), QueueWrite("qu-1", [StoredItem("", 1, b"x", 99.0)])])
    assert sorted((await store.load()).named, key=lambda one: one.object_id) == [DICT, QUEUE]
    store.write_now([dataclasses.replace(DICT, deleted=True), dataclasses.replace(QUEUE, deleted=True)])
    assert (await store.load()).named == []
    assert await store.dict_entries("di-1", 100) == []
    assert await store.queue_items("qu-1", 100) == []


async def test_entries_are_put_replaced_removed_and_cleared(store: Store) -> None:
    long = b"k" * 100_000
    store.write_now([DICT, DictWrite("di-1", [entry(b"a", b"1"), entry(long, b"2"), entry(b"c\0", b"")])])
    assert len(await store.dict_entries("di-1", 10)) == 3
    store.write_now([DictWrite("di-1", [entry(b"a", b"new")], removed=[b"c\0"])])
    store.write_now([DictWrite("di-1", removed=[b"no such"])])
    found = sorted(await store.dict_entries("di-1", 10), key=lambda one: one.key)
    assert found == [entry(b"a", b"new"), entry(long, b"2")]
    store.write_now([DictWrite("di-1", [entry(b"z", b"0")], cleared=True)])
    assert await store.dict_entries("di-1", 10) == [entry(b"z", b"0")]
    assert await store.dict_entries("di-2", 10) == []


async def test_large_values_are_read_one_by_one(store: Store) -> None:
    store.write_now([DICT, QUEUE, DictWrite("di-1", [entry(b"a", b"123456")])])
    items = [StoredItem("p", number, bytes(number), 99.0) for number in range(8)]
    store.write_now([QueueWrite("qu-1", items)])
    assert await store.dict_entries("di-1", 5) == [entry(b"a", None)]
    assert await store.dict_value("di-1", b"a") == b"123456"
    assert await store.dict_value("di-1", b"b") is None
    found = await store.queue_items("qu-1", 5)
    assert [item.value for item in found] == [*(bytes(number) for number in range(6)), None, None]
    assert await store.queue_values("qu-1", "p", [6, 7, 99]) == {6: bytes(6), 7: bytes(7)}


async def test_items_come_back_in_order_by_partition(store: Store) -> None:
    store.write_now([QUEUE])
    for number in (3, 10, 200):
        store.write_now([QueueWrite("qu-1", [StoredItem(name, number, b"x", 5.0 + number) for name in ("", "p")])])
    store.write_now([QueueWrite("qu-1", removed=[("p", 3), ("p", 77)])])
    found = [(item.partition, item.number, item.expires_at) for item in await store.queue_items("qu-1", 9)]
    assert found == [("", 3, 8.0), ("", 10, 15.0), ("", 200, 205.0), ("p", 10, 15.0), ("p", 200, 205.0)]
    store.write_now([QueueWrite("qu-1", [StoredItem("q", 300, b"x", 5.0)], cleared=("", "q"))])
    assert {item.partition for item in await store.queue_items("qu-1", 9)} == {"p", "q"}
    store.write_now([QueueWrite("qu-1", cleared_all=True)])
    assert await store.queue_items("qu-1", 9) == []


async def test_put_and_removed_at_once_leaves_nothing(store: Store) -> None:
    store.write_now([QUEUE])
    for number in range(100):
        store.write_now([QueueWrite("qu-1", [StoredItem("", number, b"x", 9.0)])])
        store.write_now([QueueWrite("qu-1", removed=[("", number)])])
    assert await store.queue_items("qu-1", 9) == []


async def test_expired_entries_go(store: Store) -> None:
    store.write_now([DICT, DictWrite("di-1", [entry(b"old", b"1", 50.0), entry(b"new", b"2", 51.0)])])
    await store.write([])
    await store.expire_entries(50.5)
    assert [one.key for one in await store.dict_entries("di-1", 9)] == [b"new"]


async def test_blobs_of_values_are_in_use(store: Store) -> None:
    digest = "ab" * 32
    store.write_now([DICT, DictWrite("di-1", [StoredEntry(b"k", None, 99.0, digest, 5)])])
    assert digest in await store.digests()
    assert await store.dict_entries("di-1", 9) == [StoredEntry(b"k", None, 99.0, digest, 5)]
    store.write_now([DictWrite("di-1", removed=[b"k"])])
    assert digest not in await store.digests()


async def test_a_failing_store_changes_nothing() -> None:
    store = FailingStore()
    store.write_now([DICT])
    store.fail("The disk is full.")
    with pytest.raises(StoreError, match="full"):
        store.write_now([DictWrite("di-1", [entry(b"k", b"v")])])
    store.recover()
    assert await store.dict_entries("di-1", 9) == []


async def test_what_was_written_now_survives_without_a_commit(tmp_path: Path) -> None:
    """As after kill -9: the first store is never closed, and its commits never come."""
    url, reply = f"sqlite:///{tmp_path}/state.db", KeptReply(("se-1", "key"), ({"a": 1}, b"answer"))
    first = SqlStore(url, tmp_path / "journal", commit_interval=3600.0)
    await first.open()
    first.write_now([DICT, DictWrite("di-1", [entry(b"k", b"v")])], reply)
    second = SqlStore(url, tmp_path / "journal")
    await second.open()
    loaded = await second.load()
    assert loaded.named == [DICT]
    assert loaded.replies == [reply]
    assert await second.dict_entries("di-1", 9) == [entry(b"k", b"v")]
    await second.close()
    first._flusher.cancel()  # type: ignore[union-attr]


async def test_what_belongs_to_nothing_is_deleted_when_it_opens(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = SqlStore(url, tmp_path / "journal")
    await store.open()
    store.write_now([DICT, DictWrite("di-1", [entry(b"k", b"v")]), DictWrite("di-gone", [entry(b"k", b"v")])])
    await store.close()
    again = SqlStore(url, tmp_path / "journal")
    await again.open()
    assert len(await again.dict_entries("di-1", 9)) == 1
    assert await again.dict_entries("di-gone", 9) == []
    await again.close()
