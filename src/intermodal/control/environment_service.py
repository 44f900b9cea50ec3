"""RPC: environments are made, renamed and deleted here."""

from __future__ import annotations

import asyncio
import logging

from intermodal.control.access import require_user
from intermodal.control.app_service import AppService
from intermodal.control.apps import Apps
from intermodal.control.environments import Environment, Environments
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context, Dispatcher
from intermodal.control.secret_service import SecretService
from modal._wire.messages.app import AppStopReason
from modal._wire.messages.common import Empty
from modal._wire.messages.environment import (
    ENVIRONMENT_CREATE,
    ENVIRONMENT_DELETE,
    ENVIRONMENT_GET,
    ENVIRONMENT_LIST,
    ENVIRONMENT_UPDATE,
    EnvironmentInfo,
    EnvironmentList,
    EnvironmentRef,
    EnvironmentUpdate,
)

log = logging.getLogger(__name__)


class EnvironmentService:
    """Answers about environments, and deletes one with everything in it."""

    def __init__(
        self,
        environments: Environments,
        apps: Apps,
        app_service: AppService,
        named: NamedService,
        secrets: SecretService,
    ) -> None:
        self._environments = environments
        self._apps = apps
        self._app_service = app_service
        self._named = named
        self._secrets = secrets

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(ENVIRONMENT_LIST, self.list)
        dispatcher.register(ENVIRONMENT_GET, self.get)
        dispatcher.register(ENVIRONMENT_CREATE, self.create)
        dispatcher.register(ENVIRONMENT_UPDATE, self.update)
        dispatcher.register(ENVIRONMENT_DELETE, self.delete)

    async def list(self, ctx: Context, request: Empty, body: bytes) -> EnvironmentList:
        require_user(ctx)
        return EnvironmentList([_info(environment) for environment in self._environments.all()])

    async def get(self, ctx: Context, request: EnvironmentRef, body: bytes) -> EnvironmentInfo:
        require_user(ctx)
        return _info(self._environments.require(request.name))

    async def create(self, ctx: Context, request: EnvironmentRef, body: bytes) -> EnvironmentInfo:
        require_user(ctx)
        return _info(await self._environments.create(request.name))

    async def update(self, ctx: Context, request: EnvironmentUpdate, body: bytes) -> EnvironmentInfo:
        require_user(ctx)
        environment = self._environments.require(request.name)
        await self._environments.update(environment, request.new_name, request.new_web_suffix)
        return _info(environment)

    async def delete(self, ctx: Context, request: EnvironmentRef, body: bytes) -> Empty:
        """First the records, in one transaction, then what runs: a crash in between leaves nothing half deleted."""
        require_user(ctx)
        environment = self._environments.require(request.name)
        removed = self._environments.remove(environment)
        # Nothing new may begin in it from here on, nor be written after the removal.
        apps = self._apps.of_environment(environment)
        stops = [self._app_service.begin_stop(app, AppStopReason.STOPPED_BY_USER) for app in apps]
        self._secrets.forget_environment(environment)
        self._named.environment_removed(environment)
        await removed
        if stops:
            await asyncio.wait(stops)
        log.info("environment %s was deleted with %d running apps", request.name, len(apps))
        return Empty()


def _info(environment: Environment) -> EnvironmentInfo:
    record = environment.record
    return EnvironmentInfo(record.name, record.web_suffix, environment.is_default, record.created_at)
