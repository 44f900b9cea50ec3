"""How many containers a function should have: a pure function from what it has and waits for.

A container is worth starting only if there will still be work for it when it is ready. So, with n containers that
finish an input in `run` seconds each and a container that takes `start` seconds to come up, what is left by then is
``demand - n · slots · start / run``; every container, new ones included, should get at least `start` seconds of that.
Without a measurement, a first wave of one container a core goes ahead, and what it shows decides: the first input that
ends, or that they all run for longer than a start takes.

A container that has finished nothing for that long is blocked: it will not help with what waits. When all are, as many
again are started, so that one endless input among a million short ones costs one more container and not a thousand.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from modal._wire.messages.function import Scaling

_MOMENT = 1e-6  # seconds; stands for zero
BLOCKED_SECONDS = 0.1  #: at least; shorter silences may be the server's own


class Load(NamedTuple):
    """A snapshot of one function's pool."""

    queued: int  #: inputs that may run now
    running: int  #: inputs in containers that stay
    containers: int  #: starting or ready; not draining or stopping
    slots: int  #: inputs that one container runs at a time
    run_seconds: float | None  #: measured per input
    start_seconds: float | None  #: measured per container
    blocked: int  #: busy containers that have finished nothing for `blocked_after`
    stuck_seconds: float  #: longest time for which a busy container has finished nothing
    cores: int  #: of all nodes


def blocked_after(start_seconds: float | None) -> float:
    """Seconds without a finished input after which a container counts as blocked."""
    return max(start_seconds or 0.0, BLOCKED_SECONDS)


def desired_containers(load: Load, scaling: Scaling) -> int:
    """Return how many containers there should be. Fewer than there are means that idle ones may go."""
    wanted = max(scaling.min_containers, _for_demand(load, scaling)) + scaling.buffer_containers
    return wanted if scaling.max_containers is None else min(wanted, scaling.max_containers)


def most_useful(load: Load, scaling: Scaling) -> int:
    """Return how many containers the demand could occupy at the same time."""
    demand = load.queued + load.running
    return math.ceil(math.ceil(demand / load.slots) * (scaling.factor or 1.0))


def _for_demand(load: Load, scaling: Scaling) -> int:
    have = load.containers
    most = most_useful(load, scaling)
    if most <= have:
        return most
    start = load.start_seconds
    if start is None or (load.run_seconds is None and load.stuck_seconds < start):
        return max(have, min(most, load.cores))
    start = max(start, _MOMENT)
    run = max(load.run_seconds or load.stuck_seconds, _MOMENT)
    free = have - load.blocked
    left = load.queued + load.running - load.blocked * load.slots - free * load.slots * start / run
    busy = int(left * run / load.slots / start)  # containers that would have `start` seconds of work each
    wanted = load.blocked + max(free, busy)
    if not free and left > 0:
        wanted = max(wanted, have + max(1, load.blocked))
    return max(have, min(most, wanted))
