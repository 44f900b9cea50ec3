"""Whose turn it is: between the calls of one function, and between functions that want the same machine.

Between calls it is round robin over the calls that have something queued, so a single call made while a map of a
million inputs is under way waits for a handful of inputs, not for the map.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator, Sequence


class CallQueue:
    """The queued inputs of one call, in order.

    Batches are kept as they arrived, with a position in the first: a queued input costs one pointer, and a call of one
    input no more than this object.
    """

    __slots__ = ("_front", "_head", "_more", "_position", "call_id", "is_nested", "size")

    def __init__(self, call_id: str, is_nested: bool) -> None:
        self.call_id = call_id
        self.is_nested = is_nested
        self.size = 0
        self._head: Sequence[str] = ()
        self._position = 0
        self._more: deque[Sequence[str]] | None = None
        self._front: list[str] | None = None  # given back, last first

    def append(self, input_ids: Sequence[str]) -> None:
        self.size += len(input_ids)
        if self._position >= len(self._head):
            self._head, self._position = input_ids, 0
            return
        if self._more is None:
            self._more = deque()
        self._more.append(input_ids)

    def put_back(self, input_ids: Sequence[str]) -> None:
        """Queue them again, first in line, in this order."""
        self.size += len(input_ids)
        if self._front is None:
            self._front = []
        self._front.extend(reversed(input_ids))

    def take(self, count: int) -> list[str]:
        """Remove and return the first `count` inputs, or all when there are fewer."""
        taken: list[str] = []
        front = self._front
        if front:
            keep = max(0, len(front) - count)
            taken.extend(reversed(front[keep:]))
            del front[keep:]
        while len(taken) < count:
            start = self._position
            end = start + count - len(taken)
            taken.extend(self._head[start:end])
            if end < len(self._head):
                self._position = end
                break
            self._head, self._position = (self._more.popleft() if self._more else ()), 0
            if not self._head:
                break
        self.size -= len(taken)
        return taken

    def drop(self, input_ids: Collection[str]) -> int:
        """Forget these inputs, all when empty; return how many were queued. Costs as much as the call has queued."""
        before = self.size
        rest = self.take(before)
        if input_ids:
            self.append([one for one in rest if one not in input_ids])
        return before - self.size


class FairQueue:
    """Everything that waits in one function's pool."""

    __slots__ = ("_calls", "_delayed", "_nested", "_sequence", "_turns", "size")

    def __init__(self) -> None:
        self.size = 0  #: inputs that may run now
        self._calls: dict[str, CallQueue] = {}
        self._turns: deque[CallQueue] = deque()
        self._nested = 0
        self._delayed: list[tuple[float, int, str, Sequence[str], bool]] = []
        self._sequence = 0

    @property
    def has_nested(self) -> bool:
        """Whether a call made by a running input waits here."""
        return self._nested > 0

    @property
    def next_due(self) -> float | None:
        """When the next delayed inputs may run."""
        return self._delayed[0][0] if self._delayed else None

    def append(self, call_id: str, input_ids: Sequence[str], is_nested: bool = False) -> None:
        if input_ids:
            self._call(call_id, is_nested).append(input_ids)
            self.size += len(input_ids)

    def delay(self, call_id: str, input_ids: Sequence[str], is_nested: bool, due: float) -> None:
        """Keep these until `release` is called at or after `due`."""
        self._sequence += 1
        heapq.heappush(self._delayed, (due, self._sequence, call_id, input_ids, is_nested))

    def release(self, now: float) -> None:
        """Queue the delayed inputs that are due."""
        while self._delayed and self._delayed[0][0] <= now:
            _, _, call_id, input_ids, is_nested = heapq.heappop(self._delayed)
            self.append(call_id, input_ids, is_nested)

    @property
    def calls(self) -> int:
        """How many calls have inputs queued."""
        return len(self._turns)

    def put_back(self, call: CallQueue, input_ids: Sequence[str]) -> None:
        """Queue inputs of a call again, first in line within the call."""
        if input_ids:
            self._call(call.call_id, call.is_nested).put_back(input_ids)
            self.size += len(input_ids)

    def take(self, count: int) -> Iterator[tuple[CallQueue, list[str]]]:
        """Remove up to `count` inputs, in turns; yields each call with what was taken of it."""
        turns = self._turns
        helping = max(1, count // len(turns)) if turns else 0
        while count > 0 and turns:
            call = turns[0]
            taken = call.take(min(helping, count))
            if call.size:
                turns.rotate(-1)
            else:
                turns.popleft()
                self._forget(call)
            self.size -= len(taken)
            count -= len(taken)
            yield call, taken

    def clear(self) -> list[str]:
        """Remove everything, delayed inputs included, and return it."""
        self.release(float("inf"))
        everything: list[str] = []
        for _, taken in self.take(self.size):
            everything.extend(taken)
        return everything

    def drop(self, call_id: str, input_ids: Collection[str]) -> None:
        """Forget these inputs of a call; all of them when `input_ids` is empty."""
        kept = []
        for due, sequence, owner, delayed, is_nested in self._delayed:
            if owner == call_id:
                delayed = [one for one in delayed if one not in input_ids] if input_ids else []
            if delayed:
                kept.append((due, sequence, owner, delayed, is_nested))
        self._delayed = kept
        heapq.heapify(kept)
        call = self._calls.get(call_id)
        if call is not None:
            self.size -= call.drop(input_ids)
            if not call.size:
                self._turns.remove(call)
                self._forget(call)

    def _call(self, call_id: str, is_nested: bool) -> CallQueue:
        call = self._calls.get(call_id)
        if call is None:
            call = self._calls[call_id] = CallQueue(call_id, is_nested)
            self._turns.append(call)
            self._nested += is_nested
        return call

    def _forget(self, call: CallQueue) -> None:
        del self._calls[call.call_id]
        self._nested -= call.is_nested


Share = tuple[float, float]


def comes_before(app_share: float, pool_share: float) -> Share:
    """The key by which waiting pools are ordered, least served first: what its app holds, then what it holds itself."""
    return (app_share, pool_share)
