"""Fixed outbound addresses."""

from __future__ import annotations

from ._objects.proxy import Proxy

__all__ = ["Proxy"]
