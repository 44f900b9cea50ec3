"""Who gets a container next, while there may be room for fewer than are wanted.

The least served comes first: the app that holds the smallest part of the machines, and within it the function that
does. A function for which nothing fits takes room from others: idle containers end early for it, and when its fair part
is taken up by a better served one, that one's containers get no new inputs and end after what they have begun.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from intermodal.machines.container import ContainerEvent, ContainerState

from .fairness import comes_before
from .instructions import (
    CloseLines,
    FailInputs,
    Instruction,
    RecallInputs,
    ReportPending,
    StartContainer,
    StopContainer,
)
from .placement import Fit, Placement, Verdict
from .pool import Container, Pool

REST_SECONDS = 1.0  #: idle time that protects a container from a pool that has others
STOP_GRACE = 30.0  #: seconds a container gets to run its exit hooks


class Capacity:
    """The nodes, the containers on them, and the pools that want more.

    Args:
        ids: fresh container ids.
    """

    def __init__(self, ids: Iterator[str]) -> None:
        self._ids = ids
        self.placement = Placement()
        self.containers: dict[str, Container] = {}
        self._hungry: dict[str, Pool] = {}
        self._app_shares: dict[str, float] = {}
        self._app_counts: dict[str, int] = {}

    def want(self, pool: Pool, deficit: int, out: list[Instruction]) -> None:
        """The pool wants that many containers more."""
        if deficit > 0:
            pool.deficit = deficit
            self._hungry[pool.function_id] = pool
        elif pool.deficit or pool.shortage:
            self._satisfied(pool, out)

    @property
    def hungry(self) -> Collection[Pool]:
        """The pools that want more than they have."""
        return self._hungry.values()

    def retry(self) -> None:
        """Let the next `settle` try everyone again: a container that makes room may have come to rest."""
        for pool in self._hungry.values():
            pool.blocked_at = -1

    def settle(self, now: float, out: list[Instruction]) -> None:
        """Start what is wanted and fits, in fair order."""
        while self._hungry:
            version = self.placement.version
            waiting = [pool for pool in self._hungry.values() if pool.blocked_at != version]
            if not waiting:
                return
            self._serve(min(waiting, key=self._order), now, out)

    def stop(self, container: Container, grace: float, out: list[Instruction]) -> None:
        """Tell a container to finish."""
        was_starting = container.state is ContainerState.STARTING
        container.on(ContainerEvent.STOP)
        if was_starting:
            self.placement.started(container.allocation)
        out.append(StopContainer(container.container_id, grace))

    def drain(self, container: Container, out: list[Instruction]) -> None:
        """Let a container finish what it has begun, and then stop."""
        if not container.running:
            self.stop(container, STOP_GRACE, out)
            return
        container.on(ContainerEvent.DRAIN)
        out.append(CloseLines(container.container_id))
        ahead = container.not_begun()
        if ahead and not container.is_recalling:
            container.is_recalling = True
            out.append(RecallInputs(container.container_id, ahead))

    def gone(self, container: Container) -> None:
        """A container has ended: what it took is free."""
        if container.state is ContainerState.STARTING:
            self.placement.started(container.allocation)
        container.on(ContainerEvent.EXITED)
        self.placement.release(container.allocation)
        del self.containers[container.container_id]
        pool = container.pool
        pool.share = pool.share - container.share if pool.containers else 0.0
        self._app_shares[pool.app_id] -= container.share
        self._app_counts[pool.app_id] -= 1
        if not self._app_counts[pool.app_id]:
            del self._app_shares[pool.app_id], self._app_counts[pool.app_id]

    def _order(self, pool: Pool) -> tuple[float, float]:
        return comes_before(self._app_shares.get(pool.app_id, 0.0), pool.share)

    def _serve(self, pool: Pool, now: float, out: list[Instruction]) -> None:
        """Start one container of a pool, or say why not."""
        # The caller of a nested call holds cpu while it waits for it; without this, callers could fill the machine and
        # wait for each other for ever.
        fit = self.placement.fit(pool.request, overcommit_cpu=pool.queue.has_nested and not pool.every_container())
        if fit.verdict is Verdict.FITS:
            self._start(pool, fit.node_id, now, out)
            return
        if fit.verdict is Verdict.IMPOSSIBLE:
            self._refuse(pool, fit, out)
            return
        pool.blocked_at = self.placement.version
        if fit.verdict is Verdict.PENDING:
            if not pool.live:
                self._report(pool, fit.short, fit.reason, out)
            self._make_room(pool, now, out)

    def _refuse(self, pool: Pool, fit: Fit, out: list[Instruction]) -> None:
        """No machine can ever run the pool's containers: fail what waits, and stop wanting any until asked again."""
        refused = pool.queue.clear()
        self._satisfied(pool, out)
        if refused:
            reason = f"No container of {pool.name} can ever start here: it {fit.reason}."
            out.append(FailInputs(pool.function_id, refused, reason))
        elif pool.scaling.min_containers:
            self._report(pool, fit.short, fit.reason, out)

    def _start(self, pool: Pool, node_id: str, now: float, out: list[Instruction]) -> None:
        allocation = self.placement.take(pool.request, node_id)
        container = Container(next(self._ids), pool, allocation, self.placement.share(allocation), now)
        self.containers[container.container_id] = container
        pool.add(container)
        pool.share += container.share
        self._app_shares[pool.app_id] = self._app_shares.get(pool.app_id, 0.0) + container.share
        self._app_counts[pool.app_id] = self._app_counts.get(pool.app_id, 0) + 1
        self._report(pool, (), "", out)
        out.append(StartContainer(container.container_id, pool.function_id, node_id, pool.revision_id))
        pool.deficit -= 1
        if not pool.deficit:
            self._satisfied(pool, out)

    def _satisfied(self, pool: Pool, out: list[Instruction]) -> None:
        pool.deficit = 0
        pool.blocked_at = -1
        self._hungry.pop(pool.function_id, None)
        self._report(pool, (), "", out)

    def _report(self, pool: Pool, short: tuple[str, ...], reason: str, out: list[Instruction]) -> None:
        """Tell why the pool waits, when that is not what was told last. Amounts alone are no news."""
        if short != pool.shortage:
            pool.shortage = short
            out.append(ReportPending(pool.function_id, reason))

    # -- making room -------------------------------------------------------------------------------------------

    def _make_room(self, pool: Pool, now: float, out: list[Instruction]) -> None:
        pool.making_room.intersection_update(self.containers)
        if pool.making_room or not pool.needs_containers:
            return
        rested = 0.0 if not pool.live else REST_SECONDS
        idle = [
            c
            for c in self.containers.values()
            if c.container_id in c.pool.idle and c.pool is not pool and now - c.idle_since >= rested
        ]
        idle.sort(key=lambda c: c.idle_since)
        victims = self._enough(pool, idle)
        if not victims and pool.queue.size:
            busy = [c for c in self.containers.values() if self._is_better_served(c, pool)]
            busy.sort(key=lambda c: (-self._app_shares[c.pool.app_id], -c.pool.share, len(c.running)))
            victims = self._enough(pool, busy)
        for victim in victims:
            pool.making_room.add(victim.container_id)
            self.drain(victim, out)

    def _is_better_served(self, container: Container, pool: Pool) -> bool:
        """Whether its pool would still not be worse served than `pool` if the container went from one to the other."""
        other = container.pool
        if container.state is not ContainerState.READY or other is pool:
            return False
        if other.app_id == pool.app_id:
            return other.share - container.share >= pool.share + container.share - 1e-9
        mine = self._app_shares.get(pool.app_id, 0.0)
        return self._app_shares[other.app_id] - container.share >= mine + container.share - 1e-9

    def _enough(self, pool: Pool, candidates: list[Container]) -> list[Container]:
        """The first of the candidates that make room on one node; none when even all of them do not."""
        best: list[Container] = []
        for node_id in self.placement.nodes:
            chosen: list[Container] = []
            spared: dict[str, int] = {}
            for container in candidates:
                other = container.pool
                left = other.live - spared.get(other.function_id, 0)
                if container.node_id != node_id or left <= other.scaling.min_containers:
                    continue
                chosen.append(container)
                spared[other.function_id] = spared.get(other.function_id, 0) + 1
                if self.placement.would_fit(pool.request, node_id, [c.allocation for c in chosen]):
                    if not best or len(chosen) < len(best):
                        best = chosen
                    break
        return best
