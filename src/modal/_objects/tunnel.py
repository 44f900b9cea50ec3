"""`modal.forward` and `modal.Tunnel`. Opening one comes with networking."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from .._later import not_built_yet


@dataclass(frozen=True)
class Tunnel:
    """A port of a container as others reach it."""

    host: str
    port: int
    unencrypted_host: str
    unencrypted_port: int

    @property
    def url(self) -> str:
        """The HTTPS URL."""
        return f"https://{self.host}" if self.port == 443 else f"https://{self.host}:{self.port}"

    @property
    def tls_socket(self) -> tuple[str, int]:
        """Host and port that speak TLS."""
        return (self.host, self.port)

    @property
    def tcp_socket(self) -> tuple[str, int]:
        """Host and port without encryption.

        Raises:
            InvalidError: if the tunnel was opened without `unencrypted=True`.
        """
        from ..exception import InvalidError

        if not self.unencrypted_host:
            raise InvalidError(
                "This tunnel has no unencrypted port; open it with modal.forward(port, unencrypted=True)."
            )
        return (self.unencrypted_host, self.unencrypted_port)


def forward(port: int, *, unencrypted: bool = False, client: Any = None) -> AbstractContextManager[Tunnel]:
    """Let others reach a port of this container while the context lasts."""
    not_built_yet("modal.forward")
