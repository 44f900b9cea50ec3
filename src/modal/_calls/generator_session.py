"""One generator call on the loop: what it yields is read ahead a little and taken in bunches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._serialization import deserialize
from .._sync import on_loop
from .._wire.messages.call import CALL_CANCEL, CALL_GENERATE, CallCancel, CallGenerate, Input, Output, Status
from ..exception import ConnectionError, Error, InvalidError, NotFoundError, RemoteError
from .payload import as_input, failure_of, fetch

if TYPE_CHECKING:
    from .._wire.client import RpcClient

_AHEAD = 64  #: values that may wait to be taken
_TRIES = 5  #: lost connections in a row without any progress
_CANCEL_TIMEOUT = 5.0  #: seconds

Bind = Callable[[], Awaitable[tuple[Any, str]]]
Value = tuple[Optional[Output], bytes]


class GeneratorSession:
    """Lives on the bridge's loop, once it was made.

    Args:
        bind: gives the connection and the function's id.
        payload: the pickled arguments; None follows the call `call_id`.
        method: of a class.
    """

    def __init__(self, bind: Bind, payload: Optional[bytes], parent_input_id: str, call_id: str, method: str) -> None:
        self._bind = bind
        self._method = method
        self._payload = payload
        self._parent = parent_input_id
        self._call_id = call_id
        self._is_ours = payload is not None
        self._received = 0  #: values, of the run `run`
        self._run = ""
        self._rpc: Optional[RpcClient] = None
        self._values: list[Value] = []
        self._error: Optional[BaseException] = None
        self._ended = False
        self._news: asyncio.Event
        self._space: asyncio.Event
        self._task: Optional[asyncio.Task[None]] = None

    async def begin(self) -> None:
        """Begin the call. Whoever is interrupted in this is to `close` it."""
        self._news, self._space = asyncio.Event(), asyncio.Event()
        self._task = asyncio.ensure_future(self._main())

    async def take(self) -> list[Value]:
        """Values that arrived, as soon as there is one; the last has an output, which says how the generator ended.

        Raises:
            Error: of the server or the connection.
        """
        while not self._values:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        values, self._values = self._values, []
        self._space.set()
        return values

    async def close(self) -> None:
        """End the call; a generator that still runs is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._is_ours and self._call_id and not self._ended and self._rpc is not None:
            # The stream's end told the server already, unless the connection was lost just then.
            try:
                await self._rpc.unary(CALL_CANCEL, CallCancel(self._call_id), timeout=_CANCEL_TIMEOUT)
            except Error:
                return  # the app has stopped or the server is gone: nothing is left to cancel

    async def _main(self) -> None:
        try:
            rpc, function_id = await self._bind()
            self._rpc = rpc
            body = b""
            record: Optional[Input] = None
            if self._payload is not None:
                record, body = await as_input(rpc, 0, self._payload)
            key, tries, again = os.urandom(12).hex(), 0, False
            while not self._ended:
                before = self._received
                if self._call_id:
                    request = CallGenerate(call_id=self._call_id, received=self._received, run=self._run)
                else:
                    request = CallGenerate(function_id, record, self._parent, again=again, method=self._method)
                try:
                    await self._attempt(rpc, request, b"" if self._call_id else body, key)
                except NotFoundError:
                    # Killed before the call was on its disk: begin anew, unless that would repeat values.
                    if not (self._is_ours and again and self._call_id) or self._received:
                        raise
                    self._call_id = ""
                except ConnectionError:
                    tries = tries + 1 if self._received == before else 1
                    if tries >= _TRIES:
                        raise
                    again = True
                    await asyncio.sleep(0.05 * tries)
        except BaseException as error:  # raised to whoever takes values
            self._error = error
            self._news.set()
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _attempt(self, rpc: RpcClient, request: CallGenerate, body: bytes, key: str) -> None:
        """Follow the call over one connection."""
        async with rpc.stream(CALL_GENERATE, request, body, key=key) as stream:
            async for item, data in stream:
                if item.call_id:
                    self._call_id, self._run = item.call_id, item.run
                    continue
                blob = item.output.blob if item.output is not None else item.blob
                self._values.append((item.output, await fetch(rpc, blob, data)))
                self._news.set()
                if item.output is not None:
                    self._ended = True
                    return
                self._received += 1
                while len(self._values) >= _AHEAD:
                    self._space.clear()
                    await self._space.wait()
        raise RemoteError("The generator ended without saying how; see the server's log.")


async def generator_values(
    bind: Bind, payload: Optional[bytes], parent_input_id: str = "", call_id: str = "", method: str = ""
) -> AsyncGenerator[Any, None]:
    """What a generator call yields, unpickled; runs in the caller. Arguments as of `GeneratorSession`."""
    session = GeneratorSession(bind, payload, parent_input_id, call_id, method)
    try:
        await on_loop(session.begin())
        while True:
            for output, data in await on_loop(session.take()):
                if output is None:
                    yield deserialize(data)
                    continue
                if output.status is not Status.SUCCESS:
                    raise failure_of(output, data)
                if data or output.blob is not None:  # a result, which generators have none of
                    raise InvalidError(f"{call_id or 'This'} is no call of a generator: use get().")
                return
    finally:
        await on_loop(session.close())
