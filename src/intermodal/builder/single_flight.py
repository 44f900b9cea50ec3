"""One build at a time for each key, watched by everyone who asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from intermodal.builder.interface import BuildLog

Result = TypeVar("Result")


class Broadcast:
    """A `BuildLog` that passes on to many, and repeats the beginning for those who come late."""

    def __init__(self) -> None:
        self._history: list[tuple[bool, str]] = []
        self._logs: list[BuildLog] = []

    def step(self, title: str) -> None:
        self._say(True, title)

    def write(self, text: str) -> None:
        self._say(False, text)

    def attach(self, log: BuildLog) -> None:
        for is_step, text in self._history:
            _deliver(log, is_step, text)
        self._logs.append(log)

    def detach(self, log: BuildLog) -> None:
        self._logs.remove(log)

    def _say(self, is_step: bool, text: str) -> None:
        self._history.append((is_step, text))
        for log in self._logs:
            _deliver(log, is_step, text)


def _deliver(log: BuildLog, is_step: bool, text: str) -> None:
    if is_step:
        log.step(text)
    else:
        log.write(text)


class _Flight(Generic[Result]):
    def __init__(self, task: asyncio.Task[Result], broadcast: Broadcast) -> None:
        self.task = task
        self.broadcast = broadcast
        self.waiting = 0


class SingleFlight(Generic[Result]):
    """Runs the work of a key once for all who want it at the same time; stops it when nobody wants it any more."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[Result]] = {}

    async def run(self, key: Hashable, log: BuildLog, work: Callable[[BuildLog], Awaitable[Result]]) -> Result:
        """Join the work under way for `key`, or start it; its whole output goes to `log`."""
        flight = self._flights.get(key)
        while flight is not None and flight.task.cancelling() and not flight.task.done():
            await asyncio.wait([flight.task])  # it is being cleaned up; begin anew after that
            flight = self._flights.get(key)
        if flight is None or flight.task.done():
            flight = self._start(key, work)
        flight.waiting += 1
        flight.broadcast.attach(log)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            flight.broadcast.detach(log)
            if flight.waiting == 0 and not flight.task.done():
                flight.task.cancel()
                await asyncio.wait([flight.task])

    async def close(self) -> None:
        """Stop all work and wait until it has cleaned up."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, key: Hashable, work: Callable[[BuildLog], Awaitable[Result]]) -> _Flight[Result]:
        broadcast = Broadcast()

        async def fly() -> Result:
            return await work(broadcast)

        flight = _Flight(asyncio.create_task(fly(), name=f"build {key}"), broadcast)
        self._flights[key] = flight

        def landed(task: asyncio.Task[Result]) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not task.cancelled():
                task.exception()  # everyone who waited has it; nobody may be left to collect it

        flight.task.add_done_callback(landed)
        return flight
