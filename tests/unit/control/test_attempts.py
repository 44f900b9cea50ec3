from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
from live_parts import call_of, container_of, revision

from intermodal.control.attempts import CALLER_LOST, Attempts
from intermodal.control.calls import Call, Calls
from intermodal.control.functions import Function
from intermodal.control.generator_values import Payload
from intermodal.machines.retry import LOSS_DELAY, MAX_LOSSES
from intermodal.model.container import ContainerExit, ExitCause
from intermodal.store.memory import MemoryStore
from modal._wire.messages.call import Output, Status
from modal._wire.messages.common import ErrorInfo

RAISED = Output(0, Status.FAILURE, 3, None, None, "in-1-0")
KILLED = ContainerExit(ExitCause.SIGNALED, signal=9, detail="It was killed.")


class Subject:
    def __init__(self) -> None:
        self.calls = Calls(MemoryStore(), time.time)
        self.queued: list[tuple[Sequence[str], float]] = []
        self.dropped: list[Call] = []
        self.attempts = Attempts(
            self.calls, lambda call, ids, delay: self.queued.append((ids, delay)), self.dropped.append
        )
        self.function = Function("fu-1", "ap-1", revision(timeout=5.0))


@pytest.fixture
async def subject() -> Iterator[Subject]:
    subject = Subject()
    yield subject
    subject.calls.flush()


async def test_a_failure_is_tried_again_as_often_as_the_policy_says_and_is_then_the_output(subject: Subject) -> None:
    call = call_of(subject.calls, max_retries=2, initial_delay=1.0, backoff_coefficient=3.0)
    for _ in range(3):
        subject.attempts.failed(call, RAISED, b"why", "ta-1")
    assert subject.queued == [(["in-1-0"], 1.0), (["in-1-0"], 3.0)]
    assert call.output is not None
    assert (call.output.output, call.output.data, call.output.container_id) == (RAISED, b"why", "ta-1")


async def test_a_generator_that_has_yielded_is_not_run_again(subject: Subject) -> None:
    call = call_of(subject.calls, max_retries=5)
    call.add_value(Payload(b"1"))
    subject.attempts.failed(call, RAISED, b"why", "ta-1")
    assert not subject.queued
    assert call.output is not None


async def test_a_cancelled_input_is_not_run_again(subject: Subject) -> None:
    call = call_of(subject.calls, max_retries=5)
    subject.calls.abandon(call, Status.TERMINATED, ErrorInfo("RemoteError", "cancelled"))
    subject.attempts.failed(call, RAISED, b"why", "ta-1")
    subject.attempts.lost("in-1-0", "ta-1", None)
    assert not subject.queued
    assert call.output is not None
    assert call.output.output.status is Status.TERMINATED


async def test_a_container_that_died_by_itself_counts_against_the_policy(subject: Subject) -> None:
    call = call_of(subject.calls)
    subject.attempts.lost("in-1-0", "ta-1", container_of(subject.function, exit=KILLED))
    assert not subject.queued
    assert call.output is not None
    assert call.output.output.status is Status.INTERNAL_FAILURE
    assert call.output.output.error == ErrorInfo("ExecutionError", "It was killed.")


@pytest.mark.parametrize(
    "fields",
    [
        None,  # nothing is known of it
        {"exit": KILLED, "is_stopping": True},
        {"exit": ContainerExit(ExitCause.STOPPED)},
    ],
)
async def test_what_we_lost_is_run_again_uncounted_but_not_for_ever(subject: Subject, fields: dict | None) -> None:
    call = call_of(subject.calls)
    container = container_of(subject.function, **fields) if fields is not None else None
    for _ in range(MAX_LOSSES):
        subject.attempts.lost("in-1-0", "ta-1", container)
    assert [delay for _, delay in subject.queued[:2]] == [0.0, LOSS_DELAY]
    assert len(subject.queued) == MAX_LOSSES
    assert call.output is None
    subject.attempts.lost("in-1-0", "ta-1", container)
    assert call.output is not None
    assert call.output.output.status is Status.INTERNAL_FAILURE


async def test_an_input_for_whose_sake_the_container_was_killed_has_timed_out(subject: Subject) -> None:
    calls = [call_of(subject.calls, f"fc-{n}") for n in (1, 2)]
    container = container_of(subject.function, exit=ContainerExit(ExitCause.STOPPED), timed_out={"in-1-0"})
    for one in ("in-1-0", "in-2-0"):
        subject.attempts.lost(one, "ta-1", container)
    assert subject.queued == [(["in-2-0"], 0.0)]
    assert calls[0].output is not None
    assert calls[0].output.output.status is Status.TIMEOUT
    assert calls[0].output.output.error is not None
    assert "Function f ran longer than its timeout of 5 s" in calls[0].output.output.error.message


async def test_inputs_that_are_lost_and_nobody_knows_are_ignored(subject: Subject) -> None:
    call_of(subject.calls)
    subject.attempts.lost("in-1-1", "ta-1", None)
    subject.attempts.lost("in-other-0", "ta-1", None)
    assert not subject.queued


async def test_refused_inputs_fail_with_what_the_last_container_said(subject: Subject) -> None:
    subject.function.start_failure = (ErrorInfo("ImportError", "no such module"), b"traceback")
    calls = [call_of(subject.calls, f"fc-{n}") for n in (1, 2)]
    subject.attempts.refused(["in-1-0", "in-gone-0"], subject.function, "it cannot start", True)
    subject.attempts.refused(["in-2-0"], subject.function, "it asks for too much", False)
    first, second = (call.output for call in calls)
    assert first is not None
    assert second is not None
    assert (first.output.status, first.output.error, first.data) == (
        Status.INIT_FAILURE,
        ErrorInfo("ImportError", "no such module"),
        b"traceback",
    )
    assert (second.output.error, second.data) == (ErrorInfo("ExecutionError", "it asks for too much"), b"")


async def test_inputs_of_a_function_that_was_removed_say_so(subject: Subject) -> None:
    subject.function.start_failure = (ErrorInfo("ImportError", "no such module"), b"traceback")
    subject.function.removed = "It is not in this version."
    call = call_of(subject.calls)
    subject.attempts.refused(["in-1-0"], subject.function, "it cannot start", True)
    assert call.output is not None
    assert (call.output.output.status, call.output.data) == (Status.TERMINATED, b"")
    assert call.output.output.error == ErrorInfo("NotFoundError", "It is not in this version.")


async def test_calls_of_an_input_that_is_gone_end_and_theirs_alone(subject: Subject) -> None:
    mine = call_of(subject.calls, "fc-2", inputs=3, parent="in-1-0")
    other = call_of(subject.calls, "fc-3", parent="in-9-0")
    subject.attempts.abandon_calls_of("in-1-0")
    assert mine.is_done
    assert not other.is_done
    assert subject.dropped == [mine]
    subject.attempts.abandon_calls_of("in-9-0")
    assert other.output is not None
    assert other.output.output.error == CALLER_LOST
