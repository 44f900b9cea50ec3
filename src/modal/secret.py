"""Environment variables that must not be seen."""

from __future__ import annotations

from ._objects.secret import Secret

__all__ = ["Secret"]
