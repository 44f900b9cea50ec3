"""What the scheduler makes of inputs that it has not pushed."""

from __future__ import annotations

import itertools

import pytest

from intermodal.scheduling import events as ev
from intermodal.scheduling.instructions import CloseLines, InputsOrphaned, PushInputs, StopContainer
from intermodal.scheduling.scheduler import DIRECT_SECONDS, Scheduler
from modal._wire.messages.function import Concurrency, Scaling


def ready(run_seconds: float = 0.001, **options: object) -> Scheduler:
    """A scheduler whose one container ta-0 is ready, idle, and has run one input."""
    made = Scheduler(f"ta-{n}" for n in itertools.count())
    made.handle(ev.NodeJoined("local", 2, 8192), 0.0)
    made.handle(ev.PoolAdded("fu", "ap", "f", **options), 0.0)  # type: ignore[arg-type]
    made.handle(ev.InputsQueued("fu", "fc", ["warm-up"]), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    made.handle(ev.InputsFinished("ta-0", ["warm-up"], run_seconds), 0.1)
    return made


def test_a_line_goes_to_an_idle_container_that_has_worked() -> None:
    made = ready()
    assert made.direct_container("fu") == "ta-0"
    assert made.direct_container("fu-other") == ""
    made.handle(ev.InputsQueued("fu", "fc", ["in-1"]), 0.2)
    assert made.direct_container("fu") == ""


@pytest.mark.parametrize(
    "concurrency", [Concurrency(2), Concurrency(1, max_inputs=10), Concurrency(batch_max_size=4, batch_wait_ms=10)]
)
def test_functions_whose_inputs_are_counted_or_run_together_have_none(concurrency: Concurrency) -> None:
    assert ready(concurrency=concurrency).direct_container("fu") == ""


def test_slow_functions_have_none() -> None:
    assert ready(run_seconds=2 * DIRECT_SECONDS).direct_container("fu") == ""


def test_a_container_that_works_directly_is_not_idle() -> None:
    made = ready(scaling=Scaling(idle_timeout=5))
    for second in range(1, 20):
        told = made.handle(ev.InputsFinished("ta-0", [], 0.001, direct=3), float(second))
        told += made.handle(ev.Tick(), second + 0.5)
        assert not any(isinstance(one, StopContainer) for one in told)
    told = made.handle(ev.Tick(), 26.0)
    assert StopContainer("ta-0", 30.0) in told


def test_an_input_that_it_tells_of_takes_its_place() -> None:
    made = ready(scaling=Scaling(max_containers=1))
    made.handle(ev.InputsTaken("ta-0", ["fc-direct"], ["in-direct"]), 0.2)
    told = made.handle(ev.InputsQueued("fu", "fc", ["in-1"]), 0.4)
    assert not any(isinstance(one, PushInputs) for one in told)
    told = made.handle(ev.InputsFinished("ta-0", ["in-direct"], 0.3), 0.5)
    assert PushInputs("ta-0", ["in-1"]) in told


def test_an_input_that_it_gives_back_goes_to_another_container() -> None:
    made = ready()
    made.handle(ev.InputsQueued("fu", "fc", ["in-1"]), 0.2)
    made.handle(ev.InputsTaken("ta-0", ["fc-direct"], ["in-direct"]), 0.3)
    made.handle(ev.InputsReturned("ta-0", ["in-direct"]), 0.3)
    made.handle(ev.InputsQueued("fu", "fc", ["in-2"]), 0.3)
    told = made.handle(ev.Tick(), 1.0) + made.handle(ev.ContainerReady("ta-1"), 1.1)
    assert any(isinstance(one, PushInputs) and "in-direct" in one.input_ids for one in told)


def test_a_container_that_dies_loses_what_it_told_of_first() -> None:
    made = ready(scaling=Scaling(max_containers=1))
    made.handle(ev.InputsQueued("fu", "fc", ["in-1"]), 0.2)
    made.handle(ev.InputsTaken("ta-0", ["fc-direct"], ["in-direct"]), 0.201)
    told = made.handle(ev.ContainerExited("ta-0", "it was stopped"), 0.3)
    assert InputsOrphaned("ta-0", "fu", ["in-direct"], ["in-1"]) in told


def test_a_new_revision_closes_the_lines_of_busy_containers_and_stops_idle_ones() -> None:
    made = ready()
    assert StopContainer("ta-0", 30.0) in made.handle(ev.PoolAdded("fu", "ap", "f"), 0.2)
    made = ready()
    made.handle(ev.InputsTaken("ta-0", ["fc-direct"], ["in-direct"]), 0.2)
    assert CloseLines("ta-0") in made.handle(ev.PoolAdded("fu", "ap", "f"), 0.3)
    assert made.direct_container("fu") == ""
    assert StopContainer("ta-0", 30.0) in made.handle(ev.InputsFinished("ta-0", ["in-direct"], 0.2), 0.5)


def test_a_cancelled_one_is_interrupted_where_it_runs() -> None:
    made = ready()
    made.handle(ev.InputsTaken("ta-0", ["fc-direct"], ["in-direct"]), 0.2)
    [told] = [one for one in made.handle(ev.InputsDropped("fu", "fc-direct"), 0.3) if hasattr(one, "input_ids")]
    assert told.input_ids == ["in-direct"]


def test_what_is_not_known_is_ignored() -> None:
    made = ready()
    assert made.handle(ev.InputsTaken("ta-9", ["fc-direct"], ["in-direct"]), 0.2) == []
