"""The life of a container, as the scheduler knows it."""

from __future__ import annotations

import enum

from .machine import Machine


class ContainerState(enum.Enum):
    STARTING = "starting"  #: asked for; takes resources, runs nothing yet
    READY = "ready"  #: user code is loaded; inputs are pushed
    DRAINING = "draining"  #: finishes what it has begun and gets nothing more
    STOPPING = "stopping"  #: told to finish
    FAILED = "failed"  #: could not start; its exit is on the way
    EXITED = "exited"  #: gone, its resources are free


class ContainerEvent(enum.Enum):
    READY = "ready"
    START_FAILED = "start failed"
    DRAIN = "drain"
    STOP = "stop"
    EXITED = "exited"


_S, _E = ContainerState, ContainerEvent

#: A stopped container may still say that it came up, or that it could not: the message crossed ours.
CONTAINER_TABLE: dict[tuple[ContainerState, ContainerEvent], ContainerState] = {
    (_S.STARTING, _E.READY): _S.READY,
    (_S.STARTING, _E.START_FAILED): _S.FAILED,
    (_S.STARTING, _E.STOP): _S.STOPPING,
    (_S.STARTING, _E.EXITED): _S.EXITED,
    (_S.READY, _E.DRAIN): _S.DRAINING,
    (_S.READY, _E.STOP): _S.STOPPING,
    (_S.READY, _E.EXITED): _S.EXITED,
    (_S.DRAINING, _E.STOP): _S.STOPPING,
    (_S.DRAINING, _E.EXITED): _S.EXITED,
    (_S.STOPPING, _E.READY): _S.STOPPING,
    (_S.STOPPING, _E.START_FAILED): _S.STOPPING,
    (_S.STOPPING, _E.EXITED): _S.EXITED,
    (_S.FAILED, _E.EXITED): _S.EXITED,
}


def container_machine(container_id: str) -> Machine[ContainerState, ContainerEvent]:
    """A container that was just asked for."""
    return Machine(container_id, ContainerState.STARTING, CONTAINER_TABLE)
