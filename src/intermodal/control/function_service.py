"""RPC: functions are registered here, checked as hostile input, and joined with their image, files and secrets."""

from __future__ import annotations

import posixpath
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from intermodal.control.access import require_app, require_use, require_user
from intermodal.control.apps import App, Apps
from intermodal.control.bindings import class_rules
from intermodal.control.buckets import bucket_rules, check_secrets_of, mounted_bucket
from intermodal.control.fleet import Fleet
from intermodal.control.functions import Function, Functions, Revision, merge_files
from intermodal.control.image_service import ImageService
from intermodal.control.mount_service import MountService
from intermodal.control.named_service import NamedService
from intermodal.control.rpc import Context, Dispatcher
from intermodal.control.secret_service import SecretService
from intermodal.machines.app import AppPhase
from intermodal.model.container import RESERVED_PLACES
from intermodal.model.ids import new_id
from intermodal.scheduling import schedules
from intermodal.store.interface import FunctionRecord, Store
from modal._wire.codec import decode, encode
from modal._wire.messages.common import Empty
from modal._wire.messages.function import (
    FUNCTION_CREATE,
    FUNCTION_GET,
    FUNCTION_KEEP_WARM,
    FUNCTION_LOOKUP,
    FUNCTION_STATS,
    FunctionCreate,
    FunctionHandle,
    FunctionKeepWarm,
    FunctionLookup,
    FunctionRef,
    FunctionSpec,
    FunctionStats,
    Scaling,
    SourceKind,
    VolumeMount,
)
from modal.exception import InvalidError, NotFoundError

_SERIALIZED_LIMIT = 16 * 1024 * 1024
_TIMEOUT_RANGE = (1.0, 7 * 24 * 3600.0)
_MOST_VOLUMES = 100


@dataclass(frozen=True)
class Parts:
    """Where the parts that functions are made of come from."""

    images: ImageService
    mounts: MountService
    secrets: SecretService
    named: NamedService


