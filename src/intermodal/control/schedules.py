"""Runs the functions of deployed apps when they are due, which `intermodal.scheduling.schedules` computes.

A run is a spawned call without arguments. It has an idempotency key of its function and due time, and reaches the
journal together with the schedule's next due time: when the server is killed, either both are there, or neither is and
the run is made after the restart.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from intermodal.control.apps import App, Apps
from intermodal.control.calls import Call, Calls, Finished, input_id
from intermodal.control.fleet import Fleet
from intermodal.control.functions import Function, Functions
from intermodal.machines.app import AppPhase
from intermodal.model.ids import new_id
from intermodal.scheduling.schedules import ScheduleState, advance, begin, parse
from intermodal.store.interface import CallKind, CallRecord, ScheduleRecord, Store, StoreError
from modal._wire.messages.app import LogStream
from modal._wire.messages.call import Input, Status
from modal.exception import Error

log = logging.getLogger(__name__)
_LOOK_EVERY = 5.0  # seconds between two looks at the clock, at most: it may be set
_RETRY_AFTER = 1.0  # seconds after a look that failed
_KEY = "schedule:"  # clients' keys have a slash after their session, so none can be taken for one of these


@dataclass(frozen=True)
class _Entry:
    record: ScheduleRecord
    state: ScheduleState


class Schedules:
    """The schedules of all deployed functions.

    Args:
        now: the clock, in seconds since the epoch. It may jump.
    """

    def __init__(
        self,
        store: Store,
        apps: Apps,
        functions: Functions,
        calls: Calls,
        fleet: Fleet,
        rng: random.Random,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._calls = calls
        self._fleet = fleet
        self._rng = rng
        self._now = now
        self._entries: dict[str, _Entry] = {}  # by function id
        self._seen = float("inf")  # the clock at the last look; the first one looks at everything
        self._changed = asyncio.Event()

    def restore(self, records: Iterable[ScheduleRecord]) -> None:
        """Go on after a restart, with what was live. Apps and calls have been restored."""
        for record in records:
            state = ScheduleState(parse(record.spec), record.anchor, record.next_run or 0.0)
            self._entries[record.function_id] = _Entry(record, state)
        for app in self._apps.live():
            self.app_changed(app)
        for function_id in self._entries:
            for call in self._runs_of(function_id):
                self._report_failure(call)

    def app_changed(self, app: App) -> None:
        """A version of the app was put in force, or it stopped.

        A function whose schedule is what it was keeps its due time and, for a period, its rhythm.
        """
        deployed = set(app.record.functions.values()) if app.machine.state is AppPhase.DEPLOYED else set()
        for entry in [one for one in self._entries.values() if one.record.app_id == app.app_id]:
            if entry.record.function_id not in deployed:
                self._end(entry)
        for function_id in deployed:
            function = self._functions.by_id.get(function_id)
            if function is not None:  # else its image is gone: it could not be restored
                self._follow(function)
        self._changed.set()

    def _follow(self, function: Function) -> None:
        spec, entry = function.spec.schedule, self._entries.get(function.function_id)
        if entry is not None and entry.record.spec == spec:
            return
        if spec:
            state = begin(parse(spec), self._now())
            record = ScheduleRecord(function.function_id, function.app_id, spec, state.anchor, state.next_run)
            self._entries[function.function_id] = _Entry(record, state)
            self._store.write([record])
        elif entry is not None:
            self._end(entry)

    def _end(self, entry: _Entry) -> None:
        del self._entries[entry.record.function_id]
        self._store.write([replace(entry.record, next_run=None)])

    def next_runs(self, functions: Mapping[str, str]) -> dict[str, float]:
        """When functions are due next, in seconds since the epoch, of those by tag that have a schedule."""
        entries = {tag: self._entries.get(function_id) for tag, function_id in functions.items()}
        return {tag: entry.state.next_run for tag, entry in entries.items() if entry is not None}

    # -- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make runs when they are due, until cancelled."""
        problem = ""
        while True:
            self._changed.clear()
            pause = _LOOK_EVERY
            try:
                await self.look()
            except Error as error:
                if str(error) != problem:
                    log.error("scheduled functions cannot be run; trying again until they can: %s", error)
                problem, pause = str(error), _RETRY_AFTER
            else:
                problem = ""
                due = min((entry.state.next_run for entry in self._entries.values()), default=float("inf"))
                pause = min(pause, max(0.0, due - self._now()))
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except asyncio.TimeoutError:
                pass  # something may be due

    async def look(self) -> None:
        """Make the runs that are due now. Raises `StoreError` when that cannot be known or kept."""
        now = self._now()
        was_set_back = now < self._seen
        steps = []
        for entry in self._entries.values():
            if was_set_back or now >= entry.state.next_run:
                due, state = advance(entry.state, now)
                if state is not entry.state:
                    steps.append(self._step(entry, due, state))
        # Side by side: on the hour many are due, and each asks the store.
        failures = await asyncio.gather(*steps, return_exceptions=True)
        for failure in failures:
            if failure is not None:
                raise failure
        self._seen = now

    async def _step(self, entry: _Entry, due: float | None, state: ScheduleState) -> None:
        function_id = entry.record.function_id
        is_new = due is not None and await self._calls.find_by_key(_key(function_id, due)) is None
        if problem := self._calls.problem():
            raise StoreError(problem)
        if self._entries.get(function_id) is not entry:
            return  # redeployed or stopped meanwhile
        function = self._functions.by_id.get(function_id)
        if function is None:
            log.error("function %s cannot run though it is due: it could not be restored", function_id)
        elif due is not None and is_new:
            self._make_run(function, due)
        record = replace(entry.record, anchor=state.anchor, next_run=state.next_run)
        self._entries[function_id] = _Entry(record, state)
        self._calls.flush()
        self._store.write([record])  # in one transaction with the call

    def _make_run(self, function: Function, due: float) -> None:
        if self._waits(function.function_id):
            said = (
                f"The run of {function.spec.name} that was due at {_clock(due)} is left out: the one before it waits.\n"
            )
            self._say(function.app_id, function.function_id, said)
            return
        call_id, key = new_id("fc", self._rng), _key(function.function_id, due)
        record = CallRecord(
            call_id, function.function_id, function.app_id, CallKind.SPAWN, self._now(), key=key, inputs_closed=True
        )
        call = self._calls.create(record, function.spec.retries)
        self._report_failure(call)
        queued = self._calls.add_inputs(call, [Input(0, 0)], b"")
        function.open_inputs += len(queued)
        self._fleet.queue_inputs(call, queued)
        self._calls.close_inputs(call)

    def _waits(self, function_id: str) -> bool:
        """Whether an earlier run has not begun. Runs may overlap, but they do not pile up behind a full machine."""
        earlier = [input_id(call.record.call_id, 0) for call in self._runs_of(function_id)]
        return bool(earlier) and not self._fleet.holders().keys() >= set(earlier)

    def _runs_of(self, function_id: str) -> list[Call]:
        return [call for call in self._calls.of_function(function_id) if call.record.key.startswith(_KEY)]

    # -- failures ----------------------------------------------------------------------------------------------

    def _report_failure(self, call: Call) -> None:
        """Say in the app's log that the run failed: nobody waits for its result. Its container prints the traceback."""
        due = float(call.record.key.rpartition(":")[2])

        def finished(index: int, done: Finished) -> None:
            if done.output.status is Status.SUCCESS:
                return
            function = self._functions.by_id.get(call.record.function_id)
            name = function.spec.name if function is not None else call.record.function_id
            why = f": {done.output.error.message}" if done.output.error is not None else "."
            said = f"The run of {name} that was due at {_clock(due)} ({call.record.call_id}) failed{why}\n"
            self._say(call.record.app_id, call.record.function_id, said)

        call.add_watcher(finished)

    def _say(self, app_id: str, function_id: str, text: str) -> None:
        app = self._apps.find(app_id)
        if app is not None:
            app.log.append(self._now(), LogStream.SYSTEM, text, function_id)


def _key(function_id: str, due: float) -> str:
    return f"{_KEY}{function_id}:{due:.3f}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
