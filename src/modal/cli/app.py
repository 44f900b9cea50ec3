"""`modal app`: what runs and what is deployed, its output and its versions."""

from __future__ import annotations

from typing import Optional

import click

from .._output.plain_output import PlainOutput
from .._wire.messages.app import (
    APP_EVENTS,
    APP_FIND,
    APP_HISTORY,
    APP_LIST,
    APP_LOOKUP,
    APP_ROLLBACK,
    APP_STOP,
    AppEvent,
    AppEvents,
    AppInfo,
    AppList,
    AppName,
    AppRef,
    AppRollback,
    AppSearch,
    AppState,
    AppStop,
    AppStopReason,
    AppVersion,
)
from .env_option import env_option, environment_in_force
from .errors import CliError
from .lazy import LazyGroup
from .request import ask
from .tables import print_table, utc_time

_IDENTIFIER = click.argument("app_identifier", required=False)
_NAME = click.option("-n", "--name", help="Name of a deployed app, instead of APP_IDENTIFIER.")
_JSON = click.option("--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table.")


@click.group("app", cls=LazyGroup)
def app_group() -> None:
    """Manage apps.

    APP_IDENTIFIER is the id of an app (ap-…), the name it is deployed as, or the description of one that runs.
    """


def _find(identifier: Optional[str], name: Optional[str], env: Optional[str]) -> AppInfo:
    """The app that a command is about."""
    if bool(identifier) == bool(name):
        raise CliError("Name one app: by its id (ap-…), its name or description, or with --name.", 2)
    environment = environment_in_force(env)
    if name:
        identifier = ask(APP_LOOKUP, AppName(name, environment)).app_id
    return ask(APP_FIND, AppSearch(identifier or "", environment))


@app_group.command("list")
@env_option
@_JSON
def list_apps(env: Optional[str], as_json: bool) -> None:
    """List the apps that run or are deployed, and those that stopped lately."""
    apps = ask(APP_LIST, AppList(environment_in_force(env))).apps
    columns = ["App ID", "Description", "State", "Version", "Containers", "Next run", "Created at", "Stopped at"]
    rows = [
        [
            one.app_id,
            one.description,
            one.state.value,
            str(one.version or ""),
            str(one.containers),
            utc_time(one.next_run),
            utc_time(one.created_at),
            utc_time(one.stopped_at),
        ]
        for one in apps
    ]
    print_table(columns, rows, as_json)


@app_group.command("stop")
@_IDENTIFIER
@_NAME
@env_option
def stop(app_identifier: Optional[str], name: Optional[str], env: Optional[str]) -> None:
    """Stop the app APP_IDENTIFIER and its containers. A deployed app is gone then, with all its versions."""
    app = _find(app_identifier, name, env)
    if app.state is AppState.STOPPED:
        raise CliError(f"The app {_title(app)} has stopped already.")
    ask(APP_STOP, AppStop(app.app_id, AppStopReason.STOPPED_BY_USER))
    click.echo(f"Stopped the app {_title(app)}.")


@app_group.command("logs")
@_IDENTIFIER
@_NAME
@env_option
def logs(app_identifier: Optional[str], name: Optional[str], env: Optional[str]) -> None:
    """Show what the app APP_IDENTIFIER has printed, and follow it until it stops."""
    from .. import _sync

    _sync.run(follow(_find(app_identifier, name, env).app_id))


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


@app_group.command("history")
@_IDENTIFIER
@env_option
@_NAME
@_JSON
def history(app_identifier: Optional[str], env: Optional[str], name: Optional[str], as_json: bool) -> None:
    """List the versions of the deployed app APP_IDENTIFIER, the latest first."""
    app = _find(app_identifier, name, env)
    versions = ask(APP_HISTORY, AppRef(app.app_id)).versions
    if not versions and not as_json:
        raise CliError(f"The app {_title(app)} was never deployed, so it has no versions.")
    columns = ["Version", "Time deployed", "Client", "Deployed by", "Tag", "Note"]
    rows = [
        [
            f"v{one.version}",
            utc_time(one.deployed_at),
            one.client_version,
            one.deployed_by,
            one.tag,
            _note(one, app),
        ]
        for one in reversed(versions)
    ]
    print_table(columns, rows, as_json)


def _note(version: AppVersion, app: AppInfo) -> str:
    notes = [f"rollback to v{version.rollback_of}"] if version.rollback_of else []
    if version.version == app.version and app.state is AppState.DEPLOYED:
        notes.append("in force")
    return ", ".join(notes)


@app_group.command("rollback")
@_IDENTIFIER
@click.argument("version", required=False)
@env_option
def rollback(app_identifier: Optional[str], version: Optional[str], env: Optional[str]) -> None:
    """Deploy an earlier version of APP_IDENTIFIER again, as a new version.

    VERSION is a number of `modal app history`, such as 3 or v3; by default it is the one before that in force.

    \b
    Examples:
      modal app rollback my-app
      modal app rollback my-app v3
    """
    from .._deploying import client_version

    wanted = _version_number(version)
    app = _find(app_identifier, None, env)
    done = ask(APP_ROLLBACK, AppRollback(app.app_id, wanted, client_version()))
    click.echo(
        f"Version {done.version} of the app {_title(app)} is in force, with the functions of version "
        f"{done.rollback_of}."
    )


def _version_number(text: Optional[str]) -> int:
    """0 stands for the version before that in force."""
    if text is None:
        return 0
    digits = text[1:] if text[:1] in ("v", "V") else text
    if not digits.isdecimal() or not digits.isascii() or not 0 < int(digits) < 1 << 31:
        raise CliError(f"`{text}` is no version: give a number of `modal app history`, such as 3 or v3.", 2)
    return int(digits)


def _title(app: AppInfo) -> str:
    return f"{app.description} ({app.app_id})" if app.description else app.app_id