class FunctionService:
    """Creates functions in apps and answers questions about them."""

    def __init__(
        self,
        store: Store,
        apps: Apps,
        functions: Functions,
        parts: Parts,
        fleet: Fleet,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._named = parts.named
        self._images = parts.images
        self._mounts = parts.mounts
        self._secrets = parts.secrets
        self._fleet = fleet
        self._rng = rng

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(FUNCTION_CREATE, self.create)
        dispatcher.register(FUNCTION_GET, self.get)
        dispatcher.register(FUNCTION_LOOKUP, self.lookup)
        dispatcher.register(FUNCTION_STATS, self.stats)
        dispatcher.register(FUNCTION_KEEP_WARM, self.keep_warm)

    async def create(self, ctx: Context, request: FunctionCreate, body: bytes) -> FunctionHandle:
        require_user(ctx)
        app = self._apps.get(request.app_id)
        if app.machine.state is not AppPhase.DRAFT:
            require_open(app)
        check_spec(request.spec, len(body))
        self._check_volumes(app, request.spec)
        check_secrets_of(request.spec.buckets, self._secrets, app)
        function_id = new_id("fu", self._rng)
        function = Function(function_id, request.app_id, await self.load(function_id, request.spec, body))
        self._functions.add(function)
        written = self._store.write([record_of(function)])
        if app.is_draft:
            await written
        return handle_of(function)

    def _check_volumes(self, app: App, spec: FunctionSpec) -> None:
        """Raise `NotFoundError` for a volume that is not there, or belongs to another environment than the app."""
        for one in spec.volumes:
            self._named.require_mountable(one.object_id, app.record.environment_id)

    async def restore(self, record: FunctionRecord) -> None:
        """Bring back a function after a restart. Raises `NotFoundError` when its image or mounts are gone."""
        spec = decode(FunctionSpec, record.spec)
        # A secret that is gone fails its containers, with the reason; it may come back.
        revision = await self._join(record.revision_id or record.function_id, spec, record.body)
        self._functions.add(Function(record.function_id, record.app_id, revision))

    async def load(self, revision_id: str, spec: FunctionSpec, body: bytes) -> Revision:
        """Join a spec with its image and files. Raises `NotFoundError` when those or its secrets are gone."""
        self._secrets.merged(spec.secret_ids)
        for bucket in spec.buckets:
            mounted_bucket(bucket, self._secrets)
        return await self._join(revision_id, spec, body)

    async def _join(self, revision_id: str, spec: FunctionSpec, body: bytes) -> Revision:
        image = await self._images.built(spec.image_id)
        if not image.python:
            raise InvalidError(
                f"The image of function {spec.name!r} has no Python on its PATH, so functions cannot run in it. "
                "Use a Python base image, or add one with add_python."
            )
        files = merge_files([await self._mounts.files(mount_id) for mount_id in spec.mount_ids])
        return Revision(revision_id, spec, body, image, files)

    async def lookup(self, ctx: Context, request: FunctionLookup, body: bytes) -> FunctionHandle:
        app = self._apps.deployed(request.app_name, self._apps.environments.meant_by(ctx, request.environment))
        require_use(ctx, self._apps, app.app_id)
        function_id = app.record.functions.get(request.name)
        if function_id is None and (found := self._method(app, request.name)) is not None:
            return found
        if function_id is None:
            known = ", ".join(repr(tag) for tag in sorted(app.record.functions)) or "nothing"
            raise NotFoundError(
                f"The app {request.app_name!r} has no function or class {request.name[:256]!r}; it has {known}."
            )
        if function_id not in self._functions.by_id:
            raise NotFoundError(
                f"The function {request.name!r} of the app {request.app_name!r} could not be restored when the server "
                "started, since its image or files are gone. Deploy the app again."
            )
        return handle_of(self._functions.get(function_id))

    def _method(self, app: App, name: str) -> FunctionHandle | None:
        """What ``Model.predict`` means in an app; None when it means nothing."""
        tag, _, method = name.rpartition(".")
        function = self._functions.by_id.get(app.record.functions.get(tag, ""))
        if function is None or function.spec.cls is None or method not in function.spec.cls.methods:
            return None
        is_generator = function.spec.cls.methods[method].is_generator
        return replace(handle_of(function), name=name, is_generator=is_generator, method=method)

    async def get(self, ctx: Context, request: FunctionRef, body: bytes) -> FunctionHandle:
        function = self._functions.get(request.function_id)
        require_use(ctx, self._apps, function.app_id)
        return handle_of(function)

    async def stats(self, ctx: Context, request: FunctionRef, body: bytes) -> FunctionStats:
        function = self._functions.get(request.function_id)
        require_use(ctx, self._apps, function.app_id)
        return FunctionStats(backlog=function.queued_inputs, num_total_runners=function.running)

    async def keep_warm(self, ctx: Context, request: FunctionKeepWarm, body: bytes) -> Empty:
        function = self._functions.get(request.function_id)
        require_app(ctx, function.app_id)
        require_open(self._apps.get(function.app_id))
        spec = function.spec
        if not function.can_run:
            raise InvalidError(f"The class {spec.name} needs parameters: keep an instance warm, {spec.name}(...).")
        scaling = replace(spec.scaling, min_containers=request.containers)
        check_scaling(spec.name, scaling)
        function.revision = replace(function.revision, spec=replace(spec, scaling=scaling))
        if function.binding is not None:
            function.binding = replace(function.binding, min_containers=request.containers)
            self._store.write([function.binding])
        else:
            self._store.write([record_of(function)])
        self._fleet.rescale(function)
        return Empty()


def require_open(app: App) -> None:
    """Raise `NotFoundError` when the app is stopping or has stopped."""
    if not app.is_open:
        raise NotFoundError(f"The app {app.app_id} has stopped and takes no more requests.")


def check_spec(spec: FunctionSpec, body_size: int) -> None:
    """Raise `InvalidError` for a spec that no honest client sends: its SDK checks the same, naming the parameter."""
    resources, concurrency = spec.resources, spec.concurrency
    check_scaling(spec.name, spec.scaling)
    rules = (
        (0 < len(spec.name) <= 256, "name must have 1 to 256 characters"),
        (body_size <= _SERIALIZED_LIMIT, f"a serialized function may have at most {_SERIALIZED_LIMIT >> 20} MiB"),
        ((spec.source.kind is SourceKind.SERIALIZED) == (body_size > 0), "only a serialized function has a body"),
        (0 < resources.cpu <= 1024, "cpu must be above 0"),
        (resources.cpu_limit is None or resources.cpu_limit >= resources.cpu, "cpu's limit is below its request"),
        (0 < resources.memory <= 1 << 24, "memory must be above 0 MiB"),
        (
            resources.memory_limit is None or resources.memory_limit >= resources.memory,
            "memory's limit is below its request",
        ),
        (resources.ephemeral_disk is None or 0 < resources.ephemeral_disk <= 1 << 24, "ephemeral_disk must be above 0"),
        (_TIMEOUT_RANGE[0] <= spec.timeout <= _TIMEOUT_RANGE[1], "timeout must be from 1 second to 7 days"),
        (0 <= spec.retries.max_retries <= 10, "retries must be from 0 to 10"),
        (1 <= concurrency.max_concurrent_inputs <= 10_000, "allow_concurrent_inputs must be 1 or more"),
        (
            0 <= concurrency.batch_max_size <= 1000 and 0 <= concurrency.batch_wait_ms <= 600_000,
            "max_batch_size must be from 1 to 1000 and wait_ms from 0 to 600000",
        ),
        (
            not concurrency.batch_max_size or (concurrency.max_concurrent_inputs == 1 and not spec.is_generator),
            "a batched function cannot have allow_concurrent_inputs, nor be a generator",
        ),
        (concurrency.max_inputs is None or concurrency.max_inputs >= 1, "max_inputs must be 1 or more"),
        *(class_rules(spec.cls, concurrency.batch_max_size > 0) if spec.cls is not None else ()),
        *_volume_rules(spec.volumes, [one.path for one in spec.buckets]),
        *bucket_rules(spec),
    )
    _enforce(spec.name, rules)
    if spec.schedule:
        schedules.parse(spec.schedule)


def _volume_rules(volumes: list[VolumeMount], others: list[str]) -> Iterable[tuple[bool, str]]:
    """`others` are the paths of what else is mounted."""
    paths = [*(one.path for one in volumes), *others]
    yield len(paths) <= _MOST_VOLUMES, f"at most {_MOST_VOLUMES} volumes can be mounted"
    yield (
        all(path.startswith("/") and posixpath.normpath(path) == path != "/" and "\0" not in path for path in paths),
        "volumes must be mounted at absolute paths of directories",
    )
    yield (
        not any(f"{path}/".startswith(f"{reserved}/") for path in paths for reserved in RESERVED_PLACES),
        "volumes cannot be mounted at a path that belongs to the system",
    )
    nested = any(f"{path}/".startswith(f"{other}/") for path in paths for other in paths if path is not other)
    yield not nested, "one volume cannot be mounted within another"
    yield len({one.object_id for one in volumes}) == len(volumes), "one volume can be mounted once"


def check_scaling(name: str, scaling: Scaling) -> None:
    """Raise `InvalidError` for numbers of containers that make no sense. `name` is the function's."""
    _enforce(
        name,
        (
            (0 <= scaling.min_containers <= 10_000, "keep_warm must be from 0 to 10000"),
            (
                scaling.max_containers is None or max(1, scaling.min_containers) <= scaling.max_containers,
                "concurrency_limit must be at least 1 and at least keep_warm",
            ),
            (0 <= scaling.buffer_containers <= 10_000, "_experimental_buffer_containers must be from 0 to 10000"),
            (
                scaling.factor is None or 0 <= scaling.factor <= 1,
                "_experimental_custom_scaling_factor must be from 0 to 1",
            ),
            (0 < scaling.idle_timeout <= 86_400, "container_idle_timeout must be from 1 second to a day"),
        ),
    )


def _enforce(name: str, rules: Iterable[tuple[bool, str]]) -> None:
    for holds, sentence in rules:
        if not holds:
            raise InvalidError(f"Function {name[:256]!r}: {sentence}.")


def handle_of(function: Function) -> FunctionHandle:
    """What clients are told of a function."""
    spec = function.spec
    return FunctionHandle(function.function_id, spec.name, spec.is_generator, cls=spec.cls, app_id=function.app_id)


def record_of(function: Function) -> FunctionRecord:
    """What the journal keeps of it."""
    revision = function.revision
    return FunctionRecord(
        function.function_id,
        function.app_id,
        encode(revision.spec),
        revision.body,
        "" if revision.revision_id == function.function_id else revision.revision_id,
    )
