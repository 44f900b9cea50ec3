"""A process that was started in a running container, beside its first one: its descriptors, its end, its session."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable, Iterable
from pathlib import Path

from intermodal.runtimes.interface import ProcessExit
from intermodal.runtimes.pidfd import ChildWaiter
from modal._wire.messages.terminal import WindowSize

#: Times that new members of a session are looked for while it is killed.
_KILL_ROUNDS = 10


class ExecProcess:
    """Owns the descriptors: `close` closes them.

    Args:
        waiter: of the process, which leads a session of its own.
        descriptors: our ends of its stdin, stdout and stderr; or one, of its terminal.
        neighbours: the pids of everything that may descend from it.
    """

    def __init__(
        self, waiter: ChildWaiter, descriptors: tuple[int, ...], neighbours: Callable[[], Iterable[int]]
    ) -> None:
        self.has_terminal = len(descriptors) == 1
        self._waiter = waiter
        self._descriptors = self._open = descriptors
        self._neighbours = neighbours
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)

    @property
    def stdin(self) -> int:
        return self._descriptors[0]

    @property
    def outputs(self) -> tuple[int, ...]:
        """What to read: stdout and stderr, or the terminal."""
        return self._descriptors if self.has_terminal else self._descriptors[1:]

    @property
    def ended(self) -> asyncio.Future[ProcessExit]:
        """Resolves when the process has ended, and with how. Not to be cancelled."""
        return self._waiter.exited

    @property
    def exit_code(self) -> int:
        """Of the ended process: what it exited with, or 128 and the number of the signal that ended it."""
        exit = self.ended.result()
        return 128 + exit.signal if exit.signal is not None else exit.code or 0

    def resize(self, window: WindowSize) -> None:
        """Change the terminal's size; its programs get SIGWINCH."""
        if self.has_terminal:
            set_window(self.stdin, window)

    def kill(self) -> None:
        """SIGKILL it and everything in its session."""
        leader = self._waiter.pid
        self._waiter.signal(signal.SIGKILL)
        for _ in range(_KILL_ROUNDS):
            found = [pid for pid in self._neighbours() if pid != leader and session_of(pid) == leader]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not found:
                return

    def close_stdin(self) -> None:
        """Close the pipe to its stdin: it reads the end of its input."""
        os.close(self.stdin)
        self._open = self._descriptors[1:]

    def close(self) -> None:
        """Close the descriptors; programs that are left on the terminal get SIGHUP. Once, after nobody uses them."""
        for descriptor in self._open:
            os.close(descriptor)


def set_window(descriptor: int, window: WindowSize) -> None:
    """Set the size of the terminal behind `descriptor`."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", window.rows, window.columns, 0, 0))


def session_of(pid: int) -> int:
    """The session that a process belongs to; 0 when it is gone or is dead already."""
    try:
        # The name before it is in parentheses, and may contain any of them.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[3])
