"""The server's side of one connection: events of the connection to handlers, outcomes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from intermodal.control.rpc_context import Authenticate, Context, Principal
from intermodal.control.rpc_outcome import Outcome, failure_of, outcome_of, outcome_of_future
from intermodal.control.rpc_run import Run, too_slow
from modal._wire.carrier import StreamCarrier
from modal._wire.codec import decode
from modal._wire.connection import Aborted, Cancelled, Connection, Event, Hello, Opened, Said
from modal._wire.endpoint import Carrier, Endpoint, MessageStream
from modal._wire.errors import WireError, to_error_info
from modal._wire.frames import Buffer
from modal._wire.messages.common import ErrorInfo, Method, Shape
from modal._wire.messages.token import Role
from modal.exception import ConnectionError

if TYPE_CHECKING:
    from intermodal.control.rpc import Dispatcher

HANDSHAKE_TIMEOUT = 10.0  #: seconds that a new connection has to say hello
_LOOKS = 4  # at a client during its timeout; a stall of the server itself costs one


class Peer(Endpoint):
    """One connected client."""

    waits_for_reader = True

    def __init__(self, dispatcher: Dispatcher, authenticate: Authenticate) -> None:
        super().__init__(Connection(client=False))
        self._dispatcher = dispatcher
        self._authenticate = authenticate
        self._principal: Principal | None = None
        self._identity: tuple[str, ...] = ()  # of the principal
        self._session = ""
        self._said_bye = False
        self._has_left = False
        self._runs: dict[int, Run] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # of streams
        self._handshake: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._was_heard = True  # since the last look of the heartbeat
        self._silent_looks = 0

    # Endpoint

    def attached(self, carrier: Carrier) -> None:
        super().attached(carrier)
        self._handshake = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._no_hello)

    def detached(self, reason: Exception | None) -> None:
        super().detached(reason)
        for timer in (self._handshake, self._heartbeat):
            if timer is not None:
                timer.cancel()
        self._leave()

    def _leave(self) -> None:
        """The client is gone, or said that it goes. Idempotent."""
        if not self._has_left:
            self._has_left = True
            self.cancel_all()
            self._dispatcher.left(self, self._principal, self._session, for_good=self._said_bye)

    def is_gone(self) -> bool:
        """Whether the client has closed the connection, though that may not have been noticed yet: it may be dead."""
        return isinstance(self.carrier, StreamCarrier) and self.carrier.is_hung_up()

    @property
    def token_id(self) -> str:
        """The token that it came with; "" for none."""
        return self._principal.token_id if self._principal is not None else ""

    def received(self, frame: Buffer) -> None:
        self._was_heard = True
        super().received(frame)

    def writable(self) -> None:
        self._was_heard = True
        super().writable()

    def refuse(self, error: ErrorInfo) -> None:
        """Tell the client why it is not served any more, and hang up."""
        self.connection.abort(error)
        self.hang_up()

    def cancel_all(self) -> None:
        """The caller is gone: end what need not go on."""
        runs, self._runs = self._runs, {}
        for id, run in runs.items():
            run.leave(self, id, cancelled=False)
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.fail(ConnectionError("The client is gone."))
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()

    def handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._opened(event)
        elif isinstance(event, Cancelled):
            self._cancelled(event.id)
        elif isinstance(event, Hello):
            self._greeted(event)
        elif isinstance(event, Said):
            if event.what == "bye":
                self._said_bye = True
                self.hang_up()
                self._leave()  # now, not when the socket is closed: what others send next is not for it
        elif isinstance(event, Aborted):
            self.hang_up()

    # Handshake

    def _greeted(self, event: Hello) -> None:
        if self._dispatcher.closing:
            self.hang_up()
            return
        try:
            self._principal = self._authenticate(event.token)
        except Exception as exc:
            self.refuse(failure_of(_HELLO, exc).error or to_error_info(exc))
            return
        if self._handshake is not None:
            self._handshake.cancel()
        self._identity, self._session = self._principal.identity, event.session
        self.connection.welcome(self._dispatcher.version)
        self._dispatcher.joined(self, self._principal, self._session)
        if self._principal.kind != "container":  # whether a container lives is known from its process
            self._look()

    def _no_hello(self) -> None:
        self.broken(WireError(f"No handshake arrived within {HANDSHAKE_TIMEOUT:g} s."))

    def _look(self) -> None:
        """Hang up on a client that is frozen or cut off without a word. If it lives, it connects again."""
        self._silent_looks = 0 if self._was_heard else self._silent_looks + 1
        if self._silent_looks >= _LOOKS:
            self.hang_up()
            return
        if not self._was_heard:
            self.connection.ping(0)
            self.poke()
        self._was_heard = False
        seconds = self._dispatcher.client_timeout / _LOOKS
        self._heartbeat = asyncio.get_running_loop().call_later(seconds, self._look)

    # Calls

    def _opened(self, event: Opened) -> None:
        found = self._dispatcher.handler(event.method)
        if found is None:
            self.connection.fail(event.id, _unknown(event.method))
            return
        method, handler = found
        assert self._principal is not None  # calls are only received after the handshake
        if method.mutating and self._principal.role is Role.READ_ONLY:
            self.connection.fail(event.id, _READ_ONLY)
            return
        try:
            request = decode(method.request, event.request)
        except WireError as error:
            self.connection.fail(event.id, to_error_info(error))
            return
        if method.shape is Shape.UNARY:
            self._open_unary(event, method, handler, request)
        else:
            self._open_stream(event, method, handler, request)

    def _context(self, event: Opened, reply_key: tuple[object, ...] | None = None) -> Context:
        deadline = None if event.seconds is None else asyncio.get_running_loop().time() + event.seconds
        assert self._principal is not None
        return Context(self._session, self._principal, deadline, event.key, reply_key)

    def _open_unary(self, event: Opened, method: Method[Any, Any], handler: Callable[..., Any], request: Any) -> None:
        id = event.id
        key = (self._identity, self._session, event.key, method.name) if event.key and method.mutating else None
        if key is not None and self._repeated(id, key):
            return
        try:
            result = handler(self._context(event, key), request, bytes(event.body))
        except (Exception, asyncio.CancelledError) as exc:  # a plain function may pass on that of a future it asked
            self._immediate(id, key, failure_of(method, exc))
            return
        future: asyncio.Future[Any]
        if type(result) is CoroutineType:
            future = asyncio.get_running_loop().create_task(result)
        elif asyncio.isfuture(result):
            future = result
        elif hasattr(result, "__await__"):
            future = asyncio.ensure_future(result)
        else:
            self._immediate(id, key, outcome_of(method, result))
            return
        if future.done() and not future.cancelled():
            self._immediate(id, key, outcome_of_future(method, future))
            return
        run = self._runs[id] = Run(self._dispatcher, method, future, key, event.seconds)
        run.join(self, id)

    def _repeated(self, id: int, key: tuple[object, ...]) -> bool:
        """Answer a call that was sent before, or let it wait with the first one."""
        run = self._dispatcher.running.get(key)
        if run is not None:
            self._runs[id] = run
            run.join(self, id)
            return True
        outcome = self._dispatcher.replies.get(key, asyncio.get_running_loop().time())
        if outcome is None:
            return False
        outcome.send(self.connection, id)
        return True

    def _immediate(self, id: int, key: tuple[object, ...] | None, outcome: Outcome) -> None:
        if key is not None:
            self._dispatcher.replies.put(key, outcome, asyncio.get_running_loop().time())
        outcome.send(self.connection, id)

    def answer(self, id: int, outcome: Outcome) -> None:
        """Complete a unary call of this connection."""
        del self._runs[id]
        outcome.send(self.connection, id)
        self.poke()

    def _cancelled(self, id: int) -> None:
        run = self._runs.pop(id, None)
        if run is not None:
            run.leave(self, id, cancelled=True)
            return
        self.streams.pop(id, None)
        task = self._tasks.pop(id, None)
        if task is not None:
            task.cancel()

    # Streams

    def _open_stream(self, event: Opened, method: Method[Any, Any], handler: Callable[..., Any], request: Any) -> None:
        id = event.id
        self.connection.accept(id, method.shape)
        stream: MessageStream[Any, Any] = MessageStream(self, id, method.item or method.request)
        self.streams[id] = stream
        arguments = (self._context(event), request, bytes(event.body), stream)
        task = asyncio.get_running_loop().create_task(self._run_stream(id, method, handler, arguments))
        self._tasks[id] = task
        self._dispatcher.tasks.add(task)
        task.add_done_callback(self._dispatcher.tasks.discard)
        if event.seconds is not None:
            timer = asyncio.get_running_loop().call_later(event.seconds, self._expired, id, method, event.seconds)
            task.add_done_callback(lambda _: timer.cancel())

    async def _run_stream(
        self, id: int, method: Method[Any, Any], handler: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        try:
            result = await handler(*arguments)
        except asyncio.CancelledError:
            # Cancelled by the caller or the deadline, it is answered already; by the server's end, this tells why.
            self.connection.fail(id, ErrorInfo("InternalFailure", f"{method.name} was cancelled by the server."))
            raise
        except Exception as exc:
            failure_of(method, exc).send(self.connection, id)
        else:
            if method.shape is Shape.CLIENT_STREAM:
                outcome_of(method, result).send(self.connection, id)
            else:
                self.connection.end(id)
        finally:
            self.streams.pop(id, None)
            self._tasks.pop(id, None)
            self.poke()

    def _expired(self, id: int, method: Method[Any, Any], seconds: float) -> None:
        too_slow(method, seconds).send(self.connection, id)
        self.poke()
        self._cancelled(id)


_READ_ONLY = ErrorInfo(
    "AuthError", "The token is read-only, and this would change something. Use a token with the role member."
)
_HELLO: Method[Any, Any] = Method("hello", type(None), type(None))


def _unknown(method: str) -> ErrorInfo:
    return ErrorInfo("VersionError", f"The server does not know {method[:60]!r}; upgrade Intermodal on the server.")
