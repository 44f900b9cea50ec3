"""An append-only file in front of the database, for changes that must be safe before their reply goes out.

A commit costs milliseconds; a `write` to a file costs microseconds, and what is written survives the death of the
process (a power cut may undo the last moments, as it may in the database). So such changes go here first, then with all
others to the database, and once they are committed there a mark says that they need not be replayed. The replies to the
requests that made them lie beside them: a client that sends a request again after a restart gets its reply, and the
request does not act twice.

A file is frames of ``u32 length | u32 crc32 | u8 kind | u64 number | data``. The data of an entry is ``u32 length | u32
crc32`` of its reply, the reply, and the changes, both as `marshal` writes them, which is several times faster than
pickling. They are of this server's own making, in a directory that only its user may write. A torn last frame was never
answered and is ignored. The reply comes first so that the changes of a committed entry can be passed over unread.

A new file is begun from time to time, and an old one is deleted when everything in it is committed and its replies are
too old to be asked for, or more than the server remembers have come after them. One that holds large changes is cut
down to its replies (`shrink`) as soon as they are committed.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import struct
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from intermodal.store.entries import EntryChange, from_plain, to_plain

_FRAME = struct.Struct("<IIBQ")
_REPLY = struct.Struct("<II")
_COMMITTED, _ENTRY = 2, 3  # 1 was an entry of the first version, with its reply at the end
_FILE_BYTES = 64 * 1024 * 1024  #: after which a new file is begun
_FILE_ENTRIES = 50_000  #: the same
_FILE_SECONDS = 150.0  #: the same
_WASTEFUL = 4096  # bytes of changes an entry, on average, from which a committed file is shrunk
_GROUP_BYTES = 8 * 1024 * 1024  # of changes that are replayed together
KEEP_REPLIES = 300.0  #: seconds a reply can be asked for again, at least
#: How many of them, and how many bytes: as many as the server remembers while it runs (`rpc_replies.ReplyMemory`).
KEEP_REPLY_COUNT, KEEP_REPLY_BYTES = 100_000, 64 * 1024 * 1024


class KeptReply(NamedTuple):
    """What a mutating request was answered."""

    key: tuple[Any, ...]  #: which request, of plain values
    outcome: tuple[Any, bytes]  #: the response as JSON values, and its body


@dataclass
class Replay:
    """What a journal held when it was opened."""

    #: Perhaps not committed, in order, some at a time: they are read while one iterates. Raises OSError.
    changes: Iterator[list[EntryChange]]
    replies: list[KeptReply]


class _Frame(NamedTuple):
    kind: int
    number: int
    size: int  #: bytes, all in all
    reply: bytes
    changes: bytes  #: empty when they were passed over


@dataclass
class _File:
    path: Path
    begun: float
    last: int = 0  #: number of its last entry
    entries: int = 0
    replies: int = 0
    size: int = 0  #: bytes
    reply_bytes: int = 0

    def add(self, number: int, size: int, reply_bytes: int) -> None:
        """An entry was written to it."""
        self.last = number
        self.entries += 1
        self.size += size
        if reply_bytes:
            self.replies += 1
            self.reply_bytes += reply_bytes

    def is_wasteful(self) -> bool:
        return self.size - self.reply_bytes > _WASTEFUL * max(1, self.entries)


class FrontJournal:
    """One directory of journal files. Not thread-safe: one thread at a time.

    Args:
        directory: made if it is missing, mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[_File] = []
        self._wasteful: list[_File] = []  # finished, to be shrunk once they are committed
        self._fd = -1
        self._size = 0
        self._number = 0  # of the last entry
        self._committed = 0
        self._replies = 0  # in all files
        self._reply_bytes = 0

    def open(self, now: float) -> Replay:
        """Read what is there and begin a new file. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in self._directory.glob("*.tmp"):
            unfinished.unlink()
        paths = sorted(self._directory.glob("*.log"))
        # Marks only grow, and every file begins with the latest one.
        self._committed = next(filter(None, map(_last_mark, reversed(paths))), 0)
        replies: deque[bytes] = deque()
        size = 0
        for path in paths:
            for reply in self._take(path):
                replies.append(reply)
                size += len(reply)
                while len(replies) > KEEP_REPLY_COUNT or (size > KEEP_REPLY_BYTES and len(replies) > 1):
                    size -= len(replies.popleft())
        self._number = max([self._committed, *(file.last for file in self._files)])
        changes = self._uncommitted(list(self._files), self._committed)
        self._begin(now)
        self._tidy(now)
        return Replay(changes, _kept_replies(replies))

    def _take(self, path: Path) -> Iterator[bytes]:
        """Take a file of an earlier journal as one of ours; gives its replies."""
        file = _File(path, path.stat().st_mtime)
        for frame in _frames(path, self._committed):
            if frame.kind != _COMMITTED:
                file.add(frame.number, frame.size, len(frame.reply))
            if frame.reply:
                yield frame.reply
        self._finish(file)
        self._files.append(file)
        self._replies += file.replies
        self._reply_bytes += file.reply_bytes

    def _uncommitted(self, files: list[_File], committed: int) -> Iterator[list[EntryChange]]:
        group: list[EntryChange] = []
        size = 0
        for file in files:
            for frame in _frames(file.path, committed) if file.last > committed else ():
                if frame.kind == _COMMITTED or frame.number <= committed:
                    continue
                group += _changes_of(frame)
                size += frame.size
                if size >= _GROUP_BYTES:
                    yield group
                    group, size = [], 0
        if group:
            yield group

    def append(self, changes: Sequence[EntryChange], reply: KeptReply | None, now: float) -> int:
        """Write one entry, whole or not at all; returns its number. Raises OSError."""
        file = self._files[-1]
        if self._size > _FILE_BYTES or file.entries >= _FILE_ENTRIES or now - file.begun > _FILE_SECONDS:
            file = self._begin(now)
        number = self._number + 1
        kept = b"" if reply is None else marshal.dumps(tuple(reply))
        size = self._write(_entry(number, kept, marshal.dumps([to_plain(change) for change in changes])))
        self._number = number
        file.add(number, size, len(kept))
        if kept:
            self._replies += 1
            self._reply_bytes += len(kept)
        return number

    @property
    def last(self) -> int:
        """Number of the last entry."""
        return self._number

    def committed(self, number: int, now: float) -> None:
        """Everything up to this entry is in the database."""
        if number <= self._committed:
            return
        self._committed = number
        self._mark()
        self._tidy(now)

    def take_wasteful(self) -> list[Path]:
        """Files to `shrink` before the next call of `committed`; each is given once."""
        due = [file.path for file in self._wasteful if file.last <= self._committed]
        self._wasteful = self._wasteful[len(due) :]  # they are in order
        return due

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _tidy(self, now: float) -> None:
        """Delete the oldest files, as far as nobody needs them."""
        while len(self._files) > 1 and not self._is_needed(self._files[0], now):
            file = self._files.pop(0)
            file.path.unlink(missing_ok=True)
            self._replies -= file.replies
            self._reply_bytes -= file.reply_bytes

    def _is_needed(self, oldest: _File, now: float) -> bool:
        if oldest.last > self._committed:
            return True
        if now - oldest.begun >= _FILE_SECONDS + KEEP_REPLIES:
            return False
        newer, newer_bytes = self._replies - oldest.replies, self._reply_bytes - oldest.reply_bytes
        return newer < KEEP_REPLY_COUNT and newer_bytes < KEEP_REPLY_BYTES

    def _begin(self, now: float) -> _File:
        number = int(self._files[-1].path.stem) + 1 if self._files else 1
        path = self._directory / f"{number:012d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._fd >= 0:
            self._finish(self._files[-1])
        self.close()
        self._fd, self._size = fd, 0
        self._files.append(_File(path, now))
        if self._committed:
            self._mark()
        return self._files[-1]

    def _finish(self, file: _File) -> None:
        """Nothing more is written to it."""
        if file.is_wasteful():
            self._wasteful.append(file)

    def _mark(self) -> None:
        with contextlib.suppress(OSError):  # it is only replayed once more
            self._write(_committed_mark(self._committed))

    def _write(self, frame: bytes) -> int:
        try:
            written = os.write(self._fd, frame)
        except OSError:
            written = -1
            raise
        finally:
            if written != len(frame):
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
        if written != len(frame):
            raise OSError(28, "No space left on device")
        self._size += written
        return written


def shrink(path: Path) -> None:
    """Cut a file, in which everything is committed, down to its replies. May run in any thread. Raises OSError."""
    small = path.with_suffix(".tmp")
    number = 0
    try:
        with open(os.open(small, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
            for frame in _frames(path, sys.maxsize):
                number = max(number, frame.number)
                if frame.reply:
                    out.write(_entry(frame.number, frame.reply, marshal.dumps([])))
            out.write(_committed_mark(number))
        small.replace(path)
    except OSError:
        small.unlink(missing_ok=True)
        raise


def _entry(number: int, reply: bytes, changes: bytes) -> bytes:
    front = _REPLY.pack(len(reply), zlib.crc32(reply)) + reply
    checksum = zlib.crc32(changes, zlib.crc32(front))
    return b"".join((_FRAME.pack(len(front) + len(changes), checksum, _ENTRY, number), front, changes))


def _committed_mark(number: int) -> bytes:
    return _FRAME.pack(0, 0, _COMMITTED, number)


def _heads(file: BinaryIO) -> Iterator[tuple[int, int, int, int]]:
    """The head of each frame that is as long as it says. The file stands at its data then, and may be read on."""
    at, end = 0, os.fstat(file.fileno()).st_size
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum, kind, number = _FRAME.unpack(head)
        at += _FRAME.size + length
        if at > end:
            return
        yield length, checksum, kind, number
        file.seek(at)


def _last_mark(path: Path) -> int:
    """Up to which entry everything was committed when this file was written; 0 when it does not say."""
    with path.open("rb", 64 * 1024) as file:
        return max((number for _, _, kind, number in _heads(file) if kind == _COMMITTED), default=0)


def _frames(path: Path, committed: int) -> Iterator[_Frame]:
    """The frames of a file up to a torn one: there the process died while it wrote. Passes over committed changes."""
    with path.open("rb", 64 * 1024) as file:
        for length, checksum, kind, number in _heads(file):
            size = _FRAME.size + length
            if number > committed:
                data = file.read(length)
                if zlib.crc32(data) != checksum:
                    return
                reply, changes = _split(data) if kind == _ENTRY else (b"", data)
                yield _Frame(kind, number, size, reply, changes)
            else:
                yield _Frame(kind, number, size, _reply_at(file) if kind == _ENTRY else b"", b"")


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Reply and changes of an entry."""
    end = _REPLY.size + _REPLY.unpack_from(data)[0]
    return data[_REPLY.size : end], data[end:]


def _reply_at(file: BinaryIO) -> bytes:
    """The reply of the entry whose data begins here; empty when it is damaged (a power cut)."""
    length, checksum = _REPLY.unpack(file.read(_REPLY.size))
    reply = file.read(length)
    return reply if zlib.crc32(reply) == checksum else b""


def _changes_of(frame: _Frame) -> list[EntryChange]:
    """Raises OSError for an entry of another version of this program."""
    try:
        if frame.kind != _ENTRY:
            raise ValueError(f"a frame of kind {frame.kind}")
        return [from_plain(one) for one in marshal.loads(frame.changes)]
    except Exception as error:
        raise OSError(0, f"it was written by another version ({error}); start and stop that first") from None


def _kept_replies(replies: deque[bytes]) -> list[KeptReply]:
    """Empties what it reads, so that it is not in memory twice."""
    kept: list[KeptReply] = []
    while replies:
        with contextlib.suppress(Exception):  # of another version of this program, which is committed
            kept.append(KeptReply(*marshal.loads(replies.popleft())))
    return kept
