"""One function's pool: what waits, which containers there are, and which of them holds which inputs.

The rule that keeps it simple: while something is queued, every ready container has at least as many inputs as it runs
at a time. So a finished input concerns only its own container, and costs the same however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from intermodal.machines.container import ContainerEvent, ContainerState, container_machine
from modal._wire.messages.function import Concurrency, Scaling

from .autoscaler import Load, blocked_after
from .events import PoolAdded
from .fairness import CallQueue, FairQueue
from .instructions import Instruction, PushInputs
from .placement import Allocation, Request

AHEAD_SECONDS = 0.005  #: measured work that a container is given ahead of what it runs
MAX_AHEAD = 256  #: inputs, whatever their measure
_UNLIMITED = 1 << 62
_RUN_WEIGHT = 0.2  # of one new measurement of the execution time
_START_WEIGHT = 0.3
_DROPPED = CallQueue("", False)  # stands for the call of an input that shall not be queued again


class Container:
    """A container and the inputs it holds, oldest first."""

    __slots__ = (
        "_machine",
        "allocation",
        "batch_until",
        "budget",
        "container_id",
        "finished",
        "idle_since",
        "is_recalling",
        "pool",
        "progress_at",
        "running",
        "share",
        "started_at",
    )

    def __init__(self, container_id: str, pool: Pool, allocation: Allocation, share: float, now: float) -> None:
        self.container_id = container_id
        self.pool = pool
        self.allocation = allocation
        self.share = share  #: its part of all nodes
        self.running: dict[str, CallQueue] = {}
        self.budget = pool.concurrency.max_inputs or _UNLIMITED  #: inputs it may still be given
        self.batch_until = now  #: batched: until then, what it holds waits for more to run with
        self.finished = 0
        self.started_at = now
        self.progress_at = now  #: when it last finished an input, or was given one while idle
        self.idle_since = now
        self.is_recalling = False
        self._machine = container_machine(container_id)

    @property
    def state(self) -> ContainerState:
        return self._machine.state

    @property
    def node_id(self) -> str:
        return self.allocation.node_id

    def on(self, event: ContainerEvent) -> ContainerState:
        """Change its state, and its place in the pool's sets."""
        pool, me = self.pool, self.container_id
        before = self._machine.state
        state = self._machine.on(event)
        if state is not before:
            if before is ContainerState.STARTING:
                del pool.starting[me]
            elif before is ContainerState.READY:
                del pool.ready[me]
                pool.idle.pop(me, None)
            if state is ContainerState.READY:
                pool.ready[me] = self
            elif state is ContainerState.EXITED:
                del pool.containers[me]
        return state

    def not_begun(self) -> int:
        """How many of its inputs are only pushed ahead."""
        return max(0, len(self.running) - self.pool.slots)


