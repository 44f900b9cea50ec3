"""Whole lines from pieces of output that several containers print at once. Pure: `now` is a parameter.

A line is passed on when it is complete, so lines of two containers never mix. A piece without a line end (a prompt,
a progress bar) is held for `HOLD` seconds in the hope of its rest, then passed on as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

HOLD = 0.25  #: seconds an unfinished line is held


@dataclass
class _Tail:
    text: str
    since: float


class LineAssembler:
    """Assembles the pieces of one output stream."""

    def __init__(self) -> None:
        self._tails: dict[str, _Tail] = {}
        self._open: Optional[str] = None  # the source whose unfinished line is on the screen

    def feed(self, source: str, text: str, now: float) -> str:
        """Take a piece printed by `source`; return what can be shown now."""
        tail = self._tails.pop(source, None)
        if tail is not None:
            text = tail.text + text
        end = text.rfind("\n") + 1
        if end < len(text):
            self._tails[source] = _Tail(text[end:], now)
        return self._show(source, text[:end])

    def due(self, now: float) -> str:
        """Return the unfinished lines that were held long enough."""
        ripe = [source for source, tail in self._tails.items() if now - tail.since >= HOLD]
        return "".join(self._show(source, self._tails.pop(source).text) for source in ripe)

    def flush(self) -> str:
        """Return everything held."""
        return self.due(float("inf"))

    @property
    def holding(self) -> bool:
        return bool(self._tails)

    def _show(self, source: str, text: str) -> str:
        if not text:
            return ""
        # Another container's unfinished line is on the screen: end it rather than write into it.
        before = "\n" if self._open not in (None, source) else ""
        self._open = None if text.endswith("\n") else source
        return before + text
