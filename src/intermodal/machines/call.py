"""The life of a function call, and how far each of its inputs is.

A call may have a million inputs, so an input is one byte here, and an entry more only while it has failed attempts
behind it.
"""

from __future__ import annotations

import enum

from modal._wire.messages.function import RetryPolicy
from modal.exception import InvalidError

from .machine import IllegalTransition, Machine
from .retry import AttemptEnd, Cause, RetryDecision, decide


class CallState(enum.Enum):
    OPEN = "open"  #: inputs may still come
    CLOSED = "closed"  #: every input is known
    CANCELLED = "cancelled"  #: what has no output yet is terminated
    DONE = "done"  #: every input has its output


class CallEvent(enum.Enum):
    CLOSED = "closed"
    CANCELLED = "cancelled"
    DONE = "done"


_S, _E = CallState, CallEvent

CALL_TABLE: dict[tuple[CallState, CallEvent], CallState] = {
    (_S.OPEN, _E.CLOSED): _S.CLOSED,
    (_S.OPEN, _E.CANCELLED): _S.CANCELLED,
    (_S.CLOSED, _E.CLOSED): _S.CLOSED,  # a resumed map says it again
    (_S.CLOSED, _E.CANCELLED): _S.CANCELLED,
    (_S.CLOSED, _E.DONE): _S.DONE,
    (_S.CANCELLED, _E.CLOSED): _S.CANCELLED,
    (_S.CANCELLED, _E.CANCELLED): _S.CANCELLED,
    (_S.CANCELLED, _E.DONE): _S.DONE,
    (_S.DONE, _E.CLOSED): _S.DONE,
    (_S.DONE, _E.CANCELLED): _S.DONE,
}

MAX_GAP = 1_000_000  #: how far an index may be ahead of all others; inputs arrive nearly in order

_UNKNOWN, _OPEN, _ENDED = 0, 1, 2  # one byte an input


class CallMachine:
    """One call. Inputs are named by their index."""

    __slots__ = ("_attempts", "_inputs", "_machine", "ended", "policy", "received")

    def __init__(self, call_id: str, policy: RetryPolicy) -> None:
        self._machine = Machine(call_id, CallState.OPEN, CALL_TABLE)
        self.policy = policy
        self.received = 0  #: inputs accepted so far
        self.ended = 0  #: inputs with their output
        self._inputs = bytearray()
        self._attempts: dict[int, tuple[int, int]] = {}  # index -> failures, losses

    @property
    def state(self) -> CallState:
        return self._machine.state

    def accept(self, index: int) -> bool:
        """Take an input; False when it is known already (a resumed map sends again).

        Raises:
            IllegalTransition: the call takes no more inputs.
            InvalidError: the index is negative, or far beyond any other.
        """
        if not 0 <= index < len(self._inputs) + MAX_GAP:
            raise InvalidError(f"Input {index} of call {self._machine.subject} is out of range; number them from 0.")
        if index < len(self._inputs) and self._inputs[index] != _UNKNOWN:
            return False
        if self.state is not CallState.OPEN:
            raise IllegalTransition(
                f"{self._machine.subject} is {self.state.value} and takes no more inputs, such as the one at {index}."
            )
        if index >= len(self._inputs):
            self._inputs.extend(bytes(index + 1 - len(self._inputs)))
        self._inputs[index] = _OPEN
        self.received += 1
        return True

    def close(self) -> None:
        """No more inputs will come."""
        self._machine.on(CallEvent.CLOSED)
        self._check_done()

    def cancel(self) -> list[int]:
        """Terminate what has no output yet; return those inputs, whose outputs are to be given by `finish`."""
        self._machine.on(CallEvent.CANCELLED)
        remaining = self.unfinished()
        self._check_done()
        return remaining

    def finish(self, index: int) -> bool:
        """Input `index` has its output; False when it had one already, or is unknown: the first one counts."""
        if index >= len(self._inputs) or self._inputs[index] != _OPEN:
            return False
        self._inputs[index] = _ENDED
        self._attempts.pop(index, None)
        self.ended += 1
        self._check_done()
        return True

    def attempt_ended(self, index: int, cause: Cause) -> RetryDecision:
        """Decide on an attempt that ended without a result, and count it. Does not finish the input."""
        failures, losses = self._attempts.get(index, (0, 0))
        if self.state is CallState.CANCELLED or index >= len(self._inputs) or self._inputs[index] != _OPEN:
            return RetryDecision(False)
        decision = decide(AttemptEnd(cause, failures, losses), self.policy)
        if decision.retry and cause is not Cause.RETURNED:
            self._attempts[index] = (failures + 1, losses) if decision.counts else (failures, losses + 1)
        return decision

    def retries(self, index: int) -> int:
        """How many failed attempts of the input count against the policy."""
        return self._attempts.get(index, (0, 0))[0]

    def unfinished(self) -> list[int]:
        """The inputs without an output, in order."""
        return [index for index, state in enumerate(self._inputs) if state == _OPEN]

    def _check_done(self) -> None:
        if self.state in (CallState.CLOSED, CallState.CANCELLED) and self.ended == self.received:
            self._machine.on(CallEvent.DONE)
