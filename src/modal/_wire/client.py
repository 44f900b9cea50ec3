"""The client: calls over a connection that is made again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import random
import weakref
from collections.abc import AsyncIterator, Awaitable
from ssl import SSLCertVerificationError, SSLError
from typing import Any, Callable, Optional, TypeVar

from modal.exception import ClientClosed, ConnectionError, TimeoutError

from .carrier import StreamCarrier
from .codec import encode
from .frames import Buffer
from .link import ClientStream, Link, LinkLost
from .messages.common import Method
from .quick import QuickCalls

VERSION = "0.1.0"

_log = logging.getLogger("modal.rpc")

Request = TypeVar("Request")
Response = TypeVar("Response")

_HANDSHAKE_TIMEOUT = 10.0
_KEEP_ALIVE = 15.0
_FIRST_DELAY, _LONGEST_DELAY = 0.02, 1.0
_SENDS = 5  # a request that a server does not survive must not be sent for ever


class RpcClient:
    """Calls the server. Belongs to the event loop it was first used on.

    A lost connection is made again in the background. Unary calls under way are then sent again: those of mutating
    methods with their idempotency key, so that they act once. Streams under way raise ConnectionError, for their
    owner to resume.
    """

    def __init__(
        self,
        target: str,
        *,
        session: str,
        token: Optional[dict[str, Any]] = None,
        connect_timeout: float = 1.0,
        reconnect_timeout: float = 60.0,
        revive: Optional[Callable[[], Awaitable[bool]]] = None,
    ) -> None:
        """Args:
        target: ``unix:///path`` or ``http(s)://host:port``.
        session: id of this client, ``se-…``; kept over reconnects.
        token: ``{"id": …, "secret": …}``, or None.
        connect_timeout: seconds that `open` tries again for when nobody answers; 0: once.
        reconnect_timeout: seconds that a lost connection is tried to be made again, before calls raise ConnectionError.
        revive: starts a server that has died and says whether it did; asked while a lost connection cannot be made.
        """
        self.target = target
        self.session = session
        self._token = token
        self._connect_timeout = connect_timeout
        self._reconnect_timeout = reconnect_timeout
        self._revive = revive
        self._was_connected = False
        self._link: Optional[Link] = None
        self._connecting: Optional[asyncio.Task[Link]] = None
        self._closed = False
        _clients.add(self)
        self._key_prefix = os.urandom(6).hex()  # several clients may share a session
        self._keys = itertools.count(1)
        #: For blocking callers; None when the server is not on this machine.
        self.quick: Optional[QuickCalls] = None
        if target.startswith("unix://"):
            self.quick = QuickCalls(target[len("unix://") :], (session, VERSION, token))

    async def open(self) -> None:
        """Connect.

        Raises:
            ConnectionError: the server cannot be reached.
            VersionError: client and server do not speak one protocol version.
            AuthError: the server does not accept the token.
        """
        await self._connected(self._connect_timeout)

    async def close(self) -> None:
        """Say goodbye and disconnect; calls under way raise ClientClosed. Idempotent."""
        self._closed = True
        if self.quick is not None:
            self.quick.close()
        if self._connecting is not None:
            self._connecting.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.fail_all(ClientClosed("The client was closed while the call was under way."))
            link.connection.bye()
            link.hang_up()
            await link.gone

    def leave_to_parent(self) -> None:
        """In a forked child: the connections and the session are the parent's; calls raise ClientClosed."""
        self._closed = True
        self._link = self._connecting = self.quick = None

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        body: Buffer = b"",
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
    ) -> tuple[Response, bytes]:
        """Call a unary method; return its response and the response's body.

        Args:
            method: the method.
            request: its request message.
            body: opaque bytes beside the request; must not be changed until the call returns.
            timeout: seconds; the server cancels the work too. None: none.
            key: idempotency key, unique in the session; by default a new one for a mutating method.

        Raises:
            TimeoutError: `timeout` passed.
            ConnectionError: the connection was lost and could not be made again in time.
            ClientClosed: the client is closed.
            RequestSizeError: request and body are over the frame limit.
            Error: any typed error of the server.
        """
        if key is None:
            key = self.new_key(method)
        if _log.isEnabledFor(logging.DEBUG):
            return await self._unary_logged(method, request, body, timeout, key)
        return await self._unary(method, request, body, timeout, key)

    async def _unary(
        self, method: Method[Request, Response], request: Request, body: Buffer, timeout: Optional[float], key: str
    ) -> tuple[Response, bytes]:
        message = encode(request)
        if timeout is not None:
            return await self._unary_in_time(method, message, body, timeout, key)
        lost: Optional[Exception] = None
        for _ in range(_SENDS):
            link = self._link
            if link is None:
                link = await self._connected(self._reconnect_timeout)
            id, future = link.call(method, message, body, None, key)
            try:
                return await future
            except LinkLost as error:
                lost = error
            except asyncio.CancelledError:
                link.forget(id)
                raise
        raise self._gave_up(method, lost)

    async def _unary_logged(
        self, method: Method[Request, Response], request: Request, body: Buffer, timeout: Optional[float], key: str
    ) -> tuple[Response, bytes]:
        """Say how long it took and what came of it; never what was said, which may be secret."""
        began = asyncio.get_running_loop().time()
        outcome = "cancelled"
        try:
            response, answer = await self._unary(method, request, body, timeout, key)
            outcome = f"{len(answer)} bytes"
            return response, answer
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
            raise
        finally:
            took = 1000 * (asyncio.get_running_loop().time() - began)
            _log.debug("%s (%d bytes) took %.1f ms: %s", method.name, len(body), took, outcome)

    async def _unary_in_time(
        self, method: Method[Request, Response], message: Any, body: Buffer, timeout: float, key: str
    ) -> tuple[Response, bytes]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        lost: Optional[Exception] = None
        for _ in range(_SENDS):
            link = self._link
            if link is None:
                try:
                    link = await asyncio.wait_for(self._connected(self._reconnect_timeout), deadline - loop.time())
                except asyncio.TimeoutError:
                    raise _too_slow(method, timeout) from None
            seconds = max(0.0, deadline - loop.time())
            id, future = link.call(method, message, body, seconds, key)
            timer = loop.call_later(seconds, _expire, future, method, timeout)
            try:
                return await future
            except LinkLost as error:
                lost = error
            except (asyncio.CancelledError, TimeoutError):
                link.forget(id)
                raise
            finally:
                timer.cancel()
        raise self._gave_up(method, lost)

    def new_key(self, method: Method[Any, Any]) -> str:
        """An idempotency key for one call; "" for a method that does not need one. Any thread may ask."""
        return f"{self._key_prefix}-{next(self._keys)}" if method.mutating else ""

    def _gave_up(self, method: Method[Any, Any], lost: Optional[Exception]) -> ConnectionError:
        return ConnectionError(
            f"The connection to the server at {self.target} broke {_SENDS} times during {method.name}: {lost}."
        )

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: Method[Request, Response],
        request: Request,
        body: Buffer = b"",
        *,
        timeout: Optional[float] = None,
        key: Optional[str] = None,
    ) -> AsyncIterator[ClientStream[Any, Response]]:
        """Open a streaming call; leaving the context cancels it unless it has ended.

        Arguments and errors as in `unary`; a lost connection raises ConnectionError from the stream's methods.
        """
        if key is None:
            key = self.new_key(method)
        link = self._link
        if link is None:
            link = await self._connected(self._reconnect_timeout)
        _log.debug("%s begins", method.name)
        id, stream = link.open_stream(method, encode(request), body, timeout, key)
        timer = None
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, stream.fail, _too_slow(method, timeout))
        try:
            yield stream
        finally:
            if timer is not None:
                timer.cancel()
            link.close_stream(id)
            _log.debug("%s ends", method.name)

    # Connecting

    async def _connected(self, patience: float) -> Link:
        """Return the live link, making it if there is none; concurrent callers share one attempt."""
        if self._closed:
            raise ClientClosed("The client is closed; open a new one.")
        if self._link is not None:
            return self._link
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(patience))
            self._connecting.add_done_callback(self._attempt_ended)
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._closed:
                raise ClientClosed("The client was closed while it was connecting.") from None
            raise

    def _attempt_ended(self, attempt: asyncio.Task[Link]) -> None:
        self._connecting = None
        if not attempt.cancelled():
            attempt.exception()  # who waits gets it; after a reconnect in the background nobody does

    async def _connect(self, patience: float) -> Link:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        delay = _FIRST_DELAY
        while True:
            try:
                began = loop.time()
                self._link = await self._dial()
                self._was_connected = True
                _log.debug(
                    "connected to %s in %.1f ms, server version %s",
                    self.target,
                    1000 * (loop.time() - began),
                    self._link.server_version,
                )
                return self._link
            except (OSError, asyncio.TimeoutError, LinkLost) as error:
                _log.debug("cannot connect to %s: %s", self.target, _reason(error))
                # A certificate will be no better in a second; but a server that was there may be about to return.
                if (isinstance(error, SSLError) and not self._was_connected) or loop.time() + delay > give_up:
                    raise ConnectionError(
                        f"Cannot connect to the server at {self.target}: {_reason(error)}. {_advice(error)}"
                    ) from None
            if self._was_connected and self._revive is not None and await self._revive():
                continue
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, _LONGEST_DELAY)

    async def _dial(self) -> Link:
        link = Link((self.session, VERSION, self._token), self._lost)
        try:
            if self.target.startswith("unix://"):
                path = self.target[len("unix://") :]
                await asyncio.get_running_loop().create_unix_connection(lambda: StreamCarrier(link), path)
            else:
                from .websocket import connect_websocket

                await asyncio.wait_for(connect_websocket(link, self.target), _HANDSHAKE_TIMEOUT)
                link.keep_alive(_KEEP_ALIVE)
            await asyncio.wait_for(asyncio.shield(link.welcomed), _HANDSHAKE_TIMEOUT)
        except BaseException:
            if self._closed:
                link.connection.bye()  # the server may have begun the session
            link.hang_up()
            link.welcomed.cancel()
            raise
        if link.gone.done():
            raise LinkLost("the server closed the connection")
        return link

    def _lost(self, link: Link) -> None:
        """Connect again at once, so that the server sees the session live on."""
        if self._link is link:
            self._link = None
            if not self._closed:
                _log.info("lost the connection to %s; connecting again", self.target)
            if not self._closed and self._connecting is None:
                self._connecting = asyncio.get_running_loop().create_task(self._connect(self._reconnect_timeout))
                self._connecting.add_done_callback(self._attempt_ended)


