"""Containers that run any command."""

from __future__ import annotations

from ._objects.sandbox import Sandbox

__all__ = ["Sandbox"]
