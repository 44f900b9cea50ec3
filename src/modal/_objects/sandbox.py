"""`modal.Sandbox`. Declared; it comes with sandboxes."""

# ruff: noqa: B006  (the documented defaults; nothing changes them)

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Optional, Union

from .._later import not_built_yet
from ..gpu import GPU_T
from ..io_streams import StreamReader, StreamWriter
from ..stream_type import StreamType
from .object import Object

if TYPE_CHECKING:
    from ..container_process import ContainerProcess
    from ..file_io import FileIO, FileWatchEvent, FileWatchEventType
    from .cloud_bucket_mount import CloudBucketMount
    from .image import Image
    from .mount import Mount
    from .network_file_system import NetworkFileSystem
    from .proxy import Proxy
    from .secret import Secret
    from .tunnel import Tunnel
    from .volume import Volume


class Sandbox(Object):
    """A container that runs any command."""

    @staticmethod
    def create(
        *entrypoint_args: str,
        app: Any = None,
        environment_name: Optional[str] = None,
        image: Optional[Image] = None,
        mounts: Sequence[Mount] = (),
        secrets: Sequence[Secret] = (),
        network_file_systems: dict[Union[str, os.PathLike[str]], NetworkFileSystem] = {},
        timeout: Optional[int] = None,
        workdir: Optional[str] = None,
        gpu: GPU_T = None,
        cloud: Optional[str] = None,
        region: Optional[Union[str, Sequence[str]]] = None,
        cpu: Optional[Union[float, tuple[float, float]]] = None,
        memory: Optional[Union[int, tuple[int, int]]] = None,
        block_network: bool = False,
        cidr_allowlist: Optional[Sequence[str]] = None,
        volumes: dict[Union[str, os.PathLike[str]], Union[Volume, CloudBucketMount]] = {},
        pty_info: Any = None,
        encrypted_ports: Sequence[int] = [],
        unencrypted_ports: Sequence[int] = [],
        proxy: Optional[Proxy] = None,
        _experimental_scheduler_placement: Any = None,
        client: Any = None,
    ) -> Sandbox:
        """Start a sandbox."""
        _missing("create")

    @staticmethod
    def from_id(sandbox_id: str, client: Any = None) -> Sandbox:
        """A sandbox by its id."""
        _missing("from_id")

    def set_tags(self, tags: dict[str, str], *, client: Any = None) -> None:
        """Set the tags that `list` filters by."""
        _missing("set_tags")

    def snapshot_filesystem(self, timeout: int = 55) -> Image:
        """Make an image of the file system."""
        _missing("snapshot_filesystem")

    def wait(self, raise_on_termination: bool = True) -> None:
        """Wait for the sandbox to end."""
        _missing("wait")

    def tunnels(self, timeout: int = 50) -> dict[int, Tunnel]:
        """Return the tunnels by the sandbox's port."""
        _missing("tunnels")

    def terminate(self) -> None:
        """End the sandbox."""
        _missing("terminate")

    def poll(self) -> Optional[int]:
        """Return the exit code, or None while the sandbox runs."""
        _missing("poll")

    def exec(
        self,
        *cmds: str,
        pty_info: Any = None,
        stdout: StreamType = StreamType.PIPE,
        stderr: StreamType = StreamType.PIPE,
        timeout: Optional[int] = None,
        workdir: Optional[str] = None,
        secrets: Sequence[Secret] = (),
        text: bool = True,
        bufsize: Literal[-1, 1] = -1,
        _pty_info: Any = None,
    ) -> ContainerProcess[Any]:
        """Run a command in the sandbox."""
        _missing("exec")

    def open(self, path: str, mode: str = "r") -> FileIO[Any]:
        """Open a file of the sandbox."""
        _missing("open")

    def ls(self, path: str) -> builtins.list[str]:
        """List a directory of the sandbox."""
        _missing("ls")

    def mkdir(self, path: str, parents: bool = False) -> None:
        """Make a directory in the sandbox."""
        _missing("mkdir")

    def rm(self, path: str, recursive: bool = False) -> None:
        """Remove a file or directory of the sandbox."""
        _missing("rm")

    def watch(
        self,
        path: str,
        filter: Optional[builtins.list[FileWatchEventType]] = None,
        recursive: Optional[bool] = None,
        timeout: Optional[int] = None,
    ) -> Iterator[FileWatchEvent]:
        """Watch a file or directory of the sandbox for changes."""
        _missing("watch")

    @property
    def stdout(self) -> StreamReader[str]:
        """The sandbox's standard output."""
        _missing("stdout")

    @property
    def stderr(self) -> StreamReader[str]:
        """The sandbox's standard error."""
        _missing("stderr")

    @property
    def stdin(self) -> StreamWriter:
        """The sandbox's standard input."""
        _missing("stdin")

    @property
    def returncode(self) -> Optional[int]:
        """The exit code, or None while the sandbox runs."""
        _missing("returncode")

    @staticmethod
    def list(
        *, app_id: Optional[str] = None, tags: Optional[dict[str, str]] = None, client: Any = None
    ) -> Iterator[Sandbox]:
        """Iterate over running sandboxes."""
        _missing("list")


def _missing(method: str) -> NoReturn:
    not_built_yet(f"modal.Sandbox.{method}")
