"""Keeps lines of this process whole where Python writes every piece of a `print` at once.

Under `python -u` and PYTHONUNBUFFERED, `print("result", 3)` is four writes, and a line of a container that another
thread shows could slip in between them. While output is shown, such streams write whole lines, as on a terminal; an
unfinished line is written a moment later.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from typing import Optional, TextIO

from .line_assembler import HOLD


class JoinedWrites:
    """From `begin` to `end`, those of `streams` that write at once write whole lines."""

    def __init__(self, streams: Iterable[Optional[TextIO]]) -> None:
        self._streams = [one for one in streams if isinstance(one, io.TextIOWrapper) and one.write_through]
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def begin(self) -> None:
        for stream in self._streams:
            stream.reconfigure(line_buffering=True, write_through=False)
        if self._streams:
            self._thread = threading.Thread(target=self._flush_until_ended, name="modal-flush", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Idempotent."""
        if self._thread is None or self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        for stream in self._streams:
            try:
                stream.reconfigure(line_buffering=False, write_through=True)
            except (OSError, ValueError):  # its reader is gone, or user code closed it
                continue

    def _flush_until_ended(self) -> None:
        while not self._ended.wait(HOLD):
            for stream in self._streams:
                try:
                    stream.flush()
                except (OSError, ValueError):
                    continue
