"""What `modal dict` and `modal queue` share: showing values of users, whatever they are."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any, Callable, Optional

import click

from ..exception import DeserializationError
from .tables import printable

_REASON_WIDTH = 120  # characters of why a value is not shown


class Count(click.IntRange):
    """How many to show: a whole number of at least `min`."""

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> int:
        try:
            number = int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{str(value)!r} is not a whole number of at least {self.min}.", param, ctx)
        return min(number, sys.maxsize - 1)  # itertools.islice takes no more, and dict items asks for one more


class Unreadable:
    """Stands for a value that cannot be unpickled here: most often its class is in a script of the user's."""

    def __init__(self, error: DeserializationError) -> None:
        self._text = _placeholder("unpickled here", error.__cause__ or error)

    def __repr__(self) -> str:
        return self._text


def unpickled(data: bytes, load: Callable[[bytes], Any]) -> Any:
    """The value that `load` makes of `data`, or what stands for it."""
    try:
        return load(data)
    except DeserializationError as error:
        return Unreadable(error)


def written(value: Any, write: Callable[[Any], str] = repr) -> str:
    """The value as text; what stands for it when the user's own `__repr__` or `__str__` raises."""
    try:
        return write(value)
    except Exception as error:
        return _placeholder("written", error)


def echo_text(text: str) -> None:
    """Print `text` as it is, but for characters that stdout cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # With color, click leaves escape sequences in what goes to a file: they are the user's.
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), color=True)


def echo_json(rows: list[dict[str, Any]]) -> None:
    """Print `rows`; each value in them that JSON has no way to write becomes its repr."""
    click.echo(_json([{name: _for_json(value) for name, value in row.items()} for row in rows]))


def _for_json(value: Any) -> Any:
    try:
        _json([{"value": value}])  # as deeply nested as it will be printed
    except Exception:  # NaN, keys that are tuples, what contains itself, classes of the user's that misbehave
        return written(value)
    return value


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=written, allow_nan=False)


def _placeholder(what: str, error: BaseException) -> str:
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return printable(f"<cannot be {what}: {textwrap.shorten(reason, _REASON_WIDTH, placeholder=' …')}>")
