"""Functions that are deployed again, or taken away, in a simulated world: nothing is lost, run twice or mixed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from simulation import Simulation

from intermodal.scheduling import events as ev
from intermodal.scheduling import instructions as ins
from intermodal.scheduling.scheduler import Scheduler
from modal._wire.messages.function import Concurrency, Resources, Scaling


@pytest.fixture
def world() -> Simulation:
    made = Simulation()
    made.node(cpu=2)
    return made


def test_what_has_not_begun_runs_in_new_containers(world: Simulation) -> None:
    old = world.function(run=0.5)
    inputs = world.call(40)
    world.run(0.5)
    begun = {one for container in world.live() for one in container.running}
    new = world.deploy_again(run=0.1)
    world.run_until_done(inputs)
    of_old = {container.container_id for container in world.containers.values() if container.function is old}
    assert 0 < len(begun) < 20
    assert sum(world.containers[one].begun for one in of_old) == len(begun)
    assert len(world.finished) == 40
    world.run(1)
    assert all(container.function is new for container in world.live())


def test_what_was_only_pushed_ahead_is_taken_back(world: Simulation) -> None:
    world.function(run=0.0005)
    world.run_until_done(world.call(2000))
    inputs = world.call(500)
    world.run(0.001)
    ahead = sum(len(container.waiting) for container in world.live())
    assert ahead > 0
    world.deploy_again()
    before = len(world.finished)
    world.run(0.1)  # not long enough for a new container to come up
    assert len(world.finished) - before < ahead
    world.run_until_done(inputs)


def test_a_long_input_does_not_hold_up_the_new_version_at_its_limit(world: Simulation) -> None:
    world.function(start=0.2, run=1000.0, scaling=Scaling(max_containers=1))
    long = world.call(1)
    world.run(10)
    world.deploy_again(run=0.01)
    began = world.now
    assert world.run_until_done(world.call(3, call_id="fc-new")) - began < 1.0
    assert world.run_until_done(long) == pytest.approx(1000.2)


def test_idle_containers_and_those_that_start_end_at_once(world: Simulation) -> None:
    world.function(start=0.2, scaling=Scaling(idle_timeout=60))
    world.run_until_done(world.call(1))
    world.call(20)
    world.run(0.01)
    old = {container.container_id for container in world.live()}
    world.deploy_again()
    world.run_until_done(list(world.queued_at))
    world.run(0.5)
    assert not old & {container.container_id for container in world.live()}
    assert world.live()


def test_kept_warm_containers_of_the_new_version_start_with_it(world: Simulation) -> None:
    world.function(scaling=Scaling(min_containers=2))
    world.run(10)
    new = world.deploy_again(scaling=Scaling(min_containers=1))
    world.run(10)
    assert [container.function for container in world.live()] == [new]


def test_a_full_machine_gives_room_as_the_old_version_ends(world: Simulation) -> None:
    old = world.function(run=5.0, resources=Resources(cpu=1.0))
    inputs = world.call(10)
    world.run(2)
    assert len(world.live()) == 2
    world.deploy_again(run=0.1)
    world.run(1)
    assert {container.function for container in world.live()} == {old}
    assert world.pending["fu"]
    world.run_until_done(inputs)
    assert not world.pending["fu"]
    assert world.now < 7.0


def test_delayed_inputs_wait_for_their_time_in_the_new_version(world: Simulation) -> None:
    world.function()
    world.run_until_done(world.call(1))
    world.queued_at["in-late"] = world.now
    world._call_of["in-late"] = "fc"
    due = world.now + 30
    world.tell(ev.InputsQueued("fu", "fc", ["in-late"], due))
    world.deploy_again()
    assert world.run_until_done(["in-late"]) >= due


def test_many_deployments_in_a_row_lose_nothing(world: Simulation) -> None:
    world.function(run=0.03, concurrency=Concurrency(3))
    inputs = world.call(2000)
    for number in range(30):
        world.run(0.05 if number % 3 else 0.4)
        world.deploy_again(run=0.01 + 0.001 * number, concurrency=Concurrency(1 + number % 4))
    world.run_until_done(inputs)
    assert len(world.finished) == 2000
    assert not world.failed


def test_a_broken_version_fails_its_inputs_and_the_next_one_is_tried_at_once(world: Simulation) -> None:
    world.function()
    world.deploy_again(fails_to_start=True)
    broken = world.call(3)
    world.run_until_done(broken)
    assert set(world.failed) == set(broken)
    world.deploy_again(fails_to_start=False)
    began = world.now
    inputs = world.call(3, call_id="fc-new")
    assert world.run_until_done(inputs) - began < 1.0
    assert set(inputs) <= set(world.finished)


def test_a_function_that_is_taken_away_ends_what_waits_and_finishes_what_runs(world: Simulation) -> None:
    world.function(run=5.0)
    inputs = world.call(20)
    world.run(1)
    begun = {one for container in world.live() for one in container.running}
    world.tell(ev.PoolRetired("fu", "it is no more"))
    world.run(0.1)
    assert {one: world.failed.get(one) for one in inputs if one not in begun} == dict.fromkeys(
        set(inputs) - begun, "it is no more"
    )
    late = world.call(1, call_id="fc-late")
    assert world.failed[late[0]] == "it is no more"
    world.run_until_done(inputs)
    assert set(world.finished) == begun
    world.run(1)
    assert not world.live()


def test_a_function_that_comes_back_runs_beside_its_last_containers(world: Simulation) -> None:
    world.function(run=100.0)
    long = world.call(1)
    world.run(1)
    world.tell(ev.PoolRetired("fu", "it is no more"))
    world.deploy_again(run=0.01)
    began = world.now
    assert world.run_until_done(world.call(2, call_id="fc-new")) - began < 1.0
    world.tell(ev.PoolRemoved("fu"))
    assert all(container.is_stopping for container in world.live())
    world.run_until_done(long)


def test_inputs_of_a_container_that_dies_after_its_function_was_replaced_run_in_the_new_one(world: Simulation) -> None:
    world.function(run=50.0)
    inputs = world.call(1)
    world.run(1)
    [old] = world.live()
    new = world.deploy_again(run=0.1)
    world.run(1)
    world.kill(old)
    world.run_until_done(inputs)
    assert world.now < 5
    assert {container.function for container in world.live()} == {new}


def test_cancelled_inputs_in_containers_of_earlier_versions_are_interrupted(world: Simulation) -> None:
    world.function(run=50.0)
    inputs = world.call(1)
    world.run(1)
    world.deploy_again()
    world.deploy_again()
    world.tell(ev.InputsDropped("fu", "fc"))
    assert world.failed == {inputs[0]: "cancelled"}
    world.run(1)
    assert not world.live()


def test_what_an_old_container_gives_back_goes_to_an_idle_new_one_at_once() -> None:
    scheduler = Scheduler(f"ta-{n}" for n in itertools.count())

    def tell(event: ev.Event) -> list[Any]:
        return [one for one in scheduler.handle(event, 10.0) if not isinstance(one, ins.WakeAt)]

    scaling = Scaling(min_containers=1, max_containers=1)
    tell(ev.NodeJoined("local", 4, 8192))
    [start] = tell(ev.PoolAdded("fu", "ap", "f", scaling=scaling, revision_id="old"))
    tell(ev.ContainerReady(start.container_id))
    tell(ev.InputsQueued("fu", "fc", ["in-0"]))
    tell(ev.InputsFinished(start.container_id, ["in-0"], 0.001))  # quick: some are pushed ahead from now on
    [push] = tell(ev.InputsQueued("fu", "fc", ["in-1", "in-2", "in-3"]))
    assert push.input_ids == ["in-1", "in-2", "in-3"]
    close, recall, again = tell(ev.PoolAdded("fu", "ap", "f", scaling=scaling, revision_id="new"))
    assert close == ins.CloseLines(start.container_id)
    assert recall == ins.RecallInputs(start.container_id, 2)
    assert tell(ev.ContainerReady(again.container_id)) == []
    given_back = tell(ev.InputsReturned(start.container_id, ["in-2", "in-3"]))
    assert given_back == [ins.PushInputs(again.container_id, ["in-2"])]
