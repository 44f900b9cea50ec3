"""What the agent knows of one container, from the first hook to the exit report. Hooks fill it in."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from pathlib import Path

from intermodal.model.container import ContainerSpec
from intermodal.node.runner_link import RunnerLink
from intermodal.runtimes.interface import BindMount, Bundle, ContainerProcess


class Phase(enum.Enum):
    PREPARING = "preparing"  #: hooks make what it needs; its process does not run yet
    RUNNING = "running"
    ENDED = "ended"  #: its process is gone; output is being read to the end and things are freed


@dataclass
class Container:
    spec: ContainerSpec
    home: Path  #: its directory on /run
    scratch: Path  #: its directory on disk
    began: float  #: loop time when `start` was called
    phase: Phase = Phase.PREPARING

    # what the bundle is made of
    rootfs: Path = Path()
    layers: list[Path] = field(default_factory=list)  #: lower directories, topmost first
    upper: Path = Path()  #: directory that holds the overlay's upper and work directories
    env: dict[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    cwd: str = "/root"
    mounts: list[BindMount] = field(default_factory=list)
    netns: Path | None = None
    userns: Path | None = None
    stdout: int = -1
    stderr: int = -1

    # while it runs
    bundle: Bundle | None = None
    process: ContainerProcess | None = None
    link: RunnerLink | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    watcher: asyncio.Task[None] | None = None

    # what its end is judged by
    ready: bool = False
    start_error: str = ""  #: what StartFailed said
    is_stopping: bool = False  #: `stop` was called
    was_killed: bool = False  #: by us
    fault: str = ""  #: why the agent killed it, when nobody asked to stop it
    stderr_tail: str = ""

    @property
    def id(self) -> str:
        return self.spec.container_id
