"""What the scheduler is told. Each is a fact, sent in the order it happened.

A container's life as the scheduler sees it, after its own `StartContainer`: `ContainerReady` or `StartFailed`, then any
number of `InputsFinished` and `InputsReturned`, and last exactly one `ContainerExited`, also when the node refused to
start it at all. Events about containers, functions and inputs that the scheduler no longer knows are ignored: they
were under way when it forgot them (a lost node, a removed pool).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union

from modal._wire.messages.function import Concurrency, Resources, Scaling


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A machine can run containers. Sent again for a node already known, it replaces its capacity and labels."""

    node_id: str
    cpu: float  #: cores in all
    memory: int  #: MiB in all
    gpus: tuple[str, ...] = ()  #: one entry a device, e.g. ("A100", "A100")
    cloud: str = ""  #: a node without a label accepts what asks for any
    region: str = ""


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A machine is gone, and every container on it. No `ContainerExited` needs to follow for those."""

    node_id: str


@dataclass(frozen=True, slots=True)
class PoolAdded:
    """A function can be called. Starts `scaling.min_containers` (and buffer) containers at once.

    For a function that is known it means that this replaces what it was: what its containers have begun they finish,
    and everything else, queued inputs too, runs in new containers.
    """

    function_id: str
    app_id: str
    name: str
    resources: Resources = field(default_factory=Resources)
    scaling: Scaling = field(default_factory=Scaling)
    concurrency: Concurrency = field(default_factory=Concurrency)
    cloud: str = ""
    regions: Sequence[str] = ()
    revision_id: str = ""  #: returned in `StartContainer`


@dataclass(frozen=True, slots=True)
class PoolRetired:
    """The function is gone from its app: what its containers have begun they finish, what else is queued fails.

    `PoolAdded` brings it back, also while its last containers finish.
    """

    function_id: str
    reason: str  #: one sentence for people


@dataclass(frozen=True, slots=True)
class PoolUpdated:
    """The function's scaling changed (`keep_warm`)."""

    function_id: str
    scaling: Scaling


@dataclass(frozen=True, slots=True)
class PoolRemoved:
    """The function's app has ended: its containers are stopped, its inputs forgotten (the sender has ended them).

    Its id is not added again before the last of its containers has exited.
    """

    function_id: str
    grace: float = 30.0  #: seconds its containers get to finish


@dataclass(frozen=True, slots=True)
class InputsQueued:
    """Inputs of one call wait to run: new ones, or ones to be tried again."""

    function_id: str
    call_id: str
    input_ids: Sequence[str]
    not_before: float = 0.0  #: same clock as `now`; retries with a delay
    nested: bool = False  #: the call was made by a running input, which probably waits for it


@dataclass(frozen=True, slots=True)
class ContainerReady:
    """User code is loaded; inputs may be pushed."""

    container_id: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The container could not be started, or user code could not be loaded. Its `ContainerExited` follows."""

    container_id: str
    reason: str  #: one sentence for people; comes back in `FailInputs`
    final: bool = False  #: trying again cannot help: fail what is queued without further tries


@dataclass(frozen=True, slots=True)
class InputsFinished:
    """Attempts ended, well or badly, and the container is free of them."""

    container_id: str
    input_ids: Sequence[str]
    seconds: float  #: time in user code, summed over the inputs
    direct: int = 0  #: so many more ended, and are in `seconds`, that came over a direct line and were answered there


@dataclass(frozen=True, slots=True)
class InputsTaken:
    """The container has inputs that came over a direct line: they are as if they had been pushed to it.

    Inputs over a direct line that end at once are not told of before `InputsFinished`.
    """

    container_id: str
    call_ids: Sequence[str]
    input_ids: Sequence[str]  #: one of each call


@dataclass(frozen=True, slots=True)
class InputsReturned:
    """The container gives back inputs it has not begun, in answer to `RecallInputs`; maybe none. They queue again."""

    container_id: str
    input_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class InputsDropped:
    """These inputs shall not run any more (cancelled). Without `input_ids`, all of the call.

    Queued ones are forgotten at once. Pushed ones are interrupted by `CancelInputs` and held against the container's
    credit until they are finished or returned; returned ones are not queued again.
    """

    function_id: str
    call_id: str
    input_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """The container is gone and its resources are free."""

    container_id: str
    reason: str = ""  #: one sentence for people; used when it ended before it was ready
    running: Sequence[str] = ()  #: inputs known to have been running; empty when that is not known
    is_crash: bool = False  #: it ended by itself, probably because of an input


@dataclass(frozen=True, slots=True)
class ContainerLeaving:
    """A container was told to end by something other than us (a preemption): it takes nothing more."""

    container_id: str
    grace: float = 30.0  #: seconds it gets to finish


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Needed at the time of the last `WakeAt`; harmless at any other."""


Event = Union[
    NodeJoined, NodeLost, PoolAdded, PoolUpdated, PoolRetired, PoolRemoved, InputsQueued, ContainerReady, StartFailed,
    InputsFinished, InputsTaken, InputsReturned, InputsDropped, ContainerLeaving, ContainerExited, Tick,
]  # fmt: skip
