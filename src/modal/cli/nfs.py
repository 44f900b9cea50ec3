"""`modal nfs`: network file systems and the files in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import click

from .._wire.messages.named import ObjectKind
from .confirm import confirm
from .lazy import LazyGroup
from .named import ENV, JSON, YES, create, show_list


@click.group("nfs", cls=LazyGroup)
def nfs_group() -> None:
    """Manage network file systems."""


@nfs_group.command("list")
@ENV
@JSON
def list_file_systems(env: Optional[str], as_json: bool) -> None:
    """List the network file systems."""
    show_list(ObjectKind.NETWORK_FILE_SYSTEM, env, as_json)


@nfs_group.command("create")
@click.argument("name")
@ENV
def create_file_system(name: str, env: Optional[str]) -> None:
    """Make a network file system NAME, unless there is one."""
    create(ObjectKind.NETWORK_FILE_SYSTEM, name, env)


@nfs_group.command("ls")
@click.argument("volume_name")
@click.argument("path", default="/")
@ENV
def ls(volume_name: str, path: str, env: Optional[str]) -> None:
    """List the files in PATH (default: the root directory), or those that a pattern such as **/*.csv matches."""
    from .files import show_files

    show_files(_lookup(volume_name, env), path, False)


@nfs_group.command("put")
@click.argument("volume_name")
@click.argument("local_path")
@click.argument("remote_path", default="/")
@ENV
def put(volume_name: str, local_path: str, remote_path: str, env: Optional[str]) -> None:
    """Upload a file, or what is in a directory, to REMOTE_PATH (default: the root directory).

    A file goes into REMOTE_PATH if that ends with a slash, else it takes that path. What is there is replaced.
    """
    found = _lookup(volume_name, env)
    if Path(local_path).is_dir():
        found.add_local_dir(local_path, remote_path)
    else:
        remote = remote_path + Path(local_path).name if remote_path.endswith("/") else remote_path
        found.add_local_file(local_path, remote)
    click.echo(f"Uploaded {local_path} to {remote_path} of the network file system {volume_name!r}.")


@nfs_group.command("get")
@click.argument("volume_name")
@click.argument("remote_path")
@click.argument("local_destination", default=".")
@click.option("--force/--no-force", default=False, help="Overwrite what is there.")
@ENV
def get(volume_name: str, remote_path: str, local_destination: str, force: bool, env: Optional[str]) -> None:
    """Download a file or directory to LOCAL_DESTINATION (default: here; - is stdout).

    What a pattern such as data/*.csv matches goes into LOCAL_DESTINATION, which is made if needed.
    """
    from .files import get_files

    get_files(_lookup(volume_name, env), remote_path, local_destination, force)


@nfs_group.command("rm")
@click.argument("volume_name")
@click.argument("remote_path")
@click.option("-r", "--recursive", is_flag=True, help="Delete directories with what is in them.")
@ENV
def rm(volume_name: str, remote_path: str, recursive: bool, env: Optional[str]) -> None:
    """Delete a file or directory."""
    _lookup(volume_name, env).remove_file(remote_path, recursive=recursive)


@nfs_group.command("delete")
@click.argument("nfs_name")
@YES
@ENV
def delete(nfs_name: str, yes: bool, env: Optional[str]) -> None:
    """Delete the network file system with its files."""
    from .._objects.network_file_system import NetworkFileSystem

    _lookup(nfs_name, env)
    confirm(f"Delete the network file system {nfs_name!r} with all its files?", yes, "--yes")
    NetworkFileSystem.delete(nfs_name, environment_name=env)
    click.echo(f"Deleted the network file system {nfs_name!r}.")


def _lookup(name: str, env: Optional[str]) -> Any:
    from .._objects.network_file_system import NetworkFileSystem

    return NetworkFileSystem.lookup(name, environment_name=env)
