"""Output on a terminal: a live area with the steps, functions and maps under way; logs scroll by above it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Optional, TextIO, Union

from rich.console import Console
from rich.text import Text

from .files_summary import list_files, summarize_files
from .line_assembler import LineAssembler
from .progress import FunctionProgress, ProgressBoard, describe_stop, plural
from .terminal import CapturedStreams, Terminal

if TYPE_CHECKING:
    from .._wire.messages.app import AppEvent, AppStopReason
    from . import Step

TICK = 0.1  #: seconds between two frames
MAX_FUNCTIONS = 8  #: live lines of functions
BAR_WIDTH = 24  #: columns of a bar, less on a narrow terminal
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_SPINNER = "|/-\\"


class RichOutput:
    """See the module. `out` and `err` are the process's streams; `err` is a terminal."""

    def __init__(self, out: TextIO, err: TextIO, *, show_files: bool = False) -> None:
        self._console = Console(file=err, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._terminal = Terminal(out, err)
        self._captured = CapturedStreams(self._terminal)
        self._show_files = show_files
        self._unicode = (getattr(err, "encoding", "") or "").lower().replace("-", "").startswith("utf")
        self._lock = threading.RLock()
        self._steps: list[_RichStep] = []
        self._board = ProgressBoard()
        self._stdout_lines = LineAssembler()
        self._stderr_lines = LineAssembler()
        self._closing = threading.Event()
        self._changed = threading.Event()
        self._painter = threading.Thread(target=self._paint_until_closed, name="modal-output", daemon=True)

    def open(self) -> None:
        self._captured.install()
        self._painter.start()

    def close(self) -> None:
        self._closing.set()
        self._changed.set()
        self._painter.join()
        with self._lock:
            self._terminal.show([])
            self._terminal.write_out(self._stdout_lines.flush())
            self._terminal.write_err(self._stderr_lines.flush())
        self._captured.remove()

    def step(self, title: str) -> Step:
        step = _RichStep(self, title)
        with self._lock:
            self._steps.append(step)
        self._changed.set()
        return step

    def message(self, text: str) -> None:
        self.print_line(text)

    def files_sent(self, files: Sequence[str]) -> None:
        if self._show_files:
            for line in list_files(files):
                self.print_line(line, "dim")
        elif files:
            self.print_line(summarize_files(files), "dim")

    def app_started(self, app_id: str, description: str) -> None:
        self.print_line(f"App {app_id} started" + (f": {description}" if description else "."), "dim")

    def app_stopped(self, reason: Union[AppStopReason, str]) -> None:
        with self._lock:
            self._board = ProgressBoard()
        self.print_line(describe_stop(reason), "dim")

    def app_event(self, event: AppEvent) -> None:
        now = time.monotonic()
        with self._lock:
            for entry in event.logs:
                if entry.stream.value == "stdout":
                    self._terminal.write_out(self._stdout_lines.feed(entry.container_id, entry.text, now))
                elif entry.stream.value == "stderr":
                    self._terminal.write_err(self._stderr_lines.feed(entry.container_id, entry.text, now))
                else:
                    self.print_line(entry.text.rstrip("\n"), "yellow")
            if event.status is not None:
                self._board.of(event.status.name).status = event.status
        self._changed.set()

    def map_progress(self, name: str, done: int, total: Optional[int]) -> None:
        with self._lock:
            self._board.of(name).map_progress(done, total)
        self._changed.set()

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        with self._lock:
            self._terminal.write_out(self._stdout_lines.flush())
            self._terminal.write_err(self._stderr_lines.flush())
            self._terminal.hold()
        try:
            yield
        finally:
            self._terminal.release()

    def print_line(self, text: str, style: str = "") -> None:
        """Print a line of ours above the live area."""
        self.print_text(text + "\n", style)

    def print_text(self, text: str, style: str = "") -> None:
        with self._lock:
            if not style:
                self._terminal.write_err(text)
                return
            for line in text.splitlines():
                self._terminal.write_err(self._styled(Text(line, style)) + "\n")

    def end_step(self, step: _RichStep) -> None:
        with self._lock:
            self._steps.remove(step)
        self._changed.set()

    @property
    def marks(self) -> tuple[str, str]:
        """The signs for success and failure."""
        return ("✓", "✗") if self._unicode else ("ok:", "failed:")

    def _styled(self, text: Text) -> str:
        # Rendered through the console for its colour depth and NO_COLOR; soft_wrap leaves long lines whole.
        with self._lock, self._console.capture() as capture:
            self._console.print(text, end="", soft_wrap=True)
        return capture.get()

    def _paint_until_closed(self) -> None:
        frame = 0
        while not self._closing.is_set():
            with self._lock:
                lines = self._live_lines(frame)
                self._terminal.show(lines)
                now = time.monotonic()
                self._terminal.write_out(self._stdout_lines.due(now))
                self._terminal.write_err(self._stderr_lines.due(now))
                idle = not lines and not self._stdout_lines.holding and not self._stderr_lines.holding
            frame += 1
            if idle:
                self._changed.wait()
            self._changed.clear()
            self._closing.wait(TICK)

    def _live_lines(self, frame: int) -> list[str]:
        spinner = SPINNER if self._unicode else PLAIN_SPINNER
        sign = spinner[frame % len(spinner)]
        width = self._console.width - 1  # the last column would wrap on some terminals
        texts = [Text.assemble((sign, "cyan"), f" {step.title} ", (step.elapsed(), "dim")) for step in self._steps]
        active = self._board.active()
        texts += [self._function_line(item, sign) for item in active[:MAX_FUNCTIONS]]
        if len(active) > MAX_FUNCTIONS:
            texts.append(Text(f"… and {plural(len(active) - MAX_FUNCTIONS, 'more function')}", "dim"))
        for text in texts:
            text.truncate(width, overflow="ellipsis")
        return [self._styled(text) for text in texts]

    def _function_line(self, item: FunctionProgress, sign: str) -> Text:
        text = Text.assemble((sign, "cyan"), " ", (item.name, "bold"), " ")
        fraction = item.fraction()
        if fraction is not None:
            columns = min(BAR_WIDTH, self._console.width // 5)
            full = int(fraction * columns)
            line = "━" if self._unicode else "="
            text.append(line * full, "green").append(line * (columns - full), "bright_black").append(" ")
        parts = [item.describe_inputs(), item.describe_containers()]
        text.append(", ".join(part for part in parts if part))
        if item.pending_reason:
            text.append(f" (waiting: {item.pending_reason})", "yellow")
        return text


class _RichStep:
    def __init__(self, manager: RichOutput, title: str) -> None:
        self._manager = manager
        self.title = title
        self._began = time.monotonic()

    def elapsed(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{seconds} s" if seconds else ""

    def log(self, text: str) -> None:
        self._manager.print_text(text, "dim")

    def done(self, text: str = "") -> None:
        self._manager.end_step(self)
        taken = f"({time.monotonic() - self._began:.1f} s)"
        detail = f" {text}" if text else ""
        self._manager.print_line(f"{self._manager.marks[0]} {self.title} {taken}{detail}", "green")

    def fail(self, text: str = "") -> None:
        self._manager.end_step(self)
        detail = f": {text}" if text else ""
        self._manager.print_line(f"{self._manager.marks[1]} {self.title}{detail}", "red")
