"""Tokens: what a client shows to a server over the network, and who it is then."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional

from .common import Empty, Method


class Role(enum.Enum):
    """What a caller may do, from most to least."""

    ADMIN = "admin"  #: everything, and give access to others
    MEMBER = "member"  #: everything but give access to others
    READ_ONLY = "read-only"  #: look, and change nothing


@dataclass(frozen=True)
class TokenCreate:
    name: str
    role: Role = Role.MEMBER
    lifetime: Optional[float] = None  #: seconds until it expires; None: never
    source: str = ""  #: what asked for it, for people who look at the list


@dataclass(frozen=True)
class TokenInfo:
    """All that a server keeps of a token, but its secret's hash. Times are seconds since the epoch."""

    token_id: str
    name: str
    role: Role
    created_at: float
    created_by: str  #: who made it
    source: str
    expires_at: Optional[float]
    revoked_at: Optional[float]
    last_used_at: Optional[float]  #: when it last opened a connection, to a minute


@dataclass(frozen=True)
class TokenCreated:
    """The only message that carries a secret to a client; the server keeps a hash of it."""

    token_id: str
    token_secret: str


@dataclass(frozen=True)
class TokenRef:
    token_id: str


@dataclass(frozen=True)
class TokenList:
    tokens: list[TokenInfo] = field(default_factory=list)  #: oldest first


@dataclass(frozen=True)
class Identity:
    """Who the server takes the caller for."""

    kind: str  #: "local" (a user of the server's machine), "token" or "container"
    name: str  #: of the token, or the id of the container
    role: Role


TOKEN_CREATE = Method("token.create", TokenCreate, TokenCreated, mutating=True)
TOKEN_LIST = Method("token.list", Empty, TokenList)
TOKEN_REVOKE = Method("token.revoke", TokenRef, TokenInfo, mutating=True)
TOKEN_IDENTITY = Method("token.identity", Empty, Identity)
