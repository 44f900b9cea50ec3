"""Who calls, and what a handler knows of its call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    kind: Literal["local", "container", "token"]
    container_id: str = ""
    app_id: str = ""
    environment_id: str = ""  #: of a container's app


LOCAL = Principal("local")


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler knows of its call besides the request."""

    session_id: str
    principal: Principal
    deadline: float | None  #: in the event loop's time; the call is cancelled then
    key: str  #: idempotency key, unique in the session; "" for a method that is not mutating


#: Takes the token of the handshake and returns who it belongs to, or raises AuthError.
Authenticate = Callable[[dict[str, Any] | None], Principal]
