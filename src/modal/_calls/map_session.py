"""One map on the loop: sends inputs, receives outputs, and takes up again where a lost connection left it.

Exactly once by index: an input is kept until its output is here, and sent again after a reconnect (the server ignores
those it has); an output that arrives twice is dropped. No input is sent before the server has named the call, so a
connection lost at the start cannot run anything twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._output import output
from .._wire.messages.call import (
    CALL_CANCEL,
    CALL_MAP,
    CallCancel,
    CallMap,
    Input,
    InputBatch,
    Output,
    OutputBatch,
    Status,
)
from ..exception import ConnectionError, Error, NotFoundError, RemoteError
from .feeder import Feeder
from .payload import as_input, fetch

if TYPE_CHECKING:
    from .._wire.client import RpcClient
    from .._wire.link import ClientStream

BATCH = 256  #: inputs in one frame
BATCH_BYTES = 4 * 1024 * 1024
SMALL_BATCH = 64  #: after a smaller one the sender waits `GATHER` for more
GATHER = 0.002  #: seconds
_RECEIVED_LIMIT = 50_000  #: indices named when resuming; those beyond are dropped when they come again
_CANCEL_TIMEOUT = 5.0
_TRIES = 5  #: lost connections in a row without any progress

Answer = tuple[Output, bytes]
Bind = Callable[[], Awaitable[tuple[Any, str]]]


class MapSession:
    """Lives on the bridge's loop. `bind` gives the connection and the function's id."""

    def __init__(self, bind: Bind, name: str, parent_input_id: str, feeder: Feeder, method: str) -> None:
        self._bind = bind
        self._name = name
        self._parent = parent_input_id
        self._feeder = feeder
        self._method = method  #: of a class
        self._rpc: Optional[RpcClient] = None
        self._function_id = ""
        self._call_id = ""
        self._pending: dict[int, tuple[Input, bytes, int]] = {}  #: sent or about to be: record, inline bytes, size
        self._received: set[int] = set()
        self._ready: list[Answer] = []
        self._error: Optional[BaseException] = None
        self._done = False
        self._loop: asyncio.AbstractEventLoop
        self._task: Optional[asyncio.Task[None]] = None
        self._items: asyncio.Event
        self._news: asyncio.Event
        self._all_sent = False
        self._restarted = False

    async def begin(self) -> None:
        """Connect and begin. The feeder's source is not touched before the connection stands.

        Whoever is interrupted in this is to `close` it.
        """
        self._rpc, self._function_id = await self._bind()
        self._loop = asyncio.get_running_loop()
        self._items, self._news = asyncio.Event(), asyncio.Event()
        self._task = asyncio.ensure_future(self._main())

    def items_gathered(self) -> None:
        """The feeder has items, or has ended. May be called from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._items.set)
        except RuntimeError:  # the process is ending
            return

    async def take(self) -> list[Answer]:
        """Outputs that arrived, in any order, as soon as there is one; [] when all have been taken.

        Raises:
            BaseException: what ended the map: an error of the source, of the server, or of the connection.
        """
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._done:
                return []
            self._news.clear()
            await self._news.wait()
        ready, self._ready = self._ready, []
        return ready

    async def payload(self, one: Output, body: bytes) -> bytes:
        """The payload of an output that `take` gave, downloaded when it is large."""
        return await fetch(self._connected(), one.blob, body)

    async def close(self) -> None:
        """End the map. If it is not complete, what has not run is cancelled."""
        self._feeder.stop()
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._call_id and not self._done:
            try:
                await self._connected().unary(CALL_CANCEL, CallCancel(self._call_id), timeout=_CANCEL_TIMEOUT)
            except Error:
                return  # the app has stopped or the server is gone: nothing is left to cancel

    # -- receiving

    def _connected(self) -> RpcClient:
        assert self._rpc is not None
        return self._rpc

    async def _main(self) -> None:
        try:
            tries = 0
            while not self._done:
                before = len(self._received)
                try:
                    await self._attempt()
                except (ConnectionError, NotFoundError) as error:
                    if isinstance(error, NotFoundError):
                        if not self._call_id or self._restarted:
                            raise
                        # The server was killed before the call was on its disk; begin anew with what has no output.
                        self._call_id, self._restarted = "", True
                        continue
                    tries = tries + 1 if len(self._received) == before else 1
                    if tries >= _TRIES:
                        raise
                    await asyncio.sleep(0.05 * tries)
        except BaseException as error:  # raised to whoever takes outputs
            self._fail(error)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _attempt(self) -> None:
        known = sorted(self._received)[-_RECEIVED_LIMIT:] if self._call_id else []
        request = CallMap(self._function_id, self._parent, self._call_id, known, self._method)
        sender: Optional[asyncio.Task[None]] = None
        async with self._connected().stream(CALL_MAP, request, key="") as stream:
            try:
                async for batch, body in stream:
                    if batch.call_id:
                        self._call_id = batch.call_id
                        sender = sender or asyncio.ensure_future(self._send(stream))
                    self._receive(batch, body)
                    if batch.done or self._error is not None:
                        self._done = batch.done
                        self._news.set()
                        return
            finally:
                if sender is not None:
                    sender.cancel()
                    await asyncio.gather(sender, return_exceptions=True)
        if self._error is None:
            raise RemoteError("The server ended the map before all of its outputs were there; see the server's log.")

    def _receive(self, batch: OutputBatch, body: bytes) -> None:
        at = count = size = output_size = 0
        for one in batch.outputs:
            payload = body[at : at + one.size]
            at += one.size
            if one.index in self._received:
                continue
            self._received.add(one.index)
            sent = self._pending.pop(one.index, None)
            size += sent[2] if sent is not None else 0
            output_size += one.size
            count += 1
            self._ready.append((one, payload))
        if count:
            self._feeder.finished(count, size, output_size)
            self._news.set()
            total = self._feeder.count if self._feeder.ended else None
            output().map_progress(self._name, len(self._received), total)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._news.set()

    # -- sending

    async def _send(self, stream: ClientStream[InputBatch, OutputBatch]) -> None:
        try:
            await self._send_again(stream)
            while not self._all_sent:
                await self._items.wait()
                self._items.clear()
                await self._send_gathered(stream)
            await stream.send(InputBatch(last=True))
            await stream.end()
        except ConnectionError:
            return  # the receiving side sees it as well, and resumes
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # from the source, from an upload, or from the call itself
            self._fail(error)

    async def _send_gathered(self, stream: ClientStream[InputBatch, OutputBatch]) -> None:
        while True:
            ended = self._feeder.ended  # read before taking: what was put until then is taken
            items = self._feeder.take(BATCH, BATCH_BYTES)
            if items:
                await self._send_items(stream, items)
                if len(items) < SMALL_BATCH and not self._feeder.ended:
                    await asyncio.sleep(GATHER)
            elif ended:
                if self._feeder.error is not None:
                    raise self._feeder.error
                self._all_sent = True
                return
            else:
                return

    async def _send_items(self, stream: ClientStream[InputBatch, OutputBatch], items: list[tuple[int, bytes]]) -> None:
        rpc = self._connected()
        # Kept before anything can fail, so that a connection lost in the middle loses no input.
        for index, payload in items:
            self._pending[index] = (Input(index, len(payload)), payload, len(payload))
        records: list[Input] = []
        bodies: list[bytes] = []
        for index, payload in items:
            record, body = await as_input(rpc, index, payload)
            if record.blob is not None:
                self._pending[index] = (record, b"", len(payload))
            records.append(record)
            bodies.append(body)
        await stream.send(InputBatch(records), b"".join(bodies))

    async def _send_again(self, stream: ClientStream[InputBatch, OutputBatch]) -> None:
        """After a reconnect: every input without output, in order."""
        self._items.set()
        waiting = [(index, kept) for index, kept in sorted(self._pending.items()) if kept[0].blob is not None]
        if waiting:
            await stream.send(InputBatch([kept[0] for _, kept in waiting]))
        inline = [(index, kept[1]) for index, kept in sorted(self._pending.items()) if kept[0].blob is None]
        start = 0
        while start < len(inline):
            end, size = start, 0
            while end < len(inline) and end - start < BATCH and (end == start or size < BATCH_BYTES // 2):
                size += len(inline[end][1])
                end += 1
            await self._send_items(stream, inline[start:end])
            start = end


def succeeded(one: Output) -> bool:
    """Whether an output is a result rather than a failure."""
    return one.status is Status.SUCCESS
