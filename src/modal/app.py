"""Apps, and the functions and entrypoints registered with them."""

from __future__ import annotations

from ._objects.app import App
from ._objects.local_entrypoint import LocalEntrypoint

__all__ = ["App", "LocalEntrypoint"]
