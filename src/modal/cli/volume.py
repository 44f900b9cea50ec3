"""`modal volume`: volumes and the files in them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import click

from .._wire.messages.named import ObjectKind
from .confirm import confirm
from .errors import CliError
from .file_commands import add_file_commands
from .lazy import LazyGroup
from .named import ENV, JSON, YES, add_named_commands, create, lookup


@click.group("volume", cls=LazyGroup)
def volume_group() -> None:
    """Manage volumes."""


add_named_commands(volume_group, ObjectKind.VOLUME, "volume_name")
add_file_commands(volume_group, ObjectKind.VOLUME)


@volume_group.command("create")
@click.argument("name")
@ENV
@click.option("--version", type=int, help="No effect: there is one kind of volume.")
def create_volume(name: str, env: Optional[str], version: Optional[int]) -> None:
    """Make a volume NAME, unless there is one."""
    create(ObjectKind.VOLUME, name, env)


@volume_group.command("ls")
@click.argument("volume_name")
@click.argument("path", default="/")
@JSON
@ENV
def ls(volume_name: str, path: str, as_json: bool, env: Optional[str]) -> None:
    """List the files in PATH (default: the root directory), or those that a pattern such as **/*.csv matches."""
    from .files import show_files

    show_files(lookup(ObjectKind.VOLUME, volume_name, env), path, as_json)


@volume_group.command("put")
@click.argument("volume_name")
@click.argument("local_path")
@click.argument("remote_path", default="/")
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
@ENV
def put(volume_name: str, local_path: str, remote_path: str, force: bool, env: Optional[str]) -> None:
    """Upload a file, or what is in a directory, to REMOTE_PATH (default: the root directory) of the volume.

    A file goes into REMOTE_PATH if that ends with a slash, else it takes that path.
    """
    volume = lookup(ObjectKind.VOLUME, volume_name, env, advises=True)
    try:
        with volume.batch_upload(force=force) as batch:
            if Path(local_path).is_dir():
                batch.put_directory(local_path, remote_path)
            else:
                batch.put_file(local_path, remote_path)
    except FileExistsError as error:
        raise CliError(str(error).replace("force=True", "--force")) from None
    click.echo(f"Uploaded {local_path} to {remote_path} of the volume {volume_name!r}.")


@volume_group.command("cp")
@click.argument("volume_name")
@click.argument("paths", nargs=-1, required=True)
@ENV
def cp(volume_name: str, paths: tuple[str, ...], env: Optional[str]) -> None:
    """Copy files within the volume: PATHS are the sources, and last the target."""
    if len(paths) < 2:
        raise CliError("`modal volume cp` needs a source and a target.", 2)
    lookup(ObjectKind.VOLUME, volume_name, env).copy_files(list(paths[:-1]), paths[-1])


@volume_group.command("rename")
@click.argument("old_name")
@click.argument("new_name")
@YES
@ENV
def rename(old_name: str, new_name: str, yes: bool, env: Optional[str]) -> None:
    """Rename a volume. Programs that refer to the old name find it no more."""
    from .._objects.volume import Volume

    lookup(ObjectKind.VOLUME, old_name, env)
    confirm(f"Rename the volume {old_name!r} to {new_name!r}?", yes, "--yes")
    Volume.rename(old_name, new_name, environment_name=env)
    click.echo(f"Renamed the volume {old_name!r} to {new_name!r}.")
