"""Output where there is no terminal: plain lines without control codes.

What containers print goes to the stream it was printed on. Everything else goes to stderr, or nowhere when only
user output was asked for (`show_progress=False`, `modal run --quiet`).
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Callable, Optional, TextIO, Union

from .files_summary import list_files, summarize_files
from .held_writes import HeldWrites
from .joined_writes import JoinedWrites
from .line_assembler import HOLD, LineAssembler
from .progress import PlainReporter, describe_stop

if TYPE_CHECKING:
    from .._wire.messages.app import AppEvent, AppStopReason
    from . import Step


def write_text(stream: Optional[TextIO], text: str) -> None:
    """Write `text` and flush. A reader that has gone away, or an encoding that lacks a character, is no error here.

    User code must not fail because its log could not be shown: characters that the stream cannot encode are
    escaped, and output after the reader closed the pipe is dropped.
    """
    if stream is None or not text:
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (BrokenPipeError, ValueError):  # ValueError: the stream is closed
        pass


class PlainOutput:
    """See the module. `clock` gives seconds and exists for tests."""

    def __init__(
        self,
        out: Optional[TextIO] = None,
        err: Optional[TextIO] = None,
        *,
        show_progress: bool = True,
        show_files: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._show_progress = show_progress
        self._show_files = show_files
        self._clock = clock
        self._lock = threading.RLock()
        self._stdout_lines = LineAssembler()
        self._stderr_lines = LineAssembler()
        self._reporter = PlainReporter()
        self._timer: Optional[threading.Timer] = None
        self._closed = False
        self._joined = JoinedWrites([self._out, self._err])
        self._held: Optional[HeldWrites] = None  #: while someone else has the terminal

    def open(self) -> None:
        self._joined.begin()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._write(self._out, self._stdout_lines.flush())
            self._write(self._err, self._stderr_lines.flush())
        self._joined.end()

    def step(self, title: str) -> Step:
        self._say(title)
        return _PlainStep(self, title, self._clock)

    def message(self, text: str) -> None:
        self._say(text)

    def files_sent(self, files: Sequence[str]) -> None:
        if self._show_files:
            self._say("\n".join(list_files(files)))
        else:
            self._say(summarize_files(files))

    def app_started(self, app_id: str, description: str) -> None:
        self._say(f"App {app_id} started: {description}" if description else f"App {app_id} started.")

    def app_stopped(self, reason: Union[AppStopReason, str]) -> None:
        self._say(describe_stop(reason))

    def app_event(self, event: AppEvent) -> None:
        with self._lock:
            for entry in event.logs:
                self._log(entry.stream.value, entry.container_id, entry.text)
            self._hold()
            if event.status is not None:
                for line in self._reporter.status(event.status):
                    self._say(line)

    def map_progress(self, name: str, done: int, total: Optional[int]) -> None:
        with self._lock:
            for line in self._reporter.map_progress(name, done, total, self._clock()):
                self._say(line)

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        with self._lock:
            self._write(self._out, self._stdout_lines.flush())
            self._write(self._err, self._stderr_lines.flush())
            self._held = held = HeldWrites()
        try:
            yield
        finally:
            with self._lock:
                self._held = None
                for stream, text in held.take():
                    write_text(stream, text)

    def step_log(self, text: str) -> None:
        """Show a piece of a step's log."""
        if self._show_progress:
            with self._lock:
                self._write(self._err, text if text.endswith("\n") else text + "\n")

    def _say(self, text: str) -> None:
        if text and self._show_progress:
            with self._lock:
                self._write(self._err, text + "\n")

    def _log(self, stream: str, container_id: str, text: str) -> None:
        now = self._clock()
        if stream == "stdout":
            self._write(self._out, self._stdout_lines.feed(container_id, text, now))
        elif stream == "stderr":
            self._write(self._err, self._stderr_lines.feed(container_id, text, now))
        else:
            self._say(text.rstrip("\n"))

    def _write(self, stream: TextIO, text: str) -> None:
        if self._held is None:
            write_text(stream, text)
        elif text:
            self._held.add(stream, text)

    def _hold(self) -> None:
        """See to it that an unfinished line is shown soon."""
        waiting = self._stdout_lines.holding or self._stderr_lines.holding
        if waiting and self._timer is None and not self._closed:
            self._timer = threading.Timer(HOLD, self._release)
            self._timer.daemon = True
            self._timer.start()

    def _release(self) -> None:
        with self._lock:
            self._timer = None
            now = self._clock()
            self._write(self._out, self._stdout_lines.due(now))
            self._write(self._err, self._stderr_lines.due(now))
            self._hold()


class _PlainStep:
    def __init__(self, manager: PlainOutput, title: str, clock: Callable[[], float]) -> None:
        self._manager = manager
        self._title = title
        self._clock = clock
        self._began = clock()

    def log(self, text: str) -> None:
        self._manager.step_log(text)

    def done(self, text: str = "") -> None:
        detail = f": {text}" if text else ""
        self._manager.message(f"Done: {self._title} ({self._clock() - self._began:.1f} s){detail}")

    def fail(self, text: str = "") -> None:
        self._manager.message(f"Failed: {self._title}" + (f": {text}" if text else ""))
