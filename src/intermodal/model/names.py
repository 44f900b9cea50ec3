"""What things may be called."""

from __future__ import annotations

import re

from modal.exception import InvalidError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ID = re.compile(r"[a-z]{2}-[0-9A-Za-z]{22}")


def check_name(what: str, name: str) -> str:
    """Return the name of `what` (such as "a secret"). Raises `InvalidError` unless it may be called that."""
    if not _NAME.fullmatch(name) or not name.strip(".-"):
        raise InvalidError(
            f"The name of {what} must have 1 to 64 letters, digits, dashes, dots and underscores, not {name[:100]!r}."
        )
    if _ID.fullmatch(name):
        raise InvalidError(f"{name!r} looks like an id and cannot be the name of {what}.")
    return name


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of an id with this prefix."""
    return text.startswith(f"{prefix}-") and _ID.fullmatch(text) is not None
