from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from intermodal.control.calls import Call, Calls
from intermodal.control.run_inputs import run_inputs
from intermodal.machines.retry import Cause
from intermodal.store.interface import CallKind, CallRecord
from intermodal.store.memory import MemoryStore
from modal._wire.codec import encode
from modal._wire.frames import pack
from modal._wire.messages.call import INLINE_LIMIT, Input, Output, Status
from modal._wire.messages.function import RetryPolicy
from modal._wire.messages.runner import RunInput


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    calls = Calls(MemoryStore(), time.time)
    yield calls
    calls.flush()


def call_with(calls: Calls, *sizes: int) -> Call:
    record = CallRecord("fc-1", "fu-1", "ap-1", CallKind.MAP, 0.0, method="m")
    call = calls.create(record, RetryPolicy(max_retries=1))
    calls.add_inputs(call, [Input(index, size) for index, size in enumerate(sizes)], bytes(sum(sizes)))
    return call


async def test_a_message_has_the_inputs_in_order_and_their_payloads(calls: Calls) -> None:
    call = call_with(calls, 3, 0, 5)
    call.machine.attempt_ended(0, Cause.USER_FAILURE)
    [(message, body)], over = run_inputs(calls, ["in-1-2", "in-1-0"])
    assert message.inputs == [
        RunInput("in-1-2", "fc-1", 5, method="m"),
        RunInput("in-1-0", "fc-1", 3, retry_count=1, method="m"),
    ]
    assert len(body) == 8
    assert not over


async def test_inputs_that_have_their_output_are_told(calls: Calls) -> None:
    call = call_with(calls, 0, 0)
    calls.finish(call, 1, Output(1, Status.SUCCESS, 0, None, None, "in-1-1"), b"")
    assert run_inputs(calls, ["in-1-1", "in-gone-0"]) == ([], ["in-1-1", "in-gone-0"])


async def test_no_frame_is_over_the_limit(calls: Calls) -> None:
    sizes = [INLINE_LIMIT] * 9 + [1] * 4000
    call_with(calls, *sizes)
    frames, _ = run_inputs(calls, [f"in-1-{index}" for index in range(len(sizes))])
    assert [one.size for message, _ in frames for one in message.inputs] == sizes
    for message, body in frames:
        assert sum(one.size for one in message.inputs) == len(body)
        pack({"t": "RunInputs", **encode(message)}, body)  # raises TooLarge
