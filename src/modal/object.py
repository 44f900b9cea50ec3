"""What all objects have in common."""

from __future__ import annotations

from ._objects.object import Object

__all__ = ["Object"]
