from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from live_parts import Live, container_of

from intermodal.control.container import Container
from intermodal.control.direct_calls import DirectCalls
from intermodal.machines.app import AppChange
from modal._wire.messages.call import Status
from modal._wire.messages.runner import RunInput, RunOutput, Taken

FIRST, SECOND = RunInput("in-1-0", "fc-1", 2), RunInput("in-2-0", "fc-2", 3, method="m")


class Subject:
    def __init__(self, live: Live) -> None:
        self.app, self.function, self.calls = live.app, live.function, live.calls
        self.direct = DirectCalls(live.calls, time.time)
        self.container: Container = container_of(live.function)
        self.container.app = live.app


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    live = Live(tmp_path)
    yield Subject(live)
    live.close()


async def test_inputs_that_a_container_has_are_calls_like_others(subject: Subject) -> None:
    calls = subject.direct.taken(subject.container, Taken([FIRST, SECOND]), b"aabbb")
    assert [(call.record.call_id, call.inputs[0].data, call.record.method) for call in calls] == [
        ("fc-1", b"aa", ""),
        ("fc-2", b"bbb", "m"),
    ]
    assert subject.function.open_inputs == 2
    assert subject.calls.live("fc-2") is calls[1]


async def test_an_input_that_its_client_told_of_is_not_taken_twice(subject: Subject) -> None:
    subject.container.took(["in-1-0"], 0.0)
    [call] = subject.direct.taken(subject.container, Taken([FIRST, SECOND]), b"aabbb")
    assert (call.record.call_id, call.inputs[0].data) == ("fc-2", b"bbb")


async def test_a_call_of_an_app_that_has_stopped_ends_at_once(subject: Subject) -> None:
    subject.app.machine.on(AppChange.STOP)
    [call] = subject.direct.taken(subject.container, Taken([FIRST]), b"aa")
    assert call.output is not None
    assert call.output.output.status is Status.TERMINATED
    assert subject.function.open_inputs == 0


async def test_a_result_that_the_client_has_already_is_that_of_a_finished_call(subject: Subject) -> None:
    answer = RunOutput("in-1-0", Status.SUCCESS, 2, seconds=0.5, call_id="fc-1")
    for data in (b"42", b"43"):  # the first one counts
        subject.direct.ended(subject.function, answer, data, "ta-1")
    call = subject.calls.live("fc-1")
    assert call is not None
    assert call.output is not None
    assert (call.is_done, call.output.data, call.output.container_id) == (True, b"42", "ta-1")
    assert (subject.function.open_inputs, subject.function.done_inputs) == (0, 1)


async def test_the_latest_containers_that_are_gone_are_remembered(subject: Subject) -> None:
    for number in range(1001):
        subject.direct.remember(container_of(subject.function, f"ta-{number}"))
    assert subject.direct.lost_container("ta-0") is None
    assert subject.direct.lost_container("ta-1") is not None
    assert subject.direct.lost_container("ta-1000") is not None
