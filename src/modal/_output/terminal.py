"""A live area at the bottom of a terminal, with ordinary output scrolling by above it.

Everything that is written while the area is up goes through one lock: the area is erased, the text written, the area
drawn again, all in one write, so that nothing flickers or mixes. While a text leaves the cursor within a line (a
prompt, a progress bar of user code) the area stays hidden, since it would overwrite that line.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
from typing import Any, Callable, Optional, TextIO

from .held_writes import HeldWrites
from .plain_output import write_text


def _device(stream: TextIO) -> Optional[int]:
    """The terminal device behind `stream`, None when it is something else."""
    try:
        return os.fstat(stream.fileno()).st_rdev if stream.isatty() else None
    except (OSError, ValueError, AttributeError):
        return None


class Terminal:
    """The terminal that stderr is, and stdout too when it is the same one."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._shared = _device(out) is not None and _device(out) == _device(err)
        self._lock = threading.RLock()
        self._lines: list[str] = []  # what the area shall show
        self._drawn = 0  # lines on the screen now
        self._within_line = False
        self._paused = 0
        self._held: Optional[HeldWrites] = None  # while someone else has the terminal

    def write_out(self, text: str) -> None:
        """Write to stdout, above the area."""
        if not text:
            return
        with self._lock:
            if self._held is not None:
                self._held.add(self._out, text)
            elif self._shared:
                self._write_above(self._out, text)
            else:
                write_text(self._out, text)

    def write_err(self, text: str) -> None:
        """Write to stderr, above the area."""
        if not text:
            return
        with self._lock:
            if self._held is not None:
                self._held.add(self._err, text)
            else:
                self._write_above(self._err, text)

    def show(self, lines: list[str]) -> None:
        """Make `lines` the content of the area. Each must fit the terminal's width."""
        with self._lock:
            if lines != self._lines or bool(lines) != bool(self._drawn):
                frame = self._erase()
                self._lines = lines
                write_text(self._err, frame + self._draw())

    def pause(self) -> None:
        """Hide the area until `resume`, for example while a prompt waits for its answer."""
        with self._lock:
            self._paused += 1
            write_text(self._err, self._erase())

    def resume(self) -> None:
        with self._lock:
            self._paused -= 1
            self._within_line = False  # the answer's line end came from the terminal
            write_text(self._err, self._draw())

    def hold(self) -> None:
        """Write nothing until `release`: someone else has the terminal."""
        with self._lock:
            self.pause()
            self._held = HeldWrites()

    def release(self) -> None:
        """Write what was held."""
        with self._lock:
            held, self._held = self._held, None
            self.resume()
            for stream, text in held.take() if held is not None else []:
                (self.write_out if stream is self._out else self.write_err)(text)

    def _write_above(self, stream: TextIO, text: str) -> None:
        frame = self._erase() + text
        self._within_line = not text.endswith("\n")
        write_text(stream, frame + self._draw())

    def _erase(self) -> str:
        drawn, self._drawn = self._drawn, 0
        if not drawn:
            return ""
        return "\r" + "\x1b[1A" * (drawn - 1) + "\x1b[J"

    def _draw(self) -> str:
        if self._within_line or self._paused or not self._lines:
            return ""
        self._drawn = len(self._lines)
        return "\n".join(self._lines)


class StreamProxy:
    """Stands in for sys.stdout or sys.stderr; passes text through the terminal and everything else to the stream.

    User code may keep it after output ends (a logging handler does), so it then writes straight through.
    """

    def __init__(self, stream: TextIO, write: Callable[[str], None]) -> None:
        self._stream = stream
        self._write: Optional[Callable[[str], None]] = write

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            # Some libraries find out by trying whether a stream takes bytes.
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._write is None:
            return self._stream.write(text)
        self._write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def detach_terminal(self) -> None:
        """From now on write straight to the stream."""
        self._write = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class CapturedStreams:
    """Routes this process's own prints, and questions asked with `input()`, around the live area."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._out = sys.stdout
        self._err = sys.stderr
        self._input = builtins.input
        self._proxies: list[StreamProxy] = []

    def install(self) -> None:
        out = StreamProxy(self._out, self._terminal.write_out)
        err = StreamProxy(self._err, self._terminal.write_err)
        self._proxies = [out, err]
        sys.stdout = out
        sys.stderr = err
        builtins.input = self._ask

    def remove(self) -> None:
        for proxy in self._proxies:
            proxy.detach_terminal()
        # Someone who replaced the streams meanwhile keeps theirs.
        if sys.stdout in self._proxies:
            sys.stdout = self._out
        if sys.stderr in self._proxies:
            sys.stderr = self._err
        if builtins.input == self._ask:
            builtins.input = self._input

    def _ask(self, prompt: object = "") -> str:
        self._terminal.pause()
        mine = sys.stdout
        try:
            # The real streams, so that line editing works.
            if mine in self._proxies:
                sys.stdout = self._out
            return self._input(prompt)
        finally:
            sys.stdout = mine
            self._terminal.resume()
