from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intermodal.machines.retry import MAX_LOSSES, AttemptEnd, Cause, RetryDecision, backoff, decide
from modal._wire.messages.function import RetryPolicy


@pytest.mark.parametrize("cause", [Cause.USER_FAILURE, Cause.TIMEOUT, Cause.CONTAINER_DIED])
def test_failures_are_retried_as_often_as_the_policy_says(cause: Cause) -> None:
    policy = RetryPolicy(max_retries=2, backoff_coefficient=2.0, initial_delay=3.0)
    assert decide(AttemptEnd(cause, 0), policy) == RetryDecision(True, 3.0, True)
    assert decide(AttemptEnd(cause, 1), policy) == RetryDecision(True, 6.0, True)
    assert not decide(AttemptEnd(cause, 2), policy).retry


def test_without_a_policy_a_failure_is_final() -> None:
    assert not decide(AttemptEnd(Cause.USER_FAILURE), RetryPolicy()).retry


def test_losses_are_retried_uncounted_but_not_for_ever() -> None:
    decisions = [decide(AttemptEnd(Cause.INTERNAL_FAILURE, 0, n), RetryPolicy()) for n in range(MAX_LOSSES + 1)]
    assert all(one.retry and not one.counts for one in decisions[:-1])
    assert decisions[0].delay == 0.0
    assert [one.delay for one in decisions] != sorted((one.delay for one in decisions), reverse=True)
    assert not decisions[-1].retry


@pytest.mark.parametrize("cause", [Cause.TERMINATED, Cause.INIT_FAILURE])
def test_cancelled_inputs_and_broken_functions_are_not_retried(cause: Cause) -> None:
    assert decide(AttemptEnd(cause), RetryPolicy(max_retries=10)) == RetryDecision(False)


def test_what_was_not_begun_is_queued_again_at_once_and_uncounted() -> None:
    assert decide(AttemptEnd(Cause.RETURNED, 99, 99), RetryPolicy()) == RetryDecision(True)


def test_delays_grow_by_the_coefficient_up_to_the_limit() -> None:
    policy = RetryPolicy(9, backoff_coefficient=2.0, initial_delay=1.0, max_delay=60.0)
    assert [backoff(policy, n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_coefficient_of_one_keeps_the_delay_fixed() -> None:
    policy = RetryPolicy(9, backoff_coefficient=1.0, initial_delay=3.0)
    assert {backoff(policy, n) for n in range(9)} == {3.0}


@given(st.integers(0, 10_000), st.floats(0, 100), st.floats(0, 1000), st.floats(0, 1000))
def test_a_delay_is_never_negative_nor_above_the_limit(n: int, factor: float, first: float, most: float) -> None:
    policy = RetryPolicy(1, backoff_coefficient=factor, initial_delay=first, max_delay=most)
    assert 0.0 <= backoff(policy, n) <= most
