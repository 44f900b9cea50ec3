from __future__ import annotations

import asyncio

from live_parts import container_of, revision

from intermodal.control.container import Container
from intermodal.control.functions import Function
from intermodal.control.hung_inputs import HungInputs, hung_inputs
from modal._wire.messages.function import Concurrency


def busy(*input_ids: str, at: float = 0.0, container_id: str = "ta-1", **spec: object) -> Container:
    """A container whose inputs, of a function with a timeout of 10 s, were pushed at that time."""
    function = Function("fu-1", "ap-1", revision(timeout=10.0, **spec))
    return container_of(function, container_id, running=dict.fromkeys(input_ids, at))


def looked_at(container: Container, *times: float) -> list[str]:
    """What hangs at the last of these times, when somebody looks at each."""
    return [hung_inputs(container, now) for now in times][-1]


def test_an_input_hangs_that_runs_past_its_timeout_and_did_not_end_by_itself() -> None:
    assert looked_at(busy("in-1-0"), 0.0, 11.9) == []
    assert looked_at(busy("in-1-0"), 0.0, 12.1) == ["in-1-0"]


def test_time_begins_when_an_input_is_seen_to_run_and_not_when_it_was_pushed_ahead() -> None:
    container = busy("in-1-0", "in-1-1")
    assert looked_at(container, 0.0, 9.0) == []
    del container.running["in-1-0"]
    assert looked_at(container, 9.1, 20.0) == []
    assert looked_at(container, 21.2) == ["in-1-1"]


def test_as_many_run_as_the_container_runs_side_by_side() -> None:
    container = busy("in-1-0", "in-1-1", "in-1-2", concurrency=Concurrency(max_concurrent_inputs=2))
    assert looked_at(container, 0.0, 13.0) == ["in-1-0", "in-1-1"]


def test_a_batch_has_the_time_besides_that_it_waits_to_be_filled() -> None:
    concurrency = Concurrency(batch_max_size=2, batch_wait_ms=5000)
    assert looked_at(busy("in-1-0", "in-1-1", concurrency=concurrency), 0.0, 16.0) == []
    assert looked_at(busy("in-1-0", "in-1-1", concurrency=concurrency), 0.0, 17.1) == ["in-1-0", "in-1-1"]


def test_another_attempt_of_an_input_has_its_own_time() -> None:
    container = busy("in-1-0")
    assert looked_at(container, 0.0, 9.0) == []
    container.running["in-1-0"] = 9.1
    assert looked_at(container, 9.2, 20.0) == []
    assert looked_at(container, 21.3) == ["in-1-0"]


def test_time_does_not_count_while_someone_is_asked_at_a_terminal() -> None:
    container = busy("in-1-0")
    container.has_terminal = True
    assert looked_at(container, 0.0, 60.0) == []
    container.has_terminal = False
    assert looked_at(container, 60.0, 71.9) == []
    assert looked_at(container, 72.1) == ["in-1-0"]


def test_a_container_that_is_being_killed_is_not_killed_again() -> None:
    container = busy("in-1-0")
    container.timed_out = {"in-1-0"}
    assert looked_at(container, 0.0, 60.0) == []


async def test_containers_are_looked_at_until_the_end() -> None:
    now = asyncio.get_running_loop().time()
    killed = asyncio.Queue[str]()
    hung, other = busy("in-1-0", at=now - 60.0), busy("in-2-0", at=now, container_id="ta-2")
    hung.begun = {"in-1-0": now - 60.0}
    watchdog = HungInputs({"ta-1": hung, "ta-2": other}, killed.put_nowait)
    watchdog.watch()
    assert killed.get_nowait() == "ta-1"
    assert hung.timed_out == {"in-1-0"}
    other.begun = other.running = {"in-2-0": now - 60.0}
    async with asyncio.timeout(10):
        assert await killed.get() == "ta-2"
    watchdog.close()
