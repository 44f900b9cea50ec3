"""RPC: classes. A set of parameters, or of options, is a function of its own that is derived from the class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from intermodal.control.access import require_use
from intermodal.control.apps import Apps
from intermodal.control.bindings import bind, bound_function, bound_spec, check_parameters
from intermodal.control.buckets import check_secrets_of
from intermodal.control.fleet import Fleet
from intermodal.control.function_service import check_spec, handle_of, require_open
from intermodal.control.functions import Function, Functions
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context, Dispatcher
from intermodal.control.secret_service import SecretService
from intermodal.store.interface import BindingRecord, Store
from modal._wire.messages.function import FUNCTION_BIND, FunctionBind, FunctionHandle, FunctionOverrides
from modal.exception import Error, InvalidError

log = logging.getLogger(__name__)
#: Seconds after which a bound function that nobody uses is forgotten. Clients bind again after a shorter time.
FORGET_AFTER = 3600.0
LOOK_EVERY = 60.0


class ClassService:
    """Binds classes to parameters, and forgets bindings that are not used.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        apps: Apps,
        functions: Functions,
        secrets: SecretService,
        named: NamedService,
        fleet: Fleet,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._secrets = secrets
        self._named = named
        self._fleet = fleet
        self._now = now

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(FUNCTION_BIND, self.bind)

    async def bind(self, ctx: Context, request: FunctionBind, body: bytes) -> FunctionHandle:
        cls = self._functions.get(request.function_id)
        require_use(ctx, self._apps, cls.app_id)
        app = self._apps.get(cls.app_id)
        require_open(app)
        if cls.spec.cls is None or cls.binding is not None:
            raise InvalidError(f"{cls.spec.name} is not a class, so it takes no parameters.")
        parameters = check_parameters(cls.spec.name, cls.spec.cls, body)
        self._check_overrides(ctx, cls, request.overrides)
        if not parameters and request.overrides == FunctionOverrides():
            return handle_of(cls)
        record = bind(cls, request.overrides, parameters)
        if record.function_id not in self._functions.by_id:
            # Durable before it can be called: a call that outlives the server finds its function.
            await self._store.write([record])
            require_open(app)
            cls = self._functions.get(request.function_id)  # a deployment may have removed it meanwhile
        function = self._functions.by_id.get(record.function_id)
        if function is None:  # made by nobody else meanwhile
            function = bound_function(cls, record)
            self._functions.add(function)
            self._fleet.add_pool(function)
        function.used_at = self._now()
        return handle_of(function)

    def _check_overrides(self, ctx: Context, cls: Function, overrides: FunctionOverrides) -> None:
        self._secrets.merged(overrides.secret_ids or ())
        for secret_id in overrides.secret_ids or ():
            if ctx.principal.kind == "container" and secret_id not in cls.spec.secret_ids:
                self._secrets.require_usable(secret_id, self._apps.get(cls.app_id))
        for one in overrides.volumes or ():
            self._named.require_mountable(one.object_id, self._apps.get(cls.app_id).record.environment_id)
        check_secrets_of(overrides.buckets or (), self._secrets, self._apps.get(cls.app_id))
        check_spec(bound_spec(cls.spec, overrides), len(cls.revision.body))

    def restore(self, record: BindingRecord) -> None:
        """Bring back a bound function after a restart, once its class is back."""
        cls = self._functions.by_id.get(record.class_id)
        if cls is None or cls.spec.cls is None:
            return  # its class could not be restored, or was removed
        try:
            function = bound_function(cls, record)
        except Error as error:
            log.error("function %s cannot be restored: %s", record.function_id, error)
            return
        function.used_at = self._now()
        self._functions.add(function)

    async def run(self) -> None:
        """Forget what nobody uses, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.sweep()
            except Error as error:
                log.error("unused functions could not be forgotten: %s", error)

    async def sweep(self) -> None:
        """Forget what nobody has used for long enough."""
        now = self._now()
        unused = []
        for function in list(self._functions.by_id.values()):
            if function.binding is None:
                continue
            if function.open_inputs or function.running or function.starting or function.spec.scaling.min_containers:
                function.used_at = now
            elif now - function.used_at >= FORGET_AFTER:
                self._functions.remove(function.function_id)
                self._fleet.remove_pool(function)
                unused.append(function.function_id)
        if unused:
            await self._store.drop_bindings(unused)
            made_again = [self._functions.by_id.get(function_id) for function_id in unused]
            self._store.write([one.binding for one in made_again if one is not None and one.binding is not None])
