"""The server's RPC: handlers by method, the sessions of clients, and the listener on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, Union

from intermodal.control.rpc_context import LOCAL, Authenticate, Context, Principal
from intermodal.control.rpc_peer import Peer
from intermodal.control.rpc_replies import ReplyMemory
from intermodal.control.rpc_run import Run
from modal._wire.carrier import StreamCarrier
from modal._wire.endpoint import MessageStream
from modal._wire.messages.common import ErrorInfo, Method

Request = TypeVar("Request")
Response = TypeVar("Response")

logger = logging.getLogger("intermodal.rpc")

SESSION_GRACE = 15.0  #: seconds that a session without a connection is waited for
CLIENT_TIMEOUT = 60.0  #: seconds of silence after which a client's connection is given up

#: The server's side of a stream: iterate over (item, body), `await send(message, body)`.
ServerStream = MessageStream


Reply = Union[Response, tuple[Response, bytes]]
UnaryHandler = Callable[[Context, Request, bytes], Union[Awaitable[Reply[Response]], Reply[Response]]]
StreamHandler = Callable[[Context, Request, bytes, "ServerStream[Any, Any]"], Awaitable[Any]]


class _Session:
    def __init__(self) -> None:
        self.peers: set[Peer] = set()
        self.ending: asyncio.TimerHandle | None = None


class Dispatcher:
    """Runs the handlers of calls that arrive on any number of connections. Belongs to one event loop."""

    def __init__(
        self,
        *,
        version: str = "0.1.0",
        session_grace: float = SESSION_GRACE,
        client_timeout: float = CLIENT_TIMEOUT,
        replies: ReplyMemory | None = None,
    ) -> None:
        """Args:
        version: sent to clients.
        session_grace: seconds after which a session whose last connection broke is closed; a client that says
            goodbye closes it at once.
        client_timeout: seconds of silence, in spite of pings, after which a client's connection counts as broken.
        replies: where results of mutating calls are kept.
        """
        self.version = version
        #: Called with the session's id and principal when its first connection is accepted.
        self.session_opened: list[Callable[[str, Principal], None]] = []
        #: Called once when a session is over.
        self.session_closed: list[Callable[[str, Principal], None]] = []
        self.replies = replies if replies is not None else ReplyMemory()
        self.running: dict[tuple[object, ...], Run] = {}  #: mutating unary calls by key
        self.tasks: set[asyncio.Future[Any]] = set()  #: everything handlers are running in
        self.closing = False  #: new connections are hung up, so that clients try again and reach the next server
        self._session_grace = session_grace
        self.client_timeout = client_timeout
        self._handlers: dict[str, tuple[Method[Any, Any], Callable[..., Any]]] = {}
        self._sessions: dict[tuple[Principal, str], _Session] = {}
        self._peers: set[Peer] = set()

    def register(
        self,
        method: Method[Request, Response],
        handler: UnaryHandler[Request, Response] | StreamHandler[Request],
    ) -> None:
        """Serve `method` with `handler`.

        A unary handler gets (context, request, body) and returns the response or (response, body), or an awaitable
        of either. A coroutine runs in a task of its own; a plain function that returns the response, or a future
        that is done, is answered without one. A stream handler is a coroutine function that gets the stream as
        fourth argument; that of a client stream returns like a unary handler, others return None.

        A handler is cancelled when its caller cancels or its deadline passes, and when the connection breaks unless
        the method is unary and mutating.

        Raises:
            ValueError: the method has a handler.
        """
        if method.name in self._handlers:
            raise ValueError(f"{method.name} has a handler already")
        self._handlers[method.name] = (method, handler)

    def handler(self, name: str) -> tuple[Method[Any, Any], Callable[..., Any]] | None:
        return self._handlers.get(name)

    def peer(self, authenticate: Authenticate) -> Peer:
        """Make the endpoint of a new connection whose caller is `authenticate(token)`; that may raise AuthError."""
        peer = Peer(self, authenticate)
        self._peers.add(peer)
        return peer

    def connection_protocol(self, authenticate: Authenticate) -> StreamCarrier:
        """Make the asyncio protocol for a new stream connection whose caller is `authenticate(token)`."""
        return StreamCarrier(self.peer(authenticate))

    def adopt(self, authenticate: Authenticate, transport: asyncio.Transport, first_frame: bytes) -> StreamCarrier:
        """Continue a connection whose first frame (without its length) someone else has read.

        The transport is given the returned protocol; bytes read beyond the frame go to its `data_received`.
        """
        protocol = self.connection_protocol(authenticate)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        protocol.frame_received(first_frame)
        return protocol

    def refuse_token(self, token_id: str, error: ErrorInfo) -> None:
        """End every connection of a token that is not accepted any more."""
        for peer in [peer for peer in self._peers if peer.token_id == token_id]:
            peer.refuse(error)

    def is_connected(self, ctx: Context) -> bool:
        """Whether the caller's session has a connection now, which the other side has not closed."""
        session = self._sessions.get((ctx.principal, ctx.session_id))
        return session is not None and not all(peer.is_gone() for peer in session.peers)

    async def close(self) -> None:
        """Hang up every connection, cancel every handler and wait until they are gone. Sessions are not closed."""
        for session in self._sessions.values():
            if session.ending is not None:
                session.ending.cancel()
        self._sessions.clear()
        self.closing = True
        for peer in list(self._peers):
            peer.hang_up()
            peer.cancel_all()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    # Called by peers

    def joined(self, peer: Peer, principal: Principal, session_id: str) -> None:
        session = self._sessions.get((principal, session_id))
        if session is None:
            session = self._sessions[(principal, session_id)] = _Session()
            for opened in self.session_opened:
                opened(session_id, principal)
        session.peers.add(peer)
        if session.ending is not None:
            session.ending.cancel()
            session.ending = None

    def left(self, peer: Peer, principal: Principal | None, session_id: str, *, for_good: bool) -> None:
        self._peers.discard(peer)
        session = self._sessions.get((principal, session_id)) if principal is not None else None
        if session is None or principal is None:
            return
        session.peers.discard(peer)
        if not session.peers and session.ending is None:
            grace = 0.0 if for_good else self._session_grace
            session.ending = asyncio.get_running_loop().call_later(grace, self._over, principal, session_id)

    def _over(self, principal: Principal, session_id: str) -> None:
        if self._sessions.pop((principal, session_id), None) is not None:
            for closed in self.session_closed:
                try:
                    closed(session_id, principal)
                except Exception:
                    logger.exception("what belongs to the session %s could not all be ended", session_id)


