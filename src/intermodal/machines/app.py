"""The life of an app, and what ends it.

An ephemeral app ends with its client; a client that lost its connection has a grace period before it counts as gone. A
detached app goes on without its client, until it has nothing left to do, and a deployed one until it is stopped.
"""

from __future__ import annotations

import enum

from modal._wire.messages.app import AppState

from .machine import Machine


class AppPhase(enum.Enum):
    EPHEMERAL = "ephemeral"
    DETACHED = "detached"
    DEPLOYED = "deployed"
    DRAFT = "draft"  #: becomes a version of a deployed app, or ends with its client
    STOPPING = "stopping"  #: takes no more calls; its containers are finishing
    STOPPED = "stopped"


class AppChange(enum.Enum):
    CLIENT_GONE = "client gone"  #: for good
    STOP = "stop"
    PUBLISHED = "published"  #: as a version of a deployed app
    CONTAINERS_GONE = "containers gone"


_P, _E = AppPhase, AppChange

#: Stopping is idempotent, and a client may leave at any time.
APP_TABLE: dict[tuple[AppPhase, AppChange], AppPhase] = {
    (_P.EPHEMERAL, _E.CLIENT_GONE): _P.STOPPING,
    (_P.DETACHED, _E.CLIENT_GONE): _P.DETACHED,
    (_P.DEPLOYED, _E.CLIENT_GONE): _P.DEPLOYED,
    (_P.DRAFT, _E.CLIENT_GONE): _P.STOPPING,
    (_P.DRAFT, _E.STOP): _P.STOPPING,
    (_P.DRAFT, _E.PUBLISHED): _P.STOPPED,
    (_P.STOPPING, _E.CLIENT_GONE): _P.STOPPING,
    (_P.STOPPED, _E.CLIENT_GONE): _P.STOPPED,
    (_P.EPHEMERAL, _E.STOP): _P.STOPPING,
    (_P.DETACHED, _E.STOP): _P.STOPPING,
    (_P.DEPLOYED, _E.STOP): _P.STOPPING,
    (_P.STOPPING, _E.STOP): _P.STOPPING,
    (_P.STOPPED, _E.STOP): _P.STOPPED,
    (_P.STOPPING, _E.CONTAINERS_GONE): _P.STOPPED,
}

FIRST = (AppPhase.EPHEMERAL, AppPhase.DETACHED, AppPhase.DEPLOYED, AppPhase.DRAFT)
ACCEPTING = frozenset({AppPhase.EPHEMERAL, AppPhase.DETACHED, AppPhase.DEPLOYED})


def app_machine(app_id: str, state: AppState) -> Machine[AppPhase, AppChange]:
    """An app that was just created, or read back from the journal, in `state`."""
    return Machine(app_id, AppPhase(state.value), APP_TABLE)
