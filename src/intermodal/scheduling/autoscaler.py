"""How many containers a function should have: a pure function from what it has and waits for.

A container is worth starting only if there will still be work for it when it is ready. So, with n containers that
finish an input in `run` seconds each and a container that takes `start` seconds to come up, what is left by then is
``demand - n · slots · start / run``; every container, new ones included, should get at least `start` seconds of that.
Without a measurement, a first wave of one container a core goes ahead, and what it shows decides. An input that has
been running for longer than any that has finished counts as a measurement, too: it takes at least that long.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from modal._wire.messages.function import Scaling


class Load(NamedTuple):
    """A snapshot of one function's pool."""

    queued: int  #: inputs that may run now
    running: int  #: inputs in containers that stay
    containers: int  #: starting or ready; not draining or stopping
    slots: int  #: inputs that one container runs at a time
    run_seconds: float | None  #: measured per input
    start_seconds: float | None  #: measured per container
    stuck_seconds: float  #: longest time for which a busy container has finished nothing
    cores: int  #: of all nodes


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
    run = max(load.run_seconds or 0.0, load.stuck_seconds)
    if run <= 0.0:
        return max(have, 1)
    start = max(start, 1e-6)
    left = load.queued + load.running - have * load.slots * start / run
    busy = int(left * run / load.slots / start)  # containers that would have `start` seconds of work each
    return max(have, 1, min(most, busy))
