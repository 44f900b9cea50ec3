"""RPC: finding apps, and the versions of those that are deployed."""

from __future__ import annotations

from intermodal.control.access import require_use, require_user
from intermodal.control.apps import App, Apps
from intermodal.control.deployments import Deployments
from intermodal.control.functions import Functions
from intermodal.control.rpc import Context, Dispatcher
from intermodal.control.schedules import Schedules
from intermodal.model.names import check_name, is_id
from intermodal.store.interface import AppRecord, AppVersionRecord, Store
from modal._wire.messages.app import (
    APP_ENSURE,
    APP_FIND,
    APP_HISTORY,
    APP_LIST,
    APP_LOOKUP,
    APP_ROLLBACK,
    AppInfo,
    AppInfos,
    AppList,
    AppName,
    AppObjects,
    AppPublished,
    AppRef,
    AppRollback,
    AppSearch,
    AppState,
    AppVersion,
    AppVersions,
)
from modal.exception import InvalidError, NotFoundError

_STOPPED = 50  # stopped apps in a list


class DeploymentService:
    """Answers questions about apps, and brings earlier versions back."""

    def __init__(
        self, store: Store, apps: Apps, functions: Functions, deployments: Deployments, schedules: Schedules
    ) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._deployments = deployments
        self._schedules = schedules

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(APP_LOOKUP, self.lookup)
        dispatcher.register(APP_ENSURE, self.ensure)
        dispatcher.register(APP_FIND, self.find)
        dispatcher.register(APP_LIST, self.list)
        dispatcher.register(APP_HISTORY, self.history)
        dispatcher.register(APP_ROLLBACK, self.rollback)

    async def lookup(self, ctx: Context, request: AppName, body: bytes) -> AppObjects:
        app = self._apps.deployed(request.name, self._apps.environments.meant_by(ctx, request.environment))
        require_use(ctx, self._apps, app.app_id)
        return _objects(app)

    async def ensure(self, ctx: Context, request: AppName, body: bytes) -> AppObjects:
        require_user(ctx)
        check_name("an app", request.name)
        environment = self._apps.environments.require(request.environment)
        return _objects(await self._deployments.ensure(request.name, environment))

    async def find(self, ctx: Context, request: AppSearch, body: bytes) -> AppInfo:
        require_user(ctx)
        wanted = request.identifier
        if is_id(wanted, "ap"):
            app = self._apps.find(wanted)
            record = app.record if app is not None else await self._store.app(wanted)
            if record is None:
                raise NotFoundError(f"There is no app {wanted!r}.")
            return self._info(record)
        environment = self._apps.environments.require(request.environment)
        named = self._apps.find_deployed(wanted, environment)
        if named is not None:
            return self._info(named.record)
        running = [
            app
            for app in self._apps.of_environment(environment)
            if not app.is_draft and wanted in (app.record.name, app.record.description)
        ]
        if len(running) > 1:
            ids = ", ".join(app.app_id for app in running)
            raise InvalidError(f"{len(running)} running apps are called {wanted[:80]!r}: name one by its id: {ids}.")
        if not running:
            raise NotFoundError(
                f"No app {wanted[:80]!r} is deployed or runs in the environment {environment.name!r}; "
                "`modal app list` shows what does."
            )
        return self._info(running[0].record)

    async def list(self, ctx: Context, request: AppList, body: bytes) -> AppInfos:
        require_user(ctx)
        chosen = self._apps.environments.require(request.environment).environment_id if request.environment else ""
        live = [app.record for app in self._apps.live() if not app.is_draft]
        live.sort(key=lambda record: -record.created_at)
        seen = {record.app_id for record in live}
        stopped = [record for record in await self._store.stopped_apps(_STOPPED) if record.app_id not in seen]
        return AppInfos([self._info(record) for record in [*live, *stopped] if chosen in ("", record.environment_id)])

    async def history(self, ctx: Context, request: AppRef, body: bytes) -> AppVersions:
        require_user(ctx)
        app = self._apps.find(request.app_id)
        record = app.record if app is not None else await self._store.app(request.app_id)
        if record is None:
            raise NotFoundError(f"There is no app {request.app_id!r}.")
        kept = await self._store.app_versions(request.app_id)
        return AppVersions([_version(one) for one in kept if one.version <= record.version])

    async def rollback(self, ctx: Context, request: AppRollback, body: bytes) -> AppPublished:
        require_user(ctx)
        app = self._apps.get(request.app_id)
        if not app.is_deployed:
            raise InvalidError(f"The app {app.app_id} is not deployed, so it has no versions to return to.")
        version = AppVersionRecord("", 0, 0.0, ctx.principal.who, request.client_version[:64], "", {})
        return await self._deployments.rollback(app, request.version, version)

    def _info(self, record: AppRecord) -> AppInfo:
        containers = sum(one.starting + one.running for one in self._functions.of_app(record.app_id))
        return AppInfo(
            record.app_id,
            record.name,
            record.description,
            self._apps.environments.name_of(record.environment_id),
            AppState(record.state),
            record.created_at,
            record.stopped_at,
            record.version,
            sorted(record.functions),
            containers,
            min(self._schedules.next_runs(record.functions).values(), default=None),
        )


def _objects(app: App) -> AppObjects:
    record = app.record
    return AppObjects(record.app_id, record.description, record.name, record.functions, record.version)


def _version(one: AppVersionRecord) -> AppVersion:
    return AppVersion(
        one.version,
        one.deployed_at,
        one.deployed_by,
        one.client_version,
        one.tag,
        sorted(one.revisions),
        one.rollback_of,
    )
