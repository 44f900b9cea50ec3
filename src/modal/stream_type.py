"""What becomes of an output stream of a process in a sandbox."""

from __future__ import annotations

import enum


class StreamType(enum.IntEnum):
    """As the constants of `subprocess`."""

    DEVNULL = -3  #: dropped
    STDOUT = -2  #: printed by this process
    PIPE = -1  #: read by this process
