"""The composition root: settings to objects to run. The only file that knows all implementations."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import platform
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvloop

from intermodal import __version__
from intermodal.blobs.local import LocalBlobStore
from intermodal.builder.interface import Builder
from intermodal.control.app_service import AppService
from intermodal.control.apps import Apps
from intermodal.control.blob_service import BlobService
from intermodal.control.call_graph_service import CallGraphService
from intermodal.control.call_service import CallService
from intermodal.control.calls import Calls
from intermodal.control.class_service import ClassService
from intermodal.control.container_api import ContainerCalls
from intermodal.control.container_service import ContainerService
from intermodal.control.deployment_service import DeploymentService
from intermodal.control.deployments import Deployments
from intermodal.control.dict_service import DictService
from intermodal.control.direct_service import DirectService
from intermodal.control.environment_service import EnvironmentService
from intermodal.control.environments import Environments
from intermodal.control.file_service import FileService, Space
from intermodal.control.fleet import Fleet
from intermodal.control.function_service import FunctionService, Parts
from intermodal.control.functions import Functions
from intermodal.control.http_port import HttpPort
from intermodal.control.image_service import ImageService
from intermodal.control.interact_service import InteractService
from intermodal.control.mount_service import MountService
from intermodal.control.named_service import NamedService
from intermodal.control.network_file_system_service import NetworkFileSystemService
from intermodal.control.queue_service import QueueService
from intermodal.control.recovery import Recovery
from intermodal.control.retention import Retention
from intermodal.control.rpc import LOCAL, Dispatcher, serve_unix
from intermodal.control.schedules import Schedules
from intermodal.control.secret_service import SecretService
from intermodal.control.server_service import ServerService
from intermodal.control.token_service import TokenService
from intermodal.control.tokens import Tokens
from intermodal.control.volume_service import VolumeService
from intermodal.machines.app import AppPhase
from intermodal.model.ids import new_id
from intermodal.node.composition import NodeSettings, Storage, isolated_agent, plain_agent, storage_in
from intermodal.node.interface import Node
from intermodal.scheduling.scheduler import Scheduler
from intermodal.settings import Settings
from intermodal.store.interface import Store
from intermodal.store.memory import MEMORY_URL, MemoryStore
from intermodal.store.secret_box import SecretBox
from intermodal.store.sql import SqlStore
from modal._wire.messages.app import AppStopReason
from modal._wire.messages.named import ObjectKind
from modal.exception import Error, InvalidError

log = logging.getLogger(__name__)
_SWITCH_INTERVAL = 0.0005  # seconds


def serve(settings: Settings) -> int:
    """Run the server in the foreground until SIGTERM or SIGINT; returns the exit status.

    A failure to start prints one sentence to stderr and returns 1.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    # Connections of clients and containers, pipes, and mounts of a thousand containers.
    _raise_file_limit()
    # The journal's thread must not keep the event loop waiting for Python's usual 5 ms.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        with data_directory(settings):
            uvloop.run(_main(settings))
    except (Error, OSError) as error:
        print(f"intermodal: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def data_directory(settings: Settings) -> Iterator[None]:
    """Make the data directory and hold it: one server a directory.

    Raises:
        InvalidError: another server runs on it, or it cannot be made.
    """
    try:
        for directory in (settings.data_dir, settings.run_dir):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidError(f"The data directory {settings.data_dir} cannot be made: {error.strerror}.") from error
    with open(settings.run_dir / "server.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_pid(settings.pid_file)
            raise InvalidError(
                f"Another server (pid {owner or 'unknown'}) runs on the data directory {settings.data_dir}. "
                "Stop it with `intermodal down`, or choose another directory with --data-dir."
            ) from None
        settings.pid_file.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            settings.pid_file.unlink(missing_ok=True)


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings):
        await stop.wait()
        log.info("stopping")


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    builder: Builder | None = None,
    store: Store | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[ServerService]:
    """A server in this event loop, listening from entry to exit.

    `builder` and `store` replace those that the settings name; `now` is the clock that schedules go by.
    """
    rng = random.SystemRandom()
    async with contextlib.AsyncExitStack() as stack:
        if store is None:
            store = make_store(settings)
        stack.push_async_callback(store.close)
        await store.open()
        blobs = LocalBlobStore(settings.data_dir / "blobs")
        await blobs.open()
        environments = Environments(store, rng, time.time)
        apps, functions, calls = Apps(store, environments, time.time), Functions(), Calls(store, time.time)
        secrets = SecretService(store, SecretBox(settings.secret_key_file), apps, rng, time.time)
        builder = builder or _make_builder(settings, blobs, secrets)
        stack.push_async_callback(builder.close)
        await builder.open()
        images, mounts = ImageService(builder), MountService(store, blobs, time.time)

        scheduler = Scheduler(iter(lambda: new_id("ta", rng), ""))
        fleet = Fleet(scheduler, calls, functions, apps, secrets, time.time, settings.stop_grace)
        calls.on_finish = fleet.input_finished
        stack.callback(calls.flush)
        tokens = Tokens(store, rng, time.time)
        dispatcher = Dispatcher(
            version=__version__, session_grace=settings.session_grace, client_timeout=settings.client_timeout
        )
        storage = storage_in(settings.data_dir.resolve(), settings.run_dir, settings.uid_base)
        stack.push_async_callback(asyncio.to_thread, storage.close)
        await asyncio.to_thread(storage.mounts.clean_up)
        node = _make_node(settings, blobs, fleet, ContainerCalls(dispatcher, fleet, tokens), storage)
        stack.push_async_callback(node.close)
        await node.open()
        fleet.open(node)
        stack.callback(fleet.close)

        named = NamedService(store, environments, rng, time.time)
        parts = Parts(images, mounts, secrets, named)
        function_service = FunctionService(store, apps, functions, parts, fleet, rng)
        class_service = ClassService(store, apps, functions, secrets, named, fleet, time.time)
        schedules = Schedules(store, apps, functions, calls, fleet, rng, now)
        deployments = Deployments(store, apps, functions, function_service, secrets, fleet, schedules, rng, time.time)
        app_service = AppService(apps, functions, calls, fleet, secrets, deployments, rng, time.time)
        recovery = Recovery(apps, secrets, functions, function_service, class_service, calls, fleet, app_service)
        loaded = await store.load()
        tokens.restore(loaded.tokens)
        earlier = await recovery.run(loaded, settings.session_grace)
        schedules.restore(loaded.schedules)
        apps.on_stop = schedules.app_changed
        dispatcher.replies.restore(loaded.replies, asyncio.get_running_loop().time())
        direct_service = DirectService(settings.direct_socket, functions, fleet, rng)
        call_service = CallService(apps, functions, calls, fleet, direct_service, rng, time.time, earlier)
        dicts = DictService(store, named, blobs, time.time)
        queues = QueueService(store, named, dispatcher.is_connected, time.time)
        volume_service = VolumeService(named, storage.volumes, storage.mounts, node)
        folder_service = NetworkFileSystemService(named, storage.folders)
        spaces: dict[ObjectKind, Space] = {
            ObjectKind.VOLUME: volume_service,
            ObjectKind.NETWORK_FILE_SYSTEM: folder_service,
        }
        server_service = ServerService(settings, __version__, store, lambda: len(fleet.containers))
        token_service = TokenService(tokens, dispatcher, time.time)
        for service in (
            app_service,
            BlobService(blobs),
            CallGraphService(apps, functions, calls, fleet, store),
            call_service,
            class_service,
            DeploymentService(store, apps, functions, deployments, schedules),
            direct_service,
            EnvironmentService(environments, apps, app_service, named, secrets),
            ContainerService(apps, fleet, node),
            function_service,
            InteractService(fleet, calls, rng),
            images,
            mounts,
            secrets,
            named,
            dicts,
            queues,
            volume_service,
            FileService(named, spaces, settings.uid_base),
            server_service,
            token_service,
        ):
            service.register(dispatcher)
        named.restore(loaded.named, settings.session_grace)
        volume_service.forget_others()
        folder_service.forget_others()

        stack.push_async_callback(dispatcher.close)
        stack.callback(call_service.leave)
        stack.push_async_callback(_stop_what_shall_end, apps, app_service, fleet)
        stack.callback(asyncio.create_task(token_service.run(), name="tokens").cancel)
        http = HttpPort(settings, dispatcher, tokens, store)
        stack.push_async_callback(http.close)
        server_service.url = await http.open()
        await direct_service.open()
        stack.callback(direct_service.close)
        listener = await serve_unix(dispatcher, settings.socket, tokens.authenticator("this machine", LOCAL))
        stack.callback(settings.socket.unlink, missing_ok=True)
        stack.callback(listener.close)
        retention = Retention(store, calls, mounts, (dicts, queues), blobs, tokens, settings.retention, time.time)
        stack.callback(asyncio.create_task(retention.run(), name="retention").cancel)
        stack.callback(asyncio.create_task(class_service.run(), name="unused bindings").cancel)
        stack.callback(asyncio.create_task(schedules.run(), name="schedules").cancel)
        log.info("serving %s and %s, data in %s", server_service.url or "no port", settings.socket, settings.data_dir)
        yield server_service


def make_store(settings: Settings) -> Store:
    """The store that the settings name, not opened."""
    if settings.url == MEMORY_URL:
        return MemoryStore()
    return SqlStore(settings.url, settings.data_dir / "journal")


def _make_builder(settings: Settings, blobs: LocalBlobStore, secrets: SecretService) -> Builder:
    if settings.builder == "memory":
        from intermodal.builder.memory import MemoryBuilder

        # The mock runtime runs this interpreter, so every image is said to have it.
        return MemoryBuilder(
            python=sys.executable, python_version=platform.python_version(), kept=settings.data_dir / "memory-images"
        )
    if settings.builder != "buildah":
        raise InvalidError(f"The setting builder must be buildah or memory, but is {settings.builder!r}.")
    from intermodal.builder.builder import BuildahBuilder

    return BuildahBuilder(settings.data_dir, blobs, secrets, cache=settings.cache_dir)


def _make_node(settings: Settings, blobs: LocalBlobStore, fleet: Fleet, api: ContainerCalls, storage: Storage) -> Node:
    node = NodeSettings(
        settings.data_dir,
        settings.runtime,
        settings.uid_base,
        settings.network_pool,
        settings.pids_limit,
        settings.start_timeout,
    )
    if settings.runtime == "mock":
        return plain_agent(node, blobs.path, fleet, api)
    return isolated_agent(node, blobs.path, fleet, api, storage)


async def _stop_what_shall_end(apps: Apps, service: AppService, fleet: Fleet) -> None:
    """Clients hear at once that their app ended. Others go on after the next start, when their exit hooks have run."""
    ephemeral = [app for app in apps.live() if app.machine.state is AppPhase.EPHEMERAL]
    stops = [service.stop_app(app, AppStopReason.SERVER_STOPPED) for app in ephemeral]
    await asyncio.gather(*stops, fleet.stop_with_hooks())


def _read_pid(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""


def _raise_file_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


__all__ = ["data_directory", "make_store", "running", "serve"]
