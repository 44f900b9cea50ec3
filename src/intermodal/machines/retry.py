"""What becomes of an input whose attempt ended badly: tried again, or failed. A pure function.

Two budgets keep every input finite. *Failures* are what the function's `RetryPolicy` counts: user code raised, ran into
its timeout, or took its container down. *Losses* are the platform's doing (a node lost, the server restarted); they
never count against the policy, but after `MAX_LOSSES` of them the input fails instead of going round for ever.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from modal._wire.messages.function import RetryPolicy

MAX_LOSSES = 8
LOSS_DELAY = 0.1  #: seconds before the second try after a loss; doubles with each, the first is tried at once
MAX_LOSS_DELAY = 10.0


class Cause(enum.Enum):
    """Why an attempt ended without a result."""

    USER_FAILURE = "user_failure"  #: user code raised
    TIMEOUT = "timeout"  #: it ran past the function's timeout
    CONTAINER_DIED = "container_died"  #: killed, out of memory or exited while the input ran
    INTERNAL_FAILURE = "internal_failure"  #: the platform failed, through no fault of the input
    INIT_FAILURE = "init_failure"  #: no container could start; the scheduler has made its bounded tries already
    TERMINATED = "terminated"  #: cancelled, or its app stopped
    RETURNED = "returned"  #: pushed ahead and given back without having begun


_COUNTED = frozenset({Cause.USER_FAILURE, Cause.TIMEOUT, Cause.CONTAINER_DIED})
_FINAL = frozenset({Cause.INIT_FAILURE, Cause.TERMINATED})


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """An attempt that ended, and how many of the input's earlier attempts ended badly."""

    cause: Cause
    failures: int = 0  #: earlier attempts that count against the policy
    losses: int = 0  #: earlier attempts lost to the platform


@dataclass(frozen=True, slots=True)
class RetryDecision:
    retry: bool
    delay: float = 0.0  #: seconds to wait before the next attempt
    counts: bool = False  #: this attempt is one more failure (else, when retried and not returned, one more loss)


def decide(attempt: AttemptEnd, policy: RetryPolicy) -> RetryDecision:
    """Decide on an attempt that ended without a result."""
    if attempt.cause in _FINAL:
        return RetryDecision(False)
    if attempt.cause is Cause.RETURNED:
        return RetryDecision(True)
    if attempt.cause in _COUNTED:
        if attempt.failures >= policy.max_retries:
            return RetryDecision(False, counts=True)
        return RetryDecision(True, backoff(policy, attempt.failures), counts=True)
    if attempt.losses >= MAX_LOSSES:
        return RetryDecision(False)
    delay = _grown(LOSS_DELAY, 2.0, attempt.losses - 1, MAX_LOSS_DELAY) if attempt.losses else 0.0
    return RetryDecision(True, delay)


def backoff(policy: RetryPolicy, retries: int) -> float:
    """Seconds before the next retry when `retries` were made before it: grows by the coefficient up to `max_delay`."""
    return _grown(policy.initial_delay, policy.backoff_coefficient, retries, policy.max_delay)


def _grown(first: float, factor: float, times: int, most: float) -> float:
    try:
        return max(0.0, min(most, first * factor**times))
    except OverflowError:
        return most
