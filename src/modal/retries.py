"""`modal.Retries`: what happens after an input failed."""

from __future__ import annotations

import math
from typing import Any

from ._wire.messages.function import RetryPolicy
from .exception import InvalidError

MAX_RETRIES = 10


class Retries:
    """A retry policy for the inputs of a function.

    The n-th retry starts `initial_delay * backoff_coefficient ** (n - 1)` seconds after the failure, or `max_delay`
    if that is less.
    """

    def __init__(
        self,
        *,
        max_retries: int,
        backoff_coefficient: float = 2.0,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
    ) -> None:
        """Make a policy.

        Args:
            max_retries: retries after the first try, from 0 to 10.
            backoff_coefficient: how much the delay grows with each retry, from 1 to 10; 1.0 keeps it the same.
            initial_delay: seconds before the first retry, from 0 to 60.
            max_delay: seconds that no delay exceeds, from 1 to 60.

        Raises:
            InvalidError: a value is out of its range; the message names it.
        """
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or not 0 <= max_retries <= MAX_RETRIES:
            raise InvalidError(f"Retries: max_retries must be a whole number from 0 to 10, not {max_retries!r}.")
        _in_range("backoff_coefficient", backoff_coefficient, 1.0, 10.0)
        _in_range("initial_delay", initial_delay, 0.0, 60.0)
        _in_range("max_delay", max_delay, 1.0, 60.0)
        self.max_retries = max_retries
        self.backoff_coefficient = float(backoff_coefficient)
        self.initial_delay = float(initial_delay)
        self.max_delay = float(max_delay)

    def _policy(self) -> RetryPolicy:
        return RetryPolicy(self.max_retries, self.backoff_coefficient, self.initial_delay, self.max_delay)

    def __repr__(self) -> str:
        return (
            f"Retries(max_retries={self.max_retries}, backoff_coefficient={self.backoff_coefficient}, "
            f"initial_delay={self.initial_delay}, max_delay={self.max_delay})"
        )


def _in_range(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise InvalidError(f"Retries: {name} must be a number from {low:g} to {high:g}, not {value!r}.")


def retry_policy(value: object) -> RetryPolicy:
    """The policy that a `retries` parameter asks for: None, a number of retries, or a `Retries`.

    Raises:
        InvalidError: for a number out of range or another kind of value.
    """
    if value is None:
        return RetryPolicy()
    if isinstance(value, Retries):
        return value._policy()
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MAX_RETRIES:
            raise InvalidError(f"retries must be from 0 to 10, not {value!r}.")
        # A plain number means a fixed delay, as documented.
        return RetryPolicy(value, backoff_coefficient=1.0, initial_delay=1.0)
    raise InvalidError(f"retries must be a whole number or a modal.Retries, not {value!r}.")