_clients: weakref.WeakSet[RpcClient] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for client in list(_clients):
        client.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _too_slow(method: Method[Any, Any], timeout: float) -> TimeoutError:
    return TimeoutError(f"{method.name} took longer than its timeout of {timeout:g} s.")


def _expire(future: asyncio.Future[Any], method: Method[Any, Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(_too_slow(method, timeout))


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "it does not answer"
    if isinstance(error, SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, SSLError):
        return f"what answers there does not speak TLS as it should ({error.reason or error})"
    if isinstance(error, OSError):
        if error.errno is not None and error.errno > 0:  # asyncio puts texts of its own beside the number
            return os.strerror(error.errno).lower()
        if "Connect call failed" in str(error):  # several addresses, each with its own reason
            return "connection refused" if f"[Errno {errno.ECONNREFUSED}]" in str(error) else "no address answers"
        return (error.strerror or str(error)).lower()
    return str(error)


def _advice(error: BaseException) -> str:
    if isinstance(error, SSLCertVerificationError):
        return (
            "If the server's certificate comes from a CA of your own, set SSL_CERT_FILE to a file with the "
            "certificate of that CA; the address must be one that the certificate names."
        )
    if isinstance(error, SSLError):
        return "A server without TLS has an address that begins with http://."
    return "Check that it is running and that the address is right."
