"""Puts an agent together: the one place that knows which hooks a container passes through, and in which order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from intermodal.node.agent import Agent, AgentSettings
from intermodal.node.hooks.buckets import BucketsHook
from intermodal.node.hooks.disk import DiskHook
from intermodal.node.hooks.environment import EnvironmentHook
from intermodal.node.hooks.files import FilesHook
from intermodal.node.hooks.interface import Hook
from intermodal.node.hooks.logs import LogsHook
from intermodal.node.hooks.network import NetworkHook
from intermodal.node.hooks.places import PlacesHook
from intermodal.node.hooks.plain_files import PlainFilesHook
from intermodal.node.hooks.rootfs import RootfsHook
from intermodal.node.hooks.runner_socket import RunnerSocketHook
from intermodal.node.hooks.volumes import VolumesHook
from intermodal.node.interface import ContainerApi, NodeListener
from intermodal.node.layout import node_layout
from intermodal.node.network.namespaces import NamespaceMaker
from intermodal.node.runtime_copy import CompiledCopies, RuntimeCopies, SourceCopies
from intermodal.runtimes.mock import MockRuntime
from intermodal.runtimes.runc import RuncRuntime, RuncSettings
from intermodal.volumes.live_folders import LiveFolders
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.store import VolumeStore
from modal._wire.messages.app import LogStream


@dataclass(frozen=True)
class NodeSettings:
    data_dir: Path
    runtime: str = "runc"  #: an OCI runtime with runc's command line
    uid_base: int = 100_000  #: root in a container is this user outside
    network_pool: int = 2  #: network namespaces made ahead
    pids_limit: int = 4096  #: processes and threads in one container
    hello_timeout: float = 30.0  #: seconds a started process has to say Hello


@dataclass(frozen=True)
class Storage:
    """Where volumes and network file systems are."""

    volumes: VolumeStore
    mounts: VolumeMounts
    folders: LiveFolders
    hashing: ThreadPoolExecutor

    def close(self) -> None:
        """End the threads. Nothing is to be committed or compared any more."""
        self.hashing.shutdown()


def storage_in(data_dir: Path, run_dir: Path, owner: int) -> Storage:
    """The storage of a data directory, whose files belong to `owner`, who is root in containers."""
    hashing = ThreadPoolExecutor(os.cpu_count(), "volume-digests")
    volumes = VolumeStore(data_dir / "volumes", owner, hashing)
    mounts = VolumeMounts(volumes, run_dir / "volumes")
    return Storage(volumes, mounts, LiveFolders(data_dir / "shared", owner), hashing)


def isolated_agent(
    settings: NodeSettings,
    blob_path: Callable[[str], Path],
    listener: NodeListener,
    api: ContainerApi,
    storage: Storage,
    copies: RuntimeCopies | None = None,
) -> Agent:
    """An agent whose containers are isolated by an OCI runtime.

    `blob_path` finds a blob's file by its digest. `copies` replaces the SDK that containers get, for tests.
    """
    layout = node_layout(settings.data_dir)
    maker = NamespaceMaker(settings.uid_base)
    runtime = RuncRuntime(RuncSettings(layout.runc_root, layout.cgroup_parent, settings.runtime, settings.pids_limit))

    def say(container_id: str, text: str) -> None:
        listener.logs(container_id, LogStream.SYSTEM, text, time.time())

    volumes = VolumesHook(layout, settings.uid_base, storage.volumes, storage.mounts, storage.folders, say)
    hooks: list[Hook] = [
        NetworkHook(layout, maker, settings.network_pool),
        DiskHook(layout, settings.uid_base),
        FilesHook(layout, blob_path),
        PlacesHook(),
        RootfsHook(layout, maker),
        EnvironmentHook(copies or CompiledCopies(layout.runtime_copies, layout.runtime_view)),
        BucketsHook(layout, settings.uid_base, say),
        volumes,  # before the socket: the runner loads user code once it is heard there
        RunnerSocketHook(api),
        LogsHook(listener.logs),
    ]
    return Agent(layout, AgentSettings(settings.uid_base, settings.hello_timeout), runtime, hooks, listener, volumes)


def plain_agent(
    settings: NodeSettings,
    blob_path: Callable[[str], Path],
    listener: NodeListener,
    api: ContainerApi,
    runtime: MockRuntime | None = None,
    copies: RuntimeCopies | None = None,
) -> Agent:
    """An agent whose containers are plain processes, for tests. Keep `runtime` to make it misbehave."""
    layout = node_layout(settings.data_dir)
    hooks: list[Hook] = [
        PlainFilesHook(blob_path),
        EnvironmentHook(copies or SourceCopies()),
        RunnerSocketHook(api),
        LogsHook(listener.logs),
    ]
    runtime = runtime or MockRuntime(layout.run / "mock")
    return Agent(layout, AgentSettings(None, settings.hello_timeout), runtime, hooks, listener)
