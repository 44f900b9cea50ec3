"""What is known of each function's progress, and the words for it. Pure: `now` is a parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    from .._wire.messages.app import AppStopReason, FunctionStatus

STOP_REASONS = {
    "finished": "App completed.",
    "interrupted": "App stopped: it was interrupted. Its containers are stopped.",
    "detached": "The app goes on running, detached. Stop it with `modal app stop`.",
    "failed": "App stopped: its entrypoint failed. Its containers are stopped.",
    "client_gone": "App stopped: its client was gone.",
    "stopped_by_user": "App stopped by a user.",
    "server_stopped": "App stopped: the server is shutting down.",
}


def describe_stop(reason: Union[AppStopReason, str]) -> str:
    """One sentence for the reason an app stopped."""
    value = reason if isinstance(reason, str) else reason.value
    return STOP_REASONS.get(value) or f"App stopped: {value}"


def plural(count: int, noun: str) -> str:
    """``plural(2, "file")`` is "2 files"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class FunctionProgress:
    """One function's latest status and the map over it that was reported last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status: Optional[FunctionStatus] = None
        self.done = 0
        self.total: Optional[int] = None
        self.mapping = False

    def map_progress(self, done: int, total: Optional[int]) -> None:
        self.done, self.total = done, total
        self.mapping = total is None or done < total

    @property
    def active(self) -> bool:
        """Whether there is anything under way that is worth a live line."""
        status = self.status
        busy = status is not None and bool(status.starting or status.queued_inputs or status.running_inputs)
        return self.mapping or busy

    def fraction(self) -> Optional[float]:
        """Share of inputs done, None when there is no meaningful one."""
        done, total = self._counts()
        return min(1.0, done / total) if total and total > 1 else None

    def describe_inputs(self) -> str:
        done, total = self._counts()
        failed = self.status.failed_inputs if self.status is not None else 0
        text = f"{done:,} of {plural(total, 'input')} done" if total else f"{plural(done, 'input')} done"
        return text + (f", {failed:,} failed" if failed else "")

    def describe_containers(self) -> str:
        status = self.status
        if status is None or not (status.running or status.starting):
            return ""
        if not status.running:
            return f"{plural(status.starting, 'container')} starting"
        text = plural(status.running, "container")
        return f"{text}, {status.starting:,} starting" if status.starting else text

    @property
    def pending_reason(self) -> str:
        return self.status.pending_reason if self.status is not None else ""

    def _counts(self) -> tuple[int, Optional[int]]:
        if self.mapping or self.total is not None:
            return self.done, self.total
        status = self.status
        if status is None:
            return 0, None
        ended = status.done_inputs + status.failed_inputs
        return ended, ended + status.queued_inputs + status.running_inputs


class ProgressBoard:
    """All functions of the running app, by name."""

    def __init__(self) -> None:
        self._functions: dict[str, FunctionProgress] = {}

    def of(self, name: str) -> FunctionProgress:
        if name not in self._functions:
            self._functions[name] = FunctionProgress(name)
        return self._functions[name]

    def active(self) -> list[FunctionProgress]:
        return [item for item in self._functions.values() if item.active]


class PlainReporter:
    """Decides which progress is worth a line where lines stay: changes, and at most one count every few seconds."""

    INTERVAL = 2.0  #: seconds between two counts of one function

    def __init__(self) -> None:
        self._board = ProgressBoard()
        self._said_at: dict[str, float] = {}

    def status(self, status: FunctionStatus) -> list[str]:
        item = self._board.of(status.name)
        before, item.status = item.status, status
        lines = []
        starting_before = before.starting if before is not None else 0
        if status.starting and not starting_before and not status.running:
            lines.append(f"{status.name}: starting {plural(status.starting, 'container')}")
        reason_before = before.pending_reason if before is not None else ""
        if status.pending_reason and status.pending_reason != reason_before:
            lines.append(f"{status.name}: waiting: {status.pending_reason}")
        return lines

    def map_progress(self, name: str, done: int, total: Optional[int], now: float) -> list[str]:
        item = self._board.of(name)
        was_mapping = item.mapping
        item.map_progress(done, total)
        if not was_mapping and item.mapping:
            self._said_at[name] = now  # the first count is due an interval after the start
            return []
        ended = was_mapping and not item.mapping
        if not ended and now - self._said_at.get(name, now) < self.INTERVAL:
            return []
        self._said_at[name] = now
        return [f"{name}: {item.describe_inputs()}"]
