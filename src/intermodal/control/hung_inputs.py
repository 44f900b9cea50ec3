"""Ends containers whose input runs past its timeout and cannot be ended by the runner: user code hinders it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import islice

from intermodal.control.container import Container

_TIMEOUT_SLACK = 2.0  # seconds a container gets to end a timed-out input by itself before it is killed
_TIMEOUT_CHECK = 0.25  # seconds between looks for hung containers


class HungInputs:
    """Looks for hung inputs again and again.

    Args:
        containers: those there are, by id.
        kill: ends a container at once.
    """

    def __init__(self, containers: Mapping[str, Container], kill: Callable[[str], None]) -> None:
        self._containers = containers
        self._kill = kill
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look now, and from now on until `close`."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_TIMEOUT_CHECK, self.watch)
        now = loop.time()
        for container in self._containers.values():
            hung = hung_inputs(container, now)
            if hung:
                container.timed_out.update(hung)
                self._kill(container.container_id)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def hung_inputs(container: Container, now: float) -> list[str]:
    """The inputs that have run for too long, noting when each was first seen to run. None of a container that is
    being killed already, or that someone is asked through.

    Args:
        now: seconds, on the clock of `Container.running`.
    """
    if not container.running or container.timed_out or container.has_terminal:
        container.begun = {}
        return []
    # A container runs its oldest; the others wait in it. (Pushed later than it was seen: another attempt.)
    running = islice(container.running.items(), container.inputs_at_once)
    container.begun = {one: max(container.begun.get(one, now), pushed) for one, pushed in running}
    spec = container.revision.spec
    late = now - spec.timeout - spec.concurrency.batch_wait_ms / 1000 - _TIMEOUT_SLACK
    return [one for one, begun in container.begun.items() if begun <= late]
