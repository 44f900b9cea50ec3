"""The journal in front of the database gives back what was not committed, whatever moment the process died at."""

from __future__ import annotations

import inspect
import tracemalloc
from pathlib import Path

import pytest

from intermodal.control.rpc_replies import ReplyMemory
from intermodal.store import front_journal
from intermodal.store.entries import (
    DictWrite,
    EntryChange,
    NamedRecord,
    QueueWrite,
    StoredEntry,
    StoredItem,
    from_plain,
    to_plain,
)
from intermodal.store.front_journal import FrontJournal, KeptReply, shrink


def change(name: str) -> DictWrite:
    return DictWrite(name, removed=[b"k"])


def put(size: int) -> DictWrite:
    return DictWrite("di-1", [StoredEntry(b"k", bytes(size), 9.0)])


def reply(number: int, size: int = 0) -> KeptReply:
    return KeptReply(("key", number), ({"a": 1}, bytes(size)))


def changes_in(journal: FrontJournal, now: float = 2.0) -> list[EntryChange]:
    """What is replayed when the journal is opened."""
    return [change for group in journal.open(now).changes for change in group]


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def test_what_was_not_committed_comes_back_in_order(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path / "journal")
    assert changes_in(journal, 0.0) == []
    first = journal.append([change("a"), change("b")], None, 1.0)
    journal.append([change("c")], KeptReply(("key", 1), ({"a": 1}, b"reply")), 2.0)
    assert first + 1 == journal.last
    journal.committed(first, 3.0)
    again = FrontJournal(tmp_path / "journal")
    replay = again.open(4.0)
    assert list(replay.changes) == [[change("c")]]
    assert replay.replies == [KeptReply(("key", 1), ({"a": 1}, b"reply"))]
    again.append([change("d")], None, 5.0)
    again.committed(again.last, 6.0)
    third = FrontJournal(tmp_path / "journal")
    assert changes_in(third, 7.0) == []
    assert third.append([change("e")], None, 8.0) > again.last - 1


def test_a_torn_end_is_ignored_wherever_it_is_torn(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("whole")], None, 1.0)
    [path] = tmp_path.glob("*.log")
    whole = path.stat().st_size
    journal.append([change("torn")], None, 1.0)
    journal.close()
    data = path.read_bytes()
    for end in range(whole, len(data)):
        path.write_bytes(data[:end])
        again = FrontJournal(tmp_path)
        assert changes_in(again, 2.0) == [change("whole")]
        again.close()
        for made in tmp_path.glob("*.log"):
            if made != path:
                made.unlink()
    path.write_bytes(data)
    assert changes_in(FrontJournal(tmp_path), 2.0) == [change("whole"), change("torn")]


def test_files_go_when_they_are_committed_and_their_replies_are_old(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("old")], KeptReply(("k",), ({}, b"")), 0.0)
    journal.append([change("new")], None, 1000.0)
    assert len(list(tmp_path.glob("*.log"))) == 2
    journal.committed(journal.last - 1, 1000.0)
    assert len(list(tmp_path.glob("*.log"))) == 1
    assert changes_in(FrontJournal(tmp_path), 1001.0) == [change("new")]


def test_a_file_that_is_not_committed_stays(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("a")], None, 0.0)
    journal.append([change("b")], None, 0.0)
    journal.append([change("c")], None, 1000.0)
    journal.committed(1, 5000.0)
    assert changes_in(FrontJournal(tmp_path), 5001.0) == [change("b"), change("c")]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("kept")], None, 1.0)
    write = __import__("os").write
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="space"):
        journal.append([change("lost")], None, 1.0)
    monkeypatch.undo()
    journal.append([change("later")], None, 1.0)
    assert changes_in(FrontJournal(tmp_path), 2.0) == [change("kept"), change("later")]


def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path / "journal")
    journal.open(0.0)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    [path] = (tmp_path / "journal").glob("*.log")
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_entry_of_another_version_is_an_error_only_while_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(
            "intermodal.store.front_journal.to_plain", lambda change: ("dict", "fields", "of", "another version")
        )
        journal.append([change("a")], None, 1.0)
    with pytest.raises(OSError, match="another version"):
        changes_in(FrontJournal(tmp_path))
    journal.committed(1, 2.0)
    assert changes_in(FrontJournal(tmp_path), 3.0) == []


