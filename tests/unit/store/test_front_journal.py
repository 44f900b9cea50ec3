"""The journal in front of the database gives back what was not committed, whatever moment the process died at."""

from __future__ import annotations

from pathlib import Path

import pytest

from intermodal.store.entries import DictWrite, NamedRecord, QueueWrite, StoredEntry, StoredItem, from_plain, to_plain
from intermodal.store.front_journal import FrontJournal, KeptReply


def change(name: str) -> DictWrite:
    return DictWrite(name, removed=[b"k"])


def test_what_was_not_committed_comes_back_in_order(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path / "journal")
    assert journal.open(0.0).changes == []
    first = journal.append([change("a"), change("b")], None, 1.0)
    journal.append([change("c")], KeptReply(("key", 1), ({"a": 1}, b"reply")), 2.0)
    assert first + 1 == journal.last
    journal.committed(first, 3.0)
    again = FrontJournal(tmp_path / "journal")
    replay = again.open(4.0)
    assert replay.changes == [change("c")]
    assert replay.replies == [KeptReply(("key", 1), ({"a": 1}, b"reply"))]
    again.append([change("d")], None, 5.0)
    again.committed(again.last, 6.0)
    third = FrontJournal(tmp_path / "journal")
    assert third.open(7.0).changes == []
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
        assert again.open(2.0).changes == [change("whole")]
        again.close()
        for made in tmp_path.glob("*.log"):
            if made != path:
                made.unlink()
    path.write_bytes(data)
    assert FrontJournal(tmp_path).open(2.0).changes == [change("whole"), change("torn")]


def test_files_go_when_they_are_committed_and_their_replies_are_old(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("old")], KeptReply(("k",), ({}, b"")), 0.0)
    journal.append([change("new")], None, 1000.0)
    assert len(list(tmp_path.glob("*.log"))) == 2
    journal.committed(journal.last - 1, 1000.0)
    assert len(list(tmp_path.glob("*.log"))) == 1
    assert FrontJournal(tmp_path).open(1001.0).changes == [change("new")]


def test_a_file_that_is_not_committed_stays(tmp_path: Path) -> None:
    journal = FrontJournal(tmp_path)
    journal.open(0.0)
    journal.append([change("a")], None, 0.0)
    journal.append([change("b")], None, 0.0)
    journal.append([change("c")], None, 1000.0)
    journal.committed(1, 5000.0)
    assert FrontJournal(tmp_path).open(5001.0).changes == [change("b"), change("c")]


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
    assert FrontJournal(tmp_path).open(2.0).changes == [change("kept"), change("later")]


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
        FrontJournal(tmp_path).open(2.0)
    journal.committed(1, 2.0)
    assert FrontJournal(tmp_path).open(3.0).changes == []


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
