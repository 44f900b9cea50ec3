"""The server itself: what it is, and the handshake."""

from __future__ import annotations

from dataclasses import dataclass, field

from .common import Empty, Method


@dataclass(frozen=True)
class ServerInfo:
    version: str
    pid: int
    url: str  #: base URL of the HTTP port, or "" when only the Unix socket is served
    socket: str
    data_dir: str
    containers: int  #: containers running now
    protocol: int
    warnings: list[str] = field(default_factory=list)


SERVER_INFO = Method("server.info", Empty, ServerInfo)
