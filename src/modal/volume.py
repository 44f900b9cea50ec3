"""File systems that functions share."""

from __future__ import annotations

from ._objects.volume import Volume

__all__ = ["Volume"]
