"""Asking before something is destroyed."""

from __future__ import annotations

import sys

import click

from .errors import CliError


def confirm(question: str, is_confirmed: bool, flag: str) -> None:
    """Ask, unless the user confirmed with `flag`; anything but yes ends the command.

    Raises:
        CliError: nobody can be asked, or the answer was no.
    """
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise CliError(f"This needs a confirmation, and there is no terminal to ask at: add {flag}.", 2)
    if not click.confirm(question, default=False):
        raise CliError("Nothing was changed.")
