"""Consumes the inputs of a map ahead of their results, as far as its window allows.

A blocking iterable is consumed in a thread of its own: it may sleep, read files, or call other functions. An async one
is consumed by a task in the caller's event loop, or, when the caller blocks, on a private loop in that thread.
Pickling happens there too. The loop that sends takes whatever has gathered, so batches grow by themselves under load.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

if TYPE_CHECKING:
    import asyncio

IN_FLIGHT = 2_000  #: inputs that may be sent and unfinished
IN_FLIGHT_BYTES = 128 * 1024 * 1024
OUTPUT_BYTES = 256 * 1024 * 1024  #: of outputs that are here or under way, as far as can be told, and not passed on
AHEAD = 20_000  #: inputs that may be consumed beyond the output that the caller waits for

Source = Union[Iterator[Any], AsyncIterator[Any]]
Item = tuple[int, bytes]


class Feeder:
    """Gives indexed payloads. `pickle` makes the payload of one item of the source."""

    def __init__(self, source: Source, pickle: Callable[[Any], bytes]) -> None:
        self._source = source
        self._pickle = pickle
        self._items: deque[Item] = deque()
        self._room = threading.Condition()
        self._on_room: Optional[Callable[[], object]] = None
        self._on_items: Callable[[], None] = lambda: None
        self._told = False
        self._unfinished = 0
        self._bytes = 0
        self._outputs = 0
        self._output_bytes = 0
        self._stopped = False
        self._task: Optional[asyncio.Task[None]] = None
        self.count = 0  #: items consumed
        self.passed_on = 0  #: outputs that the caller has got; written by the caller
        self.passed_bytes = 0  #: their size
        self.ended = False  #: the source has no more
        self.error: Optional[BaseException] = None  #: what the source raised

    # -- caller's side

    def start(self, on_items: Callable[[], None], in_task: bool) -> None:
        """Begin to consume; `on_items` is called from any thread when items wait to be taken, or at the end.

        Args:
            in_task: the source is async and the calling code runs on its event loop.
        """
        self._on_items = on_items
        if in_task and hasattr(self._source, "__anext__"):
            import asyncio

            loop = asyncio.get_running_loop()
            wake = asyncio.Event()
            self._on_room = lambda: loop.call_soon_threadsafe(wake.set)
            self._task = loop.create_task(self._feed_async(wake.wait, wake.clear))
            return
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._feed,), name="modal-map-inputs", daemon=True)
        thread.start()

    def stop(self) -> None:
        """Consume no more."""
        with self._room:
            self._stopped = True
            self._room.notify_all()
        if self._on_room is not None and self._task is not None and not self._task.done():
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    # -- sender's side

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """Up to `most` items that have gathered, at least one if there is any."""
        self._told = False
        taken: list[Item] = []
        size = 0
        while self._items and len(taken) < most and (not taken or size + len(self._items[0][1]) <= most_bytes):
            item = self._items.popleft()
            size += len(item[1])
            taken.append(item)
        return taken

    def finished(self, count: int, size: int, output_size: int) -> None:
        """`count` inputs of `size` bytes have their outputs, of `output_size` bytes."""
        with self._room:
            self._unfinished -= count
            self._bytes -= size
            self._outputs += count
            self._output_bytes += output_size
            self._room.notify_all()
        if self._on_room is not None:
            self._on_room()

    def has_room(self) -> bool:
        return self._stopped or (
            self._unfinished < IN_FLIGHT
            and (self._bytes < IN_FLIGHT_BYTES or not self._unfinished)
            and self.count - self.passed_on < AHEAD
            and (self.count == self.passed_on or self._expected_bytes() < OUTPUT_BYTES)
        )

    def _expected_bytes(self) -> float:
        """Outputs that are here, and those under way if they are like the others."""
        expected = self._unfinished * self._output_bytes / self._outputs if self._outputs else 0.0
        return self._output_bytes - self.passed_bytes + expected

    # -- consuming

    def _is_stopped(self) -> bool:
        return self._stopped

    def _put(self, value: Any) -> None:
        payload = self._pickle(value)
        with self._room:
            self._unfinished += 1
            self._bytes += len(payload)
        self._items.append((self.count, payload))
        self.count += 1
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._on_items()

    def _end(self, error: Optional[BaseException]) -> None:
        self.error = error
        self.ended = True
        if not self._stopped:
            self._on_items()

    def _feed(self) -> None:
        try:
            if hasattr(self._source, "__anext__"):
                import asyncio

                asyncio.run(self._feed_private())
            else:
                self._feed_blocking()
        except BaseException as error:  # the source is the user's code; its error is raised by the map
            self._end(error)
        else:
            self._end(None)

    def _feed_blocking(self) -> None:
        source: Any = self._source
        for value in source:
            if self._is_stopped():
                return
            self._put(value)
            if not self.has_room():
                with self._room:
                    self._room.wait_for(self.has_room)
            if self._is_stopped():
                return

    async def _feed_private(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        wake = asyncio.Event()
        self._on_room = lambda: None if loop.is_closed() else _quietly(loop, wake.set)
        await self._consume(wake.wait, wake.clear)

    async def _feed_async(self, wait: Callable[[], Any], clear: Callable[[], None]) -> None:
        try:
            await self._consume(wait, clear)
        except BaseException as error:  # as in `_feed`
            self._end(error)
        else:
            self._end(None)

    async def _consume(self, wait: Callable[[], Any], clear: Callable[[], None]) -> None:
        source: Any = self._source
        async for value in source:
            if self._is_stopped():
                return
            self._put(value)
            clear()
            while not self.has_room():
                await wait()
                clear()
            if self._is_stopped():
                return


def _quietly(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # it closed just now: there is nobody to wake
        return
