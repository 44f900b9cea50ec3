"""Every store gives back what dicts and queues held."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from intermodal.store import front_journal
from intermodal.store.entries import DictWrite, EntryChange, NamedRecord, QueueWrite, StoredEntry, StoredItem
from intermodal.store.failing import FailingStore
from intermodal.store.front_journal import FrontJournal, KeptReply
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


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_database"))
    return f"sqlite:///{tmp_path}/state.db"


@asynccontextmanager
async def opened(url: str, journal: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(url, journal)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def item(number: int, partition: str = "") -> StoredItem:
    return StoredItem(partition, number, b"x", 99.0)


#: What is in the database without its mark in the journal, and what was only journaled when the server was killed.
#: Afterwards there is nothing.
UNMARKED = {
    "an item that was taken": ([QueueWrite("qu-1", [item(1)])], [QueueWrite("qu-1", removed=[("", 1)])]),
    "an item that was taken, as it was itself": (
        [QueueWrite("qu-1", [item(1)]), QueueWrite("qu-1", removed=[("", 1)])],
        [QueueWrite("qu-1", [item(2)]), QueueWrite("qu-1", removed=[("", 2)])],
    ),
    "items whose partition was cleared": (
        [QueueWrite("qu-1", [item(1), item(2, "p")])],
        [QueueWrite("qu-1", cleared=("", "p"))],
    ),
    "items whose queue was cleared": ([QueueWrite("qu-1", [item(1)])], [QueueWrite("qu-1", cleared_all=True)]),
    "items whose queue was deleted": (
        [QueueWrite("qu-1", [item(1)])],
        [dataclasses.replace(QUEUE, deleted=True)],
    ),
    "an entry that was removed": ([DictWrite("di-1", [entry(b"k", b"v")])], [DictWrite("di-1", removed=[b"k"])]),
    "entries whose dict was cleared": ([DictWrite("di-1", [entry(b"k", b"v")])], [DictWrite("di-1", cleared=True)]),
    "entries whose dict was deleted": (
        [DictWrite("di-1", [entry(b"k", b"v")])],
        [dataclasses.replace(DICT, deleted=True)],
    ),
}


@pytest.mark.parametrize("name", UNMARKED)
async def test_what_was_committed_without_a_mark_and_then_removed_stays_removed(
    url: str, tmp_path: Path, name: str
) -> None:
    """A kill -9 between the commit of a put and its mark, with the removal journaled and answered meanwhile."""
    committed, later = UNMARKED[name]
    async with opened(url, tmp_path / "another journal") as store:
        store.write_now([DICT, QUEUE, *committed])
    journal = FrontJournal(tmp_path / "journal")
    journal.open(0.0)
    for change in [DICT, QUEUE, *committed, *later]:
        journal.append([change], None, 0.0)
    journal.close()
    async with opened(url, tmp_path / "journal") as store:
        assert await store.queue_items("qu-1", 9) == []
        assert await store.dict_entries("di-1", 9) == []
    async with opened(url, tmp_path / "journal") as store:
        assert await store.queue_items("qu-1", 9) == []


async def test_what_a_commit_wrote_whose_answer_was_lost_can_be_removed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url, tmp_path / "journal") as store:
        write: Callable[..., None] = store._put_all

        def write_and_lose(batch: Sequence[Any], *rest: Any) -> None:
            write(batch, *rest)
            monkeypatch.setattr(store, "_put_all", write)
            raise OperationalError("COMMIT", None, Exception("the connection was lost"))

        monkeypatch.setattr(store, "_put_all", write_and_lose)
        store.write_now([QUEUE, QueueWrite("qu-1", [item(1), item(2)])])
        with pytest.raises(StoreError, match="lost"):
            await store.write([])
        store.write_now([QueueWrite("qu-1", removed=[("", 1)])])
        await store.write([])
        assert [one.number for one in await store.queue_items("qu-1", 9)] == [2]


async def test_much_that_was_not_committed_is_replayed_in_order(url: str, tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path / "journal")
    journal.open(0.0)
    journal.append([DICT, QUEUE], None, 0.0)
    large = bytes(1024 * 1024)
    for number in range(20):
        changes: list[EntryChange] = [DictWrite("di-1", [entry(b"k", large + bytes([number]))])]
        changes.append(QueueWrite("qu-1", [item(number)], removed=[("", number - 1)]))
        journal.append(changes, None, 0.0)
    journal.close()
    async with opened(url, tmp_path / "journal") as store:
        assert await store.dict_value("di-1", b"k") == large + bytes([19])
        assert [one.number for one in await store.queue_items("qu-1", 9)] == [19]


async def test_a_change_that_can_never_be_stored_does_not_keep_a_store_from_opening(url: str, tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path / "journal")
    journal.open(0.0)
    journal.append([DICT, QUEUE, QueueWrite("qu-1", [StoredItem("half \ud800 of one", 1, b"x", 99.0)])], None, 0.0)
    journal.append([DictWrite("di-1", [entry(b"k", b"v")])], None, 0.0)
    journal.close()
    async with opened(url, tmp_path / "journal") as store:
        assert await store.dict_entries("di-1", 9) == [entry(b"k", b"v")]


async def test_the_journal_on_disk_does_not_grow_with_what_is_replaced(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_journal, "_FILE_BYTES", 1_000_000)
    value = bytes(200_000)
    replies = [KeptReply(("se-1", number), ({}, b"")) for number in range(60)]
    async with opened(url, tmp_path / "journal") as store:
        store.write_now([DICT])
        for reply in replies:
            store.write_now([DictWrite("di-1", [entry(b"k", value)])], reply)
            await store.write([])
        assert await store.dict_value("di-1", b"k") == value
        assert sum(path.stat().st_size for path in (tmp_path / "journal").iterdir()) < 2_500_000
    async with opened(url, tmp_path / "journal") as store:
        assert (await store.load()).replies == replies
        assert await store.dict_value("di-1", b"k") == value
