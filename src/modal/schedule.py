"""When a function of a deployed app runs by itself."""

from __future__ import annotations

import math
import re
from typing import Any

from .exception import InvalidError

_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


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
    """Run at the times of a cron expression, in UTC."""

    def __init__(self, cron_string: str) -> None:
        """Make a schedule of five fields: minute, hour, day of the month, month, day of the week.

        A field is `*`, a number, a range `a-b`, a step `*/n` or `a-b/n`, a name (`mon`, `jan`), or several of these
        with commas between.

        Raises:
            InvalidError: if the expression has not five such fields.
        """
        if not isinstance(cron_string, str):
            raise InvalidError(f'A cron expression is a string such as "0 9 * * 4", not {cron_string!r}.')
        fields = cron_string.split()
        if len(fields) != len(_CRON_FIELDS):
            raise InvalidError(f"A cron expression has five fields (minute hour day month weekday): {cron_string!r}.")
        for text, (name, low, high, names) in zip(fields, _CRON_FIELDS):
            if not all(_is_cron_item(item.lower(), low, high, names) for item in text.split(",")):
                raise InvalidError(f"{text!r} is no {name} ({low}-{high}) in the cron expression {cron_string!r}.")
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

        Raises:
            InvalidError: if an argument is negative or of the wrong type, or all are zero.
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
            if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value) or value < 0:
                kind = "number" if name == "seconds" else "whole number"
                raise InvalidError(f"Period: {name} must be a {kind} of at least 0, not {value!r}.")
        if not any(self._parts.values()):
            raise InvalidError("Period: the interval is zero; give for example days=1.")

    def _spec(self) -> dict[str, Any]:
        return {"period": dict(self._parts)}

    def __repr__(self) -> str:
        return f"Period({', '.join(f'{name}={value!r}' for name, value in self._parts.items() if value)})"


def _is_cron_item(item: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    match = re.fullmatch(r"(\*|[a-z]{3}|\d{1,2})(?:-([a-z]{3}|\d{1,2}))?(?:/(\d{1,2}))?", item, re.ASCII)
    if match is None:
        return False
    first, last, step = match.groups()
    if step is not None and (int(step) == 0 or (first != "*" and last is None)):
        return False
    if first == "*":
        return last is None

    def number(text: str) -> int:
        if text.isdigit():
            return int(text)
        return names.index(text) + low if text in names else -1

    numbers = [number(text) for text in (first, last) if text is not None]
    return all(low <= value <= high for value in numbers) and numbers == sorted(numbers)
