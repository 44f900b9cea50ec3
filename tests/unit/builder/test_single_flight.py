"""One build for all who want it."""

from __future__ import annotations

import asyncio

import pytest

from intermodal.builder.interface import BuildLog
from intermodal.builder.single_flight import SingleFlight


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, title: str) -> None:
        self.lines.append("# " + title)

    def write(self, text: str) -> None:
        self.lines.append(text)


class Work:
    """A build that goes on when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.runs = 0
        self.cleaned = 0

    async def __call__(self, log: BuildLog) -> int:
        self.runs += 1
        log.step("begin")
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cleaned += 1
            raise
        log.write("end")
        return self.runs


async def test_a_late_caller_joins_and_sees_everything() -> None:
    flights, work, logs = SingleFlight[int](), Work(), [Log(), Log()]
    first = asyncio.create_task(flights.run("k", logs[0], work))
    await work.begun.wait()
    second = asyncio.create_task(flights.run("k", logs[1], work))
    await asyncio.sleep(0)
    work.go.set()
    assert await first == await second == 1
    assert logs[0].lines == logs[1].lines == ["# begin", "end"]


async def test_other_keys_and_later_calls_run_themselves() -> None:
    flights, work = SingleFlight[int](), Work()
    work.go.set()
    assert await flights.run("a", Log(), work) == 1
    assert await flights.run("a", Log(), work) == 2
    assert await flights.run("b", Log(), work) == 3


async def test_work_stops_when_nobody_waits_any_more_and_not_before() -> None:
    flights, work = SingleFlight[int](), Work()
    callers = [asyncio.create_task(flights.run("k", Log(), work)) for _ in range(2)]
    await work.begun.wait()
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    assert work.cleaned == 0
    callers[1].cancel()
    await asyncio.wait([callers[1]])
    assert work.cleaned == 1, "the caller is held until the work has cleaned up"


async def test_a_caller_that_comes_while_work_is_being_stopped_starts_anew() -> None:
    flights, work = SingleFlight[int](), Work()
    first = asyncio.create_task(flights.run("k", Log(), work))
    await work.begun.wait()
    first.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await flights.run("k", Log(), work) == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_reaches_every_caller() -> None:
    async def fail(log: BuildLog) -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    flights = SingleFlight[int]()
    results = await asyncio.gather(*(flights.run("k", Log(), fail) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3


async def test_closing_stops_all_work() -> None:
    flights, work = SingleFlight[int](), Work()
    caller = asyncio.create_task(flights.run("k", Log(), work))
    await work.begun.wait()
    await flights.close()
    assert work.cleaned == 1
    with pytest.raises(asyncio.CancelledError):
        await caller
