"""Containers: listing, following, entering and stopping them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional

from .app import AppEvent
from .common import Empty, Method, Shape
from .terminal import TerminalInput, TerminalOutput, WindowSize


class ContainerState(enum.Enum):
    STARTING = "starting"  #: its code is not loaded yet
    RUNNING = "running"
    STOPPING = "stopping"  #: takes no more inputs; those that run have their time of grace


@dataclass(frozen=True)
class ContainerInfo:
    container_id: str
    app_id: str
    app_name: str  #: its name, or else its description
    function_id: str
    function_name: str
    started_at: float  #: seconds since the epoch
    state: ContainerState


@dataclass(frozen=True)
class ContainerList:
    environment: str = ""  #: a name; "": the default one


@dataclass(frozen=True)
class Containers:
    containers: list[ContainerInfo] = field(default_factory=list)


@dataclass(frozen=True)
class ContainerRef:
    container_id: str


@dataclass(frozen=True)
class ContainerLogs:
    """What a container printed after log entry `after`, and goes on printing until it ends."""

    container_id: str
    after: int = 0


@dataclass(frozen=True)
class ContainerExec:
    """Run a command beside the container's own process, with its user, files, limits and environment."""

    container_id: str
    command: list[str]
    window: Optional[WindowSize] = None  #: of the terminal that it gets; None: it gets pipes
    env: dict[str, str] = field(default_factory=dict)  #: added to the container's


CONTAINER_LIST = Method("container.list", ContainerList, Containers)
CONTAINER_LOGS = Method("container.logs", ContainerLogs, AppEvent, Shape.SERVER_STREAM)
CONTAINER_EXEC = Method(
    "container.exec", ContainerExec, TerminalOutput, Shape.DUPLEX, mutating=True, item=TerminalInput
)
CONTAINER_STOP = Method("container.stop", ContainerRef, Empty, mutating=True)
