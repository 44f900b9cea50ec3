"""What the scheduler wants done. The shell carries them out in order, and reports what came of it as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True, slots=True)
class StartContainer:
    container_id: str  #: ta-…, new
    function_id: str
    node_id: str
    revision_id: str = ""  #: as of the latest `PoolAdded`


@dataclass(frozen=True, slots=True)
class StopContainer:
    container_id: str
    grace: float  #: seconds it gets to finish; 0 kills at once


@dataclass(frozen=True, slots=True)
class PushInputs:
    """Send these inputs, in this order, to a ready container."""

    container_id: str
    input_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class RecallInputs:
    """Ask the container for up to `count` inputs that it has not begun; `InputsReturned` answers."""

    container_id: str
    count: int


@dataclass(frozen=True, slots=True)
class CloseLines:
    """Have the container take no more inputs over direct lines: those that it has are told of with `InputsTaken`."""

    container_id: str


@dataclass(frozen=True, slots=True)
class CancelInputs:
    """Interrupt these inputs (or have them dropped when not begun)."""

    container_id: str
    input_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReportPending:
    """The function has no container and waits for one that cannot be placed now. An empty `reason`: it no longer waits.

    Sent when that changes, or another resource is short. A function that runs, but could use more containers than
    there is room for, does not wait.
    """

    function_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FailInputs:
    """These queued inputs will never run. The scheduler has forgotten them."""

    function_id: str
    input_ids: Sequence[str]
    reason: str
    container_id: str = ""  #: the container whose failed start decided it; empty when nothing can ever fit


@dataclass(frozen=True, slots=True)
class InputsOrphaned:
    """A container ended while it held inputs.

    `begun` were running: the scheduler has forgotten them, and the call decides whether to queue them again.
    `not_begun` were only pushed ahead: the scheduler has queued them again itself, first in line. Dropped inputs are
    in neither.
    """

    container_id: str
    function_id: str
    begun: Sequence[str]
    not_begun: Sequence[str]


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a `Tick` at this time (same clock as `now`). Replaces any earlier `WakeAt`."""

    at: float


Instruction = Union[
    StartContainer,
    StopContainer,
    PushInputs,
    RecallInputs,
    CloseLines,
    CancelInputs,
    ReportPending,
    FailInputs,
    InputsOrphaned,
    WakeAt,
]
