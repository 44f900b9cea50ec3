"""RPC: the life of an app, from its creation to the last line of its output."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from intermodal.control.access import require_app, require_user
from intermodal.control.apps import App, Apps, Watcher, stopped_error
from intermodal.control.calls import Call, Calls
from intermodal.control.deployments import Deployments
from intermodal.control.fleet import Fleet
from intermodal.control.function_service import require_open
from intermodal.control.functions import Function, Functions
from intermodal.control.rpc import LOCAL, Context, Dispatcher, Principal, ServerStream
from intermodal.control.secret_service import SecretService
from intermodal.machines.app import AppChange, AppPhase
from intermodal.model.ids import new_id
from intermodal.model.names import check_name
from intermodal.store.interface import AppRecord, AppVersionRecord
from modal._wire.messages.app import (
    APP_CREATE,
    APP_EVENTS,
    APP_OBJECTS,
    APP_PUBLISH,
    APP_STOP,
    AppCreate,
    AppCreated,
    AppEvent,
    AppEvents,
    AppObjects,
    AppPublish,
    AppPublished,
    AppRef,
    AppState,
    AppStop,
    AppStopReason,
    FunctionStatus,
)
from modal._wire.messages.call import Status
from modal._wire.messages.common import Empty, ErrorInfo
from modal.exception import InvalidError, NotFoundError

log = logging.getLogger(__name__)
_LOG_BATCH = 500  # entries in one event
_STATUS_EVERY = 0.1  # seconds between status events of one watcher
_IDLE_CHECK = 1.0  # seconds between looks whether a detached app has work left
CLIENT_LOST = ErrorInfo("ExecutionError", "The call was ended since the client that waited for it is gone.")


class AppService:
    """Creates, publishes, watches and stops apps.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self,
        apps: Apps,
        functions: Functions,
        calls: Calls,
        fleet: Fleet,
        secrets: SecretService,
        deployments: Deployments,
        rng: random.Random,
        now: Callable[[], float],
    ) -> None:
        self._apps = apps
        self._functions = functions
        self._calls = calls
        self._fleet = fleet
        self._secrets = secrets
        self._deployments = deployments
        self._rng = rng
        self._now = now
        self._present: set[str] = set()

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(APP_CREATE, self.create)
        dispatcher.register(APP_PUBLISH, self.publish)
        dispatcher.register(APP_OBJECTS, self.objects)
        dispatcher.register(APP_STOP, self.stop)
        dispatcher.register(APP_EVENTS, self.events)
        dispatcher.session_opened.append(self.session_opened)
        dispatcher.session_closed.append(self.session_closed)

    # -- requests ----------------------------------------------------------------------------------------------

    async def create(self, ctx: Context, request: AppCreate, body: bytes) -> AppCreated:
        require_user(ctx)
        state = request.state
        if state is AppState.DEPLOYED:
            check_name("an app", request.name or "")
            state = AppState.DRAFT
        elif state not in (AppState.EPHEMERAL, AppState.DETACHED):
            raise InvalidError(f"An app cannot be created in state {state.value!r}.")
        environment = self._apps.environments.meant_by(ctx, request.environment)
        app_id = new_id("ap", self._rng)
        record = AppRecord(
            app_id,
            request.name,
            request.description,
            environment.environment_id,
            state.value,
            ctx.session_id,
            self._now(),
        )
        app = self._apps.add(record)
        app.is_interactive = request.interactive
        saved = self._apps.save(app)
        if app.is_draft:
            await saved  # so that a deployment goes on where it was when the server is killed
        return AppCreated(app_id)

    async def publish(self, ctx: Context, request: AppPublish, body: bytes) -> AppPublished:
        require_user(ctx)
        if request.state is AppState.DEPLOYED:
            if request.tag:
                check_name("a version", request.tag)
            version = AppVersionRecord("", 0, 0.0, ctx.principal.who, request.client_version[:64], request.tag, {})
            return await self._deployments.publish(request.app_id, request.functions, version)
        app = self._apps.get(request.app_id)
        require_open(app)
        for tag, function_id in request.functions.items():
            if self._functions.get(function_id).app_id != app.app_id:
                raise InvalidError(f"The function {tag!r} belongs to another app.")
        # Durable before anything can be called: a client that comes back after a kill finds its app.
        await self._apps.save(app, functions=dict(request.functions))
        self._fleet.app_published(app)
        return AppPublished(app.app_id, 0, dict(request.functions))

    async def objects(self, ctx: Context, request: AppRef, body: bytes) -> AppObjects:
        require_app(ctx, request.app_id)
        record = self._apps.get(request.app_id).record
        return AppObjects(record.app_id, record.description, record.name, record.functions, record.version)

    async def stop(self, ctx: Context, request: AppStop, body: bytes) -> Empty:
        require_user(ctx)
        app = self._apps.find(request.app_id)
        if app is not None and not app.is_stopped:
            await self.stop_app(app, request.reason)
        return Empty()

    async def events(self, ctx: Context, request: AppEvents, body: bytes, stream: ServerStream[Any, Any]) -> None:
        require_app(ctx, request.app_id)
        app = self._apps.find(request.app_id)
        if app is None:
            await self._tell_past(request, stream)
            return
        # The server does not remember it over a restart; the client that runs the app comes back and says so.
        app.is_interactive = app.is_interactive or (request.interactive and app.record.session_id == ctx.session_id)
        with app.watched() as watcher:
            await self._follow(app, request, watcher, stream)

    async def _tell_past(self, request: AppEvents, stream: ServerStream[Any, Any]) -> None:
        """What an app that has ended long ago, or under an earlier server, printed."""
        if not await self._apps.was(request.app_id):
            raise NotFoundError(f"There is no app {request.app_id[:40]!r}.")
        log, after = self._apps.log_of(request.app_id), request.after
        while entries := await log.read(after, _LOG_BATCH):
            after = entries[-1].seq
            await stream.send(AppEvent(logs=entries))
        await stream.send(AppEvent(stopped=AppStopReason.FINISHED))

    async def _follow(self, app: App, request: AppEvents, watcher: Watcher, stream: ServerStream[Any, Any]) -> None:
        loop = asyncio.get_running_loop()
        after, version, status_due = request.after, -1, 0.0
        offered: set[str] = set()
        while True:
            watcher.wake.clear()
            ended = (
                app.stop_reason if app.is_stopped else None
            )  # read before the log: what is logged until now is sent before the end
            while entries := await app.log.read(after, _LOG_BATCH):
                after = entries[-1].seq
                await stream.send(AppEvent(logs=entries))
            for offer in [one for one in app.offers if request.interactive and one not in offered]:
                offered.add(offer)
                await stream.send(AppEvent(offer=offer))
            if request.want_status and app.version > version and (ended or loop.time() >= status_due):
                changed = [fid for fid, changed_at in app.dirty_functions.items() if changed_at > version]
                version, status_due = app.version, loop.time() + _STATUS_EVERY
                for function_id in changed:
                    function = self._functions.by_id.get(function_id)
                    if function is not None:
                        await stream.send(AppEvent(status=status_of(function)))
            if ended is not None:
                await stream.send(AppEvent(stopped=ended))
                return
            is_due = request.want_status and app.version > version
            watcher.wants_status = request.want_status and not is_due
            try:
                await asyncio.wait_for(watcher.wake.wait(), max(0.0, status_due - loop.time()) if is_due else None)
            except asyncio.TimeoutError:
                pass  # the next status is due

    # -- ending ------------------------------------------------------------------------------------------------

    async def stop_app(self, app: App, reason: AppStopReason) -> None:
        """Stop the app and return when nothing of it runs. Joins a stop that is under way."""
        await asyncio.shield(self.begin_stop(app, reason))

    async def _stop(self, app: App, reason: AppStopReason) -> None:
        error = stopped_error(app.app_id, reason)
        functions = self._functions.of_app(app.app_id)
        for function in functions:
            for call in self._calls.of_function(function.function_id):
                self._calls.abandon(call, Status.TERMINATED, error)
        await self._fleet.remove_functions(functions, at_once=reason is not AppStopReason.FINISHED)
        self._apps.mark_stopped(app)
        for function in functions:
            self._functions.remove(function.function_id)
        self._secrets.forget_app(app.app_id)
        log.info("app %s (%s) stopped: %s", app.app_id, app.record.description, reason.value)

    def session_opened(self, session_id: str, principal: Principal) -> None:
        """A client is connected."""
        self._present.add(session_id)

    def expect_clients(self, grace: float) -> None:
        """After a restart: apps and calls whose clients do not come back within `grace` seconds end as theirs."""
        earlier = {app.record.session_id for app in self._apps.live()} | self._calls.sessions()

        def check() -> None:
            for session_id in earlier - self._present:
                self.session_closed(session_id, LOCAL)

        asyncio.get_running_loop().call_later(grace, check)

    def session_closed(self, session_id: str, principal: Principal) -> None:
        """A client is gone for good: what lives as long as it does ends."""
        self._present.discard(session_id)
        for app in self._apps.of_session(session_id):
            phase = app.machine.on(AppChange.CLIENT_GONE)
            if phase is AppPhase.STOPPING:
                self.begin_stop(app, AppStopReason.CLIENT_GONE)
            elif phase is AppPhase.DETACHED:
                self._stop_when_idle(app)
        for call in self._calls.awaited_by_session(session_id):
            self._caller_gone(call)

    def _caller_gone(self, call: Call) -> None:
        """Nobody will ask for the outputs of this call. A detached app goes on all the same, with what it has."""
        app = self._apps.find(call.record.app_id)
        if app is None or not app.is_open:
            return  # its calls end with it
        if app.machine.state is AppPhase.DETACHED:
            self._calls.close_inputs(call)
        else:
            self._calls.abandon(call, Status.TERMINATED, CLIENT_LOST)
            self._fleet.drop_call(call)

    def begin_stop(self, app: App, reason: AppStopReason) -> asyncio.Task[None]:
        """Start to stop the app, or join a stop that is under way."""
        if app.stop_task is None:
            app.machine.on(AppChange.STOP)
            app.stop_reason = reason
            self._apps.on_stop(app)
            app.stop_task = asyncio.create_task(self._stop(app, reason), name=f"stop {app.app_id}")
        return app.stop_task

    def _stop_when_idle(self, app: App) -> None:
        """A detached app whose client is gone ends when it has nothing left to do."""
        if not app.is_open:
            return
        if any(self._calls.of_function(f.function_id) for f in self._functions.of_app(app.app_id)):
            asyncio.get_running_loop().call_later(_IDLE_CHECK, self._stop_when_idle, app)
        else:
            self.begin_stop(app, AppStopReason.FINISHED)


def status_of(function: Function) -> FunctionStatus:
    """A function's pool as people want to see it."""
    return FunctionStatus(
        function.function_id,
        function.title,
        function.starting,
        function.running,
        function.queued_inputs,
        function.running_inputs,
        function.done_inputs,
        function.failed_inputs,
        function.pending_reason,
    )
