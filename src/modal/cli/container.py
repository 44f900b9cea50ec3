"""`modal container`: look into running containers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Optional

import click

from .._wire.messages.container import (
    CONTAINER_EXEC,
    CONTAINER_LIST,
    CONTAINER_LOGS,
    CONTAINER_STOP,
    ContainerExec,
    ContainerList,
    ContainerLogs,
    ContainerRef,
)
from .env_option import env_option, environment_in_force
from .errors import CliError
from .request import ask
from .signals import ends_in_order
from .tables import print_table, utc_time

if TYPE_CHECKING:
    from .._wire.messages.app import AppEvent
    from .._wire.messages.terminal import TerminalOutput

_COLUMNS = ("Container ID", "App ID", "App Name", "Function", "Started at", "State")


@click.group("container")
def container_group() -> None:
    """Look into running containers."""


@container_group.command("list")
@env_option
@click.option("--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table.")
def list_(env: Optional[str], as_json: bool) -> None:
    """List the containers that run, oldest first."""
    found = ask(CONTAINER_LIST, ContainerList(environment_in_force(env))).containers
    rows = [
        (
            one.container_id,
            one.app_id,
            one.app_name,
            one.function_name,
            utc_time(one.started_at),
            one.state.value,
        )
        for one in found
    ]
    print_table(_COLUMNS, rows, as_json)


@container_group.command("logs")
@click.argument("container_id")
def logs(container_id: str) -> None:
    """Show what the container CONTAINER_ID (ta-…) has printed, and follow it until it ends."""
    from .. import _sync

    _sync.run(_follow(container_id))


async def _follow(container_id: str) -> None:
    from .._follow import Follower
    from .._objects.client import default_client
    from .._output.plain_output import PlainOutput

    shown = PlainOutput()

    async def show(event: AppEvent) -> None:
        shown.app_event(event)

    rpc = await default_client()._rpc()
    try:
        await Follower(rpc, CONTAINER_LOGS, lambda after: ContainerLogs(container_id, after)).follow(show)
    finally:
        shown.close()


@container_group.command("stop")
@click.argument("container_id")
def stop(container_id: str) -> None:
    """Stop the container CONTAINER_ID (ta-…).

    What it runs is interrupted as by a preemption, and runs again elsewhere without counting as a retry.
    """
    ask(CONTAINER_STOP, ContainerRef(container_id))
    click.echo(f"The container {container_id} is stopping.")


@container_group.command("exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@click.option(
    "--pty/--no-pty",
    default=None,
    help="Give the command a terminal. By default it gets one when stdin and stdout are one here.",
)
@click.argument("container_id")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(pty: Optional[bool], container_id: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the container CONTAINER_ID (ta-…), and exit as it does.

    It runs with the container's files, user, limits and environment. stdin, stdout and stderr are passed on; with a
    terminal, so are its keys (Ctrl-C included) and the size of its window. When this client ends, so does the command.

    \b
    Examples:
      modal container exec ta-… bash
      modal container exec ta-… tar cz /root/results > results.tgz
    """
    from .. import _sync, _terminal

    arguments = command[1:] if command[0] == "--" else command
    with_terminal = _terminal.is_terminal() if pty is None else pty
    with ends_in_order():  # the terminal is put back as it was
        ended = _sync.run(_exec(container_id, arguments, with_terminal))
    if ended is None:
        raise CliError("The session was closed before the command ended.")
    if ended.error:
        click.echo(f"Error: {ended.error}", err=True)
    sys.exit(ended.exit_code)


async def _exec(container_id: str, command: tuple[str, ...], with_terminal: bool) -> Optional[TerminalOutput]:
    import contextlib
    import os

    from .. import _terminal
    from .._objects.client import default_client

    rpc = await default_client()._rpc()
    window = _terminal.window_size() if with_terminal else None
    env = {"TERM": os.environ.get("TERM", "xterm")} if with_terminal else {}
    request = ContainerExec(container_id, list(command), window, env)
    raw = _terminal.raw_mode() if with_terminal else contextlib.nullcontext()
    async with rpc.stream(CONTAINER_EXEC, request) as stream:
        with raw:
            return await _terminal.connect(stream, window)
