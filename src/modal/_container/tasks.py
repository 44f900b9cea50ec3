"""The shell of async functions: one event loop in the main thread for the life of the container, a task an input.

An interrupt cancels the task; code that blocks the loop cannot be interrupted.
"""

from __future__ import annotations

import asyncio
import os
import signal
from threading import current_thread, main_thread
from time import perf_counter

from modal._runtime_context import enter_input

from .machine import STOPPED, Input
from .main_thread import MainThreadShell
from .shell import AGENT_GONE, Shell
from .task import is_async, is_awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import Any, NoReturn

    from .interaction import Session
    from .task import Output


_LOOK_AGAIN = 1.0  #: seconds
_TIMER_SLACK = 0.01  #: seconds that a timer may come early


class TasksShell(Shell):
    def __init__(self, watched: MainThreadShell, concurrency: int):
        watched.stop_watching()
        super().__init__(watched.channel, watched.task)
        self.machine = watched.machine  # may hold inputs already
        self.lock = watched.lock
        self.stop_grace = watched.stop_grace
        self._concurrency = concurrency
        lifecycle = watched.task.lifecycle
        self._loop = asyncio.new_event_loop() if lifecycle is None else lifecycle.loop
        self._credit: dict[str, asyncio.Event] = {}
        self._will_flush = False
        self._catches_keys = False
        watched.successor = self

    def run(self) -> NoReturn:
        asyncio.set_event_loop(self._loop)
        self.catch_signals()
        self._loop.add_reader(self.channel.fileno(), self._readable)
        self._loop.call_soon(self._begin_more)
        if not self.machine.has_ended:
            self._loop.run_forever()
        if not self.machine.has_ended:
            raise AssertionError("user code stopped the event loop")
        self.leave()

    def call_main(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def stop_soon(self) -> None:
        self._loop.call_soon_threadsafe(self._stop)

    def catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
            self._handlers.append(signal.getsignal(number))
        os.register_at_fork(after_in_child=self.on_fork)

    def _signalled(self, number: int) -> None:
        if number != signal.SIGINT:
            self._stop()
        elif not self._catches_keys:  # else the handler has dealt with it
            self.stop_from_signal(number, None)

    def stop_from_signal(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGINT and self.session is not None:
            self.key_pressed(self.session)
        else:
            self._loop.call_soon_threadsafe(self._stop)

    def hold_time(self) -> None:
        super().hold_time()
        if not self._catches_keys and current_thread() is main_thread():
            self._catches_keys = True
            # The loop would look at it only when user code lets it.
            signal.signal(signal.SIGINT, self.stop_from_signal)

    def key_pressed(self, session: Session) -> None:
        if session.thread != main_thread().ident:
            from .threads import raise_in_thread

            raise_in_thread(session.thread, STOPPED)
        elif asyncio.current_task(self._loop) is not None:
            raise KeyboardInterrupt
        elif (item := self.machine.running.get(session.owner or "")) and item.runner is not None:
            self._loop.call_soon_threadsafe(item.runner.cancel)

    def work_arrived(self) -> None:
        self._loop.call_soon(self._begin_more)

    def interrupt(self, item: Input, reason: str) -> None:
        if item.runner is not None:
            item.runner.cancel()

    def resume(self, item: Input) -> None:
        if hasattr(item.runner, "resume"):
            item.runner.resume()
        event = self._credit.get(item.input_id)
        if event is not None:
            event.set()

    def _readable(self) -> None:
        data = self.channel.receive_now()
        if data is not None:
            with self.lock:
                self.feed(data)

    def _begin_more(self) -> None:
        while len(self.machine.running) < self._concurrency:
            item = self.machine.take()
            if item is None:
                return
            item.started = perf_counter()
            item.runner = self._loop.create_task(self._run(item))

    async def _run(self, item: Input) -> None:
        enter_input((item.input_id, item.call_id))
        timer = self._loop.call_later(self.task.timeout, self._time_out, item)
        try:
            outputs = await self._outputs(item)
        finally:
            timer.cancel()
        self.leave_if_forked()
        self.end_session(item)
        for record, payload in outputs:
            self.outbox.add(record, payload)
        if not self._will_flush:  # those that end in the same turn of the loop go in one frame
            self._will_flush = True
            self._loop.call_soon(self._flush)
        with self.lock:
            self.carry_out(self.machine.finish(item))
        self._begin_more()

    def _flush(self) -> None:
        self._will_flush = False
        try:
            self.outbox.flush()
        except OSError:
            os._exit(AGENT_GONE)

    async def _outputs(self, item: Input) -> list[Output]:
        try:
            return [await self._outcome(item)]
        except BaseException as exc:
            return [self.task.failed(item, self._raised(item, exc))]

    def _raised(self, item: Input, exc: BaseException) -> BaseException:
        self.leave_if_forked(exc)
        if isinstance(exc, asyncio.CancelledError) and not item.interrupted:
            return asyncio.CancelledError("The function cancelled its own task.")
        return exc

    async def _outcome(self, item: Input) -> Output:
        task = self.task
        function = task.function_of(item)
        if task.lifecycle is not None and not is_async(function):
            from .method_thread import MethodThread

            payload, blob = await MethodThread(self, item, function).outcome()
            return task.succeeded(item, payload, blob)
        args, kwargs = task.arguments(item)
        result = function(*args, **kwargs)
        if not task.yields(item):
            payload, blob = task.value(await result)
            return task.succeeded(item, payload, blob)
        if is_awaitable(result):  # it returns an iterable
            result = await result
        if not hasattr(type(result), "__aiter__"):
            result = _async_values(result)
        event = self._credit[item.input_id] = asyncio.Event()
        try:
            async for value in result:
                payload, blob = task.value(value)
                self.outbox.yielded(item.input_id, payload, blob)
                item.credit -= 1
                while item.credit <= 0:
                    event.clear()
                    await event.wait()
        finally:
            del self._credit[item.input_id]
            if item.interrupted and hasattr(result, "aclose"):
                await result.aclose()
        return task.succeeded(item, b"", None)

    def _time_out(self, item: Input) -> None:
        left = item.started + self.task.timeout - perf_counter()
        if self.held_since or left > _TIMER_SLACK:  # the clock is stopped, or was
            self._loop.call_later(_LOOK_AGAIN if self.held_since else left, self._time_out, item)
            return
        with self.lock:
            self.carry_out(self.machine.time_out(item))


async def _async_values(values: Iterable[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value
