"""The scheduler in a simulated world: what people see of it over time."""

from __future__ import annotations

import pytest
from simulation import Simulation

from intermodal.scheduling import events as ev
from modal._wire.messages.function import Concurrency, Resources, Scaling


@pytest.fixture
def world() -> Simulation:
    made = Simulation()
    made.node(cpu=2)
    return made


def test_nothing_runs_until_something_is_called(world: Simulation) -> None:
    world.function()
    world.run(1000)
    assert world.starts == []


def test_the_first_input_starts_a_container_at_once(world: Simulation) -> None:
    world.function(start=0.3, run=0.01)
    world.run(5)
    inputs = world.call(1)
    assert world.starts == [(world.queued_at[inputs[0]], "fu")]
    began = world.now
    assert world.run_until_done(inputs) - began == pytest.approx(0.31)


def test_containers_stop_after_the_idle_timeout_down_to_none(world: Simulation) -> None:
    world.function(scaling=Scaling(idle_timeout=60))
    done = world.run_until_done(world.call(20))
    world.run(59)
    assert world.live()
    world.run(10)
    assert not world.live()
    assert all(done + 59 <= when <= done + 61 for when, _ in world.stops)


def test_kept_warm_containers_start_with_the_function_and_stay(world: Simulation) -> None:
    world.function(scaling=Scaling(min_containers=2, buffer_containers=1))
    world.run(1)
    assert len(world.live()) == 3
    world.run_until_done(world.call(50))
    world.run(1000)
    assert len(world.live()) == 3


def test_keep_warm_can_be_changed_up_and_down(world: Simulation) -> None:
    world.function()
    world.tell(ev.PoolUpdated("fu", Scaling(min_containers=3)))
    world.run(100)
    assert len(world.live()) == 3
    world.tell(ev.PoolUpdated("fu", Scaling(min_containers=0)))
    world.run(100)
    assert len(world.live()) == 0


def test_long_inputs_spread_over_as_many_containers_as_fit(world: Simulation) -> None:
    world.function(start=0.2, run=10.0)
    inputs = world.call(16)
    world.run(5)
    assert len(world.live()) == 16  # 2 cores, an eighth each
    assert world.run_until_done(inputs) < 15


def test_a_backlog_of_long_inputs_is_worked_off_by_a_full_machine(world: Simulation) -> None:
    world.function(start=0.2, run=10.0)
    inputs = world.call(64)
    assert world.run_until_done(inputs) < 45
    assert world.most["fu"] == 16


def test_tiny_inputs_run_on_very_few_containers(world: Simulation) -> None:
    world.function(start=0.2, run=1e-6)
    inputs = world.call(100_000)
    world.run_until_done(inputs)
    assert len(world.starts) <= 2


def test_a_thousand_short_inputs_do_not_start_a_container_each(world: Simulation) -> None:
    world.function(start=0.3, run=0.001)
    world.run_until_done(world.call(1000))
    assert world.most["fu"] <= 4


def test_no_container_is_started_when_the_backlog_drains_before_it_would_be_ready(world: Simulation) -> None:
    world.function(start=1.0, run=0.05)
    world.run_until_done(world.call(1))
    world.run(1)
    assert len(world.starts) == 1
    world.run_until_done(world.call(10))  # half a second of work
    assert len(world.starts) == 1


def test_a_growing_backlog_scales_up_by_measure(world: Simulation) -> None:
    world.function(start=0.1, run=0.05)
    world.run_until_done(world.call(1))
    inputs = world.call(400)  # 20 s of work
    assert world.run_until_done(inputs) < 5
    assert 4 <= world.most["fu"] <= 16


def test_the_concurrency_limit_is_never_exceeded(world: Simulation) -> None:
    world.function(run=1.0, scaling=Scaling(max_containers=3))
    began = world.now
    assert world.run_until_done(world.call(30)) - began == pytest.approx(10.2, abs=0.5)
    assert world.most["fu"] == 3


def test_concurrent_inputs_need_fewer_containers(world: Simulation) -> None:
    world.function(run=5.0, concurrency=Concurrency(max_concurrent_inputs=10))
    assert world.run_until_done(world.call(40)) < 8
    assert world.most["fu"] == 4


def test_single_use_containers_run_one_input_each(world: Simulation) -> None:
    world.function(run=0.5, concurrency=Concurrency(max_inputs=1))
    world.run_until_done(world.call(12))
    assert len(world.starts) == 12
    world.run(5)
    assert not world.live()


