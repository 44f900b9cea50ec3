from __future__ import annotations

import sys

import pytest

from intermodal.machines.call import CallMachine, CallState
from intermodal.machines.machine import IllegalTransition
from intermodal.machines.retry import MAX_LOSSES, Cause
from modal._wire.messages.function import RetryPolicy
from modal.exception import InvalidError


def call(inputs: int = 3, retries: int = 1) -> CallMachine:
    made = CallMachine("fc-1", RetryPolicy(max_retries=retries))
    for index in range(inputs):
        assert made.accept(index)
    return made


def test_a_call_is_done_when_it_is_closed_and_every_input_has_its_output() -> None:
    made = call(2)
    assert made.finish(1)
    assert made.finish(0)
    assert made.state is CallState.OPEN
    made.close()
    assert made.state is CallState.DONE


def test_a_call_without_inputs_is_done_when_closed() -> None:
    made = call(0)
    made.close()
    assert made.state is CallState.DONE


def test_an_input_sent_again_is_taken_once() -> None:
    made = call(2)
    assert not made.accept(1)
    made.close()
    assert not made.accept(0)
    assert made.received == 2


def test_the_first_output_counts() -> None:
    made = call(1)
    assert made.finish(0)
    assert not made.finish(0)
    assert not made.finish(7)
    assert made.ended == 1


def test_a_closed_call_takes_no_more_inputs() -> None:
    made = call(1)
    made.close()
    with pytest.raises(IllegalTransition, match="fc-1 is closed"):
        made.accept(1)


@pytest.mark.parametrize("index", [-1, 10**12])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(InvalidError, match="out of range"):
        call(1).accept(index)


def test_failures_are_counted_by_input_and_forgotten_with_its_output() -> None:
    made = call(2, retries=1)
    assert made.attempt_ended(0, Cause.USER_FAILURE).retry
    assert made.retries(0) == 1
    assert not made.attempt_ended(0, Cause.TIMEOUT).retry
    assert made.attempt_ended(1, Cause.CONTAINER_DIED).retry
    made.finish(0)
    assert made.retries(0) == 0


def test_losses_and_returns_do_not_use_up_the_policy() -> None:
    made = call(1, retries=1)
    for _ in range(MAX_LOSSES):
        assert made.attempt_ended(0, Cause.INTERNAL_FAILURE).retry
        assert made.attempt_ended(0, Cause.RETURNED).retry
    assert made.attempt_ended(0, Cause.USER_FAILURE).retry
    assert not made.attempt_ended(0, Cause.INTERNAL_FAILURE).retry


def test_cancelling_names_what_is_left_and_retries_nothing() -> None:
    made = call(3, retries=5)
    made.finish(1)
    assert made.cancel() == [0, 2]
    assert not made.attempt_ended(0, Cause.USER_FAILURE).retry
    made.finish(0)
    made.finish(2)
    assert made.state is CallState.DONE
    assert made.cancel() == []


def test_a_million_inputs_take_about_a_byte_each() -> None:
    made = call(1_000_000)
    assert sys.getsizeof(made._inputs) < 2_000_000
