"""One generator call on the loop: what it yields is read ahead a little and taken in bunches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Callable, Optional

from .._serialization import deserialize
from .._sync import on_loop
from .._wire.messages.call import CALL_GENERATE, CallGenerate, Output, Status
from ..exception import RemoteError
from .payload import as_input, failure_of, fetch

_AHEAD = 64  #: values that may wait to be taken

Bind = Callable[[], Awaitable[tuple[Any, str]]]
Value = tuple[Optional[Output], bytes]


class GeneratorSession:
    """Lives on the bridge's loop.

    Args:
        bind: gives the connection and the function's id.
        payload: the pickled arguments; None follows the call `call_id`.
    """

    def __init__(self, bind: Bind, payload: Optional[bytes], parent_input_id: str, call_id: str) -> None:
        self._bind = bind
        self._payload = payload
        self._parent = parent_input_id
        self._call_id = call_id
        self._values: list[Value] = []
        self._error: Optional[BaseException] = None
        self._ended = False
        self._news = asyncio.Event()
        self._space = asyncio.Event()
        self._task: Optional[asyncio.Task[None]] = None

    @classmethod
    async def open(
        cls, bind: Bind, payload: Optional[bytes], parent_input_id: str = "", call_id: str = ""
    ) -> GeneratorSession:
        """Begin the call."""
        session = cls(bind, payload, parent_input_id, call_id)
        session._task = asyncio.ensure_future(session._main())
        return session

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

    async def _main(self) -> None:
        try:
            rpc, function_id = await self._bind()
            body = b""
            if self._payload is None:
                request = CallGenerate(call_id=self._call_id)
            else:
                record, body = await as_input(rpc, 0, self._payload)
                request = CallGenerate(function_id, record, self._parent)
            async with rpc.stream(CALL_GENERATE, request, body) as stream:
                async for item, data in stream:
                    blob = item.output.blob if item.output is not None else item.blob
                    self._values.append((item.output, await fetch(rpc, blob, data)))
                    self._news.set()
                    if item.output is not None:
                        return
                    while len(self._values) >= _AHEAD:
                        self._space.clear()
                        await self._space.wait()
            raise RemoteError("The generator ended without saying how; see the server's log.")
        except BaseException as error:  # raised to whoever takes values
            self._error = error
            self._news.set()
            if isinstance(error, asyncio.CancelledError):
                raise


async def generator_values(
    bind: Bind, payload: Optional[bytes], parent_input_id: str = "", call_id: str = ""
) -> AsyncGenerator[Any, None]:
    """What a generator call yields, unpickled; runs in the caller. Arguments as of `GeneratorSession`."""
    session = await on_loop(GeneratorSession.open(bind, payload, parent_input_id, call_id))
    try:
        while True:
            for output, data in await on_loop(session.take()):
                if output is None:
                    yield deserialize(data)
                    continue
                if output.status is not Status.SUCCESS:
                    raise failure_of(output, data)
                return
    finally:
        await on_loop(session.close())
