"""When scheduled functions run: pure arithmetic. Times are seconds since the epoch, calendars are UTC.

A schedule is a grid of due times: those of a cron expression, or `anchor + n * period` for n = 1, 2, … . Counting from
the anchor, rather than from one run to the next, keeps a monthly run that began on the 31st at the ends of the months.

`begin` and `advance` are all there is to running one: whoever runs it calls `advance` from time to time, and makes a
run when it names a due time. However long it was not called, it names one. After a clock was set back it names times a
second time; a run is made at most once for a due time, so its maker asks whether it has been made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from cronsim import CronSim, CronSimError
from dateutil.relativedelta import relativedelta

from modal.exception import InvalidError

_MAX_CRON_LENGTH = 1000  # characters
_STEPS = (60, 24, 31, 12, 7)  # the largest step of each field
_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_MONTH = 365.2425 / 12 * 86_400  # seconds, on average
_LONGEST = 12_001 * _MONTH  # seconds
_MOST = 10**11


class Schedule(Protocol):
    """A grid of due times."""

    def next_run(self, anchor: float, after: float) -> float:
        """The first due time later than `after`."""

    def last_run(self, anchor: float, until: float) -> float | None:
        """The latest due time that is not later than `until`, if there is one after the anchor."""


@dataclass(frozen=True)
class CronSchedule:
    """The times of a checked expression; its anchor only says which of them are too early."""

    expression: str

    def next_run(self, anchor: float, after: float) -> float:
        return next(CronSim(self.expression, _time(after))).timestamp()

    def last_run(self, anchor: float, until: float) -> float | None:
        # Backwards, it begins before the second it is given.
        due = next(CronSim(self.expression, _time(until // 1) + timedelta(seconds=1), reverse=True)).timestamp()
        return due if due > anchor else None


@dataclass(frozen=True)
class PeriodSchedule:
    """Every so many months and seconds. A month later than the 31st is the last day of the month."""

    months: int
    seconds: float

    def next_run(self, anchor: float, after: float) -> float:
        return self._at(anchor, self._count(anchor, after) + 1)

    def last_run(self, anchor: float, until: float) -> float | None:
        count = self._count(anchor, until)
        return self._at(anchor, count) if count > 0 else None

    def _count(self, anchor: float, until: float) -> int:
        """How many periods have ended at that time."""
        count = max(0, int((until - anchor) / (self.months * _MONTH + self.seconds)))  # off by the months' lengths
        while count > 0 and self._at(anchor, count) > until:
            count -= 1
        while self._at(anchor, count + 1) <= until:
            count += 1
        return count

    def _at(self, anchor: float, count: int) -> float:
        if self.months:
            anchor = (_time(anchor) + relativedelta(months=count * self.months)).timestamp()
        return anchor + count * self.seconds


@dataclass(frozen=True)
class ScheduleState:
    """Where a schedule is.

    Args:
        anchor: when it began, in seconds since the epoch.
        next_run: the next due time.
    """

    schedule: Schedule
    anchor: float
    next_run: float


def begin(schedule: Schedule, now: float) -> ScheduleState:
    """The schedule from now on."""
    now = round(now, 3)
    return ScheduleState(schedule, now, schedule.next_run(now, now))


def advance(state: ScheduleState, now: float) -> tuple[float | None, ScheduleState]:
    """What is due, and the state after it.

    Returns:
        The due time that a run shall be made for, None when it is too early; and the state. Of several due times that
        were missed it is the latest.
    """
    due = state.schedule.last_run(state.anchor, now) if now >= state.next_run else None
    # A clock that was set back by years must not stop the schedule for years.
    anchor = min(state.anchor, round(now, 3))
    if due is None and now >= state.anchor and state.next_run <= state.schedule.next_run(anchor, now):
        return None, state
    return due, replace(state, anchor=anchor, next_run=state.schedule.next_run(anchor, now))


def parse(spec: Mapping[str, Any]) -> Schedule:
    """Read `FunctionSpec.schedule`.

    Raises:
        InvalidError: it is none that `modal.Cron` or `modal.Period` make.
    """
    if set(spec) == {"cron"}:
        return _cron(spec["cron"])
    if set(spec) == {"period"}:
        return _period(spec["period"])
    raise InvalidError("A schedule is a modal.Cron or a modal.Period.")


def _cron(text: object) -> CronSchedule:
    problem = InvalidError(f"{text!r} is no cron expression of five fields in which a day can match.")
    if not isinstance(text, str) or len(text) > _MAX_CRON_LENGTH or not text.isascii():
        raise problem
    fields = text.split()
    if len(fields) != len(_STEPS):
        raise problem
    for field, most in zip(fields, _STEPS, strict=True):
        if any(int(step) > most for step in re.findall(r"/(\d+)", field)):
            raise problem
    try:
        parsed = CronSim(text, _time(0.0))
    except CronSimError:
        raise problem from None
    # The library knows more than crontabs do, such as "L" for the last day of a month.
    if not all(isinstance(value, int) and value >= 0 for value in parsed.days | parsed.weekdays):
        raise problem
    return CronSchedule(" ".join(fields))


def _period(parts: object) -> PeriodSchedule:
    problem = InvalidError(f"{parts!r} is no period of a second to a thousand years.")
    if not isinstance(parts, Mapping) or not set(parts) <= {"years", "months", *_SECONDS}:
        raise problem
    for name, value in parts.items():
        allowed = (int, float) if name == "seconds" else (int,)
        if isinstance(value, bool) or not isinstance(value, allowed) or not 0 <= value < _MOST:
            raise problem
    months = parts.get("years", 0) * 12 + parts.get("months", 0)
    seconds = float(sum(parts.get(name, 0) * length for name, length in _SECONDS.items()))
    if (months == 0 and seconds < 1) or months * _MONTH + seconds > _LONGEST:
        raise problem
    return PeriodSchedule(months, seconds)


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)
