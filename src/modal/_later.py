"""Documented parts of the API that are not built yet: they exist, and say so when they are used."""

from __future__ import annotations

from typing import NoReturn

from .exception import InvalidError


class NotBuiltYet(InvalidError, NotImplementedError):
    """A documented part of the API that this version does not have."""


def not_built_yet(part: str, instead: str = "") -> NoReturn:
    """Raise the one error for a missing part.

    Args:
        part: what the user wrote, e.g. `modal.Volume.from_name`.
        instead: a sentence that says what to do meanwhile.
    """
    message = f"{part} is not available in this version of intermodal yet."
    raise NotBuiltYet(f"{message} {instead}" if instead else message)