def test_max_inputs_replaces_containers_one_at_a_time_under_a_limit(world: Simulation) -> None:
    world.function(run=0.01, concurrency=Concurrency(max_inputs=5), scaling=Scaling(max_containers=1))
    world.run_until_done(world.call(23))
    assert len(world.starts) == 5
    assert world.most["fu"] == 1


def test_a_call_made_during_a_large_map_does_not_wait_for_it(world: Simulation) -> None:
    world.function(run=0.01, scaling=Scaling(max_containers=2))
    world.call(5000, call_id="fc-map")
    world.run(2)
    single = world.call(1, call_id="fc-single")
    began = world.now
    assert world.run_until_done(single) - began < 0.05
    assert len(world.finished) < 1000


def test_two_maps_of_one_function_advance_together(world: Simulation) -> None:
    world.function(run=0.01, scaling=Scaling(max_containers=2))
    world.call(1000, call_id="fc-a")
    world.call(1000, call_id="fc-b")
    world.run(3)
    done = [sum(1 for one in world.finished if call in one) for call in ("fc-a", "fc-b")]
    assert min(done) > 100
    assert abs(done[0] - done[1]) <= 10


def test_what_lies_ahead_of_a_long_input_is_taken_back_for_an_idle_container(world: Simulation) -> None:
    slow: set[str] = set()
    world.function(start=0.1, run=lambda one: 60.0 if one in slow else 0.0001, scaling=Scaling(min_containers=2))
    world.run_until_done(world.call(200))
    inputs = [f"in-fc-{n}" for n in range(200, 400)]
    slow.add(inputs[0])
    began = world.now
    assert world.call(200) == inputs
    assert world.run_until_done(inputs[1:]) - began < 0.1
    assert world.recalls > 0


def test_an_input_behind_a_suddenly_long_one_gets_a_new_container(world: Simulation) -> None:
    slow: set[str] = set()
    world.function(start=0.1, run=lambda one: 60.0 if one in slow else 0.0001)
    world.run_until_done(world.call(1))
    slow.add("in-fc-1")
    inputs = world.call(20)
    began = world.now
    assert world.run_until_done(inputs[1:]) - began < 1.0


def test_a_killed_container_loses_nothing(world: Simulation) -> None:
    world.function(run=0.05)
    inputs = world.call(300)
    for _ in range(5):
        world.run(0.7)
        busy = [c for c in world.live() if c.running]
        if busy:
            world.kill(busy[0])
    world.run_until_done(inputs)
    assert sorted(world.order) == sorted(inputs)


def test_an_input_that_kills_its_container_fails_alone() -> None:
    world = Simulation(requeue=False)
    world.node(cpu=2)
    function = world.function(run=0.001)
    inputs = [f"in-fc-{n}" for n in range(500)]
    function.dies_on = {inputs[100], inputs[333]}
    world.call(500)
    world.run_until_done(inputs)
    assert set(world.failed) == {inputs[100], inputs[333]}


def test_a_function_that_cannot_start_fails_its_inputs_after_three_tries_within_a_second(world: Simulation) -> None:
    function = world.function(start=0.1)
    function.fails_to_start = True
    inputs = world.call(1000)
    assert world.run_until_done(inputs) < 1.0
    assert set(world.failed.values()) == {"it cannot be imported"}
    assert 3 <= len(world.starts) <= 4
    world.run(1000)
    assert len(world.starts) <= 4
    assert not world.live()


def test_a_broken_function_is_tried_once_more_for_later_inputs_and_recovers(world: Simulation) -> None:
    function = world.function(start=0.1)
    function.fails_to_start = True
    world.run_until_done(world.call(10))
    tried = len(world.starts)
    assert set(world.call(5)) <= set(world.failed)  # at once: it just failed
    assert len(world.starts) == tried
    world.run(30)
    world.run_until_done(world.call(5))
    assert len(world.starts) == tried + 1
    world.run(30)
    function.fails_to_start = False
    later = world.call(5)
    world.run_until_done(later)
    assert set(later) <= set(world.finished)


def test_a_kept_warm_function_that_cannot_start_is_not_tried_for_ever(world: Simulation) -> None:
    world.functions["fu"] = world.function(start=0.1)
    world.functions["fu"].fails_to_start = True
    world.tell(ev.PoolUpdated("fu", Scaling(min_containers=2)))
    world.run(10_000)
    assert len(world.starts) <= 4


def test_what_cannot_ever_fit_fails_at_once_with_the_reason(world: Simulation) -> None:
    world.function(resources=Resources(memory=100_000))
    inputs = world.call(3)
    reason = "No container of fu can ever start here: it needs 100000 MiB of memory; the largest machine has 8192 MiB."
    assert world.failed == dict.fromkeys(inputs, reason)


