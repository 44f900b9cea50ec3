"""Feed events, compare instructions."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable

import pytest

from intermodal.machines.machine import IllegalTransition
from intermodal.scheduling import events as ev
from intermodal.scheduling.instructions import (
    CancelInputs,
    CloseLines,
    FailInputs,
    InputsOrphaned,
    Instruction,
    PushInputs,
    RecallInputs,
    ReportPending,
    StartContainer,
    StopContainer,
    WakeAt,
)
from intermodal.scheduling.scheduler import Scheduler
from modal._wire.messages.function import Concurrency, Resources, Scaling

BATCHED = ev.PoolAdded("fu", "ap", "f", concurrency=Concurrency(batch_max_size=4, batch_wait_ms=100))


def scheduler(*pools: ev.PoolAdded, cpu: float = 2, memory: int = 8192) -> Scheduler:
    made = Scheduler(f"ta-{n}" for n in itertools.count())
    made.handle(ev.NodeJoined("local", cpu, memory), 0.0)
    for pool in pools or [ev.PoolAdded("fu", "ap", "f")]:
        made.handle(pool, 0.0)
    return made


def queue(*input_ids: str, call: str = "fc") -> ev.InputsQueued:
    return ev.InputsQueued("fu", call, list(input_ids))


def without_wakes(instructions: Iterable[Instruction]) -> list[Instruction]:
    return [one for one in instructions if not isinstance(one, WakeAt)]


def ready(*inputs: str, pool: ev.PoolAdded | None = None, ended: bool = True) -> Scheduler:
    """A scheduler with one ready container ta-0, which has run one tiny input, and now holds `inputs`."""
    made = scheduler(*([pool] if pool else []))
    made.handle(queue("warm-up"), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    if ended:
        made.handle(ev.InputsFinished("ta-0", ["warm-up"], 0.00001), 0.1)
    if inputs:
        made.handle(queue(*inputs), 0.2)
    return made


def test_an_input_starts_a_container_and_is_pushed_once_that_is_ready() -> None:
    made = scheduler()
    assert without_wakes(made.handle(queue("in-1"), 1.0)) == [StartContainer("ta-0", "fu", "local")]
    assert without_wakes(made.handle(ev.ContainerReady("ta-0"), 1.2)) == [PushInputs("ta-0", ["in-1"])]
    assert made.handle(ev.InputsFinished("ta-0", ["in-1"], 0.1), 1.3) == [WakeAt(61.3)]


def test_a_warm_container_gets_an_input_at_once_and_no_timer_is_set_anew() -> None:
    made = ready()
    assert made.handle(queue("in-1"), 2.0) == [PushInputs("ta-0", ["in-1"])]
    assert made.handle(ev.InputsFinished("ta-0", ["in-1"], 0.00001), 2.1) == []
    assert made.handle(queue("in-2"), 3.0) == [PushInputs("ta-0", ["in-2"])]


def test_an_idle_container_is_stopped_by_the_tick_that_was_asked_for() -> None:
    made = ready(pool=ev.PoolAdded("fu", "ap", "f", scaling=Scaling(idle_timeout=5.0)))
    made.handle(queue("in-1"), 4.0)
    made.handle(ev.InputsFinished("ta-0", ["in-1"], 0.00001), 4.0)
    assert made.handle(ev.Tick(), 5.1) == [WakeAt(9.0)]
    assert made.handle(ev.Tick(), 9.0) == [StopContainer("ta-0", 30.0)]


def test_without_a_measurement_nothing_is_pushed_ahead() -> None:
    made = scheduler()
    made.handle(queue("in-1", "in-2", "in-3"), 0.0)
    assert without_wakes(made.handle(ev.ContainerReady("ta-0"), 0.1)) == [PushInputs("ta-0", ["in-1"])]


def test_measured_tiny_inputs_are_pushed_ahead_within_five_milliseconds_of_work() -> None:
    made = ready(ended=False)
    made.handle(ev.InputsFinished("ta-0", ["warm-up"], 0.001), 0.1)
    pushed = made.handle(queue(*(f"in-{n}" for n in range(20))), 0.2)[0]
    assert isinstance(pushed, PushInputs)
    assert len(pushed.input_ids) == 6  # one runs, five milliseconds lie ahead


def test_the_look_ahead_has_a_hard_limit() -> None:
    made = ready()
    pushed = made.handle(queue(*(f"in-{n}" for n in range(1000))), 0.2)[0]
    assert isinstance(pushed, PushInputs)
    assert len(pushed.input_ids) == 257


def test_nothing_is_pushed_behind_an_input_that_already_runs_long() -> None:
    made = ready("in-long")
    assert not any(isinstance(one, PushInputs) for one in made.handle(queue("in-1"), 1.0))


def test_inputs_ahead_are_recalled_for_a_container_with_nothing_to_do() -> None:
    made = ready("in-0", "in-1", "in-2", "in-3", "in-4")
    started = without_wakes(made.handle(ev.Tick(), 1.0))
    assert started == [StartContainer("ta-1", "fu", "local")]
    assert without_wakes(made.handle(ev.ContainerReady("ta-1"), 1.1)) == [RecallInputs("ta-0", 2)]
    returned = without_wakes(made.handle(ev.InputsReturned("ta-0", ["in-4", "in-3"]), 1.2))
    assert returned == [PushInputs("ta-1", ["in-3"]), PushInputs("ta-1", ["in-4"])]


def test_a_dead_container_gives_back_what_it_had_not_begun() -> None:
    made = ready("in-0", "in-1", "in-2")
    told = without_wakes(made.handle(ev.ContainerExited("ta-0", "killed"), 0.3))
    assert told[0] == InputsOrphaned("ta-0", "fu", ["in-0"], ["in-1", "in-2"])
    assert StartContainer("ta-1", "fu", "local") in told
    assert without_wakes(made.handle(ev.ContainerReady("ta-1"), 0.4)) == [PushInputs("ta-1", ["in-1", "in-2"])]


def test_after_a_crash_what_was_pushed_ahead_is_run_alone_until_the_input_at_fault_is_found() -> None:
    made = ready("in-1", "in-2", "in-3")
    out = made.handle(ev.ContainerExited("ta-0", "died", is_crash=True), 1.0)
    assert InputsOrphaned("ta-0", "fu", [], ["in-1", "in-2", "in-3"]) in out
    assert without_wakes(made.handle(ev.ContainerReady("ta-1"), 2.0)) == [PushInputs("ta-1", ["in-1"])]
    after_first = made.handle(ev.InputsFinished("ta-1", ["in-1"], 0.00001), 2.1)
    assert without_wakes(after_first) == [PushInputs("ta-1", ["in-2"])]
    out = made.handle(ev.ContainerExited("ta-1", "died", is_crash=True), 2.2)
    assert InputsOrphaned("ta-1", "fu", ["in-2"], []) in out
    assert without_wakes(made.handle(ev.ContainerReady("ta-2"), 3.0)) == [PushInputs("ta-2", ["in-3"])]


def test_inputs_known_to_have_run_are_the_ones_at_fault() -> None:
    made = ready("in-1", "in-2", "in-3")
    out = made.handle(ev.ContainerExited("ta-0", "hung", running=["in-1"]), 1.0)
    assert InputsOrphaned("ta-0", "fu", ["in-1"], ["in-2", "in-3"]) in out


def test_a_lost_node_orphans_inputs_as_a_dead_container_does() -> None:
    made = ready("in-0", "in-1")
    told = without_wakes(made.handle(ev.NodeLost("local"), 0.3))
    assert told[0] == InputsOrphaned("ta-0", "fu", ["in-0"], ["in-1"])
    assert told[1:] == [ReportPending("fu", "no machine is connected")]
    assert made.handle(ev.ContainerExited("ta-0"), 0.4) == []  # late news of what is forgotten


def test_events_about_unknown_things_are_ignored() -> None:
    made = scheduler()
    for event in (
        ev.ContainerReady("ta-9"),
        ev.StartFailed("ta-9", "why"),
        ev.InputsFinished("ta-9", ["in-1"], 1.0),
        ev.InputsReturned("ta-9", []),
        ev.ContainerExited("ta-9"),
        ev.NodeLost("far"),
        ev.InputsQueued("fu-9", "fc", ["in-1"]),
        ev.InputsDropped("fu-9", "fc"),
        ev.PoolUpdated("fu-9", Scaling()),
        ev.PoolRemoved("fu-9"),
    ):
        assert made.handle(event, 1.0) == []


def test_a_container_that_is_ready_twice_is_an_error_with_its_history() -> None:
    made = ready()
    with pytest.raises(IllegalTransition, match=r"ta-0 is ready .*starting -ready-> ready"):
        made.handle(ev.ContainerReady("ta-0"), 1.0)


def test_cancelling_a_call_forgets_the_queued_and_interrupts_the_running() -> None:
    made = scheduler(ev.PoolAdded("fu", "ap", "f", scaling=Scaling(max_containers=1)))
    made.handle(queue("a-1", "a-2", call="fc-a"), 0.0)
    made.handle(queue("b-1", call="fc-b"), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    assert without_wakes(made.handle(ev.InputsDropped("fu", "fc-a"), 0.2)) == [CancelInputs("ta-0", ["a-1"])]
    told = without_wakes(made.handle(ev.InputsFinished("ta-0", ["a-1"], 0.0), 0.3))
    assert told == [PushInputs("ta-0", ["b-1"])]


def test_single_inputs_of_a_call_can_be_cancelled() -> None:
    made = ready("in-0", "in-1", "in-2")
    assert made.handle(ev.InputsDropped("fu", "fc", ["in-1"]), 0.21) == [CancelInputs("ta-0", ["in-1"])]
    orphaned = made.handle(ev.ContainerExited("ta-0"), 0.3)[0]
    assert orphaned == InputsOrphaned("ta-0", "fu", ["in-0"], ["in-2"])


def test_the_failed_start_of_unloadable_code_fails_the_inputs_at_once() -> None:
    made = scheduler()
    made.handle(queue("in-1"), 0.0)
    told = without_wakes(made.handle(ev.StartFailed("ta-0", "no module named x", final=True), 0.1))
    assert told == [FailInputs("fu", ["in-1"], "no module named x", "ta-0")]
    assert made.handle(ev.ContainerExited("ta-0"), 0.2) == []


def test_a_failed_start_is_tried_again_after_a_growing_delay() -> None:
    made = scheduler()
    made.handle(queue("in-1"), 0.0)
    assert made.handle(ev.StartFailed("ta-0", "disk full"), 0.1) == [WakeAt(0.2)]
    made.handle(ev.ContainerExited("ta-0"), 0.1)
    assert without_wakes(made.handle(ev.Tick(), 0.2)) == [StartContainer("ta-1", "fu", "local")]
    assert without_wakes(made.handle(ev.ContainerExited("ta-1", "killed"), 0.3)) == []
    assert without_wakes(made.handle(ev.Tick(), 0.5)) == [StartContainer("ta-2", "fu", "local")]
    told = without_wakes(made.handle(ev.ContainerExited("ta-2", "killed again"), 0.6))
    assert told == [FailInputs("fu", ["in-1"], "killed again", "ta-2")]


def test_while_a_function_is_known_to_be_broken_its_inputs_fail_without_a_try() -> None:
    made = scheduler()
    made.handle(queue("in-1"), 0.0)
    made.handle(ev.StartFailed("ta-0", "broken", final=True), 0.1)
    made.handle(ev.ContainerExited("ta-0"), 0.1)
    assert made.handle(queue("in-2"), 0.2) == [FailInputs("fu", ["in-2"], "broken", "ta-0")]
    assert without_wakes(made.handle(queue("in-3"), 9.0)) == [StartContainer("ta-1", "fu", "local")]


def test_a_failing_sibling_does_not_fail_the_inputs_of_a_function_that_runs() -> None:
    made = scheduler()
    made.handle(queue("in-1", "in-2"), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    assert without_wakes(made.handle(ev.StartFailed("ta-1", "broken", final=True), 0.2)) == []
    told = without_wakes(made.handle(ev.InputsFinished("ta-0", ["in-1"], 1.0), 1.1))
    assert told == [PushInputs("ta-0", ["in-2"])]


def test_pending_is_reported_once_and_taken_back() -> None:
    made = scheduler(
        ev.PoolAdded("fu-a", "ap-a", "a", Resources(memory=8192)),
        ev.PoolAdded("fu", "ap-b", "b", Resources(memory=100)),
    )
    made.handle(ev.InputsQueued("fu-a", "fc-a", ["a-1"]), 0.0)
    pending = ReportPending("fu", "needs 100 MiB of memory (0 of 8192 free) on local")
    assert without_wakes(made.handle(queue("b-1"), 0.1)) == [pending]
    assert without_wakes(made.handle(queue("b-2"), 0.2)) == []
    told = without_wakes(made.handle(ev.ContainerExited("ta-0", "killed"), 0.3))
    assert ReportPending("fu", "") in told
    assert StartContainer("ta-1", "fu", "local") in told


def test_what_can_never_fit_fails_now_and_later() -> None:
    made = scheduler(ev.PoolAdded("fu", "ap", "f", Resources(cpu=3)))
    reason = "No container of f can ever start here: it needs 3 cores; the largest machine has 2 cores."
    assert without_wakes(made.handle(queue("in-1"), 0.0)) == [FailInputs("fu", ["in-1"], reason)]
    assert without_wakes(made.handle(queue("in-2"), 0.0)) == [FailInputs("fu", ["in-2"], reason)]


def test_without_a_machine_inputs_wait() -> None:
    made = Scheduler(f"ta-{n}" for n in itertools.count())
    made.handle(ev.PoolAdded("fu", "ap", "f"), 0.0)
    assert without_wakes(made.handle(queue("in-1"), 0.0)) == [ReportPending("fu", "no machine is connected")]
    told = without_wakes(made.handle(ev.NodeJoined("local", 2, 1024), 1.0))
    assert told == [ReportPending("fu", ""), StartContainer("ta-0", "fu", "local")]


def test_a_lower_limit_lets_surplus_containers_finish_what_they_have_begun() -> None:
    made = scheduler()
    made.handle(queue("in-1", "in-2"), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    made.handle(ev.ContainerReady("ta-1"), 0.1)
    assert without_wakes(made.handle(ev.PoolUpdated("fu", Scaling(max_containers=1)), 0.2)) == [CloseLines("ta-0")]
    assert without_wakes(made.handle(ev.InputsFinished("ta-0", ["in-1"], 1.0), 0.3)) == [StopContainer("ta-0", 30.0)]


def test_a_removed_function_stops_every_container_once() -> None:
    made = scheduler()
    made.handle(queue("in-1", "in-2"), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    told = made.handle(ev.PoolRemoved("fu", grace=3.0), 0.2)
    assert told == [StopContainer("ta-0", 3.0), StopContainer("ta-1", 3.0)]
    assert made.handle(ev.ContainerReady("ta-1"), 0.3) == []
    assert made.handle(ev.ContainerExited("ta-0"), 0.4) == []
    assert made.handle(ev.ContainerExited("ta-1"), 0.4) == []


def test_a_batched_function_is_given_whole_batches() -> None:
    made = scheduler(BATCHED)
    made.handle(queue(*"abcdef"), 0.0)
    told = without_wakes(made.handle(ev.ContainerReady("ta-0"), 0.1))
    assert told[0] == PushInputs("ta-0", list("abcd"))


def test_a_batch_that_waits_is_filled_before_another_container_is_used() -> None:
    made = scheduler(BATCHED)
    made.handle(queue(*"abcdefgh"), 0.0)
    for container in ("ta-0", "ta-1"):
        made.handle(ev.ContainerReady(container), 0.1)
    made.handle(ev.InputsFinished("ta-0", list("abcd"), 4.0), 1.0)
    made.handle(ev.InputsFinished("ta-1", list("efgh"), 4.0), 1.0)
    assert without_wakes(made.handle(queue("i"), 2.0)) == [PushInputs("ta-1", ["i"])]
    told = without_wakes(made.handle(queue("j", "k", "l", "m"), 2.05))
    assert told == [PushInputs("ta-1", ["j", "k", "l"]), PushInputs("ta-0", ["m"])]


def test_nothing_is_put_behind_a_batch_that_runs_and_it_counts_as_a_full_container() -> None:
    made = scheduler(BATCHED)
    made.handle(queue("a"), 0.0)
    made.handle(ev.ContainerReady("ta-0"), 0.1)
    told = without_wakes(made.handle(queue("b"), 0.3))
    assert told == [StartContainer("ta-1", "fu", "local")]
    told = without_wakes(made.handle(ev.InputsFinished("ta-0", ["a"], 1.0), 1.1))
    assert told[0] == PushInputs("ta-0", ["b"])


def test_a_container_that_leaves_is_stopped_once_and_gets_nothing_more() -> None:
    made = ready("in-0")
    told = without_wakes(made.handle(ev.ContainerLeaving("ta-0", 7.0), 0.3))
    assert told == [StopContainer("ta-0", 7.0)]
    assert without_wakes(made.handle(ev.ContainerLeaving("ta-0", 7.0), 0.3)) == []
    told = without_wakes(made.handle(queue("in-1"), 0.4))
    assert told == [StartContainer("ta-1", "fu", "local")]
    told = without_wakes(made.handle(ev.InputsReturned("ta-0", ["in-0"]), 0.5))
    assert not any(isinstance(one, PushInputs) for one in told)


def test_a_container_may_leave_before_it_is_ready_and_is_replaced() -> None:
    made = scheduler()
    made.handle(queue("in-0"), 0.0)
    told = without_wakes(made.handle(ev.ContainerLeaving("ta-0", 7.0), 0.1))
    assert told == [StopContainer("ta-0", 7.0), StartContainer("ta-1", "fu", "local")]
    assert made.handle(ev.ContainerLeaving("ta-9", 7.0), 0.2) == []


def test_a_cancelled_input_that_is_given_back_is_not_queued_again() -> None:
    made = ready("in-0", "in-1", "in-2")
    made.handle(ev.InputsDropped("fu", "fc", ["in-2"]), 0.21)
    assert without_wakes(made.handle(ev.InputsReturned("ta-0", ["in-2"]), 0.22)) == []
    told = made.handle(ev.InputsFinished("ta-0", ["in-0", "in-1"], 0.00002), 0.23)
    assert not any(isinstance(one, PushInputs) for one in told)


def test_a_function_with_an_unlimited_start_failure_streak_is_not_retried_faster_than_its_backoff() -> None:
    made = scheduler(ev.PoolAdded("fu", "ap", "f", scaling=Scaling(min_containers=1)))
    starts, now = 0, 0.0
    for _ in range(100):
        now += 0.05
        made.handle(queue(f"in-{now}"), now)
        for one in made.handle(ev.Tick(), now):
            starts += isinstance(one, StartContainer)
        for number in range(100):
            made.handle(ev.ContainerExited(f"ta-{number}", "broken"), now)
    assert starts <= 6


def test_a_queued_input_costs_little_more_than_its_pointer() -> None:
    made = Scheduler(iter(()))
    made.handle(ev.PoolAdded("fu", "ap", "f"), 0.0)
    many = [[f"in-{batch}-{n}" for n in range(256)] for batch in range(400)]
    single = [f"in-{n}" for n in range(20_000)]
    tracemalloc.start()
    try:
        for batch in many:
            made.handle(ev.InputsQueued("fu", "fc", batch), 1.0)
        in_batches = tracemalloc.get_traced_memory()[0] / (400 * 256)
        tracemalloc.clear_traces()
        for one in single:
            made.handle(ev.InputsQueued("fu", one, (one,)), 1.0)
        alone = tracemalloc.get_traced_memory()[0] / len(single)
    finally:
        tracemalloc.stop()
    assert in_batches < 10
    assert alone < 300  # bytes; a call of its own each, with the tuple that brought it
