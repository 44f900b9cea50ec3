"""How the command line ends badly: one clear sentence, or the user's own traceback, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn

import click


class CliError(click.ClickException):
    """One sentence for the user; exit code 1."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class UserTraceback(Exception):
    """User code raised; `__cause__` is what it raised. Shown as a traceback without our own frames."""


def near_matches(name: str, choices: Iterable[str]) -> str:
    """A sentence with the choices that look like `name`, or all of them when none does and they are few."""
    names = sorted(set(choices))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {listing(near)}?"
    return f"There is {listing(names)}." if 0 < len(names) <= 8 else ""


def listing(names: Iterable[str], last: str = "or") -> str:
    """`a`, `b` or `c`"""
    quoted = [f"`{name}`" for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


def wants_traceback() -> bool:
    """Whether the user asked for full tracebacks, with ``MODAL_TRACEBACK`` or in the configuration file."""
    from ..config import config
    from ..exception import InvalidError

    try:
        return bool(config.get("traceback"))
    except InvalidError:  # a broken configuration must not keep the error itself from being shown
        return False


def not_available(command: str) -> NoReturn:
    """Refuse a command that this version lacks."""
    raise CliError(f"`modal {command}` is not available in this version of Intermodal.")
