"""A program's terminal as it travels: input bytes one way, output bytes the other. The bytes are the body of each item.

One shape for everything that has a person or a program at its other end: a command in a container (`container.exec`)
and code in a container that asks its user (`interact.offer` and `interact.attach`, one the mirror of the other). Both
directions are held back by the stream's credit.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Optional

from .common import Method, Shape


@dataclass(frozen=True)
class WindowSize:
    """What a terminal shows, in characters."""

    rows: int
    columns: int


class OutputStream(enum.Enum):
    STDOUT = "stdout"  #: also everything that comes out of a terminal
    STDERR = "stderr"


@dataclass(frozen=True)
class TerminalInput:
    """To the program: bytes for it (the body), a new size of the window, or the end of its input."""

    window: Optional[WindowSize] = None
    eof: bool = False  #: no input follows; a terminal passes it on as the character that says so


@dataclass(frozen=True)
class TerminalOutput:
    """From the program: bytes that it wrote (the body), or how it ended, as the last item."""

    stream: OutputStream = OutputStream.STDOUT
    exit_code: Optional[int] = None  #: 128 and the signal's number when a signal ended it, as shells have it
    error: str = ""  #: one sentence for people: why it did not run, or what ended it


@dataclass(frozen=True)
class InteractOffer:
    """Code in a container asks for the terminal of whoever runs its app.

    The container is the caller: it sends `TerminalOutput`, and gets `TerminalInput`, of which the first, with the
    size of the window, says that the terminal is connected.
    """

    input_id: str = ""  #: the input that asks


@dataclass(frozen=True)
class InteractAttach:
    """Take an offer, which `AppEvent.terminal` named: connect this terminal to the container."""

    offer_id: str
    window: WindowSize


INTERACT_OFFER = Method(
    "interact.offer", InteractOffer, TerminalInput, Shape.DUPLEX, mutating=True, item=TerminalOutput
)
INTERACT_ATTACH = Method(
    "interact.attach", InteractAttach, TerminalOutput, Shape.DUPLEX, mutating=True, item=TerminalInput
)
