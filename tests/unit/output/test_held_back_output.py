"""Output that waits while a container has the terminal."""

from __future__ import annotations

import io

from modal._output import SilentOutput
from modal._output.held_writes import HeldWrites
from modal._output.plain_output import PlainOutput
from modal._output.terminal import Terminal
from modal._wire.messages.app import AppEvent, LogEntry, LogStream


def log(text: str) -> AppEvent:
    return AppEvent(logs=[LogEntry(1, 0.0, LogStream.STDOUT, text, container_id="ta-1")])


def test_writes_come_back_in_order_and_once() -> None:
    held = HeldWrites()
    held.add("out", "a")
    held.add("err", "b")
    held.add("out", "c")
    assert held.take() == [("out", "a"), ("err", "b"), ("out", "c")]
    assert held.take() == []


def test_of_a_flood_the_end_is_kept() -> None:
    held = HeldWrites(limit=10)
    for number in range(100):
        held.add("out", f"{number:02d};")
    [(_, note), *rest] = held.take()
    assert note == "[291 characters of output were not kept]\n"
    assert [text for _, text in rest] == ["97;", "98;", "99;"]
    held.add("out", "x" * 50)  # one write is kept whatever its size
    assert held.take() == [("out", "x" * 50)]


def test_plain_output_holds_back_all_but_what_was_begun() -> None:
    out, err = io.StringIO(), io.StringIO()
    manager = PlainOutput(out, err)
    manager.app_event(log("unfinished"))
    with manager.held_back():
        assert out.getvalue() == "unfinished"
        manager.app_event(log(" line\n"))
        manager.message("said by the platform")
        assert (out.getvalue(), err.getvalue()) == ("unfinished", "")
    assert (out.getvalue(), err.getvalue()) == ("unfinished line\n", "said by the platform\n")
    manager.close()


def test_output_is_free_again_after_an_error() -> None:
    out, err = io.StringIO(), io.StringIO()
    manager = PlainOutput(out, err)
    held = manager.held_back()
    held.__enter__()
    manager.message("held")
    assert not held.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    manager.message("free")
    assert err.getvalue() == "held\nfree\n"


def test_the_live_area_gives_way() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    terminal.show(["one line"])
    terminal.hold()
    shown = err.getvalue()
    terminal.show(["another line"])
    terminal.write_err("message\n")
    terminal.write_out("printed\n")
    assert (err.getvalue(), out.getvalue()) == (shown, "")
    terminal.release()
    assert err.getvalue().endswith("another line")
    assert "message\n" in err.getvalue()
    assert out.getvalue() == "printed\n"


def test_silence_has_nothing_to_hold() -> None:
    with SilentOutput().held_back():
        pass
