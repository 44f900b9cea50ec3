"""`python -u`: while output is shown, lines are written whole all the same."""

from __future__ import annotations

import io
import time

import pytest

from modal._output.plain_output import PlainOutput


class Raw(io.RawIOBase):
    """Keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.writes.append(piece)
        return len(piece)


@pytest.fixture
def raw() -> Raw:
    return Raw()


@pytest.fixture
def stream(raw: Raw) -> io.TextIOWrapper:
    return io.TextIOWrapper(raw, encoding="utf-8", write_through=True)  # type: ignore[type-var]


def test_a_print_is_one_write_while_output_is_shown(raw: Raw, stream: io.TextIOWrapper) -> None:
    manager = PlainOutput(stream, io.StringIO())
    manager.open()
    print("result", 3, file=stream)
    assert raw.writes == [b"result 3\n"]
    manager.close()
    print("later", 4, file=stream)
    assert len(raw.writes) > 2, "the user's choice holds again"
    assert b"".join(raw.writes) == b"result 3\nlater 4\n"


def test_an_unfinished_line_is_written_a_moment_later(raw: Raw, stream: io.TextIOWrapper) -> None:
    manager = PlainOutput(stream, io.StringIO())
    manager.open()
    print("working", end="", file=stream)
    deadline = time.monotonic() + 10
    while not raw.writes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert raw.writes == [b"working"]
    print("...", end="", file=stream)
    manager.close()
    assert b"".join(raw.writes) == b"working..."


def test_a_stream_that_is_closed_meanwhile_does_no_harm(stream: io.TextIOWrapper) -> None:
    manager = PlainOutput(stream, io.StringIO())
    manager.open()
    stream.close()
    manager.close()
    manager.close()
