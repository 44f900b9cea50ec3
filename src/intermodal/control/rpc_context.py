"""Who calls, and what a handler knows of its call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from modal._wire.messages.token import Role


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. Equal when it is the same user, token or container."""

    kind: Literal["local", "container", "token"]
    container_id: str = ""
    app_id: str = ""  #: of the container
    environment_id: str = ""  #: of a container's app
    token_id: str = ""
    name: str = field(default="", compare=False)  #: of the token
    role: Role = field(default=Role.MEMBER, compare=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for equal principals, as plain values."""
        return self.kind, self.container_id, self.app_id, self.environment_id, self.token_id

    @property
    def who(self) -> str:
        """For people: who did something."""
        if self.kind == "container":
            return f"container {self.container_id}"
        return self.name or self.token_id or "local user"


#: A user of the server's machine, who came through the Unix socket.
LOCAL = Principal("local", role=Role.ADMIN)


class Context(NamedTuple):
    """What a handler knows of its call besides the request."""

    session_id: str
    principal: Principal
    deadline: float | None  #: in the event loop's time; the call is cancelled then
    key: str  #: idempotency key, unique in the session; "" for a method that is not mutating
    reply_key: tuple[Any, ...] | None  #: what the reply of a mutating call is kept under, of plain values


#: Takes the token of the handshake and returns who it belongs to, or raises AuthError.
Authenticate = Callable[[dict[str, Any] | None], Principal]
