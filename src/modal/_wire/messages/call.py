"""Function calls: inputs in, outputs out.

A payload is the pickled (args, kwargs) of an input, or the pickled value or exception of an output. It travels in
the body when it is at most `INLINE_LIMIT` bytes, else as a blob uploaded beforehand (`Input.blob`, `Output.blob`).
A batch message concatenates the inline payloads of its records in order; each record's `size` cuts it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Optional

from .blob import BlobRef
from .common import Empty, ErrorInfo, Method, Shape

INLINE_LIMIT = 2 * 1024 * 1024  #: bytes; a larger payload goes through the blob store
PAYLOAD_LIMIT = 2 * 1024**3  #: bytes; a larger payload is a RequestSizeError


class Status(enum.Enum):
    """How an input ended."""

    SUCCESS = "success"  #: the payload is the pickled return value
    FAILURE = "failure"  #: user code raised; the payload is the pickled exception (see modal._serialization)
    INIT_FAILURE = "init_failure"  #: the container could not start; as FAILURE, or `error` alone
    TERMINATED = "terminated"  #: cancelled, or its app stopped
    TIMEOUT = "timeout"
    INTERNAL_FAILURE = "internal_failure"  #: the container died or the platform failed; `error` says how


@dataclass(frozen=True)
class Input:
    index: int  #: position in the call, from 0
    size: int  #: inline bytes in the body; 0 with `blob`
    blob: Optional[BlobRef] = None


@dataclass(frozen=True)
class Output:
    index: int
    status: Status
    size: int  #: inline bytes in the body; 0 with `blob` or when there is no payload
    blob: Optional[BlobRef] = None
    error: Optional[ErrorInfo] = None  #: set when there is no payload to raise from
    input_id: str = ""


@dataclass(frozen=True)
class CallRun:
    """Run one input and wait for its output: `.remote()`. The body is the inline payload.

    With `call_id` and `line_id` it was sent over a direct line first, under that call id, and got no answer there: wait
    for that call, which the container has told of, or is about to.
    """

    function_id: str
    input: Input
    parent_input_id: str = ""
    method: str = ""  #: of a class
    call_id: str = ""
    line_id: str = ""


@dataclass(frozen=True)
class CallDirect:
    """Ask for a direct line to an idle container of a function."""

    function_id: str


@dataclass(frozen=True)
class DirectLine:
    """Where to get the line: connect to the Unix socket `path`, send `ticket`, and wait for the container's `Ready`.

    What follows are the frames of `messages.runner`: the client sends `RunInputs`, of one input at a time; the answer
    is `Outputs`, or `Returned`: the server has the input now, ask it with `CallRun`.
    """

    line_id: str = ""
    path: str = ""  #: "": no line is to be had now
    ticket: str = ""
    prefix: str = ""  #: of the ids of all calls made over the line, of `DIRECT_PREFIX` characters


DIRECT_LIMIT = 64 * 1024  #: bytes; a larger payload, of an input or an output, does not go over a direct line
DIRECT_ID = 25  #: characters of the id of a call that is made over a direct line, as of any other's
DIRECT_PREFIX = 17  #: characters that the server chooses; the rest are digits that the client counts in


@dataclass(frozen=True)
class CallSpawn:
    """Start a call of one input; the reply means that it is durable. The body is the inline payload."""

    function_id: str
    input: Input
    parent_input_id: str = ""
    method: str = ""  #: of a class


@dataclass(frozen=True)
class CallRef:
    call_id: str


@dataclass(frozen=True)
class CallMap:
    """Open a map. With `call_id` set it resumes that map: the server sends every output not in `received` again."""

    function_id: str
    parent_input_id: str = ""
    call_id: str = ""
    received: list[int] = field(default_factory=list)
    method: str = ""  #: of a class


@dataclass(frozen=True)
class InputBatch:
    """Inputs of a map. An index the server already has is ignored, so a resumed map may send again."""

    inputs: list[Input] = field(default_factory=list)
    last: bool = False  #: no more inputs follow


@dataclass(frozen=True)
class OutputBatch:
    """Outputs in completion order. The first batch of a map has `call_id` and usually no outputs."""

    outputs: list[Output] = field(default_factory=list)
    call_id: str = ""
    done: bool = False  #: every input has its output


@dataclass(frozen=True)
class CallGet:
    """Wait for the output of input `index` at most `timeout` seconds (None: for ever; 0: poll)."""

    call_id: str
    timeout: Optional[float] = None
    index: int = 0
    environment: str = ""  #: the call must belong to it; "": any


@dataclass(frozen=True)
class CallGenerate:
    """Run a generator and stream what it yields. With `call_id` it follows a call that exists."""

    function_id: str = ""
    input: Optional[Input] = None
    parent_input_id: str = ""
    call_id: str = ""
    received: int = 0  #: values that the follower has, of the run `run`; the server goes on after them
    run: str = ""
    environment: str = ""  #: with `call_id`, as of `CallGet`
    again: bool = False  #: this request was sent before, with the same key, over a connection that broke
    method: str = ""  #: of a class


@dataclass(frozen=True)
class GeneratorItem:
    """A yielded value (payload), or the end (`output`, whose payload follows when it is a failure).

    The first item has neither: its `call_id` names the call, and its `run` the run of the generator that is followed. A
    generator begins a new run when the server restarts.
    """

    size: int = 0
    blob: Optional[BlobRef] = None
    output: Optional[Output] = None
    call_id: str = ""
    run: str = ""


@dataclass(frozen=True)
class CallCancel:
    call_id: str
    terminate_containers: bool = False
    environment: str = ""  #: as of `CallGet`


@dataclass(frozen=True)
class CallGraph:
    """Ask for the inputs of a call, and for those of the calls they made, and so on."""

    call_id: str
    environment: str = ""  #: as of `CallGet`


@dataclass(frozen=True)
class GraphNode:
    """One input in a call graph."""

    input_id: str
    call_id: str
    function_name: str
    module_name: str
    status: Optional[Status] = None  #: None: it has not ended
    container_id: str = ""  #: that runs it, or gave its output; "": it waits, or that was not kept (maps)
    parent_input_id: str = ""  #: the input that made this call; "" in the call that was asked for


@dataclass(frozen=True)
class GraphPart:
    """Nodes, each after its parent."""

    nodes: list[GraphNode] = field(default_factory=list)
    is_cut: bool = False  #: there are more inputs than a graph may have; with the last part


#: Reply body: the output's inline payload. CALL_GET past its timeout is a TimeoutError.
CALL_RUN = Method("call.run", CallRun, Output, mutating=True)
CALL_DIRECT = Method("call.direct", CallDirect, DirectLine)
CALL_SPAWN = Method("call.spawn", CallSpawn, CallRef, mutating=True)
CALL_GET = Method("call.get", CallGet, Output)
CALL_MAP = Method("call.map", CallMap, OutputBatch, Shape.DUPLEX, mutating=True, item=InputBatch)
CALL_GENERATE = Method("call.generate", CallGenerate, GeneratorItem, Shape.SERVER_STREAM, mutating=True)
CALL_GRAPH = Method("call.graph", CallGraph, GraphPart, Shape.SERVER_STREAM)
CALL_CANCEL = Method("call.cancel", CallCancel, Empty, mutating=True)
