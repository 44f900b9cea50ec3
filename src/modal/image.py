"""Container images."""

from __future__ import annotations

from ._objects.image import Image

__all__ = ["Image"]
