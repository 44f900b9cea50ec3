"""`modal.Client`: a connection to a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional

from .. import _event_loop
from .._runtime_context import container_context, container_socket
from .._sync import at_exit, blocking_method
from ..exception import AuthError, InvalidError

if TYPE_CHECKING:
    import asyncio

    from .._wire.client import RpcClient
    from .._wire.messages.server import ServerInfo

_SESSION_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Client:
    """A connection to a server, made when it is first needed.

    The SDK makes one by itself from the configuration; make one with `from_credentials` to act for someone else.
    """

    def __init__(self, target: Optional[str] = None, token: Optional[dict[str, Any]] = None) -> None:
        """Args:
        target: ``unix:///path`` or ``http(s)://host:port``; None: as configured, or else the local server.
        token: ``{"id": …, "secret": …}``; None: none.
        """
        self._target = target
        self._token = token
        self._connection: Optional[RpcClient] = None
        self._opening: Optional[asyncio.Task[RpcClient]] = None
        self._generation = _event_loop.generation
        self._closed = False

    @classmethod
    def from_credentials(cls, token_id: str, token_secret: str) -> Client:
        """Make a client that acts for the owner of a token, whatever this process is otherwise.

        Raises:
            InvalidError: a part of the token is empty or no string.
        """
        for name, value in (("token_id", token_id), ("token_secret", token_secret)):
            if not isinstance(value, str) or not value:
                raise InvalidError(f"Client.from_credentials: {name} must be a string that is not empty.")
        return cls(token={"id": token_id, "secret": token_secret})

    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed

    @blocking_method
    async def hello(self) -> None:
        """Connect to the server and ask for its version.

        Raises:
            ConnectionError: the server cannot be reached.
            VersionError: client and server do not speak one protocol version.
            AuthError: the server does not accept the token.
        """
        await self._info()

    async def _info(self) -> ServerInfo:
        from .._wire.messages.common import Empty
        from .._wire.messages.server import SERVER_INFO

        info, _ = await (await self._rpc()).unary(SERVER_INFO, Empty())
        return info

    async def _rpc(self) -> RpcClient:
        """The open connection; on the bridge's loop only."""
        if self._generation != _event_loop.generation:
            # Forked: the parent has the connection; this process needs one of its own.
            self._generation, self._connection, self._opening = _event_loop.generation, None, None
        if self._connection is not None:
            return self._connection
        import asyncio

        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        try:
            return await asyncio.shield(self._opening)
        finally:
            if self._opening is not None and self._opening.done():
                self._opening = None  # a failed attempt may be made again

    async def _open(self) -> RpcClient:
        from .._logging import apply_level, logger
        from .._wire.client import RpcClient
        from ..config import config

        apply_level()
        target = self._target or _configured_target()
        revive = None
        if target is None:
            from .._local_server import ensure_local_server, revive_local_server

            target, revive = await ensure_local_server(), revive_local_server
        if self._token is not None:
            logger.debug("showing the token %s to %s", self._token["id"], target)
        patience = config.get("reconnect_timeout")
        rpc = RpcClient(target, session=_new_session(), token=self._token, reconnect_timeout=patience, revive=revive)
        try:
            await rpc.open()
        except BaseException:
            await rpc.close()
            raise
        self._connection = rpc
        return rpc

    async def _close(self) -> None:
        self._closed = True
        if self._connection is not None and self._generation == _event_loop.generation:
            await self._connection.close()


def _new_session() -> str:
    return "se-" + "".join(_SESSION_ALPHABET[byte % 62] for byte in os.urandom(22))


def _configured_target() -> Optional[str]:
    """Where to connect; None: to the local server."""
    return f"unix://{container_socket()}" if _uses_container() else _configured_url()


def _uses_container() -> bool:
    """Whether calls are those of a container: of itself, or of a child of it that is told of no other server."""
    return container_context() is not None or (container_socket() is not None and not _configured_url())


def _configured_url() -> Optional[str]:
    from ..config import config

    return config.get("server_url") or None


def current_environment(name: Optional[str] = None) -> str:
    """The environment that is meant: `name`, else the configured one; "" is that of the app that this code is of."""
    if name or _uses_container():
        return name or ""
    from ..config import config

    return str(config.get("environment"))


_default: Optional[Client] = None
_default_pid = 0


def default_client() -> Client:
    """The client of this process: to the configured server, or in a container to its agent."""
    global _default, _default_pid
    if _default is None or _default.is_closed() or _default_pid != os.getpid():
        _default, _default_pid = Client(token=_configured_token()), os.getpid()
    return _default


def _configured_token() -> Optional[dict[str, Any]]:
    """The token for a server over the network. Sockets need none, and must not fail for one that is for elsewhere."""
    if not (_configured_target() or "").startswith("http"):
        return None
    from ..config import config

    token_id, secret = config.get("token_id"), config.get("token_secret")
    if bool(token_id) != bool(secret):
        given, missing = ("token_id", "token_secret") if token_id else ("token_secret", "token_id")
        raise AuthError(
            f"{given} is set but {missing} is not. Set MODAL_{missing.upper()}, or store both with `modal token set`."
        )
    return {"id": token_id, "secret": secret} if token_id else None


async def _close_default() -> None:
    if _default is not None and _default_pid == os.getpid():
        await _default._close()


at_exit(_close_default)
