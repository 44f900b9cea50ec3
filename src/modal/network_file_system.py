"""Directories that functions share while they run."""

from __future__ import annotations

from ._objects.network_file_system import NetworkFileSystem

__all__ = ["NetworkFileSystem"]
