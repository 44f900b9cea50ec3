"""`intermodal`: the command line of the platform's administrator."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from intermodal import __version__
from intermodal.settings import Settings
from modal.exception import Error

NOT_RUNNING = 3  #: exit code of `status` without a server, as of init scripts

_SETTINGS = [
    click.option("--data-dir", metavar="DIR", help="Where the server keeps its data. [env: INTERMODAL_DATA_DIR]"),
    click.option("--host", metavar="ADDRESS", help="Address of the HTTP port. [env: INTERMODAL_HOST]"),
    click.option("--port", type=int, help="The HTTP port; 0 takes a free one, -1 none. [env: INTERMODAL_PORT]"),
    click.option("--runtime", metavar="NAME", help="OCI runtime that runs containers. [env: INTERMODAL_RUNTIME]"),
    click.option("--log-level", metavar="LEVEL", help="Level of the server's log. [env: INTERMODAL_LOG_LEVEL]"),
]
_DATA_DIR = _SETTINGS[:1]


def _takes(options: list[Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="intermodal", help="Show the version and exit.")
def intermodal_cli() -> None:
    """Run the platform on this machine.

    Other settings than the options below are environment variables, INTERMODAL_<SETTING>; docs/settings.md lists them.
    """


@intermodal_cli.command()
@_takes(_SETTINGS)
def serve(**given: Any) -> int:
    """Run the server in the foreground, until Ctrl-C or SIGTERM."""
    settings = Settings.load(**given)
    from intermodal.daemon import serve as run_server

    return run_server(settings)


@intermodal_cli.command()
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when it works.")
@_takes(_SETTINGS)
def up(quiet: bool, **given: Any) -> None:
    """Start a server in the background, unless one runs."""
    from intermodal.cli.background import start

    started = start(Settings.load(**given))
    if not quiet:
        verb = "runs already" if started.was_running else "started"
        where = started.info.url or started.info.socket
        click.echo(f"The server {verb}: {where} (pid {started.info.pid}). Stop it with `intermodal down`.")


@intermodal_cli.command()
@click.option("--force", is_flag=True, help="Kill it at once; the next start cleans up what it leaves behind.")
@_takes(_DATA_DIR)
def down(force: bool, **given: Any) -> None:
    """Stop the server and all of its containers."""
    from intermodal.cli.background import stop

    settings = Settings.load(**given)
    stopped = stop(settings, force)
    if stopped is None:
        click.echo(f"No server runs on {settings.data_dir}.")
    elif force:
        click.echo(f"Killed the server (pid {stopped.pid}); the next start cleans up its containers.")
    elif not stopped.containers:
        click.echo(f"Stopped the server (pid {stopped.pid}).")
    else:
        noun = "container" if stopped.containers == 1 else "containers"
        click.echo(f"Stopped the server (pid {stopped.pid}) and its {stopped.containers} {noun}.")


@intermodal_cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_takes(_DATA_DIR)
def status(as_json: bool, **given: Any) -> int:
    """Show the server: its address, data directory and containers. Exits with 3 when none runs."""
    from intermodal.cli.server_probe import ask, holder

    settings = Settings.load(**given)
    info = ask(settings)
    if info is None:
        pid = holder(settings)
        state = f"starting or stopping (pid {pid})" if pid else "not running"
        if as_json:
            click.echo(json.dumps({"running": False, "data_dir": str(settings.data_dir)}, indent=2))
        else:
            click.echo(f"The server on {settings.data_dir} is {state}. Start it with `intermodal up`.", err=True)
        return NOT_RUNNING
    if as_json:
        click.echo(json.dumps({"running": True, **dataclasses.asdict(info)}, indent=2))
        return 0
    rows = {
        "running": f"pid {info.pid}",
        "url": info.url or "(no HTTP port)",
        "socket": info.socket,
        "data directory": info.data_dir,
        "version": info.version,
        "containers": str(info.containers),
    }
    for name, value in rows.items():
        click.echo(f"{name + ':':<16}{value}")
    for warning in info.warnings:
        click.echo(f"warning: {warning}", err=True)
    return 0


@intermodal_cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_takes(_DATA_DIR)
def doctor(as_json: bool, **given: Any) -> int:
    """Check whether this machine has what the server needs. Exits with 1 when something is missing."""
    from intermodal.cli.doctor import State, examine

    findings = examine(Settings.load(**given))
    failed = any(finding.state is State.FAIL for finding in findings)
    if as_json:
        rows = [{**dataclasses.asdict(finding), "state": finding.state.value} for finding in findings]
        click.echo(json.dumps({"ok": not failed, "checks": rows}, indent=2))
        return int(failed)
    for finding in findings:
        click.echo(f"{finding.state.value:<5} {finding.name}: {finding.text}")
        if finding.fix:
            click.echo(f"      fix: {finding.fix}")
    return int(failed)


_PROFILE = click.option(
    "--profile", metavar="NAME", help="Ask the server of this profile of the client, whose token must be an admin's."
)


@intermodal_cli.group()
def token() -> None:
    """Say who may use a server over the network."""


@token.command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["admin", "member", "read-only"]),
    default="member",
    show_default=True,
    help="What it may do: everything, everything but give access to others, or look.",
)
@click.option("--expires", metavar="DURATION", help="When it ends, as in 90d, 12h or 30m; never by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_PROFILE
@_takes(_DATA_DIR)
def create_token(name: str, role: str, expires: str | None, as_json: bool, profile: str | None, **given: Any) -> None:
    """Make a token for NAME (a person or a program) and print it, once."""
    from intermodal.cli.token import TokenAdmin, create
    from modal._wire.messages.token import Role

    create(TokenAdmin(Settings.load(**given), profile), name, Role(role), expires, as_json)


@token.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are revoked or expired.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_PROFILE
@_takes(_DATA_DIR)
def list_tokens(everything: bool, as_json: bool, profile: str | None, **given: Any) -> None:
    """List the tokens. Their secrets are not known to the server."""
    from intermodal.cli.token import TokenAdmin, show

    show(TokenAdmin(Settings.load(**given), profile), everything, as_json)


@token.command("revoke")
@click.argument("token")
@_PROFILE
@_takes(_DATA_DIR)
def revoke_token(token: str, profile: str | None, **given: Any) -> None:
    """Revoke TOKEN, given by id or name: it is not accepted any more, and its connections are closed."""
    from intermodal.cli.token import TokenAdmin, revoke

    revoke(TokenAdmin(Settings.load(**given), profile), token)


@intermodal_cli.group()
def volume() -> None:
    """Look after the volumes that the server keeps."""


@volume.command("verify")
@click.argument("names", nargs=-1)
@click.option("-e", "--env", default="", help="Environment of the volumes; main by default.")
@_takes(_DATA_DIR)
def verify_volumes(names: tuple[str, ...], env: str, **given: Any) -> int:
    """Check that the volumes NAMES (default: all) hold what was committed. Exits with 1 when one does not.

    Every file is read and its digest compared with that of the commit. The server runs meanwhile.
    """
    from intermodal.cli.volume import verify

    return verify(Settings.load(**given), names, env)


@intermodal_cli.group()
def secrets() -> None:
    """Look after the secrets that the server keeps."""


@secrets.command("rotate-key")
@_takes(_DATA_DIR)
def rotate_key(**given: Any) -> None:
    """Encrypt every secret with a new key, and forget the old one.

    The server may run meanwhile. Interrupted at any moment, secrets can still be read; run it again then.
    """
    from intermodal.cli.key_rotation import rotate

    settings = Settings.load(**given)
    count = rotate(settings)
    noun = "secret is" if count == 1 else "secrets are"
    click.echo(f"{count} {noun} encrypted with a new key, in {settings.secret_key_file}.")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process with its code."""
    sys.exit(run_command_line(args))


def run_command_line(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Every error is one sentence on stderr."""
    from modal.cli.errors import wants_traceback

    try:
        result = intermodal_cli.main(
            args=None if args is None else list(args), prog_name="intermodal", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, click.Abort):
        return 130
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (Error, OSError) as error:
        if wants_traceback():
            raise
        click.echo(f"Error: {error}", err=True)
        return 1
