"""Patterns of paths: `*` within a name, `**` over any number of directories."""

from __future__ import annotations

import fnmatch
import posixpath
import re


class Glob:
    """A pattern of paths without a leading slash; `?` and `[…]` are those of a shell."""

    def __init__(self, pattern: str) -> None:
        names = pattern.split("/")
        #: What each name has to match; None for any number of directories.
        self._parts = [None if name == "**" else re.compile(fnmatch.translate(name)) for name in names]
        #: The directory that has everything that matches; "" for all.
        self.top = posixpath.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0])

    def matches(self, path: str) -> bool:
        positions = self._passed({0})
        for name in path.split("/"):
            after = set()
            for position in positions:
                if position == len(self._parts):
                    continue
                part = self._parts[position]
                if part is None:
                    after.add(position)
                elif part.fullmatch(name):
                    after.add(position + 1)
            positions = self._passed(after)
        return len(self._parts) in positions

    def _passed(self, positions: set[int]) -> set[int]:
        """With the positions that are reached when `**` stands for no directory."""
        found = set(positions)
        for position, part in enumerate(self._parts):
            if position in found and part is None:
                found.add(position + 1)
        return found
