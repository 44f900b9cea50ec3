"""Creating the functions of an app at the server: their images built, their files sent, their specs put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from .._later import NotBuiltYet
from .._local_files import LocalFile
from .._local_modules import automount_entries, unsent_modules
from .._output import output
from .._serialization import serialize_function
from .._wire.messages.function import (
    FUNCTION_CREATE,
    BucketMount,
    FunctionCreate,
    FunctionHandle,
    FunctionSpec,
    Source,
    VolumeMount,
)
from ..config import config
from ..exception import InvalidError
from .class_build import build_methods
from .mount import create_mounts
from .resolver import Resolver, together
from .user_function import entry_of, home_of, source_for

if TYPE_CHECKING:
    from .app import App
    from .cloud_bucket_mount import CloudBucketMount
    from .function import Function
    from .image import Image
    from .mounted import Mounted
    from .network_file_system import NetworkFileSystem
    from .volume import Volume


async def load_functions(app: App, resolver: Resolver) -> dict[str, FunctionHandle]:
    """Create every function of `app`, with what it needs, side by side.

    Raises:
        InvalidError: something cannot be sent, or this version cannot do what a function asks for.
        RemoteError: an image cannot be built.
    """
    functions = app._loadable()
    for function in functions.values():
        _refuse_what_is_not_built(function)
    loader = _Loader(app, resolver)
    try:
        handles = await together(loader.create(function) for function in functions.values())
    finally:
        await loader.close()
    return dict(zip(functions, handles))


def _refuse_what_is_not_built(function: Function[Any, Any, Any]) -> None:
    if function._options.not_yet:
        names = " and ".join(function._options.not_yet)
        kind = "function" if function._cls_spec is None else "class"
        raise NotBuiltYet(
            f"The {kind} {function._tag!r} uses {names}, which this version of intermodal does not have yet."
        )


@dataclass(frozen=True)
class LoadedMounts:
    """What a function has mounted, as it travels."""

    volumes: list[VolumeMount]
    buckets: list[BucketMount]


async def load_mounted(resolver: Resolver, below: Sequence[Mounted], above: Sequence[Mounted]) -> LoadedMounts:
    """What a function has mounted, with the ids of the objects. `above` wins over `below`, the app's.

    Raises:
        InvalidError: one is mounted within another.
        NotFoundError: there is no object of a name.
    """
    if not below and not above:
        return LoadedMounts([], [])
    from .cloud_bucket_mount import CloudBucketMount
    from .mounted import merge_mounted

    mounted = merge_mounted(below, above)
    volumes = [(one.path, one.obj) for one in mounted if not isinstance(one.obj, CloudBucketMount)]
    buckets = [(one.path, one.obj) for one in mounted if isinstance(one.obj, CloudBucketMount)]
    ids = await resolver.load_all(obj for _, obj in volumes)
    if len(set(ids)) < len(ids):
        raise InvalidError("One volume is mounted at two paths; it can be mounted once in a container.")
    return LoadedMounts(
        [_mount(path, obj, object_id) for (path, obj), object_id in zip(volumes, ids)],
        await together(_load_bucket(resolver, path, bucket) for path, bucket in buckets),
    )


def _mount(path: str, obj: Union[Volume, NetworkFileSystem], object_id: str) -> VolumeMount:
    return VolumeMount(path, object_id, obj._is_read_only, obj._kind, obj._name, obj._environment or "")


async def _load_bucket(resolver: Resolver, path: str, bucket: CloudBucketMount) -> BucketMount:
    return BucketMount(
        path,
        bucket.bucket_name,
        bucket.bucket_endpoint_url or "",
        bucket.key_prefix or "",
        await resolver.load(bucket.secret) if bucket.secret is not None else "",
        bool(bucket.read_only),
        bool(bucket.requester_pays),
    )


class _Loader:
    """Sends what the functions of one app share, once."""

    def __init__(self, app: App, resolver: Resolver) -> None:
        self._app = app
        self._resolver = resolver
        self._source_files = self._find_source_files()
        self._sending: dict[Any, asyncio.Task[list[str]]] = {}

    def _find_source_files(self) -> list[LocalFile]:
        """The files of the modules that functions are defined in and, with automount, of all that are imported."""
        automount = config.get("automount")
        files: dict[str, LocalFile] = {}
        functions = [one for one in self._app._loadable().values() if not one._options.serialized]
        entries = {entry_of(home_of(function.get_raw_f())) for function in functions}
        for entry in entries or {None}:
            files.update((file.remote_path, file) for file in automount_entries(entry, automount=automount))
        output().files_sent([str(file.path) for file in files.values()])
        return [files[place] for place in sorted(files)]

    async def create(self, function: Function[Any, Any, Any]) -> FunctionHandle:
        app = function._app or self._app
        image = function._options.image or app.image
        secrets = [*app._secrets, *function._options.secrets]
        mounts = [*app._mounts, *function._options.mounts]
        mounted = await load_mounted(self._resolver, app._mounted, function._options.mounted)
        image_id, secret_ids, source_mounts, image_mounts, *others = await together(
            [
                self._resolver.load(image),
                self._resolver.load_all(secrets),
                self._send("source", self._source_files),
                self._send_image_files(image),
                *(self._send(id(mount), mount._mount_files()) for mount in mounts),
            ]
        )
        mount_ids = [*source_mounts, *image_mounts, *(mount_id for ids in others for mount_id in ids)]
        if function._cls_spec is not None:
            files = [*self._source_files, *image._mount_files()]
            source = self._source_of(function)
            user_cls: Any = function.get_raw_f()
            image_id = await build_methods(
                self._resolver.client, user_cls, str(image_id), source, files, list(secret_ids)
            )
        spec = self._spec(function, str(image_id), mount_ids, list(secret_ids), mounted)
        body = serialize_function(function.get_raw_f()) if function._options.serialized else b""
        handle, _ = await self._resolver.client.unary(
            FUNCTION_CREATE, FunctionCreate(self._resolver.app_id, spec), body
        )
        return handle

    async def close(self) -> None:
        """Stop what is still being sent, which nobody waits for any more."""
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_image_files(self, image: Image) -> list[str]:
        return await self._send(id(image), image._mount_files())

    async def _send(self, key: Any, files: list[LocalFile]) -> list[str]:
        """Create the mounts of `files`, once for each key."""
        if not files:
            return []
        if key not in self._sending:
            self._sending[key] = asyncio.ensure_future(create_mounts(self._resolver.client, files))
        return await asyncio.shield(self._sending[key])

    def _source_of(self, function: Function[Any, Any, Any]) -> Source:
        raw, serialized = function.get_raw_f(), function._options.serialized
        entry = None if serialized else entry_of(home_of(raw))
        return source_for(raw, serialized, unsent_modules(entry, self._source_files))

    def _spec(
        self,
        function: Function[Any, Any, Any],
        image_id: str,
        mount_ids: list[str],
        secret_ids: list[str],
        mounted: LoadedMounts,
    ) -> FunctionSpec:
        options = function._options
        return FunctionSpec(
            name=function._tag,
            source=self._source_of(function),
            image_id=image_id,
            mount_ids=mount_ids,
            secret_ids=secret_ids,
            volumes=mounted.volumes,
            buckets=mounted.buckets,
            is_generator=function._is_generator,
            resources=options.resources,
            timeout=options.timeout,
            retries=options.retries,
            scaling=options.scaling,
            concurrency=options.concurrency,
            block_network=options.block_network,
            cloud=options.cloud,
            regions=list(options.regions),
            enable_memory_snapshot=options.enable_memory_snapshot,
            schedule=options.schedule._spec() if options.schedule is not None else {},
            cls=function._cls_spec,
        )
