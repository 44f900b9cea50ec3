"""The input loop as a pure state machine: frames of the agent in, instructions out. No sockets, threads or clocks.

    queued ──take──► running ──finish──► (gone)
      │                 │
      │ Recall          │ CancelInputs, Stop, timeout: Interrupt, once
      ▼                 ▼
    (returned)       running until its code gives way, then finish

Which thread runs an input, and how an interrupt reaches it, is the shells' business.
"""

from __future__ import annotations

from collections import deque, namedtuple

from .channel import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

GENERATOR_WINDOW = 64  #: as in modal._wire.messages.runner

# Why an input is interrupted.
CANCELLED = "cancelled"
STOPPED = "stopped"
TIMED_OUT = "timed_out"

#: Raise the exception for `reason` in the running input.
Interrupt = namedtuple("Interrupt", "input_id reason")
#: Tell the agent that these inputs were not begun and will not be.
ReturnInputs = namedtuple("ReturnInputs", "input_ids")
#: Tell the agent that this container was told to end by a signal, and takes nothing more.
Leave = namedtuple("Leave", "")
#: Tell the agent that these inputs were cancelled before they began.
DropInputs = namedtuple("DropInputs", "input_ids")
#: A generator that waits for credit may go on.
ResumeGenerator = namedtuple("ResumeGenerator", "input_id")
#: The connection that came along with the frame is a direct line.
OpenLine = namedtuple("OpenLine", "line_id prefix")
#: Take no more inputs over direct lines.
CloseLines = namedtuple("CloseLines", "")
#: Nothing runs any more: end the process. Follows a Stop, once.
Exit = namedtuple("Exit", "")


class Input:
    """One input. `payload` is None when it lies in the blob store."""

    __slots__ = (
        "arrived",
        "blob",
        "call_id",
        "credit",
        "input_id",
        "interrupted",
        "is_scheduled",
        "line",
        "method",
        "payload",
        "runner",
        "sent",
        "started",
    )

    arrived: float  #: set by `modal._container.batch` only

    def __init__(
        self,
        input_id: str,
        call_id: str,
        payload: Optional[memoryview],
        blob: Optional[dict[str, Any]],
        method: str = "",
    ):
        self.input_id = input_id
        self.method = method  #: of a class
        self.call_id = call_id
        self.payload = payload
        self.blob = blob
        self.credit = GENERATOR_WINDOW
        self.is_scheduled = payload is not None and not payload  #: it has no caller, and no arguments
        self.interrupted = ""  #: the reason, once there is one
        self.runner: Any = None  #: the thread or task that runs it
        self.line: Any = None  #: the direct line that it came over, while the agent does not know of it
        self.sent: Optional[memoryview] = None  #: its payload, while it has a line
        self.started = 0.0  #: set by the shell


