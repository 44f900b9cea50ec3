"""A world with a virtual clock for the scheduler: containers that take time to start and to run inputs.

It carries out every instruction as a node would, answers with events, and checks on the way what must always hold:
inputs are neither lost nor run twice at a time, only ready containers are pushed to, no limit and no capacity is
exceeded.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from intermodal.scheduling import events as ev
from intermodal.scheduling import instructions as ins
from intermodal.scheduling.scheduler import Scheduler
from modal._wire.messages.function import Concurrency, Resources, Scaling


@dataclass(eq=False)
class SimulatedFunction:
    function_id: str
    app_id: str
    start_seconds: float
    run_seconds: Callable[[str], float]
    resources: Resources
    scaling: Scaling
    concurrency: Concurrency
    fails_to_start: bool = False
    dies_on: set[str] = field(default_factory=set)  #: the container is killed halfway through these inputs, once each


@dataclass(eq=False)
class SimulatedContainer:
    container_id: str
    function: SimulatedFunction
    node_id: str
    is_ready: bool = False
    is_stopping: bool = False
    is_gone: bool = False
    waiting: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    begun: int = 0


class Simulation:
    """Feeds a scheduler and obeys it. `requeue` decides whether a begun input of a dead container is queued again."""

    def __init__(self, requeue: bool = True) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(f"ta-{n}" for n in itertools.count())
        self.functions: dict[str, SimulatedFunction] = {}
        self.containers: dict[str, SimulatedContainer] = {}
        self.nodes: dict[str, ev.NodeJoined] = {}
        self.finished: dict[str, float] = {}  #: input -> when
        self.order: list[str] = []
        self.failed: dict[str, str] = {}  #: input -> reason
        self.pending: dict[str, str] = {}
        self.reports: list[tuple[float, str, str]] = []
        self.starts: list[tuple[float, str]] = []  #: (when, function)
        self.stops: list[tuple[float, str]] = []
        self.exits: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  #: most containers of a function at one time
        self.ran_on: dict[str, str] = {}
        self.recalls = 0
        self.has_nested = False
        self.events = 0
        self.requeue = requeue
        self.queued_at: dict[str, float] = {}
        self._call_of: dict[str, str] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._wake = 0

    # -- what a test does --------------------------------------------------------------------------------------

    def node(self, node_id: str = "local", cpu: float = 2, memory: int = 8192, gpus: tuple[str, ...] = ()) -> None:
        self.nodes[node_id] = ev.NodeJoined(node_id, cpu, memory, gpus)
        self.tell(self.nodes[node_id])

    def function(
        self,
        function_id: str = "fu",
        app_id: str = "ap",
        start: float = 0.2,
        run: float | Callable[[str], float] = 0.01,
        resources: Resources | None = None,
        scaling: Scaling | None = None,
        concurrency: Concurrency | None = None,
    ) -> SimulatedFunction:
        made = SimulatedFunction(
            function_id,
            app_id,
            start,
            run if callable(run) else lambda _: run,
            resources or Resources(),
            scaling or Scaling(),
            concurrency or Concurrency(),
        )
        self._publish(made)
        return made

    def deploy_again(self, function_id: str = "fu", run: float | None = None, **changes: Any) -> SimulatedFunction:
        """Replace a function: containers that start from now on are of the new one."""
        if run is not None:
            changes["run_seconds"] = lambda _: run
        made = replace(self.functions[function_id], **changes)
        self._publish(made)
        return made

    def _publish(self, made: SimulatedFunction) -> None:
        self.functions[made.function_id] = made
        event = ev.PoolAdded(
            made.function_id,
            made.app_id,
            made.function_id,
            made.resources,
            made.scaling,
            made.concurrency,
            revision_id=str(id(made)),
        )
        self.tell(event)

    def call(self, count: int, function_id: str = "fu", call_id: str = "fc", nested: bool = False) -> list[str]:
        """Queue `count` inputs in batches as a map sends them."""
        self.has_nested |= nested
        first = len(self.queued_at)
        inputs = [f"in-{call_id}-{first + n}" for n in range(count)]
        for one in inputs:
            self._call_of[one] = call_id
            self.queued_at[one] = self.now
        for start in range(0, count, 256):
            self.tell(ev.InputsQueued(function_id, call_id, inputs[start : start + 256], nested=nested))
        return inputs

    def kill(self, container: SimulatedContainer) -> None:
        self._exit(container, "killed")

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass until `until` holds or `seconds` are over; return the time."""
        end = self.now + seconds
        while not until():
            if not self._agenda or self._agenda[0][0] > end:
                self.now = end
                break
            self.now, _, action = heapq.heappop(self._agenda)
            action()
        return self.now

    def run_until_done(self, inputs: list[str], seconds: float = 1e6) -> float:
        left = set(inputs)

        def done() -> bool:
            nonlocal left
            left = {one for one in left if one not in self.finished and one not in self.failed}
            return not left

        # Looking at every input after every event would be slow; a counter is enough to know when to look.
        self.run(seconds, lambda: len(self.finished) + len(self.failed) >= len(inputs) and done())
        assert done(), f"{len(left)} inputs never ended"
        return self.now

    def live(self, function_id: str = "fu") -> list[SimulatedContainer]:
        return [c for c in self.containers.values() if c.function.function_id == function_id and not c.is_gone]

    # -- the world ---------------------------------------------------------------------------------------------

    def tell(self, event: ev.Event) -> None:
        self.events += 1
        for instruction in self.scheduler.handle(event, self.now):
            getattr(self, "_do_" + type(instruction).__name__)(instruction)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._sequence), action))

    def _do_StartContainer(self, wanted: ins.StartContainer) -> None:
        function = self.functions[wanted.function_id]
        assert wanted.container_id not in self.containers
        container = SimulatedContainer(wanted.container_id, function, wanted.node_id)
        self.containers[wanted.container_id] = container
        assert wanted.revision_id == str(id(function))
        live = len([one for one in self.live(wanted.function_id) if one.function is function])
        self.most[wanted.function_id] = max(self.most[wanted.function_id], live)
        if function.scaling.max_containers is not None:
            assert live <= function.scaling.max_containers
        self._check_capacity(wanted.node_id)
        self.starts.append((self.now, wanted.function_id))
        self.later(function.start_seconds, lambda: self._came_up(container))

    def _check_capacity(self, node_id: str) -> None:
        node = self.nodes[node_id]
        here = [c for c in self.containers.values() if c.node_id == node_id and not c.is_gone]
        assert sum(c.function.resources.memory for c in here) <= node.memory
        assert sum(c.function.resources.cpu for c in here) <= node.cpu * (2 if self.has_nested else 1)

    def _came_up(self, container: SimulatedContainer) -> None:
        if container.is_gone:
            return
        if container.function.fails_to_start:
            self.tell(ev.StartFailed(container.container_id, "it cannot be imported"))
            self.later(0.01, lambda: self._exit(container, ""))
            return
        container.is_ready = True
        self.tell(ev.ContainerReady(container.container_id))

    def _do_PushInputs(self, wanted: ins.PushInputs) -> None:
        container = self.containers[wanted.container_id]
        assert container.is_ready
        assert container.function is self.functions[container.function.function_id], "it was replaced"
        assert not container.is_stopping
        assert not container.is_gone
        assert wanted.input_ids
        for one in wanted.input_ids:
            assert one not in self.ran_on, f"{one} is in two containers"
            assert one not in self.finished
            self.ran_on[one] = container.container_id
        container.waiting.extend(wanted.input_ids)
        limit = container.function.concurrency.max_inputs
        if limit is not None:
            assert container.begun + len(container.waiting) <= limit
        self._begin(container)

    def _begin(self, container: SimulatedContainer) -> None:
        while container.waiting and len(container.running) < container.function.concurrency.max_concurrent_inputs:
            one = container.waiting.pop(0)
            container.running.add(one)
            container.begun += 1
            seconds = container.function.run_seconds(one)
            if one in container.function.dies_on:
                container.function.dies_on.discard(one)
                self.later(seconds / 2, lambda: self._exit(container, "out of memory"))
            else:
                self.later(seconds, lambda one=one, seconds=seconds: self._ended(container, one, seconds))

    def _ended(self, container: SimulatedContainer, one: str, seconds: float) -> None:
        if container.is_gone or one not in container.running:
            return
        container.running.remove(one)
        self._begin(container)
        del self.ran_on[one]
        self.finished[one] = self.now
        self.order.append(one)
        self.tell(ev.InputsFinished(container.container_id, [one], seconds))
        if container.is_stopping and not container.running:
            self._exit(container, "")

    def _do_CloseLines(self, wanted: ins.CloseLines) -> None:
        assert wanted.container_id in self.containers

    def _do_RecallInputs(self, wanted: ins.RecallInputs) -> None:
        container = self.containers[wanted.container_id]
        self.recalls += 1

        def give_back() -> None:
            if container.is_gone:
                return
            back = container.waiting[-wanted.count :]
            del container.waiting[-wanted.count :]
            for one in back:
                del self.ran_on[one]
            self.tell(ev.InputsReturned(container.container_id, back))

        self.later(0.0005, give_back)

    def _do_CancelInputs(self, wanted: ins.CancelInputs) -> None:
        container = self.containers[wanted.container_id]
        held = [one for one in wanted.input_ids if one in container.running or one in container.waiting]
        for one in held:
            container.running.discard(one)
            if one in container.waiting:
                container.waiting.remove(one)
            del self.ran_on[one]
            self.failed[one] = "cancelled"
        self._begin(container)
        self.later(0.001, lambda: self.tell(ev.InputsFinished(container.container_id, held, 0.0)))

    def _do_StopContainer(self, wanted: ins.StopContainer) -> None:
        container = self.containers[wanted.container_id]
        assert not container.is_stopping, "told twice"
        container.is_stopping = True
        self.stops.append((self.now, container.function.function_id))
        if not container.running:
            self.later(0.01, lambda: self._exit(container, ""))

    def _exit(self, container: SimulatedContainer, reason: str) -> None:
        if container.is_gone:
            return
        container.is_gone = True
        self.exits[container.function.function_id] += 1
        for one in [*container.running, *container.waiting]:
            del self.ran_on[one]
        self.tell(ev.ContainerExited(container.container_id, reason))

    def _do_InputsOrphaned(self, wanted: ins.InputsOrphaned) -> None:
        container = self.containers[wanted.container_id]
        assert set(wanted.begun) == container.running
        assert set(wanted.not_begun) == set(container.waiting)
        for one in wanted.begun:
            if self.requeue:
                again = ev.InputsQueued(wanted.function_id, self._call_of[one], [one])
                self.later(0.0, lambda again=again: self.tell(again))
            else:
                self.failed[one] = "container died"

    def _do_FailInputs(self, wanted: ins.FailInputs) -> None:
        for one in wanted.input_ids:
            assert one not in self.ran_on
            assert one not in self.finished
            self.failed[one] = wanted.reason

    def _do_ReportPending(self, wanted: ins.ReportPending) -> None:
        self.pending[wanted.function_id] = wanted.reason
        self.reports.append((self.now, wanted.function_id, wanted.reason))

    def _do_WakeAt(self, wanted: ins.WakeAt) -> None:
        self._wake += 1
        mine = self._wake
        self.later(max(0.0, wanted.at - self.now), lambda: self.tell(ev.Tick()) if mine == self._wake else None)
