"""Classes whose methods run in containers."""

from __future__ import annotations

from ._objects.cls import Cls

__all__ = ["Cls"]
