"""Commands that the groups `volume` and `nfs` share."""

from __future__ import annotations

from typing import Optional

import click

from .._wire.messages.named import ObjectKind
from .named import ENV, lookup
from .signals import ends_in_order


def add_file_commands(group: click.Group, kind: ObjectKind) -> None:
    """Give a group the commands `get` and `rm`."""

    @group.command("get")
    @click.argument("volume_name")
    @click.argument("remote_path")
    @click.argument("local_destination", default=".")
    @click.option("--force/--no-force", default=False, help="Overwrite what is there.")
    @ENV
    def get(volume_name: str, remote_path: str, local_destination: str, force: bool, env: Optional[str]) -> None:
        """Download a file or directory to LOCAL_DESTINATION (default: here; - is stdout).

        What a pattern such as data/*.csv matches goes into LOCAL_DESTINATION, which is made if needed. A file can be
        written into a pipe or device that is there.
        """
        from .files import get_files

        with ends_in_order():
            get_files(lookup(kind, volume_name, env), remote_path, local_destination, force)

    @group.command("rm")
    @click.argument("volume_name")
    @click.argument("remote_path")
    @click.option("-r", "--recursive", is_flag=True, help="Delete directories with what is in them.")
    @ENV
    def rm(volume_name: str, remote_path: str, recursive: bool, env: Optional[str]) -> None:
        """Delete a file or directory."""
        lookup(kind, volume_name, env).remove_file(remote_path, recursive=recursive)
