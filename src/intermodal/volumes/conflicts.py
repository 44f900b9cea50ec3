"""What one change of a volume from outside must not do to another that was committed while it was being made."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from intermodal.overlay.layers import Layers
from intermodal.volumes.entries import Entry
from modal.exception import InvalidError


class Exists(Exception):
    """A file that must not be replaced is there; the text is its path."""


def require_room(entries: Sequence[Entry], now: Layers, *, only_new: bool) -> None:
    """Refuse a layer that would hide what is there.

    Args:
        entries: of the layer.
        now: what it is to lie upon, which may have other files than what it was made upon.
        only_new: no file may be replaced.

    Raises:
        Exists: a file would be.
        InvalidError: a file would take the place of a directory, or the reverse.
        OSError: the disk failed.
    """
    for entry in entries:
        there = None if entry.kind == "whiteout" else now.find(entry.path)
        if there is None:
            continue
        was_directory, is_directory = stat.S_ISDIR(there.lstat().st_mode), entry.kind == "directory"
        if was_directory and not is_directory:
            raise InvalidError(f"{'/' + entry.path!r} is a directory and cannot be overwritten by a file.")
        if is_directory and not was_directory:
            raise InvalidError(f"{'/' + entry.path!r} is there and is no directory.")
        if only_new and not is_directory:
            raise Exists(entry.path)
