"""File systems that functions share."""

from __future__ import annotations

from ._objects.file_entries import FileEntry, FileEntryType
from ._objects.volume import Volume

__all__ = ["FileEntry", "FileEntryType", "Volume"]