class Pool:
    """The state of one function. Its methods keep the counts right; what to do when is the scheduler's business.

    A function that is deployed again gets a new pool, which takes over the queue. Containers stay with the pool that
    started them, and finish there what they have begun.
    """

    def __init__(self, event: PoolAdded, before: Pool | None = None) -> None:
        self.function_id = event.function_id
        self.revision_id = event.revision_id
        self.app_id = event.app_id
        self.name = event.name
        self.request = Request.of(event.resources, event.cloud, event.regions)
        self.scaling: Scaling = event.scaling
        self.concurrency: Concurrency = event.concurrency
        #: inputs that a container runs at a time; a batched function takes whole batches
        self.slots = max(1, event.concurrency.max_concurrent_inputs) * max(1, event.concurrency.batch_max_size)
        #: batched: seconds a batch waits to be filled
        self.batch_wait = event.concurrency.batch_wait_ms / 1000 if event.concurrency.batch_max_size else None
        self.queue: FairQueue = FairQueue() if before is None else before.queue
        #: pools of earlier revisions that still have containers
        self.earlier: list[Pool] = [one for one in (*before.earlier, before) if one.containers] if before else []
        self.containers: dict[str, Container] = {}  #: every one that has not exited
        self.starting: dict[str, Container] = {}
        self.ready: dict[str, Container] = {}
        self.idle: dict[str, Container] = {}  #: ready and without inputs, longest idle first
        self.share = 0.0  #: its containers' part of all nodes
        self.run_seconds: float | None = None
        self.start_seconds: float | None = None
        self.ahead = 0  #: inputs that a container is given beyond its slots
        self.is_ahead = False  #: some were, since this was last looked at
        self.alone = 0  #: so many inputs are still to be run with none pushed ahead, after a crash
        self.deficit = 0  #: containers to be started
        self.blocked_at = -1  #: the placement's version at which nothing fitted
        self.shortage: tuple[str, ...] = ()  #: what was short then, if that was reported
        self.making_room: set[str] = set()  #: containers of other pools that were told to end for this one
        self.failures = 0  #: starts that failed since one succeeded
        self.failure_reason = ""
        self.failed_container = ""
        self.crashes = 0  #: containers that ended by themselves without having been given anything
        self.is_broken = False  #: too many failures: only a new input makes it try again
        self.retry_at = 0.0
        self.is_removed = False
        self.retired = ""  #: why nothing is run any more; empty while it is
        self.wake_at = math.inf
        self.scaled_at = -math.inf

    @property
    def live(self) -> int:
        """Containers that take inputs, now or soon."""
        return len(self.starting) + len(self.ready)

    @property
    def needs_containers(self) -> bool:
        """Whether more of them would have something to do at once, or must be kept warm; else they are buffer."""
        if self.queue.size or self.live < self.scaling.min_containers:
            return True
        return any(container.not_begun() for container in self.ready.values())

    # -- inputs ------------------------------------------------------------------------------------------------

    def feed(self, now: float, out: list[Instruction]) -> None:
        """Push what is queued: to idle containers first, the latest used of them, then ahead to busy ones.

        Batches that wait to be filled come before all.
        """
        if self.batch_wait is not None:
            for container in self.ready.values():
                if container.running and self.queue.size:
                    self.push(container, self.slots, now, out)
        while self.queue.size and self.idle:
            container = self.idle[next(reversed(self.idle))]
            self.push(container, max(self.slots, math.ceil(self.queue.size / len(self.ready))), now, out)
        if not self.queue.size:
            return
        left = len(self.ready)
        for container in sorted(self.ready.values(), key=_held):
            self.push(container, math.ceil(self.queue.size / left), now, out)
            left -= 1
            if not self.queue.size:
                return

    def push(self, container: Container, count: int, now: float, out: list[Instruction]) -> None:
        """Push up to `count` inputs, and always enough to fill its slots, as far as its credit and the queue go."""
        running = container.running
        held = len(running)
        if self.batch_wait is not None and held and now >= container.batch_until:
            return  # its batch runs: what came now would not be part of it, and another container may be free
        # What has run for longer than all that was to be done ahead may run for ever: nothing more goes behind it.
        is_stuck = held > 0 and now - container.progress_at > AHEAD_SECONDS
        limit = self.slots if is_stuck or self.alone else self.slots + self.ahead
        room = min(limit - held, container.budget, max(count, self.slots - held), self.queue.size)
        if room <= 0:
            return
        if not held:
            container.progress_at = now
            container.batch_until = now + (self.batch_wait or 0.0)
            self.idle.pop(container.container_id, None)
        pushed: list[str] = []
        for call, taken in self.queue.take(room):
            running.update(dict.fromkeys(taken, call))
            pushed = pushed + taken if pushed else taken
        container.budget -= len(pushed)
        if len(running) > self.slots:
            self.is_ahead = True
        out.append(PushInputs(container.container_id, pushed))

    def taken(self, container: Container, call_ids: Sequence[str], input_ids: Sequence[str], now: float) -> None:
        """The container has these inputs, which were never queued; what it was given before waits behind them."""
        running = container.running
        if not running:
            container.progress_at = now
            self.idle.pop(container.container_id, None)
        given = dict(running)
        running.clear()
        running.update((one, CallQueue(call_id, False)) for one, call_id in zip(input_ids, call_ids))
        running.update(given)

    def finished(
        self, container: Container, input_ids: Sequence[str], seconds: float, now: float, direct: int = 0
    ) -> None:
        """Forget inputs that ended, and learn from the time they took; `direct` more were never known."""
        running = container.running
        before = len(running)
        for one in input_ids:
            running.pop(one, None)
        count = before - len(running) + direct
        if not count:
            return
        container.finished += count
        self.alone = max(0, self.alone - count)
        container.progress_at = now
        if seconds > 0.0:
            self.run_seconds = _blend(self.run_seconds, seconds / count, 1.0 - (1.0 - _RUN_WEIGHT) ** count)
            if self.batch_wait is None:
                self.ahead = min(MAX_AHEAD, int(AHEAD_SECONDS / self.run_seconds * self.slots))
        if container.is_recalling and len(running) <= self.slots:
            container.is_recalling = False

    def returned(self, container: Container, input_ids: Iterable[str]) -> None:
        """Queue inputs again that the container had not begun."""
        container.is_recalling = False
        given_back = set(input_ids)
        mine = [one for one in container.running if one in given_back]
        container.budget += len(mine)
        self._requeue(container, mine)

    def orphan(
        self, container: Container, known: Sequence[str] = (), is_crash: bool = False
    ) -> tuple[list[str], list[str]]:
        """Take the inputs of a container that is gone; return those it had begun, and the others, queued again.

        A runner answers quick inputs several at a time, so the oldest unanswered one of a container that crashed may
        have ended long before the crash. Rather than to blame it, all that the container held are run again without
        any pushed ahead: the one at fault is then alone when it brings its container down.
        """
        calls = container.running
        held = list(calls)
        if known:
            at_fault = set(known)
        elif is_crash and self.batch_wait is None and len(held) > self.slots:
            at_fault = set()
            self.alone = len(held) * max(1, self.queue.calls)
        else:
            at_fault = set(held[: self.slots])
        begun = [one for one in held if one in at_fault and calls[one] is not _DROPPED]
        not_begun = [one for one in held if one not in at_fault and calls[one] is not _DROPPED]
        self._requeue(container, not_begun)
        calls.clear()
        return begun, not_begun

    def drop(self, call_id: str, input_ids: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Forget inputs that are queued; return those that containers hold, by container."""
        wanted = set(input_ids)
        self.queue.drop(call_id, wanted)
        held = []
        for container in self.every_container():
            mine = [
                one
                for one, call in container.running.items()
                if call.call_id == call_id and (not wanted or one in wanted)
            ]
            for one in mine:
                container.running[one] = _DROPPED
            if mine:
                held.append((container.container_id, mine))
        return held

    def _requeue(self, container: Container, input_ids: list[str]) -> None:
        by_call: dict[CallQueue, list[str]] = {}
        for one in input_ids:
            call = container.running.pop(one)
            if call is not _DROPPED:
                by_call.setdefault(call, []).append(one)
        for call, ones in by_call.items():
            self.queue.put_back(call, ones)

    # -- containers --------------------------------------------------------------------------------------------

    def every_container(self) -> list[Container]:
        """All of the function that have not exited, those of earlier revisions too."""
        return [container for pool in (*self.earlier, self) for container in pool.containers.values()]

    def add(self, container: Container) -> None:
        self.containers[container.container_id] = container
        self.starting[container.container_id] = container

    def started(self, container: Container, now: float) -> None:
        """Learn from the time a container took to become ready."""
        self.start_seconds = _blend(self.start_seconds, now - container.started_at, _START_WEIGHT)

    def load(self, now: float, cores: int) -> Load:
        """A snapshot for the autoscaler."""
        running = blocked = 0
        stuck = 0.0
        limit = blocked_after(self.start_seconds)
        for container in self.ready.values():
            if container.running:
                # Nothing can be added to a batch that runs: it takes the whole container.
                is_full = self.batch_wait is not None and now >= container.batch_until
                running += self.slots if is_full else len(container.running)
                silent = now - container.progress_at
                stuck = max(stuck, silent)
                blocked += silent >= limit
        return Load(
            queued=self.queue.size,
            running=running,
            containers=self.live,
            slots=self.slots,
            run_seconds=self.run_seconds,
            start_seconds=self.start_seconds,
            blocked=blocked,
            stuck_seconds=stuck,
            cores=cores,
        )


def _held(container: Container) -> int:
    return len(container.running)


def _blend(old: float | None, new: float, weight: float) -> float:
    return new if old is None else old + (new - old) * weight
