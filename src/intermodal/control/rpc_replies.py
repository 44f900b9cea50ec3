"""Kept results of mutating calls, so that a call sent again after a reconnect is answered and does not act again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from intermodal.control.rpc_context import Context
from intermodal.control.rpc_outcome import Outcome
from intermodal.store.front_journal import KeptReply
from modal._wire.codec import encode

_OVERHEAD = 500  # bytes that an entry costs besides its body, roughly


class _Kept(NamedTuple):
    outcome: Outcome
    size: int
    until: float


class ReplyMemory:
    """Outcomes by key, oldest dropped first. Bounded in entries, bytes and age; pure, `now` is passed in."""

    def __init__(
        self, *, max_entries: int = 100_000, max_bytes: int = 64 * 1024 * 1024, max_age: float = 600.0
    ) -> None:
        """Args: max_age: seconds."""
        self.bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: tuple[object, ...], outcome: Outcome, now: float) -> None:
        """Keep `outcome`; the newest is kept even if it alone is over the bounds in bytes."""
        if key in self._kept:
            self._drop(key)
        size = _OVERHEAD + len(outcome.body)
        self._kept[key] = _Kept(outcome, size, now + self._max_age)
        self.bytes += size
        while len(self._kept) > 1:
            oldest, kept = next(iter(self._kept.items()))
            if kept.until > now and self.bytes <= self._max_bytes and len(self._kept) <= self._max_entries:
                break
            self._drop(oldest)

    def restore(self, replies: Iterable[KeptReply], now: float) -> None:
        """Take what was answered before a restart."""
        for key, (message, body) in replies:
            self.put(key, Outcome(message, body), now)

    def get(self, key: tuple[object, ...], now: float) -> Outcome | None:
        """Return the outcome kept for `key`, if it is not too old."""
        kept = self._kept.get(key)
        return kept.outcome if kept is not None and kept.until > now else None

    def _drop(self, key: tuple[object, ...]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= kept.size


def kept_reply(ctx: Context, reply: Any, body: bytes = b"") -> KeptReply | None:
    """The reply to a mutating request, to be stored with the changes it makes."""
    return KeptReply(ctx.reply_key, (encode(reply), body)) if ctx.reply_key is not None else None