def test_what_does_not_fit_now_is_pending_with_the_reason_until_there_is_room() -> None:
    world = Simulation()
    world.node(cpu=4, memory=1024)
    world.function("fu-a", "ap-a", run=50.0, resources=Resources(memory=1024))
    world.function("fu-b", "ap-b", run=1.0, resources=Resources(memory=512))
    first = world.call(1, "fu-a", "fc-a")
    world.run(10)
    second = world.call(1, "fu-b", "fc-b")
    assert world.pending == {"fu-b": "needs 512 MiB of memory (0 of 1024 free) on local"}
    world.run_until_done(first)
    world.run_until_done(second)
    assert world.pending == {"fu-b": ""}


def test_idle_containers_make_room_before_their_timeout() -> None:
    world = Simulation()
    world.node(cpu=4, memory=1024)
    world.function("fu-a", "ap-a", run=1.0, resources=Resources(memory=1024), scaling=Scaling(idle_timeout=1000))
    world.function("fu-b", "ap-b", run=1.0, resources=Resources(memory=512))
    world.run_until_done(world.call(1, "fu-a", "fc-a"))
    began = world.now
    assert world.run_until_done(world.call(1, "fu-b", "fc-b")) - began < 2


def test_a_second_app_gets_its_part_of_a_full_machine(world: Simulation) -> None:
    world.function("fu-a", "ap-a", run=1.0, resources=Resources(cpu=0.5))
    world.function("fu-b", "ap-b", run=1.0, resources=Resources(cpu=0.5))
    world.call(400, "fu-a", "fc-a")
    world.run(10)
    assert len(world.live("fu-a")) == 4
    world.call(400, "fu-b", "fc-b")
    world.run(10)
    assert (len(world.live("fu-a")), len(world.live("fu-b"))) == (2, 2)


def test_functions_of_one_app_share_a_full_machine_too(world: Simulation) -> None:
    world.function("fu-a", run=1.0, resources=Resources(cpu=1))
    world.function("fu-b", run=1.0, resources=Resources(cpu=1))
    world.call(100, "fu-a", "fc-a")
    world.run(5)
    began = world.now
    assert world.run_until_done(world.call(1, "fu-b", "fc-b")) - began < 5


def test_callers_that_fill_the_machine_do_not_starve_what_they_call() -> None:
    world = Simulation()
    world.node(cpu=1)
    world.function("fu-outer", run=1000.0, resources=Resources(cpu=1))
    world.function("fu-inner", run=0.1, resources=Resources(cpu=1))
    world.call(1, "fu-outer", "fc-outer")
    world.run(1)
    inner = world.call(1, "fu-inner", "fc-inner", nested=True)
    began = world.now
    assert world.run_until_done(inner) - began < 1


def test_a_lost_node_gives_its_inputs_back() -> None:
    world = Simulation()
    world.node("one", cpu=1)
    world.node("two", cpu=1)
    world.function(run=5.0, resources=Resources(cpu=0.5))
    inputs = world.call(8)
    world.run(3)
    assert {c.node_id for c in world.live()} == {"one", "two"}
    gone = [c for c in world.live() if c.node_id == "two"]
    del world.nodes["two"]
    for container in gone:
        container.is_gone = True
        for one in [*container.running, *container.waiting]:
            del world.ran_on[one]
    world.tell(ev.NodeLost("two"))
    world.run_until_done(inputs)
    assert sorted(world.order) == sorted(inputs)


def test_delayed_inputs_wait_their_time(world: Simulation) -> None:
    world.function(start=0.1, run=0.1)
    world.queued_at["in-late"] = 0.0
    world._call_of["in-late"] = "fc"
    world.tell(ev.InputsQueued("fu", "fc", ["in-late"], not_before=50.0))
    assert world.run_until_done(["in-late"]) == pytest.approx(50.2, abs=0.02)


def test_a_removed_function_ends_its_containers(world: Simulation) -> None:
    world.function(run=1.0)
    world.call(100)
    world.run(3)
    world.tell(ev.PoolRemoved("fu"))
    world.run(10)
    assert not world.live()


def test_a_cancelled_call_frees_its_containers_for_others(world: Simulation) -> None:
    world.function(run=100.0, scaling=Scaling(max_containers=2))
    world.call(50, call_id="fc-a")
    world.run(3)
    other = world.call(1, call_id="fc-b")
    world.tell(ev.InputsDropped("fu", "fc-a"))
    began = world.now
    assert world.run_until_done(other) - began < 101
    assert len([one for one in world.finished if "fc-a" in one]) == 0
