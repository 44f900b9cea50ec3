"""One execution of a unary handler, which one or more calls wait for.

Usually one call; when a client sends a mutating call again after a reconnect, the repeat joins the execution that the
first one began.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from intermodal.control.rpc_outcome import Outcome, outcome_of_future
from modal._wire.messages.common import ErrorInfo, Method

if TYPE_CHECKING:
    from intermodal.control.rpc import Dispatcher
    from intermodal.control.rpc_peer import Peer


class Run:
    """Exists while the handler's awaitable is not done."""

    __slots__ = ("_dispatcher", "_future", "_key", "_timer", "_waiters", "method")

    def __init__(
        self,
        dispatcher: Dispatcher,
        method: Method[Any, Any],
        future: asyncio.Future[Any],
        key: tuple[object, ...] | None,
        seconds: float | None,
    ) -> None:
        """Args: key: of a mutating call, under which its outcome is kept."""
        self.method = method
        self._dispatcher = dispatcher
        self._future = future
        self._key = key
        self._waiters: list[tuple[Peer, int]] = []
        self._timer = None if seconds is None else future.get_loop().call_later(seconds, self._expire, seconds)
        if key is not None:
            dispatcher.running[key] = self
        dispatcher.tasks.add(future)
        future.add_done_callback(self._done)

    def join(self, peer: Peer, id: int) -> None:
        """Let call `id` wait for the outcome."""
        self._waiters.append((peer, id))

    def leave(self, peer: Peer, id: int, *, cancelled: bool) -> None:
        """Call `id` does not wait any more: it was cancelled, or its connection broke.

        The last one to cancel takes the execution along; a broken connection only one that does not change anything.
        """
        self._waiters.remove((peer, id))
        # One that has an outcome keeps it, for who asks again.
        if not self._waiters and not self._future.done() and (cancelled or not self.method.mutating):
            self._forget()
            self._future.cancel()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._key is not None and self._dispatcher.running.get(self._key) is self:
            del self._dispatcher.running[self._key]

    def _expire(self, seconds: float) -> None:
        self._conclude(too_slow(self.method, seconds))
        self._future.cancel()

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._dispatcher.tasks.discard(future)
        if future.cancelled():
            outcome = Outcome(error=ErrorInfo("InternalFailure", f"{self.method.name} was cancelled by the server."))
        else:
            outcome = outcome_of_future(self.method, future)
        self._conclude(outcome, keep=not future.cancelled())

    def _conclude(self, outcome: Outcome, *, keep: bool = True) -> None:
        """Answer everyone; nothing happens the second time, when an expired execution is done."""
        if keep and self._key is not None and self._dispatcher.running.get(self._key) is self:
            self._dispatcher.replies.put(self._key, outcome, self._future.get_loop().time())
        self._forget()
        waiters, self._waiters = self._waiters, []
        for peer, id in waiters:
            peer.answer(id, outcome)


def too_slow(method: Method[Any, Any], seconds: float) -> Outcome:
    """The outcome of a call whose deadline passed."""
    return Outcome(
        error=ErrorInfo("TimeoutError", f"{method.name} took longer than its timeout of {round(seconds, 3):g} s.")
    )