def _anyone_is_local(token: dict[str, Any] | None) -> Principal:
    return LOCAL


class _LocalCarrier(StreamCarrier):
    """Serves processes of this user and root, whoever got hold of the socket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        uid = _peer_uid(transport)
        if uid not in (os.geteuid(), 0):
            logger.warning("a process of user %d was refused at the local socket", uid)
            transport.abort()  # type: ignore[attr-defined]
            return
        super().connection_made(transport)


def _peer_uid(transport: asyncio.BaseTransport) -> int:
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as peer:
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


async def serve_unix(
    dispatcher: Dispatcher, path: str | os.PathLike[str], authenticate: Authenticate = _anyone_is_local
) -> asyncio.Server:
    """Listen on the Unix socket `path` for processes of this user and root; who they are is `authenticate(token)`.

    A socket that a dead server left is replaced.

    Raises:
        OSError: the directory does not exist or may not be written.
        FileExistsError: a server listens there, or `path` is no socket.
    """
    listener = listen_unix(path)
    try:
        return await asyncio.get_running_loop().create_unix_server(
            lambda: _LocalCarrier(dispatcher.peer(authenticate)), sock=listener, backlog=1024
        )
    except BaseException:
        listener.close()
        raise


def listen_unix(path: str | os.PathLike[str]) -> socket.socket:
    """Make a Unix socket that only this user may open, in place of one that a dead server left; raises as above."""
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode) or _is_served(path):
            raise FileExistsError(f"{path} is in use.")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        mask = os.umask(0o177)  # there must be no moment in which others may connect
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        return listener
    except BaseException:
        listener.close()
        raise


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


__all__ = [
    "LOCAL",
    "SESSION_GRACE",
    "Authenticate",
    "Context",
    "Dispatcher",
    "Principal",
    "ServerStream",
    "StreamHandler",
    "UnaryHandler",
    "listen_unix",
    "serve_unix",
]
