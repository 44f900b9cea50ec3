"""Live output, seen through a small terminal emulator at the other end of a pseudo terminal."""

from __future__ import annotations

import builtins
import codecs
import contextlib
import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from modal._output import create_output
from modal._output.rich_output import RichOutput
from modal._wire.messages.app import AppEvent, AppStopReason, FunctionStatus, LogEntry, LogStream

CONTROL = re.compile(r"\x1b\[(\d*)([AJ])|\x1b\[[\d;?]*[a-zA-Z]|\r|\n")


class Screen:
    """The lines that a terminal of endless height shows."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0
        self.widest = 0

    def feed(self, text: str) -> None:
        at = 0
        for control in CONTROL.finditer(text):
            self._put(text[at : control.start()])
            at = control.end()
            if control[0] == "\r":
                self.column = 0
            elif control[0] == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif control[2] == "A":
                self.row -= int(control[1] or 1)
            elif control[2] == "J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
        self._put(text[at:])

    def _put(self, text: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)
        self.widest = max(self.widest, self.column)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")


class PseudoTerminal:
    """Streams whose other end draws a Screen."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        self.out = open(self._slave, "w", encoding="utf-8", closefd=False)
        self.err = open(self._slave, "w", encoding="utf-8", closefd=False)
        self.screen = Screen()
        self.raw = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        utf8 = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            with self._changed:
                text = utf8.decode(data)
                self.raw += text
                self.screen.feed(text)
                self._changed.notify_all()

    def wait_for(self, condition: Callable[[str], bool]) -> str:
        """The screen's text once it satisfies `condition`."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.screen.text), 10), self.screen.text
            return self.screen.text

    def close(self) -> None:
        self.out.close()
        self.err.close()
        os.close(self._slave)
        self._reader.join(10)
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch) -> Iterator[PseudoTerminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    made = PseudoTerminal()
    yield made
    made.close()


@contextlib.contextmanager
def live(terminal: PseudoTerminal, out: TextIO | None = None) -> Iterator[RichOutput]:
    """The output of a process on `terminal`; with `out`, its stdout is that file."""
    # Not a fixture: the test runner replaces the streams between set-up and test.
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out or terminal.out, terminal.err
    try:
        made = create_output()
        assert isinstance(made, RichOutput)
        made.open()
        try:
            yield made
        finally:
            made.close()
    finally:
        sys.stdout, sys.stderr = before


def log(text: str, stream: LogStream = LogStream.STDOUT) -> AppEvent:
    return AppEvent(logs=[LogEntry(seq=1, at=0.0, stream=stream, text=text, container_id="ta-1")])


def status(**values: object) -> AppEvent:
    return AppEvent(status=FunctionStatus("fu-1", "square", **values))  # type: ignore[arg-type]


def test_logs_scroll_by_above_the_live_lines(terminal):
    with live(terminal) as manager:
        manager.app_event(status(starting=2, running=1, queued_inputs=5))
        terminal.wait_for(lambda text: "square" in text and "1 container, 2 starting" in text)
        for number in range(50):
            manager.app_event(log(f"line {number}\n"))
        text = terminal.wait_for(lambda text: "line 49" in text and "square" in text)
        lines = text.splitlines()
        assert lines[:50] == [f"line {number}" for number in range(50)]
        assert len(lines) == 51
        assert "square" in lines[50]


def test_own_prints_and_both_streams_stay_above_the_live_lines(terminal):
    with live(terminal) as manager:
        manager.map_progress("square", 3, 10)
        terminal.wait_for(lambda text: "3 of 10 inputs done" in text)
        print("from here")
        print("from here too", file=sys.stderr)
        manager.app_event(log("from there\n", LogStream.STDERR))
        text = terminal.wait_for(lambda text: "from there" in text and "inputs done" in text)
        assert text.splitlines()[:3] == ["from here", "from here too", "from there"]
        assert len(text.splitlines()) == 4


def test_the_terminal_is_left_clean(terminal):
    with live(terminal) as manager:
        manager.map_progress("square", 3, 10)
        terminal.wait_for(lambda text: "3 of 10" in text)
        manager.app_event(log("unfinished"))
        manager.app_stopped(AppStopReason.INTERRUPTED)
    text = terminal.wait_for(lambda text: "unfinished" in text)
    assert "3 of 10" not in text
    assert "it was interrupted" in text
    assert builtins.input is not manager._captured._ask


def test_a_step_is_live_with_its_log_above_and_ends_with_a_mark(terminal):
    with live(terminal) as manager:
        step = manager.step("pip install scikit-learn (2/3)")
        terminal.wait_for(lambda text: "pip install" in text)
        step.log("Collecting scikit-learn\n")
        text = terminal.wait_for(lambda text: "Collecting" in text and "pip install" in text)
        assert text.splitlines()[0] == "Collecting scikit-learn"
        step.done()
        terminal.wait_for(lambda text: bool(re.search(r"\n✓ pip install scikit-learn \(2/3\) \(\d\.\d s\)$", text)))
        manager.step("apt install nonsense").fail("no such package")
        terminal.wait_for(lambda text: text.endswith("✗ apt install nonsense: no such package"))


def test_why_nothing_starts_is_shown(terminal):
    with live(terminal) as manager:
        manager.app_event(status(queued_inputs=1, pending_reason="needs 64 cores, 2 are there"))
        terminal.wait_for(lambda text: "(waiting: needs 64 core" in text)


def test_live_lines_never_wrap(terminal):
    with live(terminal) as manager:
        manager.step("x" * 200)
        terminal.wait_for(lambda text: "xxx" in text)
        assert terminal.screen.widest < 100


def test_an_unfinished_line_hides_the_live_lines_until_it_ends(terminal):
    with live(terminal) as manager:
        manager.map_progress("square", 3, 10)
        terminal.wait_for(lambda text: "3 of 10" in text)
        print("question? ", end="")
        assert terminal.wait_for(lambda text: "question?" in text and "3 of 10" not in text) == "question?"
        manager.map_progress("square", 4, 10)
        print("answered")
        text = terminal.wait_for(lambda text: "4 of 10" in text)
        assert text.splitlines()[0] == "question? answered"


def test_an_idle_manager_draws_nothing(terminal):
    with live(terminal) as manager:
        manager.app_event(log("one\n"))
        terminal.wait_for(lambda text: text == "one")
        before = terminal.raw
        time.sleep(0.3)
        assert terminal.raw == before


def test_a_stream_kept_by_user_code_works_after_the_end(terminal):
    with live(terminal):
        kept = sys.stdout
    assert kept is not terminal.out
    with pytest.raises(TypeError):
        kept.write(b"bytes")  # type: ignore[arg-type]
    kept.write("late\n")
    kept.flush()
    terminal.wait_for(lambda text: text.endswith("late"))


def test_stdout_in_a_file_has_no_control_codes(terminal):
    out = io.StringIO()
    with live(terminal, out) as manager:
        manager.map_progress("square", 3, 10)
        terminal.wait_for(lambda text: "3 of 10" in text)
        manager.app_event(log("result\n"))
        print("mine")
    assert out.getvalue() == "result\nmine\n"