def test_an_entry_of_the_first_version_is_an_error_only_while_it_is_needed(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    first = 1
    journal._write(front_journal._FRAME.pack(2, front_journal.zlib.crc32(b"[]"), first, 7) + b"[]")
    with pytest.raises(OSError, match="another version"):
        changes_in(FrontJournal(tmp_path))
    journal.committed(7, 2.0)
    assert changes_in(FrontJournal(tmp_path)) == []
    again = FrontJournal(tmp_path)
    again.open(3.0)
    assert again.append([change("a")], None, 3.0) == 8


def test_the_memory_it_is_read_with_does_not_depend_on_its_size(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    for number in range(60):
        journal.append([put(1024 * 1024)], reply(number), 1.0)
        if number == 29:
            journal.committed(journal.last, 1.0)
    journal.close()
    tracemalloc.start()
    try:
        replay = FrontJournal(tmp_path).open(2.0)
        replayed = sum(len(group) for group in replay.changes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert replayed == 30
    assert [one.key for one in replay.replies] == [("key", number) for number in range(60)]
    assert peak < 24 * 1024 * 1024


def test_a_committed_file_of_large_changes_is_cut_down_to_its_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_journal, "_FILE_BYTES", 100_000)
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    for number in range(6):
        journal.append([put(60_000)], reply(number), 1.0)
    assert [path.stat().st_size > 100_000 for path in files_in(tmp_path)] == [True, True, True]
    assert journal.take_wasteful() == []
    journal.committed(3, 1.0)
    due = journal.take_wasteful()
    assert due == files_in(tmp_path)[:1]
    assert journal.take_wasteful() == []
    shrink(due[0])
    assert due[0].stat().st_size < 1000
    assert due[0].stat().st_mode & 0o777 == 0o600
    again = FrontJournal(tmp_path)
    replay = again.open(2.0)
    assert [one.key for one in replay.replies] == [("key", number) for number in range(6)]
    assert [change for group in replay.changes for change in group] == [put(60_000)] * 3
    again.committed(again.last, 3.0)
    assert again.take_wasteful() == files_in(tmp_path)[1:3]


def test_a_file_that_cannot_be_cut_down_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([put(60_000)], reply(1), 1.0)
    journal.committed(1, 1.0)
    journal.close()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="space"):
            shrink(files_in(tmp_path)[0])
    assert list(tmp_path.glob("*.tmp")) == []
    (tmp_path / "000000000001.tmp").write_bytes(b"of a shrink that was killed")
    assert FrontJournal(tmp_path).open(2.0).replies == [reply(1)]
    assert list(tmp_path.glob("*.tmp")) == []


def test_small_changes_are_not_worth_cutting_down(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    for number in range(100):
        journal.append([change("a")], reply(number), 0.0)
    journal.append([change("b")], None, 400.0)
    journal.committed(journal.last, 400.0)
    assert len(files_in(tmp_path)) == 2
    assert journal.take_wasteful() == []


@pytest.mark.parametrize(("count", "size"), [(20, 1_000_000_000), (1_000_000, 20_000)])
def test_no_more_replies_are_kept_than_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(front_journal, "_FILE_ENTRIES", 10)
    monkeypatch.setattr(front_journal, "KEEP_REPLY_COUNT", count)
    monkeypatch.setattr(front_journal, "KEEP_REPLY_BYTES", size)
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    for number in range(95):
        journal.append([change("a")], reply(number, 950), 1.0)
    assert len(files_in(tmp_path)) == 10  # nothing is committed
    journal.committed(journal.last, 1.0)
    assert 3 <= len(files_in(tmp_path)) <= 4
    kept = [one.key[1] for one in FrontJournal(tmp_path).open(2.0).replies]
    assert kept == list(range(95 - len(kept), 95))
    assert 18 <= len(kept) <= 20


def test_as_many_replies_are_kept_as_the_server_remembers() -> None:
    bounds = inspect.signature(ReplyMemory).parameters
    assert front_journal.KEEP_REPLY_COUNT == bounds["max_entries"].default
    assert front_journal.KEEP_REPLY_BYTES == bounds["max_bytes"].default


def test_the_mark_of_what_is_committed_is_in_every_file(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("a")], None, 0.0)
    journal.committed(1, 0.0)
    journal.append([change("b")], None, 1000.0)
    files_in(tmp_path)[0].unlink()
    assert changes_in(FrontJournal(tmp_path)) == [change("b")]


@pytest.mark.parametrize(
    "change",
    [
        NamedRecord("di-1", "dict", "en-main", "mine", "", 10.5, deleted=True),
        DictWrite("di-1", [StoredEntry(b"k", None, 1.5, "ab", 3), StoredEntry(b"l", b"v", 2.0)], [b"gone"], True),
        QueueWrite("qu-1", [StoredItem("p", 2**60, b"v", 1.5)], [("p", 7)], ("q", "r"), True),
    ],
)
def test_changes_are_the_same_after_they_were_plain(change: NamedRecord | DictWrite | QueueWrite) -> None:
    assert from_plain(to_plain(change)) == change
