"""The scheduler: events in, instructions out. It knows no clock, no I/O and no chance.

`handle` is called for every batch of finished inputs, so what it does per input is a dictionary entry and a slice of a
list. Decisions about containers are made when something about them changes, and else at most every `RESCALE_SECONDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from intermodal.machines.container import ContainerEvent, ContainerState

from . import events
from .autoscaler import desired_containers, most_useful
from .capacity import STOP_GRACE, Capacity
from .events import Event
from .instructions import CancelInputs, FailInputs, InputsOrphaned, Instruction, RecallInputs, WakeAt
from .pool import Container, Pool

MAX_START_FAILURES = 3  #: in a row; then what is queued fails
START_BACKOFF = 0.1  #: seconds before the next try after a failed start; doubles with each
MAX_START_BACKOFF = 5.0
RESCALE_SECONDS = 0.01
IDLE_RECHECK_SECONDS = 1.0  #: the same for containers that are wanted without a backlog
DIRECT_SECONDS = 0.003  #: a function that runs longer has no direct lines
RECHECK_SECONDS = 0.1  #: how often a backlog is looked at while nothing happens
_SLACK = 0.001  # a timer may fire that much early


class Scheduler:
    """Decides how many containers each function has, where they run, and which input runs next.

    Args:
        ids: an endless supply of fresh container ids.
    """

    def __init__(self, ids: Iterator[str]) -> None:
        self._capacity = Capacity(ids)
        self._containers = self._capacity.containers
        self._pools: dict[str, Pool] = {}
        self._promised = math.inf  # the time of the Tick that was asked for
        self._now = 0.0
        self._out: list[Instruction] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.InputsFinished: self._inputs_finished,
            events.InputsQueued: self._inputs_queued,
            events.InputsTaken: self._inputs_taken,
            events.InputsReturned: self._inputs_returned,
            events.InputsDropped: self._inputs_dropped,
            events.ContainerReady: self._container_ready,
            events.StartFailed: self._start_failed,
            events.ContainerLeaving: self._container_leaving,
            events.ContainerExited: self._container_exited,
            events.PoolAdded: self._pool_added,
            events.PoolUpdated: self._pool_updated,
            events.PoolRetired: self._pool_retired,
            events.PoolRemoved: self._pool_removed,
            events.NodeJoined: self._node_joined,
            events.NodeLost: self._node_lost,
            events.Tick: self._tick,
        }

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in one event and return what to do about it, in order.

        Args:
            event: what happened.
            now: seconds on a clock that never goes back.
        """
        self._now = now
        self._out = []
        self._handlers[type(event)](event)
        return self._out

    def direct_container(self, function_id: str) -> str:
        """A container of the function that a direct line may go to now; "": there is none.

        It is idle and has worked. Functions whose inputs are counted, batched, run side by side or take long gain
        nothing by a line, or lose something.
        """
        pool = self._pools.get(function_id)
        if (
            pool is None
            or not pool.idle
            or pool.slots > 1
            or pool.batch_wait is not None
            or pool.concurrency.max_inputs
        ):
            return ""
        container = pool.idle[next(reversed(pool.idle))]
        is_quick = pool.run_seconds is not None and pool.run_seconds <= DIRECT_SECONDS
        return container.container_id if container.finished and is_quick and not pool.queue.size else ""

    # -- inputs ------------------------------------------------------------------------------------------------

    def _inputs_queued(self, event: events.InputsQueued) -> None:
        pool = self._pools.get(event.function_id)
        if pool is None or not event.input_ids:
            return
        if pool.retired:
            self._out.append(FailInputs(pool.function_id, event.input_ids, pool.retired))
            return
        if event.not_before > self._now + _SLACK:
            pool.queue.delay(event.call_id, event.input_ids, event.nested, event.not_before)
            self._wake(pool, event.not_before)
            return
        was_empty = not pool.queue.size
        pool.queue.append(event.call_id, event.input_ids, event.nested)
        if self._refused(pool):
            return
        if was_empty:
            pool.feed(self._now, self._out)
        if pool.queue.size or pool.starting or not pool.ready:
            self._rescale(pool)
        elif pool.is_ahead:
            self._watch_ahead(pool)

    def _inputs_finished(self, event: events.InputsFinished) -> None:
        container = self._containers.get(event.container_id)
        if container is None:
            return
        container.pool.finished(container, event.input_ids, event.seconds, self._now, event.direct)
        container.pool.crashes = 0
        self._freed(container)

    def _inputs_taken(self, event: events.InputsTaken) -> None:
        container = self._containers.get(event.container_id)
        if container is None:
            return
        pool = container.pool
        pool.taken(container, event.call_ids, event.input_ids, self._now)
        if len(container.running) > pool.slots:
            self._watch_ahead(pool)
        self._rescale(pool)

    def _inputs_returned(self, event: events.InputsReturned) -> None:
        container = self._containers.get(event.container_id)
        if container is None:
            return
        container.pool.returned(container, event.input_ids)
        self._requeued(container.pool)
        if not container.running:
            self._freed(container)
        self._rescale(container.pool)

    def _inputs_dropped(self, event: events.InputsDropped) -> None:
        pool = self._pools.get(event.function_id)
        if pool is None:
            return
        for container_id, held in pool.drop(event.call_id, event.input_ids):
            self._out.append(CancelInputs(container_id, held))
        self._rescale(pool)

    def _requeued(self, pool: Pool) -> None:
        """Inputs of a container of this pool wait again: for its successor, when it has been replaced."""
        pool = self._pools.get(pool.function_id, pool)
        if pool.retired:
            self._fail_queued(pool)
        else:
            pool.feed(self._now, self._out)

    def _freed(self, container: Container) -> None:
        """A container has fewer inputs than before: give it more, or let it rest, or end it."""
        pool, now, out = container.pool, self._now, self._out
        if container.state is not ContainerState.READY:
            if container.state is ContainerState.DRAINING and not container.running:
                self._capacity.stop(container, STOP_GRACE, out)
            return
        if pool.queue.size:
            pool.push(container, math.ceil(pool.queue.size / len(pool.ready)), now, out)
            if pool.is_ahead:
                self._watch_ahead(pool)
        if not container.running:
            self._rest(container)
        if pool.queue.size and now - pool.scaled_at >= RESCALE_SECONDS:
            self._rescale(pool)

    def _watch_ahead(self, pool: Pool) -> None:
        """Look again soon: what lies ahead in a container may turn out to wait behind something long."""
        pool.is_ahead = False
        self._wake(pool, self._now + RECHECK_SECONDS)

    def _rest(self, container: Container) -> None:
        """A ready container has nothing to do."""
        pool = container.pool
        if container.budget <= 0:
            self._capacity.stop(container, STOP_GRACE, self._out)
            self._rescale(pool)
            return
        pool.idle.pop(container.container_id, None)
        pool.idle[container.container_id] = container
        container.idle_since = self._now
        self._wake(pool, self._now + pool.scaling.idle_timeout)
        self._recall_for(pool)

    def _recall_for(self, pool: Pool) -> None:
        """Take inputs back that lie ahead in a busy container, while another is idle."""
        if len(pool.ready) < 2:
            return
        busiest = max(pool.ready.values(), key=lambda c: len(c.running))
        ahead = busiest.not_begun()
        if ahead and not busiest.is_recalling:
            busiest.is_recalling = True
            self._out.append(RecallInputs(busiest.container_id, (ahead + 1) // 2))

    # -- containers --------------------------------------------------------------------------------------------

    def _container_ready(self, event: events.ContainerReady) -> None:
        container = self._containers.get(event.container_id)
        if container is None:
            return
        if container.on(ContainerEvent.READY) is not ContainerState.READY:
            return
        pool = container.pool
        self._capacity.placement.started(container.allocation)
        pool.started(container, self._now)
        if not pool.crashes:
            pool.failures = 0
            pool.is_broken = False
        pool.idle[container.container_id] = container
        pool.feed(self._now, self._out)
        if not container.running:
            self._rest(container)
        self._rescale(pool)

    def _start_failed(self, event: events.StartFailed) -> None:
        container = self._containers.get(event.container_id)
        if container is None:
            return
        if container.on(ContainerEvent.START_FAILED) is not ContainerState.FAILED:
            return
        self._capacity.placement.started(container.allocation)
        self._count_failure(container, event.reason, event.final)
        self._rescale(container.pool)

    def _container_leaving(self, event: events.ContainerLeaving) -> None:
        container = self._containers.get(event.container_id)
        if container is None or container.state in (ContainerState.STOPPING, ContainerState.FAILED):
            return
        self._capacity.stop(container, event.grace, self._out)
        self._rescale(container.pool)

    def _container_exited(self, event: events.ContainerExited) -> None:
        container = self._containers.get(event.container_id)
        if container is None:
            return
        pool, state = container.pool, container.state
        never_worked = state is ContainerState.READY and not container.running and not container.finished
        self._forget(container, event.running, event.is_crash)
        if state is ContainerState.STARTING:
            self._count_failure(container, event.reason or "The container ended before it was ready.", False)
        elif never_worked:
            # It came up and died with nothing to do: without this, a kept-warm container would be replaced for ever.
            pool.crashes += 1
            self._count_failure(container, event.reason or "The container ended by itself.", False)
        self._rescale(pool)

    def _forget(self, container: Container, known: Sequence[str] = (), is_crash: bool = False) -> None:
        """A container is gone, with the inputs it held."""
        pool = container.pool
        self._capacity.gone(container)
        if pool.is_removed:
            container.running.clear()
            return
        begun, not_begun = pool.orphan(container, known, is_crash)
        if begun or not_begun:
            self._out.append(InputsOrphaned(container.container_id, pool.function_id, begun, not_begun))
        if not_begun:
            self._requeued(pool)

    def _count_failure(self, container: Container, reason: str, final: bool) -> None:
        """A start failed: try again a little later, and give up on what is queued after a few times."""
        pool = container.pool
        pool.failures += 1
        if final:
            pool.failures = max(pool.failures, MAX_START_FAILURES)
        pool.failure_reason = reason
        pool.failed_container = container.container_id
        pool.is_broken = pool.failures >= MAX_START_FAILURES
        pool.retry_at = self._now + min(MAX_START_BACKOFF, START_BACKOFF * 2.0 ** min(pool.failures - 1, 20))
        if pool.is_broken:
            self._refused(pool)

    def _refused(self, pool: Pool) -> bool:
        """Fail what is queued when containers keep failing to start, and none is up; say whether that is so."""
        if not pool.is_broken or pool.live or self._now >= pool.retry_at:
            return False
        refused = pool.queue.clear()
        if refused:
            self._out.append(FailInputs(pool.function_id, refused, pool.failure_reason, pool.failed_container))
        return True

    # -- pools and nodes ---------------------------------------------------------------------------------------

    def _pool_added(self, event: events.PoolAdded) -> None:
        old = self._pools.get(event.function_id)
        pool = self._pools[event.function_id] = Pool(event, old)
        if old is not None:
            self._capacity.want(old, 0, self._out)
            self._drain(old)
            if pool.queue.next_due is not None:
                self._wake(pool, pool.queue.next_due)
        self._rescale(pool)

    def _pool_retired(self, event: events.PoolRetired) -> None:
        pool = self._pools.get(event.function_id)
        if pool is not None:
            pool.retired = event.reason
            self._fail_queued(pool)
            self._drain(pool)
            self._rescale(pool)

    def _drain(self, pool: Pool) -> None:
        """Its containers finish what they have begun, and get nothing more."""
        for container in list(pool.containers.values()):
            if container.state is ContainerState.STARTING:
                self._capacity.stop(container, STOP_GRACE, self._out)
            elif container.state is ContainerState.READY:
                self._capacity.drain(container, self._out)

    def _fail_queued(self, pool: Pool) -> None:
        """What waits in a retired pool will never run."""
        refused = pool.queue.clear()
        if refused:
            self._out.append(FailInputs(pool.function_id, refused, pool.retired))

    def _pool_updated(self, event: events.PoolUpdated) -> None:
        pool = self._pools.get(event.function_id)
        if pool is not None:
            pool.scaling = event.scaling
            pool.failures = 0
            pool.is_broken = False
            self._retire_idle(pool)
            self._rescale(pool)

    def _pool_removed(self, event: events.PoolRemoved) -> None:
        pool = self._pools.pop(event.function_id, None)
        if pool is None:
            return
        for one in (*pool.earlier, pool):
            one.is_removed = True
        pool.queue.clear()
        for container in pool.every_container():
            if container.state not in (ContainerState.STOPPING, ContainerState.FAILED):
                self._capacity.stop(container, event.grace, self._out)
        self._rescale(pool)

    def _node_joined(self, event: events.NodeJoined) -> None:
        self._capacity.placement.join(event)
        for pool in self._pools.values():
            self._rescale(pool, settle=False)
        self._settle()

    def _node_lost(self, event: events.NodeLost) -> None:
        self._capacity.placement.lose(event.node_id)
        touched: dict[str, Pool] = {}
        for container in list(self._containers.values()):
            if container.node_id == event.node_id:
                touched[container.pool.function_id] = container.pool
                self._forget(container)
        for pool in touched.values():
            self._rescale(pool, settle=False)
        self._settle()

    # -- how many ----------------------------------------------------------------------------------------------

    def _rescale(self, pool: Pool, settle: bool = True) -> None:
        """Want as many containers as there should be, and look again when time alone may change that."""
        now, out = self._now, self._out
        pool = self._pools.get(pool.function_id, pool)  # what a replaced one no longer takes, its successor can
        pool.scaled_at = now
        limit = pool.scaling.max_containers
        have = pool.live
        if pool.is_removed or pool.retired:
            want = 0
        else:
            load = pool.load(now, self._capacity.placement.cores)
            want = self._after_failures(pool, desired_containers(load, pool.scaling))
            if have < (limit or math.inf) and most_useful(load, pool.scaling) > max(have, want):
                self._wake(pool, now + RECHECK_SECONDS)
        if limit is not None:
            for surplus in list(pool.ready.values())[: max(0, have - limit)]:
                self._capacity.drain(surplus, out)
            want = min(want, limit - len(pool.containers) + have)
        self._capacity.want(pool, want - pool.live, out)
        if settle:
            self._settle()

    def _settle(self) -> None:
        """Start what is wanted and fits; who still waits is looked at again."""
        self._capacity.settle(self._now, self._out)
        for pool in self._capacity.hungry:
            self._wake(pool, self._now + (RECHECK_SECONDS if pool.queue.size else IDLE_RECHECK_SECONDS))

    def _after_failures(self, pool: Pool, want: int) -> int:
        """After a failed start, one try at a time, each a little later; none without an input once it is broken."""
        if not pool.failures or want <= pool.live:
            return want
        if pool.starting or (pool.is_broken and not pool.queue.size):
            return pool.live
        if self._now + _SLACK < pool.retry_at:
            self._wake(pool, pool.retry_at)
            return pool.live
        return pool.live + 1

    def _retire_idle(self, pool: Pool) -> None:
        """Stop containers that have been idle for long and are not needed."""
        keep = desired_containers(pool.load(self._now, self._capacity.placement.cores), pool.scaling)
        for container in list(pool.idle.values()):
            if pool.live <= keep:
                return
            due = container.idle_since + pool.scaling.idle_timeout
            if due > self._now + _SLACK:
                self._wake(pool, due)
                return
            self._capacity.stop(container, STOP_GRACE, self._out)

    # -- time --------------------------------------------------------------------------------------------------

    def _tick(self, event: events.Tick) -> None:
        self._promised = math.inf
        self._capacity.retry()
        due = [pool for pool in self._pools.values() if pool.wake_at <= self._now + _SLACK]
        for pool in due:
            pool.wake_at = math.inf
            pool.queue.release(self._now + _SLACK)
            if pool.queue.next_due is not None:
                self._wake(pool, pool.queue.next_due)
            if not self._refused(pool):
                pool.feed(self._now, self._out)
            self._retire_idle(pool)
            self._rescale(pool, settle=False)
        self._settle()
        first = min((pool.wake_at for pool in self._pools.values()), default=math.inf)
        self._out = [one for one in self._out if not isinstance(one, WakeAt)]
        if first < math.inf:
            self._promised = first
            self._out.append(WakeAt(first))

    def _wake(self, pool: Pool, at: float) -> None:
        """Look at the pool again at that time, or earlier."""
        if at < pool.wake_at:
            pool.wake_at = at
            if at < self._promised:
                self._promised = at
                self._out.append(WakeAt(at))