class InputLoop:
    """The inputs this container holds, and what is to be done with them."""

    def __init__(self) -> None:
        self.queue: deque[Input] = deque()
        self.running: dict[str, Input] = {}
        self.direct: dict[str, Input] = {}  #: those of them that the agent does not know of
        self.stopping = False
        self.grace = 0.0  #: seconds, of the Stop
        self.has_ended = False  #: nothing runs any more, nor ever will

    def handle(self, header: dict[str, Any], body: memoryview, line: Any = None) -> list[Any]:
        """Take one frame of the agent, or of a client over its direct line.

        Raises:
            ProtocolError: the frame is not one that an agent sends in this state.
        """
        kind = header.get("t")
        if kind == "RunInputs":
            return self._run_inputs(header, body, line)
        if line is not None:
            raise ProtocolError(f"A frame of type {kind!r} came over a direct line.")
        try:
            if kind == "Credit":
                return self._credit(header["input_id"], header["count"])
            if kind == "Recall":
                return self._recall(header["count"])
            if kind == "CancelInputs":
                return self._cancel(header.get("input_ids", []))
            if kind == "Stop":
                return self.stop(float(header.get("grace", 30.0)))
            if kind == "OpenLine":
                return [OpenLine(header["line_id"], header["prefix"])]
            if kind == "CloseLines":
                return [CloseLines()]
        except (KeyError, TypeError, ValueError):
            raise ProtocolError(f"The agent sent a malformed {kind} frame.") from None
        raise ProtocolError(f"The agent sent a frame of type {kind!r}, which this runtime does not know.")

    def until_next(self) -> Optional[float]:
        """Seconds until `take` may give something without a further frame; None: never."""
        return None

    def take(self) -> Optional[Input]:
        """Begin the next input, if there is one and the container is not stopping."""
        if not self.queue:
            return None
        item = self.queue.popleft()
        self.running[item.input_id] = item
        return item

    def finish(self, item: Input) -> list[Any]:
        """An input has ended."""
        self.running.pop(item.input_id, None)
        return self._maybe_exit() if self.stopping else []

    def time_out(self, item: Input) -> list[Any]:
        """The time of a running input is over."""
        return self._interrupt(item, TIMED_OUT) if self.running.get(item.input_id) is item else []

    def stop(self, grace: float, by_signal: bool = False) -> list[Any]:
        """Finish: give back what has not begun, interrupt what runs, and exit when all of it has ended.

        Args:
            grace: seconds that running inputs get.
            by_signal: the agent does not know of it.
        """
        if self.stopping:
            return []
        self.stopping = True
        self.grace = grace
        instructions: list[Any] = [Leave()] if by_signal else []
        instructions += self._recall(len(self.queue)) if self.queue else []
        for item in list(self.running.values()):
            instructions += self._interrupt(item, STOPPED)
        return instructions + self._maybe_exit()

    def answered(self, item: Input) -> None:
        """The client of a direct line has the result of this input, which ended."""
        del self.direct[item.input_id]
        item.line = item.sent = None

    def tell(self, items: list[Input]) -> None:
        """The agent is told of these inputs, which came over direct lines."""
        for item in items:
            self.direct.pop(item.input_id, None)
            item.line = item.sent = None

    def give_up(self) -> list[str]:
        """Give up the inputs of direct lines that have not begun; returns their ids. They are still to be told of."""
        given_up = [item.input_id for item in self.queue if item.line is not None]
        if given_up:
            self.queue = deque(item for item in self.queue if item.line is None)
        return given_up

    def _run_inputs(self, header: dict[str, Any], body: memoryview, line: Any) -> list[Any]:
        position = 0
        queue = self.queue
        returned = []
        try:
            for record in header.get("inputs", ()):
                size = record["size"]
                blob = record.get("blob")
                if blob is not None and line is not None:
                    raise TypeError
                payload = None if blob is not None else body[position : position + size]
                position += size
                item = Input(record["input_id"], record["call_id"], payload, blob, record.get("method", ""))
                if line is not None:
                    item.line, item.sent = line, payload
                    self.direct[item.input_id] = item
                if self.stopping:
                    returned.append(item.input_id)
                else:
                    queue.append(item)
        except (KeyError, TypeError, AttributeError):
            raise ProtocolError("The agent sent a malformed RunInputs frame.") from None
        if position != len(body):
            raise ProtocolError("The agent sent inputs whose sizes do not add up to the frame's body.")
        return [ReturnInputs(returned)] if returned else []

    def _credit(self, input_id: str, count: int) -> list[Any]:
        item = self.running.get(input_id)
        if item is None:
            return []
        item.credit += count
        return [ResumeGenerator(input_id)]

    def _recall(self, count: int) -> list[Any]:
        returned = [self.queue.pop().input_id for _ in range(min(count, len(self.queue)))]
        return [ReturnInputs(returned)]

    def _cancel(self, input_ids: list[str]) -> list[Any]:
        wanted = set(input_ids)
        dropped = [item.input_id for item in self.queue if item.input_id in wanted]
        if dropped:
            self.queue = deque(item for item in self.queue if item.input_id not in wanted)
        instructions: list[Any] = [DropInputs(dropped)] if dropped else []
        for input_id in input_ids:
            instructions += self._cancel_running(input_id)
        return instructions

    def _cancel_running(self, input_id: str) -> list[Any]:
        item = self.running.get(input_id)
        return [] if item is None else self._interrupt(item, CANCELLED)

    def _interrupt(self, item: Input, reason: str) -> list[Any]:
        if item.interrupted:
            return []
        item.interrupted = reason
        return [Interrupt(item.input_id, reason)]

    def _maybe_exit(self) -> list[Any]:
        if self.running or self.has_ended:
            return []
        self.has_ended = True
        return [Exit()]
