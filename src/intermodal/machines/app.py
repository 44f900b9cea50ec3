"""The life of an app, and what ends it.

An ephemeral app belongs to a client session. When that session is lost (the client was killed, the network went
away), the app lives on for a grace period in which the client may come back; then it stops.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Union

from modal._wire.messages.app import AppStopReason

from .machine import Machine

SESSION_GRACE = 60.0  #: seconds a client has to come back


class AppPhase(enum.Enum):
    INITIALIZING = "initializing"  #: created; its objects are being made
    RUNNING = "running"  #: published, and owned by a client session
    ORPHANED = "orphaned"  #: its client is away
    DETACHED = "detached"  #: lives without its client, until stopped
    DEPLOYED = "deployed"
    STOPPING = "stopping"  #: its containers are finishing
    STOPPED = "stopped"


class AppEvent(enum.Enum):
    PUBLISHED = "published"
    DETACHED = "detached"
    DEPLOYED = "deployed"
    SESSION_LOST = "session lost"
    SESSION_BACK = "session back"
    GRACE_OVER = "grace over"
    STOP = "stop"
    CONTAINERS_GONE = "containers gone"


_P, _E = AppPhase, AppEvent
_ALIVE = (_P.INITIALIZING, _P.RUNNING, _P.ORPHANED, _P.DETACHED, _P.DEPLOYED)

#: A detached or deployed app does not care for its client. Stopping is idempotent.
APP_TABLE: dict[tuple[AppPhase, AppEvent], AppPhase] = {
    (_P.INITIALIZING, _E.PUBLISHED): _P.RUNNING,
    (_P.INITIALIZING, _E.DETACHED): _P.DETACHED,
    (_P.INITIALIZING, _E.DEPLOYED): _P.DEPLOYED,
    (_P.INITIALIZING, _E.SESSION_LOST): _P.ORPHANED,
    (_P.RUNNING, _E.PUBLISHED): _P.RUNNING,
    (_P.RUNNING, _E.DETACHED): _P.DETACHED,
    (_P.RUNNING, _E.DEPLOYED): _P.DEPLOYED,
    (_P.RUNNING, _E.SESSION_LOST): _P.ORPHANED,
    (_P.ORPHANED, _E.SESSION_BACK): _P.RUNNING,
    (_P.ORPHANED, _E.GRACE_OVER): _P.STOPPING,
    (_P.DETACHED, _E.SESSION_LOST): _P.DETACHED,
    (_P.DETACHED, _E.SESSION_BACK): _P.DETACHED,
    (_P.DETACHED, _E.DETACHED): _P.DETACHED,
    (_P.DEPLOYED, _E.SESSION_LOST): _P.DEPLOYED,
    (_P.DEPLOYED, _E.SESSION_BACK): _P.DEPLOYED,
    (_P.DEPLOYED, _E.DEPLOYED): _P.DEPLOYED,
    **{(phase, _E.STOP): _P.STOPPING for phase in _ALIVE},
    (_P.STOPPING, _E.STOP): _P.STOPPING,
    (_P.STOPPING, _E.SESSION_LOST): _P.STOPPING,
    (_P.STOPPING, _E.SESSION_BACK): _P.STOPPING,
    (_P.STOPPING, _E.CONTAINERS_GONE): _P.STOPPED,
    (_P.STOPPED, _E.STOP): _P.STOPPED,
    (_P.STOPPED, _E.SESSION_LOST): _P.STOPPED,
    (_P.STOPPED, _E.SESSION_BACK): _P.STOPPED,
}


@dataclass(frozen=True, slots=True)
class StopFunctions:
    """Stop the app's containers and end its calls; `CONTAINERS_GONE` answers."""

    reason: AppStopReason


@dataclass(frozen=True, slots=True)
class EndGraceAt:
    """Send `GRACE_OVER` at that time, unless the session is back before."""

    at: float


@dataclass(frozen=True, slots=True)
class CancelGrace:
    """Forget the last `EndGraceAt`."""


@dataclass(frozen=True, slots=True)
class AnnounceStopped:
    """Tell everyone who watches the app, as the last thing, and forget it."""

    reason: AppStopReason


AppInstruction = Union[StopFunctions, EndGraceAt, CancelGrace, AnnounceStopped]


class AppMachine:
    """One app: events in, instructions out.

    Args:
        app_id: for errors.
        grace: seconds a lost client has to come back.
    """

    __slots__ = ("_grace", "_machine", "stop_reason")

    def __init__(self, app_id: str, grace: float = SESSION_GRACE) -> None:
        self._machine = Machine(app_id, AppPhase.INITIALIZING, APP_TABLE)
        self._grace = grace
        self.stop_reason: AppStopReason | None = None  #: set once it stops; the first reason stays

    @property
    def phase(self) -> AppPhase:
        return self._machine.state

    @property
    def accepts_calls(self) -> bool:
        """Whether its functions may be called."""
        return self._machine.state in _ALIVE

    def handle(
        self, event: AppEvent, now: float, reason: AppStopReason = AppStopReason.STOPPED_BY_USER
    ) -> list[AppInstruction]:
        """Take in one event.

        Args:
            event: what happened.
            now: seconds, on the clock that `EndGraceAt` is meant for.
            reason: of a `STOP`.

        Raises:
            IllegalTransition: it cannot happen to an app in this phase.
        """
        before = self._machine.state
        after = self._machine.on(event)
        if after is before:
            return []
        out: list[AppInstruction] = []
        if after is AppPhase.ORPHANED:
            out.append(EndGraceAt(now + self._grace))
        elif before is AppPhase.ORPHANED and event is not AppEvent.GRACE_OVER:
            out.append(CancelGrace())
        if after is AppPhase.STOPPING:
            self.stop_reason = AppStopReason.CLIENT_GONE if event is AppEvent.GRACE_OVER else reason
            out.append(StopFunctions(self.stop_reason))
        elif after is AppPhase.STOPPED and self.stop_reason is not None:
            out.append(AnnounceStopped(self.stop_reason))
        return out
