"""Following what apps and containers say, over lost connections and restarts of the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Callable

from ._output import output
from ._wire.messages.app import AppEvent
from ._wire.messages.common import Method
from .exception import ConnectionError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ._wire.client import RpcClient

_RETRY = 0.5  #: seconds before a stream that broke is asked for again


class Follower:
    """Events of one stream, each log entry once.

    Args:
        method: the stream.
        request: makes the request for what comes after a log entry, given its number.
        after: the log entry after which to begin.
    """

    def __init__(
        self, rpc: RpcClient, method: Method[Any, AppEvent], request: Callable[[int], Any], after: int = 0
    ) -> None:
        self._rpc = rpc
        self._method = method
        self._request = request
        self._after = after
        self._said = False

    async def follow(self, handle: Callable[[AppEvent], Awaitable[None]]) -> None:
        """Await `handle` with each event until the server ends the stream. May be called again after an error.

        Raises:
            ConnectionError: the server could not be reached again.
            NotFoundError: what to follow is unknown. (If it was known before, it has ended: that is no error.)
        """
        is_known = self._after > 0
        while True:
            is_open = False
            try:
                async with self._rpc.stream(self._method, self._request(self._after)) as stream:
                    is_open = True
                    async for event, _ in stream:
                        is_known, self._said = True, False
                        if event.logs:
                            self._after = event.logs[-1].seq
                        await handle(event)
                return
            except ConnectionError:
                if not is_open:
                    raise
                if not self._said:
                    output().message("The connection to the server was lost; connecting again.")
                self._said = True
            except NotFoundError:
                if is_known:
                    return
                raise
            await asyncio.sleep(_RETRY)
