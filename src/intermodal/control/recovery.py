"""Brings the live state back from the store when the server starts."""

from __future__ import annotations

import logging

from intermodal.control.app_service import AppService
from intermodal.control.apps import Apps
from intermodal.control.attempts import CALLER_LOST
from intermodal.control.calls import Calls, is_awaited
from intermodal.control.class_service import ClassService
from intermodal.control.fleet import Fleet
from intermodal.control.function_service import FunctionService
from intermodal.control.functions import Functions
from intermodal.control.secret_service import SecretService
from intermodal.store.interface import Loaded
from modal._wire.messages.call import Status
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.function import RetryPolicy
from modal.exception import Error

log = logging.getLogger(__name__)
_GONE = ErrorInfo(
    "ExecutionError", "The function of this call is gone: its app has stopped, or was deployed again without it."
)


class Recovery:
    """Restores environments, apps, secrets, functions and calls, in that order; what cannot be fails with a reason."""

    def __init__(
        self,
        apps: Apps,
        secrets: SecretService,
        functions: Functions,
        function_service: FunctionService,
        class_service: ClassService,
        calls: Calls,
        fleet: Fleet,
        app_service: AppService,
    ) -> None:
        self._apps = apps
        self._secrets = secrets
        self._functions = functions
        self._function_service = function_service
        self._class_service = class_service
        self._calls = calls
        self._fleet = fleet
        self._app_service = app_service

    async def run(self, loaded: Loaded, grace: float) -> set[str]:
        """Restore everything; returns the client sessions it belonged to, which have `grace` seconds to come back."""
        self._apps.environments.restore(loaded.environments)
        for app in loaded.apps:
            self._apps.restore(app, loaded.last_log.get(app.app_id, 0))
        self._secrets.restore(loaded.secrets, loaded.named_secrets)
        await self._restore_functions(loaded)
        waiting = 0
        for opened in loaded.calls:
            function = self._functions.by_id.get(opened.call.function_id)
            policy = function.spec.retries if function is not None else RetryPolicy()
            call, ids = self._calls.restore(opened.call, policy, opened.inputs, opened.outputs)
            if function is None:
                self._calls.abandon(call, Status.TERMINATED, _GONE)
            elif opened.call.parent_input_id and is_awaited(opened.call):
                # Containers end with their server. The input that made this call runs again and makes it anew.
                function.open_inputs += len(ids)
                self._calls.abandon(call, Status.TERMINATED, CALLER_LOST)
            elif ids:
                function.open_inputs += len(ids)
                waiting += len(ids)
                self._fleet.queue_inputs(call, ids)
        if loaded.apps:
            log.info("restored %d apps and %d waiting inputs", len(loaded.apps), waiting)
        self._app_service.expect_clients(grace)
        owners = {app.session_id for app in loaded.apps}
        keys = [opened.call.key for opened in loaded.calls] + loaded.recent_keys
        return owners | {key.partition("/")[0] for key in keys}

    async def _restore_functions(self, loaded: Loaded) -> None:
        deployed = {app.app_id: set(app.functions.values()) for app in loaded.apps if app.version}
        for record in loaded.functions:
            if self._apps.find(record.app_id) is None:
                continue
            if record.function_id not in deployed.get(record.app_id, (record.function_id,)):
                continue  # its app was deployed again without it
            try:
                await self._function_service.restore(record)
            except Error as error:
                log.error("function %s cannot be restored: %s", record.function_id, error)
        for binding in loaded.bindings:
            self._class_service.restore(binding)
        for bound in self._functions.by_id.values():
            if bound.binding is not None:
                self._fleet.add_pool(bound)
        for live in self._apps.live():
            self._fleet.app_published(live)
