"""Between an agent and the runtime inside a container (the runner), over the container's own Unix socket.

The runner connects, says `Hello`, gets `Start`, loads the user's code and answers `Ready` or `StartFailed`. Then
the agent pushes `RunInputs` up to the runner's credit (`Start.credit` inputs unanswered at a time) and gets `Outputs`.
Each is one frame ``{"t": <type>, ...fields}`` plus a body, with no call ids: order is enough. SDK calls that user code
makes go over another connection to the same socket, as ordinary RPC (its first frame is the RPC handshake instead).

A direct line is a connection of a client that the agent has handed to the runner (`OpenLine`). There the runner says
`Ready`, gets `RunInputs` and answers `Outputs` or `Returned`, in the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .blob import BlobRef
from .call import Status
from .common import ErrorInfo
from .function import ClassSpec, Concurrency, Source, VolumeMount


@dataclass(frozen=True)
class Hello:
    """runner -> agent, first frame."""

    container_id: str
    python: str  #: "3.11.7"
    pid: int


@dataclass(frozen=True)
class Start:
    """agent -> runner. The body is the pickled function or class when the source is SERIALIZED, and then the values of
    the class's parameters, as in `FunctionBind`."""

    container_id: str
    app_id: str
    function_id: str
    function_name: str
    environment: str
    source: Source
    is_generator: bool
    timeout: float  #: seconds per input
    concurrency: Concurrency
    credit: int  #: inputs the runner may hold unanswered
    objects: dict[str, str] = field(default_factory=dict)  #: function tag -> id, the app's published objects
    stop_grace: float = 30.0  #: seconds that running inputs get when the container is stopped by a signal
    app_name: str = ""
    app_description: str = ""
    #: environment variables to set before user code is loaded: secrets, which shall not be on disk
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    interactive: bool = False  #: code may ask for the terminal of whoever runs the app
    cls: Optional[ClassSpec] = None  #: set for a class
    parameters_size: int = 0  #: bytes at the end of the body
    mounts: list[VolumeMount] = field(default_factory=list)  #: the volumes of the function


@dataclass(frozen=True)
class Ready:
    """runner -> agent: user code is loaded, and a class's instance made and its enter hooks run."""

    seconds: float = 0.0  #: time spent on that


@dataclass(frozen=True)
class StartFailed:
    """runner -> agent: user code could not be loaded; the runner exits next. The body is a failure payload."""

    error: ErrorInfo


@dataclass(frozen=True)
class RunInput:
    """With neither payload nor blob it is a scheduled run: no arguments, and no caller to tell of a failure."""

    input_id: str
    call_id: str
    size: int
    blob: Optional[BlobRef] = None
    retry_count: int = 0
    method: str = ""  #: of a class


@dataclass(frozen=True)
class RunInputs:
    """agent -> runner. Run in order (side by side up to `max_concurrent_inputs`)."""

    inputs: list[RunInput] = field(default_factory=list)


@dataclass(frozen=True)
class RunOutput:
    input_id: str
    status: Status
    size: int
    blob: Optional[BlobRef] = None
    error: Optional[ErrorInfo] = None
    seconds: float = 0.0  #: time in user code
    call_id: str = ""  #: set when the input came over a direct line and was answered there; the agent hears of it now
    method: str = ""  #: with `call_id`; of a class


@dataclass(frozen=True)
class Outputs:
    """runner -> agent. Sent as soon as an input ends; several at once only when they ended together."""

    outputs: list[RunOutput] = field(default_factory=list)


@dataclass(frozen=True)
class OpenLine:
    """agent -> runner: a client's connection comes along with this frame (as SCM_RIGHTS) and is the runner's now."""

    line_id: str
    prefix: str  #: of the ids of the calls that come over it


@dataclass(frozen=True)
class CloseLines:
    """agent -> runner: take no more inputs over direct lines."""


@dataclass(frozen=True)
class Taken:
    """runner -> agent: these inputs came over a direct line and are the agent's now, as if it had pushed them."""

    inputs: list[RunInput] = field(default_factory=list)


@dataclass(frozen=True)
class Yielded:
    """runner -> agent: a value of a generator input; its Output follows when it ends. The body is the payload."""

    input_id: str
    size: int
    blob: Optional[BlobRef] = None


@dataclass(frozen=True)
class Credit:
    """agent -> runner: the generator `input_id` may yield `count` more values; it starts with `GENERATOR_WINDOW`."""

    input_id: str
    count: int


@dataclass(frozen=True)
class Recall:
    """agent -> runner: give back up to `count` inputs that have not begun, last first."""

    count: int


@dataclass(frozen=True)
class Returned:
    """runner -> agent: these inputs were not begun and will not be."""

    input_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Leaving:
    """runner -> agent: a signal told the container to end (a preemption). It takes no more inputs; it ends as after
    a `Stop`, whose seconds of grace have begun."""


@dataclass(frozen=True)
class CancelInputs:
    """agent -> runner: raise InputCancellation in these inputs (or drop them when not begun)."""

    input_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stop:
    """agent -> runner: finish. Running inputs get KeyboardInterrupt, exit hooks run, then the process exits 0."""

    grace: float = 30.0  #: seconds before SIGKILL


GENERATOR_WINDOW = 64  #: values a generator may run ahead of its consumer

#: type tag on the wire -> message
RUNNER_MESSAGES = {
    cls.__name__: cls
    for cls in (
        Hello, Start, Ready, StartFailed, RunInputs, Outputs, Yielded, Credit, Recall, Returned, Leaving,
        CancelInputs, Stop, OpenLine, CloseLines, Taken,
    )
}  # fmt: skip
