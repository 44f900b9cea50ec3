"""The numbered output of an app, as a reader sees it from any point on."""

from __future__ import annotations

import pytest

from intermodal.control import app_log
from intermodal.control.app_log import AppLog
from intermodal.store.memory import MemoryStore
from modal._wire.messages.app import LogStream


def make(store: MemoryStore, last_stored: int | None = None) -> AppLog:
    return AppLog("ap-1", store, lambda: None, last_stored)


def say(log: AppLog, *texts: str) -> None:
    for text in texts:
        log.append(0.0, LogStream.STDOUT, text)


async def everything(log: AppLog, after: int = 0) -> list[str]:
    texts = []
    while entries := await log.read(after, 2):
        after = entries[-1].seq
        texts += [entry.text for entry in entries]
    return texts


async def test_a_reader_gets_every_entry_once_from_any_point() -> None:
    log = make(MemoryStore())
    say(log, *"abcde")
    assert await everything(log) == list("abcde")
    assert await everything(log, 3) == list("de")
    assert await everything(log, 5) == []
    assert await everything(log, 99) == []
    log.flush()


async def test_what_is_no_longer_in_memory_comes_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_log, "RECENT", 2)
    log = make(MemoryStore())
    say(log, *"abcde")
    assert await everything(log) == list("abcde")
    assert await everything(log, 1) == list("bcde")


async def test_numbers_that_a_server_gave_and_did_not_store_are_not_given_again() -> None:
    store = MemoryStore()
    first = make(store)
    say(first, "a", "b")
    first.flush()
    say(first, "lost")  # shown to a reader, whose place is now 3, and never stored
    place = first.last_seq
    first._unstored.clear()
    first.flush()
    second = make(store, last_stored=2)
    assert await everything(second, place) == []
    say(second, "c", "d")
    assert await everything(second, place) == ["c", "d"]
    assert await everything(second, 2) == ["c", "d"]
    assert await everything(second) == ["a", "b", "c", "d"]
    second.flush()


async def test_a_log_of_which_nothing_was_stored() -> None:
    log = make(MemoryStore(), last_stored=0)
    assert await everything(log) == []
    say(log, "a")
    assert await everything(log, 5) == ["a"]
    log.flush()
