"""An image being built: once, however many ask for it, and given up when nobody waits any more."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Union

from .machine import Machine


class BuildState(enum.Enum):
    IDLE = "idle"  #: nobody waits for it, or the last who did has left
    REQUESTED = "requested"  #: wanted; not begun
    BUILDING = "building"
    BUILT = "built"  #: and stays so: images are kept
    FAILED = "failed"  #: a step failed; may be asked for again


class BuildEvent(enum.Enum):
    BEGUN = "begun"
    FINISHED = "finished"
    FAILED = "failed"
    ABANDONED = "abandoned"
    REQUESTED = "requested"


_S, _E = BuildState, BuildEvent

BUILD_TABLE: dict[tuple[BuildState, BuildEvent], BuildState] = {
    (_S.REQUESTED, _E.BEGUN): _S.BUILDING,
    (_S.REQUESTED, _E.FINISHED): _S.BUILT,  # it was in the cache
    (_S.REQUESTED, _E.FAILED): _S.FAILED,
    (_S.REQUESTED, _E.ABANDONED): _S.IDLE,
    (_S.BUILDING, _E.FINISHED): _S.BUILT,
    (_S.BUILDING, _E.FAILED): _S.FAILED,
    (_S.BUILDING, _E.ABANDONED): _S.IDLE,
    (_S.FAILED, _E.REQUESTED): _S.REQUESTED,
    (_S.IDLE, _E.REQUESTED): _S.REQUESTED,
    (_S.IDLE, _E.FINISHED): _S.BUILT,  # it was done before it heard
}


@dataclass(frozen=True, slots=True)
class StartBuild:
    image_id: str


@dataclass(frozen=True, slots=True)
class CancelBuild:
    image_id: str


@dataclass(frozen=True, slots=True)
class TellWaiters:
    """Give these waiters the outcome. An empty `error` is success."""

    waiters: tuple[str, ...]
    error: str


BuildInstruction = Union[StartBuild, CancelBuild, TellWaiters]


class BuildMachine:
    """One image id. Waiters are whatever ids the shell gives them."""

    __slots__ = ("_machine", "_waiters", "image_id")

    def __init__(self, image_id: str) -> None:
        self.image_id = image_id
        self._machine = Machine(image_id, BuildState.IDLE, BUILD_TABLE)
        self._waiters: dict[str, None] = {}

    @property
    def state(self) -> BuildState:
        return self._machine.state

    def wait(self, waiter: str) -> list[BuildInstruction]:
        """Someone wants the image."""
        if self.state is BuildState.BUILT:
            return [TellWaiters((waiter,), "")]
        self._waiters[waiter] = None
        if self.state not in (BuildState.FAILED, BuildState.IDLE):
            return []
        self._machine.on(BuildEvent.REQUESTED)
        return [StartBuild(self.image_id)]

    def leave(self, waiter: str) -> list[BuildInstruction]:
        """Someone does not wait any more. Leaving twice, or after the outcome, is no error."""
        if waiter not in self._waiters:
            return []
        del self._waiters[waiter]
        if self._waiters:
            return []
        self._machine.on(BuildEvent.ABANDONED)
        return [CancelBuild(self.image_id)]

    def begun(self) -> None:
        """The first step runs."""
        self._machine.on(BuildEvent.BEGUN)

    def ended(self, error: str = "") -> list[BuildInstruction]:
        """The build is over; an empty `error` is success. After `CancelBuild`, a failure is not reported."""
        self._machine.on(BuildEvent.FAILED if error else BuildEvent.FINISHED)
        waiters, self._waiters = tuple(self._waiters), {}
        return [TellWaiters(waiters, error)] if waiters else []
