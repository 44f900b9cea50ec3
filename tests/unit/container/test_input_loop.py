from __future__ import annotations

import pytest

from modal._container.channel import ProtocolError
from modal._container.machine import (
    CANCELLED,
    GENERATOR_WINDOW,
    STOPPED,
    TIMED_OUT,
    DropInputs,
    Exit,
    InputLoop,
    Interrupt,
    Leave,
    ResumeGenerator,
    ReturnInputs,
)
from modal._container.outbox import INLINE_LIMIT, PAYLOAD_LIMIT
from modal._wire.messages import call, runner

NOTHING = memoryview(b"")


def run_inputs(machine: InputLoop, *names: str) -> list[object]:
    records = [{"input_id": name, "call_id": "fc-1", "size": len(name)} for name in names]
    return machine.handle({"t": "RunInputs", "inputs": records}, memoryview("".join(names).encode()))


def test_inputs_begin_in_order_with_their_own_payload() -> None:
    machine = InputLoop()
    assert run_inputs(machine, "a", "bcd") == []
    first, second = machine.take(), machine.take()
    assert first is not None
    assert second is not None
    assert [(one.input_id, bytes(one.payload or b"")) for one in (first, second)] == [("a", b"a"), ("bcd", b"bcd")]
    assert machine.take() is None


def test_an_input_in_the_blob_store_has_no_payload() -> None:
    machine = InputLoop()
    record = {"input_id": "a", "call_id": "fc", "size": 0, "blob": {"digest": "00", "size": 5}}
    machine.handle({"t": "RunInputs", "inputs": [record]}, NOTHING)
    item = machine.take()
    assert item is not None
    assert item.payload is None
    assert item.blob == {"digest": "00", "size": 5}


def test_recall_gives_back_the_last_inputs_and_never_running_ones() -> None:
    machine = InputLoop()
    run_inputs(machine, "a", "b", "c")
    machine.take()
    assert machine.handle({"t": "Recall", "count": 1}, NOTHING) == [ReturnInputs(["c"])]
    assert machine.handle({"t": "Recall", "count": 9}, NOTHING) == [ReturnInputs(["b"])]
    assert machine.handle({"t": "Recall", "count": 9}, NOTHING) == [ReturnInputs([])]


def test_cancel_drops_what_waits_and_interrupts_what_runs_once() -> None:
    machine = InputLoop()
    run_inputs(machine, "a", "b", "c")
    machine.take()
    cancel = {"t": "CancelInputs", "input_ids": ["a", "b", "unknown"]}
    assert machine.handle(cancel, NOTHING) == [DropInputs(["b"]), Interrupt("a", CANCELLED)]
    assert machine.handle(cancel, NOTHING) == []
    remaining = machine.take()
    assert remaining is not None
    assert remaining.input_id == "c"


def test_stop_returns_interrupts_and_exits_when_the_last_input_has_ended() -> None:
    machine = InputLoop()
    run_inputs(machine, "a", "b")
    item = machine.take()
    assert item is not None
    assert machine.handle({"t": "Stop", "grace": 3}, NOTHING) == [ReturnInputs(["b"]), Interrupt("a", STOPPED)]
    assert machine.grace == 3
    assert machine.handle({"t": "Stop"}, NOTHING) == []
    assert machine.finish(item) == [Exit()]


def test_stop_of_an_idle_container_exits_at_once_and_later_inputs_are_returned() -> None:
    machine = InputLoop()
    assert machine.handle({"t": "Stop"}, NOTHING) == [Exit()]
    assert run_inputs(machine, "a") == [ReturnInputs(["a"])]
    assert machine.take() is None


def test_a_stop_by_signal_is_told_to_the_agent_first() -> None:
    machine = InputLoop()
    run_inputs(machine, "a", "b")
    machine.take()
    assert machine.stop(3.0, by_signal=True) == [Leave(), ReturnInputs(["b"]), Interrupt("a", STOPPED)]
    assert machine.stop(3.0, by_signal=True) == []


def test_time_out_interrupts_only_a_running_input_that_is_not_interrupted_yet() -> None:
    machine = InputLoop()
    run_inputs(machine, "a", "b")
    first, second = machine.take(), machine.take()
    assert first is not None
    assert second is not None
    machine.finish(first)
    assert machine.time_out(first) == []
    machine.handle({"t": "CancelInputs", "input_ids": ["b"]}, NOTHING)
    assert machine.time_out(second) == []
    run_inputs(machine, "c")
    third = machine.take()
    assert third is not None
    assert machine.time_out(third) == [Interrupt("c", TIMED_OUT)]


def test_credit_adds_to_the_window_of_a_running_generator() -> None:
    machine = InputLoop()
    run_inputs(machine, "a")
    item = machine.take()
    assert item is not None
    assert machine.handle({"t": "Credit", "input_id": "a", "count": 5}, NOTHING) == [ResumeGenerator("a")]
    assert item.credit == GENERATOR_WINDOW + 5
    assert machine.handle({"t": "Credit", "input_id": "gone", "count": 5}, NOTHING) == []


@pytest.mark.parametrize(
    "header",
    [
        {"t": "Reboot"},
        {},
        {"t": "Credit"},
        {"t": "Recall", "count": "many"},
        {"t": "RunInputs", "inputs": [{"input_id": "a"}]},
        {"t": "RunInputs", "inputs": [7]},
        {"t": "RunInputs", "inputs": [{"input_id": "a", "call_id": "b", "size": 4}]},
        {"t": "CancelInputs", "input_ids": 3},
        {"t": "Stop", "grace": "soon"},
    ],
)
def test_a_frame_that_makes_no_sense_is_a_protocol_error(header: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        InputLoop().handle(header, NOTHING)


def test_constants_agree_with_the_message_modules() -> None:
    assert GENERATOR_WINDOW == runner.GENERATOR_WINDOW
    assert (INLINE_LIMIT, PAYLOAD_LIMIT) == (call.INLINE_LIMIT, call.PAYLOAD_LIMIT)
