"""Live apps: who owns them, what they consist of, who watches them. State only."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from intermodal.control.app_log import AppLog
from intermodal.control.environments import Environment, Environments
from intermodal.machines.app import ACCEPTING, AppChange, AppPhase, app_machine
from intermodal.machines.machine import Machine
from intermodal.store.interface import AppRecord, Store
from modal._wire.messages.app import AppState, AppStopReason
from modal._wire.messages.common import ErrorInfo
from modal.exception import NotFoundError


@dataclass(slots=True, eq=False)
class Watcher:
    """Someone who follows an app. Output and the app's end wake it always."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    wants_status: bool = False  #: it waits for the next change of a function's status, too


@dataclass(slots=True)
class App:
    """An app that is not stopped, or was lately."""

    record: AppRecord
    environment: Environment
    log: AppLog
    machine: Machine[AppPhase, AppChange]
    version: int = 0  #: grows with every change of a function's status
    stop_reason: AppStopReason | None = None  #: set once it stops; the first reason stays
    stop_task: asyncio.Task[None] | None = None
    watchers: list[Watcher] = field(default_factory=list)
    dirty_functions: dict[str, int] = field(default_factory=dict)  #: function id -> version of its last change
    is_interactive: bool = False  #: the client that runs it gives its terminal to containers
    offers: list[str] = field(default_factory=list)  #: of terminals that containers ask for and do not have yet

    @property
    def app_id(self) -> str:
        return self.record.app_id

    @property
    def is_open(self) -> bool:
        """Whether new calls are accepted."""
        return self.machine.state in ACCEPTING

    @property
    def is_deployed(self) -> bool:
        return self.machine.state is AppPhase.DEPLOYED

    @property
    def is_draft(self) -> bool:
        return self.record.state == AppState.DRAFT.value

    @property
    def is_stopped(self) -> bool:
        return self.machine.state is AppPhase.STOPPED

    @contextlib.contextmanager
    def watched(self) -> Iterator[Watcher]:
        """Watch the app inside the `with` block."""
        watcher = Watcher()
        self.watchers.append(watcher)
        try:
            yield watcher
        finally:
            self.watchers.remove(watcher)

    def wake(self) -> None:
        """Tell the watchers that there is something new."""
        for watcher in self.watchers:
            watcher.wake.set()

    def touch(self, function_id: str) -> None:
        """Note that a function's status changed."""
        self.version += 1
        self.dirty_functions[function_id] = self.version
        for watcher in self.watchers:
            if watcher.wants_status:  # once: this is called for every input
                watcher.wants_status = False
                watcher.wake.set()


def stopped_error(app_id: str, reason: AppStopReason | None) -> ErrorInfo:
    """What a call ends with whose app stops."""
    why = f" ({reason.value.replace('_', ' ')})" if reason is not None else ""
    return ErrorInfo("ExecutionError", f"The app {app_id} was stopped{why}.")


class Apps:
    """Every live app by id.

    Args:
        store: where records and output are kept.
        environments: what apps belong to.
        now: the clock, in seconds since the epoch.
        keep: how many stopped apps stay in memory so that watchers can read their end.
    """

    def __init__(self, store: Store, environments: Environments, now: Callable[[], float], keep: int = 50) -> None:
        self._store = store
        self.environments = environments
        self._now = now
        self._keep = keep
        self._apps: dict[str, App] = {}
        #: Called when an app begins to stop.
        self.on_stop: Callable[[App], None] = lambda app: None

    def add(self, record: AppRecord, last_stored: int | None = None) -> App:
        """Raises `NotFoundError` when its environment is gone."""
        machine = app_machine(record.app_id, AppState(record.state))
        environment = self.environments.get(record.environment_id)
        app = App(record, environment, AppLog(record.app_id, self._store, lambda: app.wake(), last_stored), machine)
        self._apps[record.app_id] = app
        return app

    def restore(self, record: AppRecord, last_seq: int) -> None:
        """Take an app that was live when the server ended. One whose environment was deleted then has stopped."""
        try:
            self.add(record, last_seq)
        except NotFoundError:
            self._store.write([replace(record, state=AppState.STOPPED.value, stopped_at=self._now())])

    def get(self, app_id: str) -> App:
        """Raises `NotFoundError`."""
        try:
            return self._apps[app_id]
        except KeyError:
            raise NotFoundError(f"There is no running app {app_id!r}.") from None

    def find(self, app_id: str) -> App | None:
        return self._apps.get(app_id)

    async def was(self, app_id: str) -> bool:
        """Whether there is or was an app of this id."""
        return app_id in self._apps or await self._store.app(app_id) is not None

    def log_of(self, app_id: str) -> AppLog:
        """The output of an app, which may have ended long ago."""
        app = self._apps.get(app_id)
        return app.log if app is not None else AppLog(app_id, self._store, lambda: None, sys.maxsize)

    async def environment_of(self, app_id: str) -> str:
        """The id of the environment that an app, which may have ended, belongs to; "" for one that nobody knows."""
        app = self._apps.get(app_id)
        record = app.record if app is not None else await self._store.app(app_id)
        return record.environment_id if record is not None else ""

    def deployed(self, name: str, environment: Environment) -> App:
        """The app that is deployed under this name. Raises `NotFoundError`, which says what there is."""
        app = self.find_deployed(name, environment)
        if app is None:
            known = (
                ", ".join(repr(one.record.name) for one in self.of_environment(environment) if one.is_deployed)
                or "none"
            )
            raise NotFoundError(
                f"No app {name[:100]!r} is deployed in the environment {environment.name!r}; deployed there: {known}."
            )
        return app

    def find_deployed(self, name: str, environment: Environment) -> App | None:
        return next((one for one in self._apps.values() if one.is_deployed and _is(one, name, environment)), None)

    def live(self) -> list[App]:
        """The apps that are not stopped."""
        return [app for app in self._apps.values() if not app.is_stopped]

    def of_environment(self, environment: Environment) -> list[App]:
        """The live apps of an environment."""
        return [app for app in self.live() if app.environment is environment]

    def of_session(self, session_id: str) -> list[App]:
        """The live apps that a client session owns, or made."""
        return [app for app in self.live() if app.record.session_id == session_id]

    def save(self, app: App, **changes: object) -> Awaitable[None]:
        """Change fields of the record and write it. Wait for the result to know that it is durable."""
        app.record = replace(app.record, **changes)  # type: ignore[arg-type]
        return self._store.write([app.record])

    def mark_stopped(self, app: App) -> None:
        """The app has ended: nothing of it runs any more."""
        app.machine.on(AppChange.CONTAINERS_GONE)
        app.log.flush()
        state = app.record.state if app.record.state == AppState.DRAFT.value else AppState.STOPPED.value
        self.save(app, state=state, stopped_at=self._now())
        app.wake()
        ended = [other for other in self._apps.values() if other.is_stopped]
        for old in ended[: -self._keep]:
            del self._apps[old.app_id]


def _is(app: App, name: str, environment: Environment) -> bool:
    return app.record.name == name and app.environment is environment
