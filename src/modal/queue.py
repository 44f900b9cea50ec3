"""Queues that functions share."""

from __future__ import annotations

from ._objects.queue import Queue

__all__ = ["Queue"]
