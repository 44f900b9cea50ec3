from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from intermodal.control.calls import Call, Calls
from intermodal.control.generator_values import Payload
from intermodal.store.interface import CallKind, CallRecord
from intermodal.store.memory import MemoryStore
from modal._wire.messages.call import Input, Output, Status
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.function import RetryPolicy

MIB = 1 << 20
KEPT = 8 * MIB


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    calls = Calls(MemoryStore(), time.time, keep=KEPT)
    yield calls
    calls.flush()


def begin(calls: Calls, call_id: str) -> Call:
    call = calls.create(CallRecord(call_id, "fu-1", "ap-1", CallKind.GENERATE, 0.0), RetryPolicy())
    calls.add_inputs(call, [Input(0, 0)], b"")
    calls.close_inputs(call)
    return call


def finish(calls: Calls, call: Call, data: bytes = b"") -> None:
    calls.finish(call, 0, Output(0, Status.SUCCESS, len(data), None, None, f"in-{call.record.call_id[3:]}-0"), data)


async def test_ended_calls_stay_in_memory_as_far_as_there_is_room(calls: Calls) -> None:
    for number in range(12):
        finish(calls, begin(calls, f"fc-{number}"), bytes(MIB))
    kept = [number for number in range(12) if calls.live(f"fc-{number}") is not None]
    assert kept == [5, 6, 7, 8, 9, 10, 11]


async def test_generators_whose_values_are_read_after_their_end_take_no_room_for_ever(calls: Calls) -> None:
    for number in range(20):
        call = begin(calls, f"fc-{number}")
        for _ in range(6):
            call.add_value(Payload(bytes(MIB)))
        finish(calls, call)
        for position in range(6):
            assert call.values is not None
            call.values.was_sent(position)
    calls.expire(time.time() + 1)
    finish(calls, begin(calls, "fc-last"), bytes(KEPT - MIB))
    assert calls.live("fc-last") is not None


async def test_what_a_cancelled_generator_yields_afterwards_is_not_kept(calls: Calls) -> None:
    call = begin(calls, "fc-1")
    call.add_value(Payload(b"1"))
    calls.abandon(call, Status.TERMINATED, ErrorInfo("RemoteError", "cancelled"))
    call.add_value(Payload(b"2"))
    assert call.values is not None
    assert call.values.total == 1
