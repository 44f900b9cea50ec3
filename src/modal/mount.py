"""Local files for containers (deprecated)."""

from __future__ import annotations

from ._objects.mount import Mount

__all__ = ["Mount"]
