"""A command in a terminal of its own, with a person who types and reads what appears."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class PtySession:
    def __init__(
        self,
        command: Sequence[object],
        env: Mapping[str, str],
        cwd: Path | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self._terminal, theirs = pty.openpty()
        self.resize(rows, columns)
        self.settings = termios.tcgetattr(self._terminal)
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env={**env, "TERM": "xterm"},
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._screen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def screen(self) -> str:
        """Everything that appeared, without colours and movements of the cursor."""
        return _CONTROLS.sub("", self._screen.decode(errors="replace"))

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str, seconds: float = 60.0, count: int = 1) -> None:
        """Wait until `text` has appeared `count` times."""
        deadline = time.monotonic() + seconds
        while self.screen.count(text) < count:
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert not ended, f"it ended ({self.process.returncode}) before {text!r} appeared:\n{self.screen}"
            assert time.monotonic() < deadline, f"waited {seconds:g} s for {text!r}:\n{self.screen}"
            time.sleep(0.02)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._terminal)[3] & termios.ICANON

    def is_as_before(self) -> bool:
        """Whether the terminal has its settings back."""
        return bool(termios.tcgetattr(self._terminal)[:4] == self.settings[:4])

    def end(self, seconds: float = 60.0) -> int:
        """Wait for its end and return its exit status."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {seconds:g} s:\n{self.screen}") from None
        assert self.is_as_before(), "the terminal was left in another mode"
        self._reader.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(5)
        os.close(self._terminal)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # nobody has it open any more
                return
            self._screen += data


@contextlib.contextmanager
def terminal(command: Sequence[object], env: Mapping[str, str], **options: Any) -> Iterator[PtySession]:
    """Run a command in a terminal; it is killed if it still runs at the end of the block."""
    session = PtySession(command, env, **options)
    try:
        yield session
    finally:
        session.close()
