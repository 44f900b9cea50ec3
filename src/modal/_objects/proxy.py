"""`modal.Proxy`. Declared; it comes with networking."""

from __future__ import annotations

from typing import Optional

from .._later import not_built_yet
from .object import Object


class Proxy(Object):
    """A fixed outbound address for containers."""

    @staticmethod
    def from_name(name: str, environment_name: Optional[str] = None) -> Proxy:
        """A proxy by its name."""
        not_built_yet("modal.Proxy.from_name")
