"""Ending in order when another process asks for it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, Optional


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block like `sys.exit`, so that what it has begun is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: Optional[FrameType]) -> NoReturn:
    sys.exit(128 + number)
