"""What every message module shares: methods, stream shapes, and the small records that recur.

A message is a dataclass of JSON values (str, int, float, bool, None, lists, dicts with str keys, enums, nested
dataclasses). The opaque body (pickles, file bytes) travels beside it, never inside it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Generic, Optional, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


class Shape(enum.Enum):
    """How many messages flow in each direction of a call."""

    UNARY = "unary"
    CLIENT_STREAM = "client_stream"
    SERVER_STREAM = "server_stream"
    DUPLEX = "duplex"


@dataclass(frozen=True)
class Method(Generic[Request, Response]):
    """One remote procedure. `name` is ``noun.verb``.

    `request` opens the call. In a client stream or duplex, `item` is what the client sends next. `response` is the
    reply, or each item of a server stream or duplex.

    A `mutating` method changes something: callers that may only read are refused before its handler is asked. It
    carries an idempotency key; a unary one that is sent again with the same key (after a reconnect) returns the first
    result instead of acting twice.
    """

    name: str
    request: type[Request]
    response: type[Response]
    shape: Shape = Shape.UNARY
    mutating: bool = False
    item: Optional[type[Any]] = None


@dataclass(frozen=True)
class Empty:
    """A message without content."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a mount or a build context."""

    path: str  #: absolute POSIX path in the container (mount), or relative to the context root (build context)
    digest: str  #: lower-case hex SHA-256 of the content
    size: int  #: bytes
    mode: int = 0o644  #: permission bits


@dataclass(frozen=True)
class ErrorInfo:
    """A typed error as it travels: the class name in `modal.exception`, one sentence, and details for programs."""

    type: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)
