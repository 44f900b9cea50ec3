"""What things may be called."""

from __future__ import annotations

import re

from modal.exception import InvalidError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_name(what: str, name: str) -> str:
    """Return the name of `what` (such as "a secret"). Raises `InvalidError` unless it may be called that."""
    if not _NAME.fullmatch(name) or not name.strip(".-"):
        raise InvalidError(
            f"The name of {what} must have 1 to 64 letters, digits, dashes, dots and underscores, not {name[:100]!r}."
        )
    return name
