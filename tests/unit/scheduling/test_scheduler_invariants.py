"""Whatever happens, in whatever order: nothing is lost or doubled, and no limit is passed."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from intermodal.scheduling import events as ev
from intermodal.scheduling import instructions as ins
from intermodal.scheduling.pool import MAX_AHEAD
from intermodal.scheduling.scheduler import Scheduler
from modal._wire.messages.function import Concurrency, Resources, Scaling

FUNCTIONS = {
    "fu-plain": ("ap-a", Resources(cpu=0.5, memory=256), Scaling(idle_timeout=5), Concurrency()),
    "fu-limited": ("ap-a", Resources(cpu=0.25, memory=256), Scaling(max_containers=2), Concurrency(3)),
    "fu-warm": ("ap-b", Resources(cpu=1.0, memory=512), Scaling(1, 3, 1, 2.0), Concurrency()),
    "fu-single": ("ap-b", Resources(cpu=0.25, memory=512), Scaling(), Concurrency(1, max_inputs=2)),
    "fu-batch": ("ap-a", Resources(cpu=0.25, memory=256), Scaling(), Concurrency(1, None, 4, 50)),
    "fu-huge": ("ap-b", Resources(cpu=64.0), Scaling(), Concurrency()),
}
#: What a function may become when it is deployed again, besides what it was at first. (None is kept warm: together
#: they could keep the others out for good.)
VARIANTS = [FUNCTIONS[key][1:] for key in ("fu-plain", "fu-limited", "fu-single", "fu-batch")]
NODES = {"one": (2.0, 2048), "two": (1.0, 1024)}


class Model:
    """A container as the outside world sees it."""

    def __init__(self, function_id: str, node_id: str, revision_id: str, made_of: tuple) -> None:
        self.function_id = function_id
        self.node_id = node_id
        self.revision_id = revision_id
        self.resources, self.scaling, self.concurrency = made_of
        self.state = "starting"
        self.held: list[str] = []
        self.given = 0
        self.recalls = 0
        self.has_lines = True


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.scheduler = Scheduler(f"ta-{n}" for n in itertools.count())
        self.nodes: set[str] = set()
        self.pools: set[str] = set()
        self.current: dict[str, str] = {}  # function -> its revision
        self.revisions: dict[str, tuple] = {}  # revision -> resources, scaling, concurrency
        self.retired: set[str] = set()
        self.containers: dict[str, Model] = {}
        self.where: dict[str, str] = {}  # input -> "queued" | container id | "done" | "failed" | "dropped"
        self.call: dict[str, tuple[str, str]] = {}  # input -> function, call
        self.later: list[tuple[float, str]] = []
        self.wake: float | None = None
        self.pending: dict[str, str] = {}
        self.sequence = itertools.count()
        self.is_warm = False  # whether some function may want containers without inputs
        self.tell(ev.NodeJoined("one", *NODES["one"]))
        self.nodes.add("one")

    # -- carrying out ------------------------------------------------------------------------------------------

    def tell(self, event: ev.Event) -> None:
        for instruction in self.scheduler.handle(event, self.now):
            getattr(self, "do_" + type(instruction).__name__)(instruction)

    def do_StartContainer(self, wanted: ins.StartContainer) -> None:
        assert wanted.container_id not in self.containers
        assert wanted.node_id in self.nodes
        assert wanted.function_id in self.pools - self.retired
        assert wanted.revision_id == self.current[wanted.function_id]
        self.containers[wanted.container_id] = Model(
            wanted.function_id, wanted.node_id, wanted.revision_id, self.revisions[wanted.revision_id]
        )

    def do_StopContainer(self, wanted: ins.StopContainer) -> None:
        model = self.containers[wanted.container_id]
        assert model.state in ("starting", "ready")
        model.state = "stopping"

    def do_PushInputs(self, wanted: ins.PushInputs) -> None:
        model = self.containers[wanted.container_id]
        assert model.state == "ready"
        assert model.revision_id == self.current[model.function_id]
        assert model.function_id not in self.retired
        assert len(set(wanted.input_ids)) == len(wanted.input_ids) > 0
        for one in wanted.input_ids:
            assert self.where[one] == "queued"
            assert self.call[one][0] == model.function_id
            assert not any(one == later for _, later in self.later)
            self.where[one] = wanted.container_id
        model.held.extend(wanted.input_ids)
        model.given += len(wanted.input_ids)
        concurrency = model.concurrency
        mine = [one for one in model.held if not one.startswith("in-direct")]
        assert len(mine) <= (concurrency.batch_max_size or concurrency.max_concurrent_inputs + MAX_AHEAD)
        assert concurrency.max_inputs is None or model.given <= concurrency.max_inputs

    def do_RecallInputs(self, wanted: ins.RecallInputs) -> None:
        model = self.containers[wanted.container_id]
        assert model.state == "ready"
        assert 0 < wanted.count <= len(model.held)
        model.recalls += 1

    def do_CloseLines(self, wanted: ins.CloseLines) -> None:
        model = self.containers[wanted.container_id]
        assert model.state == "ready"
        assert model.held
        model.has_lines = False

    def do_CancelInputs(self, wanted: ins.CancelInputs) -> None:
        assert set(wanted.input_ids) <= set(self.containers[wanted.container_id].held)

    def do_ReportPending(self, wanted: ins.ReportPending) -> None:
        assert self.pending.get(wanted.function_id, "") != wanted.reason
        self.pending[wanted.function_id] = wanted.reason

    def do_FailInputs(self, wanted: ins.FailInputs) -> None:
        assert wanted.reason
        for one in wanted.input_ids:
            assert self.where[one] == "queued"
            self.where[one] = "failed"
            self.later = [entry for entry in self.later if entry[1] != one]

    def do_InputsOrphaned(self, wanted: ins.InputsOrphaned) -> None:
        model = self.containers[wanted.container_id]
        told = [*wanted.begun, *wanted.not_begun]
        assert sorted(told) == sorted(one for one in model.held if self.where[one] == wanted.container_id)
        for one in wanted.begun:
            self.where[one] = "failed"
        for one in wanted.not_begun:
            self.where[one] = "queued"

    def do_WakeAt(self, wanted: ins.WakeAt) -> None:
        self.wake = wanted.at

    def ready(self) -> list[str]:
        return [key for key, model in self.containers.items() if model.state == "ready"]

    # -- what may happen ---------------------------------------------------------------------------------------

    @rule(function_id=st.sampled_from(sorted(FUNCTIONS)))
    def add_pool(self, function_id: str) -> None:
        left_over = any(model.function_id == function_id for model in self.containers.values())
        if function_id not in self.pools and not left_over:
            self.pools.add(function_id)
            self.is_warm |= function_id == "fu-warm"
            self.publish(function_id, FUNCTIONS[function_id][1:])

    def publish(self, function_id: str, made_of: tuple) -> None:
        revision_id = self.current[function_id] = f"fu-{next(self.sequence)}"
        self.revisions[revision_id] = made_of
        self.retired.discard(function_id)
        event = ev.PoolAdded(function_id, FUNCTIONS[function_id][0], function_id, *made_of, revision_id=revision_id)
        self.tell(event)

    @precondition(lambda self: self.pools)
    @rule(data=st.data(), variant=st.sampled_from(VARIANTS), as_before=st.booleans())
    def deploy_again(self, data: st.DataObject, variant: tuple, as_before: bool) -> None:
        function_id = data.draw(st.sampled_from(sorted(self.pools)))
        self.publish(function_id, FUNCTIONS[function_id][1:] if as_before else variant)
        assert not any(
            model.state == "starting" and model.revision_id != self.current[function_id]
            for model in self.containers.values()
            if model.function_id == function_id
        )

    @precondition(lambda self: self.pools)
    @rule(data=st.data())
    def retire_pool(self, data: st.DataObject) -> None:
        function_id = data.draw(st.sampled_from(sorted(self.pools)))
        self.retired.add(function_id)
        running = {one for model in self.containers.values() for one in model.held}
        self.tell(ev.PoolRetired(function_id, "it is no more"))
        for one, (owner, _) in self.call.items():
            if owner == function_id and one not in running:
                assert self.where[one] in ("failed", "done", "dropped")

    @precondition(lambda self: self.pools)
    @rule(
        data=st.data(), count=st.integers(1, 40), call=st.sampled_from(["fc-1", "fc-2"]), nested=st.booleans(),
        delay=st.sampled_from([0.0, 0.0, 0.0, 0.3]),
    )  # fmt: skip
    def queue_inputs(self, data: st.DataObject, count: int, call: str, nested: bool, delay: float) -> None:
        function_id = data.draw(st.sampled_from(sorted(self.pools)))
        inputs = [f"in-{next(self.sequence)}" for _ in range(count)]
        for one in inputs:
            self.where[one] = "queued"
            self.call[one] = (function_id, call + function_id)
            if delay:
                self.later.append((self.now + delay, one))
        self.tell(ev.InputsQueued(function_id, call + function_id, inputs, self.now + delay if delay else 0.0, nested))

    @rule(data=st.data(), what=st.sampled_from(["ready", "ready", "ready", "failed"]), final=st.booleans())
    def container_starts(self, data: st.DataObject, what: str, final: bool) -> None:
        starting = [key for key, model in self.containers.items() if model.state == "starting"]
        if not starting:
            return
        container_id = data.draw(st.sampled_from(starting))
        self.containers[container_id].state = what
        if what == "ready":
            self.tell(ev.ContainerReady(container_id))
        else:
            self.tell(ev.StartFailed(container_id, "it is broken", final))

    @rule(data=st.data(), share=st.floats(0, 1), seconds=st.sampled_from([1e-5, 0.003, 0.5]))
    def inputs_finish(self, data: st.DataObject, share: float, seconds: float) -> None:
        busy = [key for key, model in self.containers.items() if model.held]
        if not busy:
            return
        container_id = data.draw(st.sampled_from(busy))
        model = self.containers[container_id]
        count = max(1, int(len(model.held) * share))
        ended, model.held = model.held[:count], model.held[count:]
        for one in ended:
            if self.where[one] == container_id:
                self.where[one] = "done"
        self.tell(ev.InputsFinished(container_id, ended, seconds * len(ended)))

    @rule(data=st.data(), count=st.integers(1, 3), has_ended=st.booleans())
    def inputs_come_directly(self, data: st.DataObject, count: int, has_ended: bool) -> None:
        with_lines = [
            key
            for key, model in self.containers.items()
            if model.function_id == "fu-plain" and (model.has_lines and model.state == "ready")
        ]
        if not with_lines:
            return
        container_id = data.draw(st.sampled_from(with_lines))
        model = self.containers[container_id]
        if has_ended:
            self.tell(ev.InputsFinished(container_id, [], 0.001 * count, count))
            return
        inputs = [f"in-direct-{next(self.sequence)}" for _ in range(count)]
        calls = [one.replace("in", "fc") for one in inputs]
        for one, call in zip(inputs, calls, strict=True):
            self.where[one] = container_id
            self.call[one] = (model.function_id, call)
        model.held = inputs + model.held
        self.tell(ev.InputsTaken(container_id, calls, inputs))

    @rule(data=st.data())
    def inputs_return(self, data: st.DataObject) -> None:
        asked = [key for key, model in self.containers.items() if model.recalls or model.state == "stopping"]
        if not asked:
            return
        container_id = data.draw(st.sampled_from(asked))
        model = self.containers[container_id]
        model.recalls = max(0, model.recalls - 1)
        concurrency = model.concurrency
        slots = max(concurrency.max_concurrent_inputs, concurrency.batch_max_size)
        back = model.held[slots + data.draw(st.integers(0, 3)) :]
        model.held = [one for one in model.held if one not in back]
        model.given -= len(back)
        for one in back:
            if self.where[one] == container_id:
                self.where[one] = "queued"
        self.tell(ev.InputsReturned(container_id, back))

    @rule(data=st.data(), whole=st.booleans())
    def drop(self, data: st.DataObject, whole: bool) -> None:
        alive = [one for one, where in self.where.items() if where == "queued" or where in self.containers]
        if not alive:
            return
        function_id, call_id = self.call[data.draw(st.sampled_from(alive))]
        mine = [one for one in alive if self.call[one] == (function_id, call_id)]
        chosen = mine if whole else mine[: max(1, len(mine) // 2)]
        for one in chosen:
            self.where[one] = "dropped"
            self.later = [entry for entry in self.later if entry[1] != one]
        self.tell(ev.InputsDropped(function_id, call_id, () if whole else chosen))

    @rule(data=st.data())
    def container_exits(self, data: st.DataObject) -> None:
        if not self.containers:
            return
        container_id = data.draw(st.sampled_from(sorted(self.containers)))
        self.tell(ev.ContainerExited(container_id, "it was killed"))
        del self.containers[container_id]

    @rule(data=st.data())
    def container_leaves(self, data: st.DataObject) -> None:
        if self.containers:
            self.tell(ev.ContainerLeaving(data.draw(st.sampled_from(sorted(self.containers))), 2.0))

    @precondition(lambda self: self.pools)
    @rule(data=st.data(), most=st.sampled_from([1, 2]), least=st.sampled_from([0, 1]))
    def scaling_changes(self, data: st.DataObject, most: int, least: int) -> None:
        # One kept-warm container of each function just fits; more could keep the others out for good, as asked for.
        function_id = data.draw(st.sampled_from(sorted(self.pools)))
        self.is_warm = True
        self.tell(ev.PoolUpdated(function_id, Scaling(least, most, 0, 5.0)))

    @rule(node_id=st.sampled_from(sorted(NODES)))
    def node_comes_or_goes(self, node_id: str) -> None:
        if node_id in self.nodes:
            self.nodes.discard(node_id)
            self.tell(ev.NodeLost(node_id))
            self.containers = {key: model for key, model in self.containers.items() if model.node_id != node_id}
        else:
            self.nodes.add(node_id)
            self.tell(ev.NodeJoined(node_id, *NODES[node_id]))

    @precondition(lambda self: self.pools)
    @rule(data=st.data())
    def remove_pool(self, data: st.DataObject) -> None:
        function_id = data.draw(st.sampled_from(sorted(self.pools)))
        for one, (owner, _) in self.call.items():
            if owner == function_id and self.where[one] != "done":
                self.where[one] = "dropped"
        self.later = [entry for entry in self.later if self.call[entry[1]][0] != function_id]
        self.pools.discard(function_id)
        self.retired.discard(function_id)
        self.tell(ev.PoolRemoved(function_id))

    @rule(seconds=st.sampled_from([0.001, 0.05, 1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.wake is not None and self.wake <= end:
            self.now, self.wake = max(self.now, self.wake), None
            self.later = [entry for entry in self.later if entry[0] > self.now + 0.001]
            self.tell(ev.Tick())
        self.now = end

    # -- what must hold ----------------------------------------------------------------------------------------

    @invariant()
    def limits_hold(self) -> None:
        for revision_id, count in Counter(model.revision_id for model in self.containers.values()).items():
            scaling = self.revisions[revision_id][1]
            assert scaling.max_containers is None or count <= scaling.max_containers
        for node_id in self.nodes:
            here = [model for model in self.containers.values() if model.node_id == node_id]
            cpu, memory = NODES[node_id]
            assert sum(model.resources.memory for model in here) <= memory
            assert sum(model.resources.cpu for model in here) <= 2 * cpu

    @invariant()
    def no_ready_container_rests_while_inputs_wait(self) -> None:
        delayed = {one for _, one in self.later}
        waiting = {self.call[one][0] for one, where in self.where.items() if where == "queued" and one not in delayed}
        for container_id in self.ready():
            model = self.containers[container_id]
            spent = model.concurrency.max_inputs == model.given
            assert model.held or spent or model.function_id not in waiting

    @invariant()
    def who_waits_has_a_container_or_a_reason_or_a_next_try(self) -> None:
        delayed = {one for _, one in self.later}
        for function_id in self.pools:
            queued = [
                one for one, where in self.where.items() if where == "queued" and self.call[one][0] == function_id
            ]
            if not queued:
                continue
            has_container = any(model.function_id == function_id for model in self.containers.values())
            busy_starting = any(model.state == "starting" for model in self.containers.values())
            assert (
                has_container
                or busy_starting
                or self.pending.get(function_id)
                or self.wake is not None
                or set(queued) <= delayed
            )
            if set(queued) <= delayed:
                assert self.wake is not None

    @invariant()
    def only_who_waits_has_a_reason(self) -> None:
        for function_id, reason in self.pending.items():
            if reason:
                assert function_id in self.pools
                assert self.is_warm or any(
                    where == "queued" and self.call[one][0] == function_id for one, where in self.where.items()
                )

    def teardown(self) -> None:
        """Left alone by everything bad, every input that is still wanted runs."""
        if "one" not in self.nodes:
            self.node_comes_or_goes("one")
        for _ in range(400):
            if not any(where == "queued" or where in self.containers for where in self.where.values()):
                return
            for container_id, model in list(self.containers.items()):
                if container_id not in self.containers:
                    continue
                if model.state == "starting":
                    model.state = "ready"
                    self.tell(ev.ContainerReady(container_id))
                elif model.state == "ready" and model.held:
                    ended, model.held = model.held, []
                    for one in ended:
                        if self.where[one] == container_id:
                            self.where[one] = "done"
                    self.tell(ev.InputsFinished(container_id, ended, 0.001 * len(ended)))
                elif model.state in ("failed", "stopping"):
                    self.tell(ev.ContainerExited(container_id))
                    del self.containers[container_id]
            self.time_passes(0.05)
        raise AssertionError("some inputs never ended")


AnyOrder.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = AnyOrder.TestCase
