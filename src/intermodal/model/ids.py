"""Typed ids: a two-letter prefix, a dash, and 22 base-62 characters."""

from __future__ import annotations

from typing import Protocol

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Rng(Protocol):
    """The part of `random.Random` that new ids need."""

    def getrandbits(self, k: int, /) -> int: ...


def new_id(prefix: str, rng: Rng) -> str:
    """Return a fresh id such as ``fc-4Zk…`` drawn from `rng`."""
    number = rng.getrandbits(128)
    digits = []
    for _ in range(22):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return f"{prefix}-{''.join(digits)}"
