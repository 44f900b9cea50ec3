"""Typed ids: a two-letter prefix, a dash, and 22 base-62 characters."""

from __future__ import annotations

import hashlib
from typing import Protocol

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Rng(Protocol):
    """The part of `random.Random` that new ids need."""

    def getrandbits(self, k: int, /) -> int: ...


def new_id(prefix: str, rng: Rng) -> str:
    """Return a fresh id such as ``fc-4Zk…`` drawn from `rng`."""
    return _spelled(prefix, rng.getrandbits(128))


def derived_id(prefix: str, *parts: bytes) -> str:
    """Return the one id that stands for these parts, e.g. ``fu-4Zk…``."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return _spelled(prefix, int.from_bytes(digest.digest()[:16], "big"))


def _spelled(prefix: str, number: int) -> str:
    digits = []
    for _ in range(22):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return f"{prefix}-{''.join(digits)}"
