"""The connection to a server."""

from __future__ import annotations

from ._objects.client import Client

__all__ = ["Client"]
