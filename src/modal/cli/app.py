"""`modal app`: look at running apps and stop them. What needs deployed apps is still in `later`."""

from __future__ import annotations

from typing import Optional

import click

from .._output.plain_output import PlainOutput
from .._wire.messages.app import APP_EVENTS, APP_STOP, AppEvent, AppEvents, AppRef, AppStop, AppStopReason
from .errors import CliError, not_available
from .later import group
from .lazy import LazyGroup

app_group: LazyGroup = group("app")

_NAME = click.option("-n", "--name", help="Name of a deployed app (not available yet).")
_ENV = click.option("-e", "--env", help="Environment; the one of the active profile by default.")
_IDENTIFIER = click.argument("app_identifier", required=False)


def _app_id(app_identifier: Optional[str], name: Optional[str], command: str) -> str:
    if name or (app_identifier and not app_identifier.startswith("ap-")):
        not_available(f"app {command} --name")
    if not app_identifier:
        raise CliError(f"`modal app {command}` needs the id of an app, such as ap-…; `modal run` prints it.", 2)
    return app_identifier


@app_group.command("stop")
@_IDENTIFIER
@_NAME
@_ENV
def stop(app_identifier: Optional[str], name: Optional[str], env: Optional[str]) -> None:
    """Stop the app APP_IDENTIFIER (ap-…) and its containers."""
    from .. import _sync

    app_id = _app_id(app_identifier, name, "stop")
    _sync.run(_stop(app_id))
    click.echo(f"Stopped the app {app_id}.")


async def _stop(app_id: str) -> None:
    from .._objects.client import default_client
    from .._wire.messages.app import APP_OBJECTS

    rpc = await default_client()._rpc()
    # Stopping what is gone is no error to the server; asking for it is, and tells a wrong id.
    await rpc.unary(APP_OBJECTS, AppRef(app_id))
    await rpc.unary(APP_STOP, AppStop(app_id, AppStopReason.STOPPED_BY_USER))


@app_group.command("logs")
@_IDENTIFIER
@_NAME
@_ENV
def logs(app_identifier: Optional[str], name: Optional[str], env: Optional[str]) -> None:
    """Show what the app APP_IDENTIFIER (ap-…) has printed, and follow it until it stops."""
    from .. import _sync

    _sync.run(follow(_app_id(app_identifier, name, "logs")))


async def follow(app_id: str, after: int = 0) -> None:
    """Show what the app prints, from just after log entry `after`, until it stops."""
    from .._follow import Follower
    from .._objects.client import default_client

    shown = PlainOutput()

    async def show(event: AppEvent) -> None:
        shown.app_event(event)

    rpc = await default_client()._rpc()
    follower = Follower(rpc, APP_EVENTS, lambda after: AppEvents(app_id, after, want_status=False), after)
    try:
        await follower.follow(show)
    finally:
        shown.close()
