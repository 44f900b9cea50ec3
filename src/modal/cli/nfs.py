"""`modal nfs`: network file systems and the files in them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import click

from .._wire.messages.named import ObjectKind
from .file_commands import add_file_commands
from .lazy import LazyGroup
from .named import ENV, add_named_commands, create, lookup

_KIND = ObjectKind.NETWORK_FILE_SYSTEM


@click.group("nfs", cls=LazyGroup)
def nfs_group() -> None:
    """Manage network file systems."""


add_named_commands(nfs_group, _KIND, "nfs_name")
add_file_commands(nfs_group, _KIND)


@nfs_group.command("create")
@click.argument("name")
@ENV
def create_file_system(name: str, env: Optional[str]) -> None:
    """Make a network file system NAME, unless there is one."""
    create(_KIND, name, env)


@nfs_group.command("ls")
@click.argument("volume_name")
@click.argument("path", default="/")
@ENV
def ls(volume_name: str, path: str, env: Optional[str]) -> None:
    """List the files in PATH (default: the root directory), or those that a pattern such as **/*.csv matches."""
    from .files import show_files

    show_files(lookup(_KIND, volume_name, env), path, False)


@nfs_group.command("put")
@click.argument("volume_name")
@click.argument("local_path")
@click.argument("remote_path", default="/")
@ENV
def put(volume_name: str, local_path: str, remote_path: str, env: Optional[str]) -> None:
    """Upload a file, or what is in a directory, to REMOTE_PATH (default: the root directory).

    A file goes into REMOTE_PATH if that ends with a slash, else it takes that path. What is there is replaced.
    """
    found = lookup(_KIND, volume_name, env, advises=True)
    if Path(local_path).is_dir():
        found.add_local_dir(local_path, remote_path)
    else:
        found.add_local_file(local_path, remote_path)
    click.echo(f"Uploaded {local_path} to {remote_path} of the network file system {volume_name!r}.")
