"""When a function of a deployed app runs by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .exception import InvalidError

_MAX_CRON_LENGTH = 1000  # characters
_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_YEAR = 365.25 * 86_400  # seconds
_LONGEST_YEARS = 1000
_MOST = 10**11  # of one unit: more seconds than the longest period has


class Schedule:
    """Base class of schedules; use `modal.Cron` or `modal.Period`."""

    def _spec(self) -> dict[str, Any]:
        """The schedule as `FunctionSpec.schedule` carries it."""
        raise InvalidError("Use modal.Cron or modal.Period as a schedule.")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Schedule) and self._spec() == other._spec()

    def __hash__(self) -> int:
        return hash(repr(self))


class Cron(Schedule):
    """Run at the times of a cron expression, in UTC.

    ```python
    @app.function(schedule=modal.Cron("5 4 * * *"))  # at 4:05 every night
    def tidy(): ...
    ```
    """

    def __init__(self, cron_string: str) -> None:
        """Make a schedule of five fields: minute, hour, day of the month, month, day of the week.

        A field is `*`, a number, a range `a-b`, one of these with a step (`*/n`, `a/n`, `a-b/n`), or several of them
        with commas between. Months and weekdays may be names (`jan`, `mon`); Sunday is 0 or 7. When neither of the two
        day fields begins with `*`, a day that matches one of them is enough, as in every crontab.

        Raises:
            InvalidError: if the expression has not five such fields, or no day ever matches it.
        """
        if not isinstance(cron_string, str):
            raise InvalidError(f'A cron expression is a string such as "0 9 * * 4", not {cron_string!r}.')
        fields = cron_string.split()
        if len(fields) != len(_CRON_FIELDS) or len(cron_string) > _MAX_CRON_LENGTH:
            raise InvalidError(f"A cron expression has five fields (minute hour day month weekday): {cron_string!r}.")
        values = [field.values(text, cron_string) for field, text in zip(_CRON_FIELDS, fields)]
        _, _, days, months, _ = values
        need_both = fields[2].startswith("*") or fields[4].startswith("*")
        if need_both and min(days) > max(_MONTH_DAYS[month - 1] for month in months):
            raise InvalidError(f"No month has the day in the cron expression {cron_string!r}, so it would never run.")
        self.cron_string = " ".join(fields)

    def _spec(self) -> dict[str, Any]:
        return {"cron": self.cron_string}

    def __repr__(self) -> str:
        return f"Cron({self.cron_string!r})"


class Period(Schedule):
    """Run every given interval. `days=1` means the same time every day, `months=1` the same day every month."""

    def __init__(
        self,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hours: int = 0,
        minutes: int = 0,
        seconds: float = 0,
    ) -> None:
        """Make a schedule of the sum of the arguments; only `seconds` may be fractional.

        Runs are counted from the deployment that brought the schedule: the first is one period after it.

        Raises:
            InvalidError: if an argument is negative or of the wrong type, or the sum is below one second or above a
                thousand years.
        """
        self._parts: dict[str, Any] = {
            "years": years,
            "months": months,
            "weeks": weeks,
            "days": days,
            "hours": hours,
            "minutes": minutes,
            "seconds": seconds,
        }
        for name, value in self._parts.items():
            allowed = (int, float) if name == "seconds" else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed) or not 0 <= value < _MOST:
                kind = "number" if name == "seconds" else "whole number"
                raise InvalidError(f"Period: {name} must be a {kind} from 0 to {_MOST}, not {value!r}.")
        length = sum(self._parts[name] * seconds for name, seconds in _SECONDS.items())
        if length < 1 and not (years or months):
            raise InvalidError(f"Period: the interval must be at least one second, not {length:g}; for example days=1.")
        if years + months / 12 + length / _YEAR > _LONGEST_YEARS:
            raise InvalidError(f"Period: the interval must be at most {_LONGEST_YEARS} years.")

    def _spec(self) -> dict[str, Any]:
        return {"period": dict(self._parts)}

    def __repr__(self) -> str:
        return f"Period({', '.join(f'{name}={value!r}' for name, value in self._parts.items() if value)})"


@dataclass(frozen=True)
class _CronField:
    """What one of the five fields may hold."""

    name: str
    low: int
    high: int
    count: int  #: of different values, the largest sensible step
    names: tuple[str, ...] = ()  #: of `low` and the numbers after it

    def values(self, text: str, expression: str) -> set[int]:
        """The numbers that a field stands for. Raises `InvalidError`, quoting the whole expression."""
        found: set[int] = set()
        for item in text.lower().split(","):
            match = re.fullmatch(r"(?:\*|([a-z]{3}|\d+)(?:-([a-z]{3}|\d+))?)(?:/(\d+))?", item, re.ASCII)
            first, last, step = match.groups() if match else ("?", None, None)
            low = self.low if first is None else self._number(first)
            high = self._number(last) if last else self.high if first is None or step else low
            if not self.low <= low <= high <= self.high:
                raise InvalidError(
                    f"{text!r} is no {self.name} ({self.low}-{self.high}) in the cron expression {expression!r}."
                )
            if step is not None and not 1 <= int(step) <= self.count:
                raise InvalidError(
                    f"The step in {text!r} must be from 1 to {self.count} in the cron expression {expression!r}; for "
                    "intervals that cross the hour, day or month use modal.Period."
                )
            found.update(range(low, high + 1, int(step or 1)))
        return found

    def _number(self, text: str) -> int:
        if text.isdigit():
            return int(text)
        return self.names.index(text) + self.low if text in self.names else -1


_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CRON_FIELDS = (
    _CronField("minute", 0, 59, 60),
    _CronField("hour", 0, 23, 24),
    _CronField("day of the month", 1, 31, 31),
    _CronField("month", 1, 12, 12, _MONTH_NAMES),
    _CronField("day of the week", 0, 7, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
