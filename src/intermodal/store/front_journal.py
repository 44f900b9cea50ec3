"""An append-only file in front of the database, for changes that must be safe before their reply goes out.

A commit costs milliseconds; a `write` to a file costs microseconds, and what is written survives the death of the
process (a power cut may undo the last moments, as it may in the database). So such changes go here first, then with all
others to the database, and once they are committed there a mark says that they need not be replayed. The replies to the
requests that made them lie beside them: a client that sends a request again after a restart gets its reply, and the
request does not act twice.

A file is frames of ``u32 length | u32 crc32 | u8 kind | u64 number | plain values``, the last as `marshal` writes them,
which is several times faster than pickling. They are of this server's own making, in a directory that only its user may
write. A torn last frame was never answered and is ignored. A new file is begun from time to time, and old ones are
deleted when everything in them is committed and their replies are too old to be asked for.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from intermodal.store.entries import EntryChange, from_plain, to_plain

_FRAME = struct.Struct("<IIBQ")
_ENTRY, _COMMITTED = 1, 2
_FILE_BYTES = 64 * 1024 * 1024  #: after which a new file is begun
_FILE_SECONDS = 150.0  #: the same
KEEP_REPLIES = 300.0  #: seconds a reply can be asked for again, at least


class KeptReply(NamedTuple):
    """What a mutating request was answered."""

    key: tuple[Any, ...]  #: which request, of plain values
    outcome: tuple[Any, bytes]  #: the response as JSON values, and its body


@dataclass
class Replay:
    """What a journal held when it was opened."""

    changes: list[EntryChange] = field(default_factory=list)  #: perhaps not committed, in order
    replies: list[KeptReply] = field(default_factory=list)


@dataclass
class _File:
    path: Path
    last: int = 0  #: number of its last entry
    begun: float = 0.0


class FrontJournal:
    """One directory of journal files. Not thread-safe: belongs to the event loop's thread.

    Args:
        directory: made if it is missing, mode 0700.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[_File] = []
        self._fd = -1
        self._size = 0
        self._number = 0  # of the last entry
        self._committed = 0

    def open(self, now: float) -> Replay:
        """Read what is there and begin a new file. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        entries: list[tuple[int, bytes]] = []
        committed = 0
        for path in sorted(self._directory.glob("*.log")):
            file = _File(path, begun=path.stat().st_mtime)
            for kind, number, data in _frames(path):
                if kind == _COMMITTED:
                    committed = max(committed, number)
                else:
                    file.last = number
                    entries.append((number, data))
            self._files.append(file)
            self._number = max(self._number, file.last)
        replay = Replay()
        for number, data in entries:
            try:
                plain, reply = marshal.loads(data)
                changes = [from_plain(one) for one in plain]
            except Exception as error:  # of another version of this program
                if number > committed:
                    raise OSError(
                        0, f"it was written by another version ({error}); start and stop that first"
                    ) from None
                continue
            replay.changes += changes if number > committed else []
            replay.replies += [] if reply is None else [KeptReply(*reply)]
        self._number = max(self._number, committed)
        self._committed = committed
        self._begin(now)
        return replay

    def append(self, changes: Sequence[EntryChange], reply: KeptReply | None, now: float) -> int:
        """Write one entry, whole or not at all; returns its number. Raises OSError."""
        if self._size > _FILE_BYTES or now - self._files[-1].begun > _FILE_SECONDS:
            self._begin(now)
        number = self._number + 1
        kept = None if reply is None else tuple(reply)
        self._write(_ENTRY, number, marshal.dumps(([to_plain(change) for change in changes], kept)))
        self._number = self._files[-1].last = number
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
        with contextlib.suppress(OSError):  # it is only replayed once more
            self._write(_COMMITTED, number, b"")
        for file in self._files[:-1]:
            if file.last > number or now - file.begun < _FILE_SECONDS + KEEP_REPLIES:
                break
            file.path.unlink(missing_ok=True)
            self._files.remove(file)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self, now: float) -> None:
        number = int(self._files[-1].path.stem) + 1 if self._files else 1
        path = self._directory / f"{number:012d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd, self._size = fd, 0
        self._files.append(_File(path, begun=now))

    def _write(self, kind: int, number: int, data: bytes) -> None:
        frame = _FRAME.pack(len(data), zlib.crc32(data), kind, number) + data
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


def _frames(path: Path) -> Iterator[tuple[int, int, bytes]]:
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum, kind, number = _FRAME.unpack(head)
            data = file.read(length)
            if len(data) != length or zlib.crc32(data) != checksum:
                return  # torn: the process died while it wrote this
            yield kind, number, data
